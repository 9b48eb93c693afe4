// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * REFILL: the state of a record goes into an object made with a hint.
 *
 * The record is untrusted.  What user space could write into its rings anyway
 * is taken as it is; everything else is checked.
 */
#include "rxe_mig.h"
#include "rxe_queue.h"

struct mig_in {
	const u8	*p;
	u64		left;
};

static const void *in_take(struct mig_in *in, u64 len)
{
	const void *p = in->p;
	u64 step = ALIGN(len, 8);

	if (len > in->left || step > in->left)
		return NULL;
	in->p += step;
	in->left -= step;
	return p;
}

/* A longer structure is one of a later version: zero means "as before" */
static bool in_end(const struct mig_in *in)
{
	return !memchr_inv(in->p, 0, in->left);
}

/* Return: 0 for the one caller who may fill the object */
static int claim(struct rxe_pool_elem *elem)
{
	return cmpxchg(&elem->mig_phase, RXE_MIG_CREATED,
		       RXE_MIG_REFILLED) == RXE_MIG_CREATED ? 0 : -EBUSY;
}

static bool is_uobj(struct ib_uobject *uobj, u32 handle)
{
	return rxe_mig_uobj_handle(uobj) == handle;
}

static int check_ring(const struct rxe_mig_ring *r, struct rxe_queue *q)
{
	if (!q)
		return r->data_len ? -EINVAL : 0;
	if (r->log2_elem_size != q->log2_elem_size ||
	    r->index_mask != q->index_mask ||
	    r->data_len != ((u64)q->index_mask + 1) << q->log2_elem_size ||
	    r->producer & ~q->index_mask || r->consumer & ~q->index_mask ||
	    r->index & ~q->index_mask)
		return -EINVAL;
	return 0;
}

static void load_ring(struct rxe_queue *q, const struct rxe_mig_ring *r,
		      const void *data)
{
	if (!q)
		return;
	memcpy(q->buf->data, data, r->data_len);
	q->buf->producer_index = r->producer;
	q->buf->consumer_index = r->consumer;
	q->index = r->index;
}

static int refill_cq(struct rxe_cq *cq, struct mig_in *in)
{
	const struct rxe_mig_cq *c = in_take(in, sizeof(*c));
	const void *data;
	unsigned long flags;
	int err;

	if (!c || c->reserved || check_ring(&c->ring, cq->queue) ||
	    c->cqe != cq->ibcq.cqe ||
	    c->notify & ~(IB_CQ_SOLICITED | IB_CQ_NEXT_COMP))
		return -EINVAL;
	data = in_take(in, c->ring.data_len);
	if (!data || !in_end(in))
		return -EINVAL;
	err = claim(&cq->elem);
	if (err)
		return err;

	spin_lock_irqsave(&cq->cq_lock, flags);
	load_ring(cq->queue, &c->ring, data);
	cq->notify = c->notify;
	spin_unlock_irqrestore(&cq->cq_lock, flags);
	rxe_mig_set_cq_events(&cq->ibcq, c->rec.user_handle,
			      c->comp_events_reported,
			      c->async_events_reported);
	return 0;
}

static int refill_srq(struct rxe_srq *srq, struct mig_in *in)
{
	const struct rxe_mig_srq *s = in_take(in, sizeof(*s));
	const void *data;
	unsigned long flags;
	int err;

	if (!s || s->reserved || check_ring(&s->ring, srq->rq.queue) ||
	    !is_uobj(srq->ibsrq.pd->uobject, s->pd) ||
	    s->srq_num != srq->srq_num || s->max_sge != srq->rq.max_sge ||
	    s->limit > srq->rq.queue->index_mask || s->error > 1)
		return -EINVAL;
	data = in_take(in, s->ring.data_len);
	if (!data || !in_end(in))
		return -EINVAL;
	err = claim(&srq->elem);
	if (err)
		return err;

	spin_lock_irqsave(&srq->rq.consumer_lock, flags);
	load_ring(srq->rq.queue, &s->ring, data);
	srq->limit = s->limit;
	srq->error = s->error;
	spin_unlock_irqrestore(&srq->rq.consumer_lock, flags);
	rxe_mig_set_srq_events(&srq->ibsrq, s->rec.user_handle,
			       s->async_events_reported);
	return 0;
}

static int refill_mw(struct rxe_dev *rxe, struct rxe_mw *mw, struct mig_in *in,
		     struct ib_ucontext *uc)
{
	const struct rxe_mig_mw *m = in_take(in, sizeof(*m));
	struct rxe_mr *mr = NULL;
	struct rxe_qp *qp = NULL;
	int err;

	if (!m || !in_end(in) || m->reserved ||
	    !is_uobj(mw->ibmw.pd->uobject, m->pd) || m->type != mw->ibmw.type ||
	    m->state > RXE_MW_STATE_VALID ||
	    m->access & ~RXE_ACCESS_SUPPORTED_MW || m->rkey >> 8 != mw->elem.index)
		return -EINVAL;

	if (m->mr != RXE_MIG_NONE) {
		/* the window stays inside the region and the domain */
		err = rxe_mig_find(uc, RXE_MIG_REC_MR, m->mr, (void **)&mr);
		if (err)
			return err;
		if (mr->ibmr.pd != mw->ibmw.pd ||
		    mr_check_range(mr, m->addr, m->length) ||
		    !(mr->access & IB_ACCESS_MW_BIND)) {
			err = -EINVAL;
			goto put;
		}
	}
	if (m->qp != RXE_MIG_NONE) {
		err = rxe_mig_find(uc, RXE_MIG_REC_QP, m->qp, (void **)&qp);
		if (err)
			goto put;
		if (qp->ibqp.pd != mw->ibmw.pd) {
			err = -EINVAL;
			goto put;
		}
	}
	err = claim(&mw->elem);
	if (err)
		goto put;

	spin_lock_bh(&mw->lock);
	mw->rkey = m->rkey;
	mw->ibmw.rkey = m->rkey;
	mw->state = m->state;
	mw->access = m->access;
	mw->addr = m->addr;
	mw->length = m->length;
	mw->mr = mr;		/* with the reference */
	mw->qp = qp;
	if (mr)
		atomic_inc(&mr->num_mw);
	spin_unlock_bh(&mw->lock);
	return 0;
put:
	if (mr)
		rxe_put(mr);
	if (qp)
		rxe_put(qp);
	return err;
}

static int load_av(struct rxe_av *av, const struct rxe_mig_av *a)
{
	memset(av, 0, sizeof(*av));
	if (memchr_inv(a->reserved, 0, sizeof(a->reserved)) || a->reserved2)
		return -EINVAL;
	if (!a->network_type)
		return 0;
	if (a->network_type != RXE_NETWORK_TYPE_IPV4 &&
	    a->network_type != RXE_NETWORK_TYPE_IPV6)
		return -EINVAL;
	av->network_type = a->network_type;
	av->port_num = a->port_num;
	av->grh.sgid_index = a->sgid_index;
	av->grh.hop_limit = a->hop_limit;
	av->grh.traffic_class = a->traffic_class;
	av->grh.flow_label = a->flow_label;
	memcpy(&av->grh.dgid, a->dgid, sizeof(a->dgid));
	if (a->network_type == RXE_NETWORK_TYPE_IPV4) {
		av->sgid_addr._sockaddr_in.sin_family = AF_INET;
		memcpy(&av->sgid_addr._sockaddr_in.sin_addr, a->sgid + 12, 4);
		av->dgid_addr._sockaddr_in.sin_family = AF_INET;
		memcpy(&av->dgid_addr._sockaddr_in.sin_addr, a->dgid + 12, 4);
	} else {
		av->sgid_addr._sockaddr_in6.sin6_family = AF_INET6;
		memcpy(&av->sgid_addr._sockaddr_in6.sin6_addr, a->sgid, 16);
		av->dgid_addr._sockaddr_in6.sin6_family = AF_INET6;
		memcpy(&av->dgid_addr._sockaddr_in6.sin6_addr, a->dgid, 16);
	}
	return 0;
}

static int load_res(struct resp_res *res, const struct rxe_mig_res *r)
{
	memset(res, 0, sizeof(*res));
	if (!r->type)
		return 0;
	if (r->state > rdatm_res_state_replay || r->replay > 1 ||
	    (r->first_psn | r->last_psn | r->cur_psn) & ~BTH_PSN_MASK)
		return -EINVAL;
	res->type = r->type;
	res->replay = r->replay;
	res->first_psn = r->first_psn;
	res->last_psn = r->last_psn;
	res->cur_psn = r->cur_psn;
	res->state = r->state;
	switch (r->type) {
	case RXE_READ_MASK:
		res->read.va_org = r->va_org;
		res->read.va = r->va;
		res->read.rkey = r->rkey;
		res->read.length = r->length;
		res->read.resid = r->resid;
		break;
	case RXE_ATOMIC_MASK:
		res->atomic.orig_val = r->va_org;
		break;
	case RXE_ATOMIC_WRITE_MASK:
		break;
	case RXE_FLUSH_MASK:
		res->flush.va = r->va;
		res->flush.length = r->length;
		res->flush.type = r->flush;
		res->flush.level = r->flush >> 8;
		break;
	default:
		return -EINVAL;
	}
	return 0;
}

/* what the object was created with */
static bool is_qp(struct rxe_qp *qp, const struct rxe_mig_qp_rec *r)
{
	return r->qpn == qp_num(qp) && r->type == qp_type(qp) &&
	       is_uobj(qp->ibqp.pd->uobject, r->pd) &&
	       r->send_cq == rxe_mig_cq_handle(qp->ibqp.send_cq) &&
	       r->recv_cq == rxe_mig_cq_handle(qp->ibqp.recv_cq) &&
	       r->srq == rxe_mig_srq_handle(qp->ibqp.srq) &&
	       r->max_send_sge == qp->sq.max_sge &&
	       r->max_inline == qp->sq.max_inline &&
	       (!qp->rq.queue || r->max_recv_sge == qp->rq.max_sge);
}

static int check_qp_rec(struct rxe_dev *rxe, struct rxe_qp *qp,
			const struct rxe_mig_qp_rec *r)
{
	if (!is_qp(qp, r) || r->reserved || r->proto.reserved ||
	    r->proto.flags & ~(RXE_MIG_PROTO_PEER_CAPABLE |
			       RXE_MIG_PROTO_PEER_STOPPED))
		return -EINVAL;
	if (r->state > IB_QPS_ERR || r->path_mig_state > IB_MIG_ARMED ||
	    r->path_mtu < IB_MTU_256 || r->path_mtu > IB_MTU_4096)
		return -EINVAL;
	if (r->access & ~RXE_ACCESS_SUPPORTED_QP || r->timeout > 31 ||
	    r->alt_timeout > 31 || r->retry_cnt > 7 || r->rnr_retry > 7 ||
	    r->min_rnr_timer > 31 || r->port_num > 1 || r->sq_draining > 1)
		return -EINVAL;
	if (r->max_rd_atomic > rxe->attr.max_qp_rd_atom ||
	    r->max_dest_rd_atomic > roundup_pow_of_two(U8_MAX) ||
	    r->req_rd_atomic > r->max_rd_atomic ||
	    r->num_res != r->max_dest_rd_atomic ||
	    (r->num_res && (r->res_head >= r->num_res ||
			    r->res_tail >= r->num_res)))
		return -EINVAL;
	if ((r->rq_psn | r->sq_psn | r->req_psn | r->comp_psn | r->resp_psn |
	     r->resp_ack_psn | r->dest_qpn) & ~BTH_PSN_MASK)
		return -EINVAL;
	if ((s32)r->req_opcode < -1 || (s32)r->req_opcode > U8_MAX ||
	    (s32)r->comp_opcode < -1 || (s32)r->comp_opcode > U8_MAX ||
	    (s32)r->resp_opcode < -1 || (s32)r->resp_opcode > U8_MAX)
		return -EINVAL;
	/* completer: any other value is a WARN in check_ack() */
	if ((s32)r->comp_opcode != -1 &&
	    r->comp_opcode != IB_OPCODE_RC_RDMA_READ_RESPONSE_FIRST &&
	    r->comp_opcode != IB_OPCODE_RC_RDMA_READ_RESPONSE_MIDDLE)
		return -EINVAL;
	if (r->req_wqe_index & ~qp->sq.queue->index_mask ||
	    r->resp_drop_msg > 1 || r->resp_status > IB_WC_GENERAL_ERR)
		return -EINVAL;
	if (r->recv_wqe_len &&
	    r->recv_wqe_len != sizeof(qp->resp.srq_wqe))
		return -EINVAL;
	/* a connected QP needs an address of one family */
	if ((r->type == IB_QPT_RC || r->type == IB_QPT_UC) &&
	    r->state >= IB_QPS_RTR && r->state != IB_QPS_ERR &&
	    !r->pri_av.network_type)
		return -EINVAL;
	return 0;
}

static void load_attr(struct rxe_qp *qp, const struct rxe_mig_qp_rec *r)
{
	struct ib_qp_attr *a = &qp->attr;

	a->qp_state = r->state;
	a->cur_qp_state = r->state;
	a->path_mtu = r->path_mtu;
	qp->mtu = ib_mtu_enum_to_int(r->path_mtu);
	a->path_mig_state = r->path_mig_state;
	a->qkey = r->qkey;
	a->rq_psn = r->rq_psn;
	a->sq_psn = r->sq_psn;
	a->dest_qp_num = r->dest_qpn;
	a->qp_access_flags = r->access;
	a->pkey_index = r->pkey_index;
	a->alt_pkey_index = r->alt_pkey_index;
	a->en_sqd_async_notify = r->en_sqd_async_notify;
	a->sq_draining = r->sq_draining;
	a->max_rd_atomic = r->max_rd_atomic;
	a->max_dest_rd_atomic = r->max_dest_rd_atomic;
	a->min_rnr_timer = r->min_rnr_timer;
	a->port_num = r->port_num;
	/* ib_uverbs compares it with the address vector's in INIT -> RTR */
	qp->ibqp.port = r->port_num;
	a->timeout = r->timeout;
	a->retry_cnt = r->retry_cnt;
	a->rnr_retry = r->rnr_retry;
	a->alt_port_num = r->alt_port_num;
	a->alt_timeout = r->alt_timeout;
	qp->src_port = r->src_port;
	qp->qp_timeout_jiffies = 0;
	if (r->timeout && qp_type(qp) == IB_QPT_RC)
		qp->qp_timeout_jiffies =
			nsecs_to_jiffies(4096ULL << r->timeout) ?: 1;
}

static void load_machines(struct rxe_qp *qp, const struct rxe_mig_qp_rec *r)
{
	qp->req.psn = r->req_psn;
	qp->req.opcode = r->req_opcode;
	qp->req.wqe_index = r->req_wqe_index;
	atomic_set(&qp->req.rd_atomic, r->req_rd_atomic);
	atomic_set(&qp->ssn, r->ssn);
	qp->comp.psn = r->comp_psn;
	qp->comp.opcode = r->comp_opcode;
	qp->comp.retry_cnt = r->retry_cnt;
	qp->comp.rnr_retry = r->rnr_retry;
	qp->resp.psn = r->resp_psn;
	qp->resp.ack_psn = r->resp_ack_psn;
	qp->resp.msn = r->resp_msn;
	qp->resp.opcode = r->resp_opcode;
	qp->resp.drop_msg = r->resp_drop_msg;
	qp->resp.status = r->resp_status;
	qp->resp.resid = r->resp_resid;
	qp->resp.rkey = r->resp_rkey;
	qp->resp.length = r->resp_length;
	qp->resp.va = r->resp_va;
	qp->resp.offset = r->resp_offset;
	qp->resp.res_head = r->res_head;
	qp->resp.res_tail = r->res_tail;
	qp->resp.aeth_syndrome = AETH_ACK_UNLIMITED;
}

static int refill_qp(struct rxe_dev *rxe, struct rxe_qp *qp, struct mig_in *in)
{
	const struct rxe_mig_qp_rec *r = in_take(in, sizeof(*r));
	struct rxe_mig_qp *mig = READ_ONCE(qp->mig);
	const void *wqe = NULL, *sq, *rq = NULL;
	const struct rxe_mig_res *res;
	struct resp_res *resources = NULL;
	struct rxe_av pri, alt;
	unsigned long flags;
	int err = -EINVAL;
	u32 i;

	if (!r || !mig || check_qp_rec(rxe, qp, r) ||
	    check_ring(&r->sq, qp->sq.queue) ||
	    check_ring(&r->rq, qp->rq.queue))
		return -EINVAL;
	if (load_av(&pri, &r->pri_av) || load_av(&alt, &r->alt_av))
		return -EINVAL;

	if (r->num_res) {
		res = in_take(in, (u64)r->num_res * sizeof(*res));
		if (!res)
			return -EINVAL;
		resources = kcalloc(r->num_res, sizeof(*resources), GFP_KERNEL);
		if (!resources)
			return -ENOMEM;
		for (i = 0; i < r->num_res; i++)
			if (load_res(&resources[i], &res[i]))
				goto free;
	}
	if (r->recv_wqe_len) {
		const struct rxe_recv_wqe *w = in_take(in, r->recv_wqe_len);

		if (!w || w->dma.num_sge > RXE_MAX_SGE ||
		    w->dma.cur_sge > w->dma.num_sge)
			goto free;
		wqe = w;
	}
	sq = in_take(in, r->sq.data_len);
	if (qp->rq.queue)
		rq = in_take(in, r->rq.data_len);
	if (!sq || (qp->rq.queue && !rq) || !in_end(in))
		goto free;

	rxe_mig_qp_lock(qp);
	err = claim(&qp->elem);
	if (err)
		goto unlock;
	rxe_mig_quiesce(qp);
	swap(qp->resp.resources, resources);
	load_attr(qp, r);
	load_machines(qp, r);
	qp->pri_av = pri;
	qp->alt_av = alt;
	if (wqe) {
		memcpy(&qp->resp.srq_wqe, wqe, r->recv_wqe_len);
		qp->resp.wqe = &qp->resp.srq_wqe.wqe;
	}
	load_ring(qp->sq.queue, &r->sq, sq);
	load_ring(qp->rq.queue, &r->rq, rq);
	mig->proto = r->proto;
	if (!mig->proto.challenge)
		mig->proto.challenge = rxe_mig_nonce();
	memcpy(&mig->old_gid, r->pri_av.sgid, sizeof(mig->old_gid));
	rxe_mig_set_qp_events(&qp->ibqp, r->rec.user_handle,
			      r->async_events_reported);
	rxe_mig_set_state(mig, RXE_MIG_STOPPED);
	spin_lock_irqsave(&qp->state_lock, flags);
	qp->attr.qp_state = r->state;
	spin_unlock_irqrestore(&qp->state_lock, flags);
	err = 0;
unlock:
	rxe_mig_qp_unlock(qp);
free:
	kfree(resources);
	return err;
}

static int refill_ah(struct rxe_ah *ah, struct mig_in *in)
{
	const struct rxe_mig_ah *a = in_take(in, sizeof(*a));
	struct rxe_av av;
	int err;

	if (!a || !in_end(in) || a->reserved || a->new_provider > 1 ||
	    !is_uobj(ah->ibah.pd->uobject, a->pd) ||
	    a->ah_num != ah->elem.index ||
	    load_av(&av, &a->av) || !av.network_type)
		return -EINVAL;
	err = claim(&ah->elem);
	if (err)
		return err;
	/* RESUME finds out where its addresses are */
	ah->av = av;
	ah->ah_num = a->new_provider ? ah->elem.index : 0;
	return 0;
}

static int refill_pd(struct ib_pd *pd, struct mig_in *in)
{
	const struct rxe_mig_pd *p = in_take(in, sizeof(*p));

	return p && in_end(in) ? 0 : -EINVAL;	/* complete as created */
}

static int refill_mr(struct rxe_mr *mr, struct mig_in *in)
{
	const struct rxe_mig_mr *m = in_take(in, sizeof(*m));

	if (!m || !in_end(in) || !is_uobj(mr->ibmr.pd->uobject, m->pd) ||
	    m->rkey != mr->lkey || m->length != mr->ibmr.length ||
	    m->iova != mr->ibmr.iova || m->access != mr->access ||
	    !mr->umem || m->start != mr->umem->address)
		return -EINVAL;
	return 0;	/* complete as created */
}

static int refill_channel(struct ib_ucontext *uc, struct mig_in *in)
{
	const struct rxe_mig_channel *c = in_take(in, sizeof(*c));
	const u32 *cqs;

	if (!c || c->reserved)
		return -EINVAL;
	cqs = in_take(in, (u64)c->num_events * sizeof(*cqs));
	if (!cqs || !in_end(in))
		return -EINVAL;
	return rxe_mig_inject_comp(uc, c->rec.handle, cqs, c->num_events);
}

static int refill_async(struct ib_ucontext *uc, struct mig_in *in)
{
	const struct rxe_mig_async *a = in_take(in, sizeof(*a));
	const struct rxe_mig_async_event *ev;

	if (!a || a->reserved)
		return -EINVAL;
	ev = in_take(in, (u64)a->num_events * sizeof(*ev));
	if (!ev || !in_end(in))
		return -EINVAL;
	return rxe_mig_inject_async(uc, ev, a->num_events);
}

/* numbers that were freed before are not to be reused at once */
static void advance(struct rxe_pool *pool, u32 next)
{
	if (next <= pool->limit.max && next > pool->next)
		rxe_mig_cursor_set(pool, next);
}

static int refill_context(struct rxe_dev *rxe, struct mig_in *in)
{
	const struct rxe_mig_context *c = in_take(in, sizeof(*c));
	const struct rxe_mig_gid *gids;
	u32 i;

	if (!c || c->reserved)
		return -EINVAL;
	gids = in_take(in, (u64)c->num_gids * sizeof(*gids));
	if (!gids || !in_end(in))
		return -EINVAL;
	for (i = 0; i < c->num_gids; i++)
		if (gids[i].reserved)
			return -EINVAL;
	mutex_lock(&rxe->mig->create_lock);
	advance(&rxe->qp_pool, c->next_qpn);
	advance(&rxe->mr_pool, c->next_mr);
	advance(&rxe->mw_pool, c->next_mw);
	advance(&rxe->srq_pool, c->next_srq);
	advance(&rxe->ah_pool, c->next_ah);
	mutex_unlock(&rxe->mig->create_lock);
	return 0;
}

/**
 * rxe_mig_refill - put a record's state into an object
 * @uc: context that is being restored
 * @type: RXE_MIG_REC_*
 * @obj: struct ib_qp, ib_cq, ib_srq, ib_mw or ib_ah; NULL for the others
 * @rec: kernel copy of the record
 * @len: its length
 *
 * Return: 0; -EINVAL for a malformed record or one that contradicts the
 * object, -ENOENT if it names an object that is not there, -EBUSY if the object
 * was not made with a hint, is filled already or live.
 */
int rxe_mig_refill(struct ib_ucontext *uc, u32 type, void *obj,
		   const void *rec, u64 len)
{
	struct rxe_dev *rxe = to_rdev(uc->device);
	const struct rxe_mig_rec *r = rec;
	struct mig_in in = { .p = rec, .left = len };

	if (!rxe_mig_capable())
		return -EPERM;
	if (len < sizeof(*r) || r->len != len || len & 7 || r->type != type)
		return -EINVAL;

	switch (type) {
	case RXE_MIG_REC_CONTEXT:
		return refill_context(rxe, &in);
	case RXE_MIG_REC_CHANNEL:
		return refill_channel(uc, &in);
	case RXE_MIG_REC_ASYNC:
		return refill_async(uc, &in);
	case RXE_MIG_REC_PD:
		return refill_pd(obj, &in);
	case RXE_MIG_REC_MR:
		return refill_mr(to_rmr(obj), &in);
	case RXE_MIG_REC_CQ:
		return refill_cq(to_rcq(obj), &in);
	case RXE_MIG_REC_SRQ:
		return refill_srq(to_rsrq(obj), &in);
	case RXE_MIG_REC_QP:
		return refill_qp(rxe, to_rqp(obj), &in);
	case RXE_MIG_REC_MW:
		return refill_mw(rxe, to_rmw(obj), &in, uc);
	case RXE_MIG_REC_AH:
		return refill_ah(to_rah(obj), &in);
	}
	return -EINVAL;
}
