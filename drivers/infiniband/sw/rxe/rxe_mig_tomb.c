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
	union ib_gid		forward;
	bool			has_forward;
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

	if (!rxe_mig_tombstone_ms || mig->restored ||
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
 * rxe_mig_tomb_drop - the QP came back to this device [TOMB-4]
 * @dev: device
 * @qpn: its number
 */
void rxe_mig_tomb_drop(struct rxe_mig_dev *dev, u32 qpn)
{
	mutex_lock(&dev->tomb_lock);
	kfree(xa_erase(&dev->tombs, qpn));
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
	struct rxe_mig_path path = t->path;
	struct migros_eth eth = {
		.version = MIGROS_VERSION,
		.flags = MIGROS_F_TOMBSTONE,
		.src_qpn = cpu_to_be32(t->qpn),
		.epoch = cpu_to_be32(t->proto.epoch),
		.sq_psn = cpu_to_be32(t->sq_psn & BTH_PSN_MASK),
		.rq_psn = cpu_to_be32(t->rq_psn & BTH_PSN_MASK),
		.nonce = cpu_to_be64(nonce),
		.echo = cpu_to_be64(echo),
	};

	if (to)
		path.dgid = *to;
	memcpy(eth.gid, opcode == MIGROS_OP_MOVED ? t->forward.raw :
						    path.sgid.raw,
	       sizeof(eth.gid));
	rxe_mig_send(dev->rxe, &path, opcode, t->dest_qpn, t->sq_psn, &eth);
}

static void tomb_request(struct rxe_mig_dev *dev, struct rxe_mig_tomb *t,
			 struct rxe_mig_pkt *p)
{
	if (memcmp(&t->path.dgid, &p->saddr, sizeof(p->saddr)) ||
	    psn_compare(p->psn, t->rq_psn) > 0)
		return;
	if (t->proto.flags & RXE_MIG_PROTO_PEER_CAPABLE)
		rxe_mig_send_nak(dev->rxe, &t->path, MIGROS_SYN_NAK_STOPPED,
				 t->proto.peer_challenge & MIGROS_TOKEN_MASK,
				 t->dest_qpn, p->psn);
	else
		rxe_mig_send_nak(dev->rxe, &t->path, AETH_RNR_NAK |
				 IB_RNR_TIMER_655_36, t->msn, t->dest_qpn,
				 p->psn);
}

static void tomb_resume(struct rxe_mig_dev *dev, struct rxe_mig_tomb *t,
			struct rxe_mig_pkt *p)
{
	u64 nonce = be64_to_cpu(p->eth.nonce);
	bool peer = !memcmp(&t->path.dgid, &p->saddr, sizeof(p->saddr));

	/* the QP itself, from where it lives now [TOMB-3] */
	if (p->eth.flags & MIGROS_F_SELF) {
		if (be32_to_cpu(p->eth.src_qpn) == t->qpn &&
		    nonce == t->proto.secret &&
		    be32_to_cpu(p->eth.epoch) == t->proto.epoch) {
			t->forward = p->saddr;
			t->has_forward = true;
		}
		return;
	}

	/* its partner, which has moved too [TOMB-5] */
	if (be32_to_cpu(p->eth.src_qpn) != t->dest_qpn)
		return;
	if (!peer && !(t->proto.flags & RXE_MIG_PROTO_PEER_STOPPED &&
		       nonce == t->proto.peer_secret)) {
		/* learn the partner's secret from where it was */
		tomb_send(dev, t, MIGROS_OP_PROBE, NULL, t->proto.challenge, 0);
		return;
	}
	if (t->has_forward)
		tomb_send(dev, t, MIGROS_OP_MOVED, &p->saddr, 0, nonce);
}

static void tomb_handle(struct rxe_mig_dev *dev, struct rxe_mig_tomb *t,
			struct rxe_mig_pkt *p)
{
	bool peer;

	if (p->opcode < MIGROS_OP_FIRST) {
		tomb_request(dev, t, p);
		return;
	}
	if (p->opcode == MIGROS_OP_RESUME) {
		tomb_resume(dev, t, p);
		return;
	}

	peer = !memcmp(&t->path.dgid, &p->saddr, sizeof(p->saddr)) &&
	       be32_to_cpu(p->eth.src_qpn) == t->dest_qpn;
	if (!peer)
		return;
	switch (p->opcode) {
	case MIGROS_OP_PROBE:
		t->proto.peer_challenge = be64_to_cpu(p->eth.nonce);
		t->proto.flags |= RXE_MIG_PROTO_PEER_CAPABLE;
		tomb_send(dev, t, MIGROS_OP_PAUSE, NULL, t->proto.secret,
			  t->proto.peer_challenge);
		if (t->has_forward)
			tomb_send(dev, t, MIGROS_OP_MOVED, NULL, 0,
				  t->proto.peer_challenge);
		break;
	case MIGROS_OP_PAUSE:
		if (be64_to_cpu(p->eth.echo) != t->proto.challenge)
			break;
		t->proto.peer_secret = be64_to_cpu(p->eth.nonce);
		t->proto.peer_epoch = be32_to_cpu(p->eth.epoch);
		t->proto.flags |= RXE_MIG_PROTO_PEER_STOPPED;
		break;
	}
}

/**
 * rxe_mig_tomb_rcv - a packet for a QP that does not exist
 * @dev: device
 * @p: the packet
 */
void rxe_mig_tomb_rcv(struct rxe_mig_dev *dev, struct rxe_mig_pkt *p)
{
	struct rxe_mig_tomb *t;

	mutex_lock(&dev->tomb_lock);
	t = xa_load(&dev->tombs, p->qpn);
	if (t && time_before(jiffies, t->expires))
		tomb_handle(dev, t, p);
	mutex_unlock(&dev->tomb_lock);
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

	xa_for_each(&dev->tombs, qpn, t)
		rxe_mig_tomb_drop(dev, qpn);
	xa_destroy(&dev->tombs);
}
