// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Tombstones: what answers for a Stopped QP after its process was killed
 * [TOMB-1].  They do not hold the QP number: a QP with that number takes over
 * by existing, be it the one that came back or another.
 *
 * dev->tomb_lock guards table and contents; softirq only asks whether a
 * number is in the table.
 */
#include "rxe_mig.h"

struct rxe_mig_tomb {
	u32			qpn;
	u32			dest_qpn;
	struct rxe_mig_path	path;
	struct rxe_mig_proto	proto;
	u32			sq_psn;
	u32			rq_psn;
	u32			msn;
	u32			rnr_retry;
	unsigned long		stopped_at;
	union ib_gid		forward;
	bool			has_forward;
	union ib_gid		self_forward;
	bool			has_self_forward;
	struct rxe_mig_rate	rate;
	unsigned long		expires;
};

/**
 * rxe_mig_tomb_create - a Stopped QP is about to be destroyed
 * @mig: its migration state, under the QP mutex
 */
void rxe_mig_tomb_create(struct rxe_mig_qp *mig)
{
	struct rxe_qp *qp = mig->qp;
	struct rxe_mig_dev *dev = to_rdev(qp->ibqp.device)->mig;
	struct rxe_mig_tomb *t, *old;

	if (!rxe_mig_tombstone_ms || rxe_mig_restored(mig) ||
	    qp_type(qp) != IB_QPT_RC || qp_state(qp) < IB_QPS_RTR ||
	    qp_state(qp) == IB_QPS_ERR)
		return;

	t = kzalloc(sizeof(*t), GFP_KERNEL);
	if (!t)
		return;	/* partners find silence, as the paper has it */
	t->qpn = qp_num(qp);
	t->dest_qpn = qp->attr.dest_qp_num;
	t->proto = mig->proto;
	t->sq_psn = qp->comp.psn;
	t->rq_psn = qp->resp.psn;
	t->msn = qp->resp.msn;
	t->rnr_retry = qp->attr.rnr_retry;
	t->stopped_at = mig->stopped_at;
	t->forward = mig->forward;
	t->has_forward = mig->has_forward;
	t->self_forward = mig->self_forward;
	t->has_self_forward = mig->has_self_forward;
	t->expires = jiffies + msecs_to_jiffies(rxe_mig_tombstone_ms);
	rxe_mig_path_of(qp, &t->path);

	mutex_lock(&dev->tomb_lock);
	old = xa_store(&dev->tombs, t->qpn, t, GFP_KERNEL);
	mutex_unlock(&dev->tomb_lock);
	if (xa_is_err(old)) {
		kfree(t);
		return;
	}
	kfree(old);
	queue_delayed_work(dev->wq, &dev->tomb_work,
			   msecs_to_jiffies(rxe_mig_tombstone_ms));
}

/**
 * rxe_mig_tomb_end - a QP came back to this device [TOMB-3]
 * @mig: its migration state, under the QP mutex; it is live
 *
 * A tombstone with its number can be that of another connection, or, if both
 * ends of this one have the same number, that of its partner.
 */
void rxe_mig_tomb_end(struct rxe_mig_qp *mig)
{
	struct rxe_qp *qp = mig->qp;
	struct rxe_mig_dev *dev = to_rdev(qp->ibqp.device)->mig;
	struct rxe_mig_tomb *t;

	if (rxe_mig_meets_itself(mig))
		return;
	mutex_lock(&dev->tomb_lock);
	t = xa_load(&dev->tombs, qp_num(qp));
	if (t && t->dest_qpn == qp->attr.dest_qp_num)
		kfree(xa_erase(&dev->tombs, qp_num(qp)));
	mutex_unlock(&dev->tomb_lock);
}

/**
 * rxe_mig_tomb_exists - is there a tombstone with this number?
 * @dev: device
 * @qpn: QP number; any context
 */
bool rxe_mig_tomb_exists(struct rxe_mig_dev *dev, u32 qpn)
{
	return !xa_empty(&dev->tombs) && xa_load(&dev->tombs, qpn);
}

static void tomb_send(struct rxe_mig_dev *dev, struct rxe_mig_tomb *t,
		      u8 opcode, const union ib_gid *to, u64 nonce, u64 echo)
{
	bool moved = opcode == MIGROS_OP_MOVED;
	struct rxe_mig_path path = t->path;
	struct migros_eth eth = {
		.version = MIGROS_VERSION,
		.flags = moved ? 0 : MIGROS_F_TOMBSTONE,
		.src_qpn = cpu_to_be32(t->qpn),
		.epoch = cpu_to_be32(t->proto.epoch),
		.sq_psn = cpu_to_be32(t->sq_psn & BTH_PSN_MASK),
		.rq_psn = cpu_to_be32(t->rq_psn & BTH_PSN_MASK),
		.nonce = cpu_to_be64(nonce),
		.echo = cpu_to_be64(echo),
	};

	if (!rxe_mig_may_send(&t->rate, opcode))
		return;
	path.dgid = *to;
	memcpy(eth.gid, moved ? t->self_forward.raw : path.sgid.raw,
	       sizeof(eth.gid));
	rxe_mig_send(dev->rxe, &path, opcode, t->dest_qpn, t->sq_psn, &eth);
}

/* [STOP-6, CAP-2] */
static void tomb_request(struct rxe_mig_dev *dev, struct rxe_mig_tomb *t,
			 struct rxe_mig_pkt *p, bool peer)
{
	/* both addresses, as rxe checks them for a QP */
	if (peer && !memcmp(&t->path.sgid, &p->daddr, sizeof(p->daddr)) &&
	    psn_compare(p->psn, t->rq_psn) <= 0 &&
	    rxe_mig_send_stopped(dev->rxe, &t->path, &t->proto, t->dest_qpn,
				 p->psn, t->msn, t->stopped_at, t->rnr_retry))
		tomb_send(dev, t, MIGROS_OP_PAUSE, &p->saddr, t->proto.secret,
			  t->proto.peer_challenge);
}

/* [PAUSE-9] */
static void tomb_probe(struct rxe_mig_dev *dev, struct rxe_mig_tomb *t,
		       struct rxe_mig_pkt *p, bool peer)
{
	u64 nonce = be64_to_cpu(p->eth.nonce);
	bool known = t->proto.secret &&
		     be64_to_cpu(p->eth.echo) == t->proto.secret;
	/* the secret goes nowhere else [AUTH-3, ACC-4] */
	bool trusted = peer || (t->has_forward &&
				!memcmp(&t->forward, &p->saddr,
					sizeof(p->saddr)));

	if (known) {
		t->proto.flags |= RXE_MIG_PROTO_PEER_CAPABLE;
		t->proto.peer_challenge = nonce;
	}
	if (t->has_self_forward)
		tomb_send(dev, t, MIGROS_OP_MOVED, &p->saddr, 0, nonce);
	else if (trusted && !(known && p->eth.flags & MIGROS_F_PAUSED))
		tomb_send(dev, t, MIGROS_OP_PAUSE, &p->saddr, t->proto.secret,
			  nonce);
}

/* [TOMB-4, TOMB-5] */
static void tomb_resume(struct rxe_mig_dev *dev, struct rxe_mig_tomb *t,
			struct rxe_mig_pkt *p, bool peer)
{
	u64 nonce = be64_to_cpu(p->eth.nonce);

	if (p->eth.flags & MIGROS_F_SELF) {
		if (nonce == t->proto.secret &&
		    (s32)(be32_to_cpu(p->eth.epoch) - t->proto.epoch) >= 0) {
			t->self_forward = p->saddr;
			t->has_self_forward = true;
		} else {
			rxe_mig_count(dev->rxe, RXE_MIG_CNT_REFUSED);
		}
	} else if (t->has_self_forward) {
		tomb_send(dev, t, MIGROS_OP_MOVED, &p->saddr, 0, nonce);
	} else if (peer) {
		tomb_send(dev, t, MIGROS_OP_PAUSE, &p->saddr, t->proto.secret,
			  t->proto.peer_challenge);
	}
}

/* Return: false if the packet is of another connection */
static bool tomb_handle(struct rxe_mig_dev *dev, struct rxe_mig_tomb *t,
			struct rxe_mig_pkt *p)
{
	bool peer = !memcmp(&t->path.dgid, &p->saddr, sizeof(p->saddr));
	bool self = p->opcode == MIGROS_OP_RESUME &&
		    p->eth.flags & MIGROS_F_SELF;

	if (p->opcode < MIGROS_OP_FIRST) {
		tomb_request(dev, t, p, peer);
		return true;
	}
	if (be32_to_cpu(p->eth.src_qpn) != (self ? t->qpn : t->dest_qpn))
		return false;
	if (p->opcode == MIGROS_OP_PROBE)
		tomb_probe(dev, t, p, peer);
	else if (p->opcode == MIGROS_OP_RESUME)
		tomb_resume(dev, t, p, peer);
	return true;
}

/**
 * rxe_mig_tomb_rcv - a packet that no QP of this device takes [TOMB-2]
 * @dev: device
 * @p: the packet
 *
 * Return: true if there is a tombstone that it is for.
 */
bool rxe_mig_tomb_rcv(struct rxe_mig_dev *dev, struct rxe_mig_pkt *p)
{
	struct rxe_mig_tomb *t;
	bool found = false;

	mutex_lock(&dev->tomb_lock);
	t = xa_load(&dev->tombs, p->qpn);
	if (t && time_before(jiffies, t->expires))
		found = tomb_handle(dev, t, p);
	mutex_unlock(&dev->tomb_lock);
	return found;
}

/**
 * rxe_mig_tomb_work - remove what has expired
 * @work: dev->tomb_work
 */
void rxe_mig_tomb_work(struct work_struct *work)
{
	struct rxe_mig_dev *dev = container_of(work, struct rxe_mig_dev,
					       tomb_work.work);
	struct rxe_mig_tomb *t;
	unsigned long qpn;
	bool more = false;

	mutex_lock(&dev->tomb_lock);
	xa_for_each(&dev->tombs, qpn, t) {
		if (time_after_eq(jiffies, t->expires))
			kfree(xa_erase(&dev->tombs, qpn));
		else
			more = true;
	}
	mutex_unlock(&dev->tomb_lock);
	if (more)
		queue_delayed_work(dev->wq, &dev->tomb_work, 10 * HZ);
}

/**
 * rxe_mig_tomb_exit - the device goes away
 * @dev: device
 */
void rxe_mig_tomb_exit(struct rxe_mig_dev *dev)
{
	struct rxe_mig_tomb *t;
	unsigned long qpn;

	mutex_lock(&dev->tomb_lock);
	xa_for_each(&dev->tombs, qpn, t)
		kfree(xa_erase(&dev->tombs, qpn));
	mutex_unlock(&dev->tomb_lock);
	xa_destroy(&dev->tombs);
}
