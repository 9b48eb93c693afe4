// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * RESUME: a restored context goes live on this host.
 */
#include "rxe_mig.h"
#include "rxe_mig_trace.h"

static bool same_family(const union ib_gid *a, const union ib_gid *b)
{
	return ipv6_addr_v4mapped((struct in6_addr *)a->raw) ==
	       ipv6_addr_v4mapped((struct in6_addr *)b->raw);
}

/* an address of this port to use instead of one that did not come along */
static int substitute_gid(struct rxe_dev *rxe, int index, union ib_gid *gid)
{
	const struct ib_gid_attr *attr;
	int pass, i;

	/* the same index first: that is what the application knows */
	for (pass = 0; pass < 2; pass++) {
		for (i = 0; i < rxe->port.attr.gid_tbl_len; i++) {
			bool ok;

			if (!pass && i != index)
				continue;
			attr = rdma_get_gid_attr(&rxe->ib_dev, RXE_PORT, i);
			if (IS_ERR(attr))
				continue;
			ok = attr->gid_type == IB_GID_TYPE_ROCE_UDP_ENCAP &&
			     same_family(&attr->gid, gid) &&
			     !ipv6_addr_type((struct in6_addr *)attr->gid.raw) ==
			     !ipv6_addr_type((struct in6_addr *)gid->raw) &&
			     (ipv6_addr_type((struct in6_addr *)attr->gid.raw) &
			      IPV6_ADDR_LINKLOCAL) ==
			     (ipv6_addr_type((struct in6_addr *)gid->raw) &
			      IPV6_ADDR_LINKLOCAL);
			if (ok)
				*gid = attr->gid;
			rdma_put_gid_attr(attr);
			if (ok)
				return i;
		}
	}
	return -ENOENT;
}

/* bind an address vector to this host: address, GID index, loopback or not */
static void place_av(struct rxe_dev *rxe, struct rxe_av *av)
{
	union ib_gid sgid, dgid;
	int index;

	rxe_mig_av_gids(av, &sgid, &dgid);
	if (!rxe_mig_gid_present(rxe, &sgid, &index)) {
		index = substitute_gid(rxe, av->grh.sgid_index, &sgid);
		if (av->network_type == RXE_NETWORK_TYPE_IPV4)
			memcpy(&av->sgid_addr._sockaddr_in.sin_addr,
			       sgid.raw + 12, 4);
		else
			memcpy(&av->sgid_addr._sockaddr_in6.sin6_addr,
			       sgid.raw, 16);
	}
	if (index >= 0)
		av->grh.sgid_index = index;
	rxe_mig_av_set_dgid(rxe, av, &dgid);
}

struct live {
	struct rxe_dev		*rxe;
	u32			flags;
	struct rxe_mig_refusal	*why;
};

static int check_av(const struct live *live, const struct rxe_av *av,
		    bool replaceable, u32 type, u32 handle, u32 value)
{
	union ib_gid sgid, dgid;

	rxe_mig_av_gids(av, &sgid, &dgid);
	if (rxe_mig_gid_present(live->rxe, &sgid, NULL))
		return 0;
	if (live->flags & RXE_MIG_RESUME_NEW_ADDR && replaceable &&
	    substitute_gid(live->rxe, av->grh.sgid_index, &sgid) >= 0)
		return 0;
	rxe_mig_refuse(live->why, type, handle, RXE_MIG_NO_GID, value,
		       type == RXE_MIG_REC_QP ?
		       "local address of the QP is not on this device; move it here first" :
		       "source address of the AH is not on this device; move it here first");
	return -EADDRNOTAVAIL;
}

static int check_live(const struct live *live, struct rxe_mig_qp *mig)
{
	struct rxe_qp *qp = mig->qp;
	u32 handle = rxe_mig_qp_handle(&qp->ibqp);
	int err;

	if (mig->state != RXE_MIG_STOPPED ||
	    qp->elem.mig_phase != RXE_MIG_REFILLED) {
		rxe_mig_refuse(live->why, RXE_MIG_REC_QP, handle,
			       RXE_MIG_NOT_STOPPED, qp_num(qp),
			       "QP has not been refilled");
		return -EINVAL;
	}
	if ((qp_type(qp) != IB_QPT_RC && qp_type(qp) != IB_QPT_UC) ||
	    qp_state(qp) < IB_QPS_RTR || qp_state(qp) == IB_QPS_ERR)
		return 0;

	err = check_av(live, &qp->pri_av, qp_type(qp) == IB_QPT_RC,
		       RXE_MIG_REC_QP, handle, qp_num(qp));
	if (err)
		return err;
	if (qp->mtu > live->rxe->port.mtu_cap) {
		rxe_mig_refuse(live->why, RXE_MIG_REC_QP, handle, RXE_MIG_MTU,
			       qp_num(qp),
			       "path MTU of the QP exceeds the MTU of this port; raise the netdev's");
		return -EMSGSIZE;
	}
	return 0;
}

static bool waits(const struct rxe_mig_obj *o)
{
	return o->elem && o->type != RXE_MIG_REC_QP &&
	       o->elem->mig_phase != RXE_MIG_LIVE;
}

/* objects other than QPs */
static int check_obj(const struct rxe_mig_obj *o, void *arg)
{
	const struct live *live = arg;

	if (!waits(o))
		return 0;
	if (o->elem->mig_phase != RXE_MIG_REFILLED) {
		rxe_mig_refuse(live->why, o->type, o->handle,
			       RXE_MIG_NOT_STOPPED, o->elem->index,
			       "object has not been refilled");
		return -EINVAL;
	}
	if (o->type == RXE_MIG_REC_AH)
		return check_av(live, &to_rah(o->obj)->av, true, o->type,
				o->handle, o->elem->index);
	return 0;
}

static int settle_obj(const struct rxe_mig_obj *o, void *arg)
{
	struct live *live = arg;

	if (!waits(o))
		return 0;
	if (o->type == RXE_MIG_REC_AH)
		place_av(live->rxe, &to_rah(o->obj)->av);
	o->elem->mig_phase = RXE_MIG_LIVE;
	return 0;
}

/* bind the QP to this host */
static void localise(struct rxe_dev *rxe, struct rxe_mig_qp *mig)
{
	struct rxe_qp *qp = mig->qp;

	if ((qp_type(qp) != IB_QPT_RC && qp_type(qp) != IB_QPT_UC) ||
	    qp_state(qp) < IB_QPS_RTR || qp_state(qp) == IB_QPS_ERR)
		return;

	rxe_mig_quiesce(qp);
	place_av(rxe, &qp->pri_av);
	/* the cached route ignores the destination address */
	if (qp_type(qp) == IB_QPT_RC)
		sk_dst_reset(qp->sk->sk);
	rxe_mig_set_state(mig, RXE_MIG_STOPPED);
}

/* after RESUME a ring is mapped once or never, as stock has it */
static void unstick(struct rxe_dev *rxe, struct ib_ucontext *uc)
{
	struct rxe_mmap_info *ip, *next;

	spin_lock_bh(&rxe->pending_lock);
	list_for_each_entry_safe(ip, next, &rxe->pending_mmaps, pending_mmaps)
		if (ip->context == uc && ip->sticky) {
			ip->sticky = false;
			list_del_init(&ip->pending_mmaps);
		}
	spin_unlock_bh(&rxe->pending_lock);
}

/**
 * rxe_mig_resume - a restored context goes live [RESUME-1]
 * @uc: the context
 * @flags: RXE_MIG_RESUME_*
 * @why: on error, the object that stands in the way
 *
 * Return: 0 or a negative errno; on error nothing is live.
 */
int rxe_mig_resume(struct ib_ucontext *uc, u32 flags,
		   struct rxe_mig_refusal *why)
{
	struct rxe_dev *rxe = to_rdev(uc->device);
	struct rxe_mig_dev *dev = rxe->mig;
	struct live live = { .rxe = rxe, .flags = flags, .why = why };
	struct rxe_mig_qp *mig, *next;
	struct rxe_mig_ctx *ctx;
	int err;

	if (!rxe_mig_capable())
		return -EPERM;

	mutex_lock(&dev->ctx_lock);
	/* a context without QPs has none */
	ctx = rxe_mig_ctx_find(dev, uc);
	if (ctx && (ctx->lease || ctx->committed)) {
		rxe_mig_refuse(why, 0, 0, RXE_MIG_BUSY, 0, ctx->committed ?
			       "context is committed: its snapshot is the live copy" :
			       "context is dumped; cancel or commit that first");
		err = -EBUSY;
		goto out;
	}
	err = rxe_mig_survey(uc, check_obj, &live);
	if (err)
		goto out;
	if (ctx)
		list_for_each_entry(mig, &ctx->qps, ctx_entry) {
			err = check_live(&live, mig);
			if (err)
				goto out;
		}
	if (flags & RXE_MIG_RESUME_CHECK)
		goto out;

	rxe_mig_survey(uc, settle_obj, &live);
	if (ctx)
		list_for_each_entry_safe(mig, next, &ctx->qps, ctx_entry) {
			rxe_mig_qp_lock(mig->qp);
			localise(rxe, mig);
			rxe_mig_go_live(mig);
			rxe_mig_tomb_end(mig);
			rxe_mig_qp_unlock(mig->qp);
			rxe_mig_ctx_del_qp(mig);
		}
out:
	mutex_unlock(&dev->ctx_lock);
	if (!err && !(flags & RXE_MIG_RESUME_CHECK)) {
		unstick(rxe, uc);
		trace_rxe_mig_context(uc, "resumed");
	}
	return err;
}
