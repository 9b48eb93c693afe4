// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * The migration protocol between two QPs.  Clause numbers are those of
 * docs/protocol.md; its state table is this file.
 *
 * Everything here runs on the device's workqueue, one packet or timer at a
 * time per QP, under the QP mutex.
 */
#include "rxe_mig.h"

static void send_op(struct rxe_mig_qp *mig, u8 opcode, u8 flags,
		    const union ib_gid *to, u64 nonce, u64 echo, u32 epoch)
{
	struct rxe_qp *qp = mig->qp;
	struct rxe_mig_path path;
	struct migros_eth eth = {
		.version = MIGROS_VERSION,
		.flags = flags,
		.src_qpn = cpu_to_be32(qp_num(qp)),
		.epoch = cpu_to_be32(epoch),
		.sq_psn = cpu_to_be32(qp->comp.psn & BTH_PSN_MASK),
		.rq_psn = cpu_to_be32(qp->resp.psn & BTH_PSN_MASK),
		.nonce = cpu_to_be64(nonce),
		.echo = cpu_to_be64(echo),
	};
	u32 qpn = qp->attr.dest_qp_num;

	rxe_mig_path_of(qp, &path);
	if (to)
		path.dgid = *to;
	if (flags & MIGROS_F_SELF)
		qpn = qp_num(qp);
	memcpy(eth.gid, path.sgid.raw, sizeof(eth.gid));
	rxe_mig_send(to_rdev(qp->ibqp.device), &path, opcode, qpn,
		     qp->comp.psn, &eth);
}

static void send_pause(struct rxe_mig_qp *mig)
{
	send_op(mig, MIGROS_OP_PAUSE, 0, NULL, mig->proto.secret,
		mig->proto.peer_challenge, mig->proto.epoch);
}

static void send_probe(struct rxe_mig_qp *mig, const union ib_gid *to)
{
	u8 flags = mig->proto.flags & RXE_MIG_PROTO_PEER_STOPPED ?
		   MIGROS_F_PAUSED : 0;

	send_op(mig, MIGROS_OP_PROBE, flags, to, mig->proto.challenge, 0,
		mig->proto.peer_epoch);
}

static void send_resume(struct rxe_mig_qp *mig)
{
	send_op(mig, MIGROS_OP_RESUME, 0,
		mig->has_target ? &mig->target : NULL, mig->proto.secret,
		mig->proto.peer_challenge, mig->proto.epoch);
}

/**
 * rxe_mig_kick - run a QP's deferred work
 * @mig: its migration state
 * @delay_ms: milliseconds from now; an earlier time already set is replaced
 *
 * Any context.
 */
void rxe_mig_kick(struct rxe_mig_qp *mig, unsigned int delay_ms)
{
	struct rxe_mig_dev *dev = to_rdev(mig->qp->ibqp.device)->mig;
	unsigned long flags;

	spin_lock_irqsave(&mig->lock, flags);
	if (!mig->dead)
		mod_delayed_work(dev->wq, &mig->work,
				 msecs_to_jiffies(delay_ms));
	spin_unlock_irqrestore(&mig->lock, flags);
}

static void set_deadline(struct rxe_mig_qp *mig, unsigned int ms)
{
	mig->bounded = ms;
	mig->deadline = jiffies + msecs_to_jiffies(ms);
}

static bool expired(struct rxe_mig_qp *mig)
{
	return mig->bounded && time_after_eq(jiffies, mig->deadline);
}

static void next_interval(struct rxe_mig_qp *mig, unsigned int max)
{
	rxe_mig_kick(mig, mig->interval);
	mig->interval = min(mig->interval * 2, max);
}

static void enter_running(struct rxe_mig_qp *mig)
{
	rxe_mig_quiesce(mig->qp);
	rxe_mig_set_state(mig, RXE_MIG_RUNNING);
	mig->has_target = false;
	mig->bounded = false;
}

static void enter_paused(struct rxe_mig_qp *mig)
{
	if (mig->state == RXE_MIG_PAUSED)
		return;
	rxe_mig_quiesce(mig->qp);
	rxe_mig_set_state(mig, RXE_MIG_PAUSED);
	set_deadline(mig, rxe_mig_pause_limit_ms);
	mig->interval = MIGROS_PROBE_MIN_MS;
}

/**
 * rxe_mig_announce - tell the partner of a Stopped QP [STOP-3]
 * @mig: its migration state
 */
void rxe_mig_announce(struct rxe_mig_qp *mig)
{
	struct rxe_qp *qp = mig->qp;

	if (qp_type(qp) != IB_QPT_RC || qp_state(qp) < IB_QPS_RTR ||
	    qp_state(qp) == IB_QPS_ERR)
		return;
	mig->interval = MIGROS_RETRY_MIN_MS;
	set_deadline(mig, MIGROS_ANNOUNCE_MS);
	rxe_mig_kick(mig, 0);
}

/**
 * rxe_mig_go_live - end of Stopped: RESUME if there is a partner [RESUME-1]
 * @mig: migration state of a Stopped QP
 */
void rxe_mig_go_live(struct rxe_mig_qp *mig)
{
	struct rxe_qp *qp = mig->qp;

	mig->restored = false;
	if (qp_type(qp) != IB_QPT_RC || qp_state(qp) < IB_QPS_RTR ||
	    qp_state(qp) == IB_QPS_ERR) {
		enter_running(mig);
		return;
	}
	rxe_mig_quiesce(qp);
	rxe_mig_set_state(mig, RXE_MIG_RESUMING);
	/* the challenge in the snapshot may be as old as the snapshot */
	mig->proto.peer_challenge = 0;
	mig->interval = MIGROS_RETRY_MIN_MS;
	set_deadline(mig, mig->proto.flags & RXE_MIG_PROTO_PEER_STOPPED ?
		     rxe_mig_pause_limit_ms : rxe_mig_resume_limit_ms);
	rxe_mig_kick(mig, 0);
}

static void resume_tick(struct rxe_mig_qp *mig)
{
	struct rxe_mig_path path;

	if (expired(mig)) {
		/* Leave it to the stock timers, as if the partner were just
		 * not answering; an idle QP stays as it is [RESUME-7].
		 */
		enter_running(mig);
		return;
	}
	send_resume(mig);
	rxe_mig_path_of(mig->qp, &path);
	if (memcmp(&path.sgid, &mig->old_gid, sizeof(path.sgid)))
		send_op(mig, MIGROS_OP_RESUME, MIGROS_F_SELF, &mig->old_gid,
			mig->proto.secret, 0, mig->proto.epoch);
	next_interval(mig, MIGROS_RETRY_MAX_MS);
}

/**
 * rxe_mig_forget_peer - the QP was reset: what follows is a new connection
 * @mig: its migration state
 */
void rxe_mig_forget_peer(struct rxe_mig_qp *mig)
{
	if (mig->state == RXE_MIG_PAUSED || mig->state == RXE_MIG_RESUMING ||
	    mig->nak)
		enter_running(mig);
	mig->proto.flags = 0;
	mig->proto.peer_epoch = 0;
	mig->proto.peer_secret = 0;
	mig->proto.peer_challenge = 0;
	mig->proto.resumed_epoch = 0;
	mig->proto.challenge = get_random_u64();
}

/**
 * rxe_mig_work - timer and deferred work of one QP
 * @work: its delayed work
 */
void rxe_mig_work(struct work_struct *work)
{
	struct rxe_mig_qp *mig = container_of(work, struct rxe_mig_qp,
					      work.work);
	struct rxe_qp *qp = mig->qp;

	rxe_mig_qp_lock(qp);
	if (mig->dead)
		goto out;

	if (qp_state(qp) == IB_QPS_RESET || qp_state(qp) == IB_QPS_ERR) {
		/* the application, or an error, took it out [PAUSE-6] */
		if (mig->state == RXE_MIG_PAUSED ||
		    mig->state == RXE_MIG_RESUMING || mig->nak)
			enter_running(mig);
		goto out;
	}

	switch (mig->state) {
	case RXE_MIG_RUNNING:
		if (mig->nak) {
			enter_paused(mig);
			send_probe(mig, NULL);
			next_interval(mig, MIGROS_PROBE_MAX_MS);
		}
		break;
	case RXE_MIG_STOPPED:
		if (!mig->restored && !expired(mig)) {
			send_pause(mig);
			next_interval(mig, MIGROS_RETRY_MAX_MS);
		}
		break;
	case RXE_MIG_PAUSED:
		if (expired(mig)) {
			rxe_mig_fail(mig);
			break;
		}
		send_probe(mig, mig->has_target ? &mig->target : NULL);
		next_interval(mig, MIGROS_PROBE_MAX_MS);
		break;
	case RXE_MIG_RESUMING:
		resume_tick(mig);
		break;
	}
out:
	rxe_mig_qp_unlock(qp);
}

/**
 * rxe_mig_answer_request - a request reached a Stopped QP [STOP-4, CAP-3]
 * @qp: the QP
 * @psn: PSN of the request
 *
 * Called from the receive task.  A PSN above the expected one would, as NAK,
 * acknowledge requests that were never seen, so it gets no answer.
 */
void rxe_mig_answer_request(struct rxe_qp *qp, u32 psn)
{
	struct rxe_mig_qp *mig = READ_ONCE(qp->mig);
	struct rxe_dev *rxe = to_rdev(qp->ibqp.device);
	struct rxe_mig_path path;

	/* a restored QP may not have its state yet */
	if (!mig || mig->restored || psn_compare(psn, qp->resp.psn) > 0)
		return;

	rxe_mig_path_of(qp, &path);
	if (mig->proto.flags & RXE_MIG_PROTO_PEER_CAPABLE)
		rxe_mig_send_nak(rxe, &path, MIGROS_SYN_NAK_STOPPED,
				 mig->proto.peer_challenge & MIGROS_TOKEN_MASK,
				 qp->attr.dest_qp_num, psn);
	else
		rxe_mig_send_nak(rxe, &path, AETH_RNR_NAK |
				 IB_RNR_TIMER_655_36, qp->resp.msn,
				 qp->attr.dest_qp_num, psn);
}

/**
 * rxe_mig_nak_stopped - the completer received NAK_STOPPED [PAUSE-2]
 * @qp: the QP
 * @pkt: the acknowledge packet
 *
 * Called from the send task itself, which therefore may not be disabled
 * here: swap its function and let the worker do the rest.  Without our
 * challenge in it the NAK changes nothing.
 */
void rxe_mig_nak_stopped(struct rxe_qp *qp, struct rxe_pkt_info *pkt)
{
	struct rxe_mig_qp *mig = READ_ONCE(qp->mig);
	u32 token;

	if (!mig || mig->state != RXE_MIG_RUNNING)
		return;
	token = be32_to_cpu(*(__be32 *)(pkt->hdr + RXE_BTH_BYTES)) &
		MIGROS_TOKEN_MASK;
	if (!mig->proto.challenge ||
	    token != (mig->proto.challenge & MIGROS_TOKEN_MASK))
		return;

	/* not if the worker is just swapping it for something else */
	if (cmpxchg(&qp->send_task.func, rxe_sender, rxe_mig_paused_send) !=
	    rxe_sender)
		return;
	mig->nak = true;
	rxe_mig_kick(mig, 0);
}

static bool from_peer(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	struct rxe_mig_path path;

	rxe_mig_path_of(mig->qp, &path);
	return !memcmp(&path.dgid, &p->saddr, sizeof(p->saddr));
}

/* from where our packets go: the peer, or where MOVED sent us */
static bool from_target(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	return mig->has_target &&
	       !memcmp(&mig->target, &p->saddr, sizeof(p->saddr));
}

/* Late packets of an earlier epoch, or of one that has been resumed */
static bool stale_epoch(struct rxe_mig_qp *mig, u32 epoch)
{
	return (s32)(epoch - mig->proto.resumed_epoch) <= 0;
}

/* [PAUSE-3]: believed only with our challenge, sent to our peer's address */
static void on_pause(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	u64 echo = be64_to_cpu(p->eth.echo);
	u32 epoch = be32_to_cpu(p->eth.epoch);

	if (stale_epoch(mig, epoch))
		return;
	if (echo != mig->proto.challenge ||
	    !(from_peer(mig, p) || from_target(mig, p))) {
		send_probe(mig, NULL);
		return;
	}
	mig->proto.peer_secret = be64_to_cpu(p->eth.nonce);
	mig->proto.peer_epoch = epoch;
	mig->proto.flags |= RXE_MIG_PROTO_PEER_STOPPED;

	if (mig->state == RXE_MIG_RUNNING) {
		enter_paused(mig);
		rxe_mig_kick(mig, mig->interval);
	} else if (mig->state == RXE_MIG_RESUMING) {
		/* wait as long as a Paused QP would */
		set_deadline(mig, rxe_mig_pause_limit_ms);
	}
	if (!(p->eth.flags & MIGROS_F_TOMBSTONE))
		send_probe(mig, NULL);
}

/* [PAUSE-4] */
static void on_probe(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	u64 challenge = be64_to_cpu(p->eth.nonce);
	bool paused = p->eth.flags & MIGROS_F_PAUSED;

	switch (mig->state) {
	case RXE_MIG_STOPPED:
		if (mig->restored || !from_peer(mig, p))
			return;
		mig->proto.peer_challenge = challenge;
		mig->proto.flags |= RXE_MIG_PROTO_PEER_CAPABLE;
		if (paused && be32_to_cpu(p->eth.epoch) == mig->proto.epoch)
			set_deadline(mig, 1);	/* announced: no more */
		else
			send_pause(mig);
		break;
	case RXE_MIG_RESUMING:
		if (!from_peer(mig, p) && !from_target(mig, p))
			return;
		mig->proto.peer_challenge = challenge;
		send_resume(mig);
		break;
	case RXE_MIG_RUNNING:
	case RXE_MIG_PAUSED:
		if (from_peer(mig, p))
			send_op(mig, MIGROS_OP_RUNNING, 0, NULL, 0, challenge,
				mig->proto.epoch);
		break;
	}
}

/* [PAUSE-5]: a pause without a migration behind it heals */
static void on_running(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	if (mig->state != RXE_MIG_PAUSED || !from_peer(mig, p) ||
	    be64_to_cpu(p->eth.echo) != mig->proto.challenge)
		return;
	mig->proto.flags &= ~RXE_MIG_PROTO_PEER_STOPPED;
	enter_running(mig);
}

static void ack_resume(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	send_op(mig, MIGROS_OP_RESUME_ACK, 0, &p->saddr, 0,
		be64_to_cpu(p->eth.nonce), be32_to_cpu(p->eth.epoch));
}

/* [RESUME-3, RESUME-4] */
static void on_resume(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	u64 nonce = be64_to_cpu(p->eth.nonce);
	u32 epoch = be32_to_cpu(p->eth.epoch);
	bool known, routable;

	if (stale_epoch(mig, epoch)) {
		/* our answer was lost; nobody else may have this address */
		if (epoch == mig->proto.resumed_epoch && from_peer(mig, p) &&
		    nonce == mig->proto.peer_secret)
			ack_resume(mig, p);
		return;
	}

	/* Our image may be written already: what we learned now would be
	 * lost with this QP.  PAUSE holds our secret, so it goes to the
	 * address we know or nowhere [RESUME-6].
	 */
	if (mig->state == RXE_MIG_STOPPED) {
		if (!mig->restored && from_peer(mig, p))
			send_pause(mig);
		return;
	}

	known = mig->proto.flags & RXE_MIG_PROTO_PEER_STOPPED &&
		epoch == mig->proto.peer_epoch &&
		nonce == mig->proto.peer_secret;
	routable = from_peer(mig, p) &&
		   be64_to_cpu(p->eth.echo) == mig->proto.challenge;
	if (!known && !routable) {
		send_probe(mig, NULL);
		return;
	}

	rxe_mig_quiesce(mig->qp);
	/* with the old address too: MAC and route have changed */
	rxe_mig_set_peer(mig, &p->saddr);
	mig->proto.resumed_epoch = epoch;
	mig->proto.peer_epoch = epoch;
	mig->proto.peer_secret = nonce;
	mig->proto.flags &= ~RXE_MIG_PROTO_PEER_STOPPED;
	mig->proto.challenge = get_random_u64();
	mig->has_target = false;

	if (mig->state == RXE_MIG_RESUMING) {
		/* both ends moved: ours is still to be confirmed */
		rxe_mig_set_state(mig, RXE_MIG_RESUMING);
		mig->proto.peer_challenge = 0;
		rxe_mig_kick(mig, 0);
	} else {
		rxe_mig_set_state(mig, RXE_MIG_RUNNING);
		mig->bounded = false;
	}
	ack_resume(mig, p);
}

/* [RESUME-5] */
static void on_resume_ack(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	if (mig->state != RXE_MIG_RESUMING ||
	    be64_to_cpu(p->eth.echo) != mig->proto.secret ||
	    be32_to_cpu(p->eth.epoch) != mig->proto.epoch)
		return;

	rxe_mig_quiesce(mig->qp);
	if (!from_peer(mig, p))
		rxe_mig_set_peer(mig, &p->saddr);
	if (mig->proto.flags & RXE_MIG_PROTO_PEER_STOPPED) {
		/* it has our address and is Stopped itself */
		rxe_mig_set_state(mig, RXE_MIG_PAUSED);
		set_deadline(mig, rxe_mig_pause_limit_ms);
		mig->interval = MIGROS_PROBE_MIN_MS;
		rxe_mig_kick(mig, mig->interval);
		return;
	}
	rxe_mig_set_state(mig, RXE_MIG_RUNNING);
	mig->has_target = false;
	mig->bounded = false;
}

/* [TOMB-5]: only the host we wrote to has seen the nonce it echoes */
static void on_moved(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	u64 echo = be64_to_cpu(p->eth.echo);

	if (!from_peer(mig, p))
		return;
	if ((mig->state == RXE_MIG_RESUMING && echo == mig->proto.secret) ||
	    (mig->state == RXE_MIG_PAUSED && echo == mig->proto.challenge)) {
		memcpy(&mig->target, p->eth.gid, sizeof(mig->target));
		mig->has_target = true;
		mig->interval = MIGROS_RETRY_MIN_MS;
		rxe_mig_kick(mig, 0);
	}
}

static void handle(struct rxe_mig_dev *dev, struct rxe_mig_pkt *p)
{
	struct rxe_mig_qp *mig;
	struct rxe_qp *qp;

	qp = rxe_pool_get_index(&dev->rxe->qp_pool, p->qpn);
	if (!qp) {
		rxe_mig_tomb_rcv(dev, p);
		return;
	}

	if (qp_type(qp) != IB_QPT_RC || !qp->valid ||
	    qp_state(qp) < IB_QPS_RTR || qp_state(qp) == IB_QPS_ERR ||
	    be32_to_cpu(p->eth.src_qpn) != qp->attr.dest_qp_num)
		goto put;

	mig = rxe_mig_get(qp, GFP_KERNEL);
	if (!mig)
		goto put;

	rxe_mig_qp_lock(qp);
	if (!mig->dead) {
		switch (p->opcode) {
		case MIGROS_OP_PAUSE:
			on_pause(mig, p);
			break;
		case MIGROS_OP_PROBE:
			on_probe(mig, p);
			break;
		case MIGROS_OP_RUNNING:
			on_running(mig, p);
			break;
		case MIGROS_OP_RESUME:
			on_resume(mig, p);
			break;
		case MIGROS_OP_RESUME_ACK:
			on_resume_ack(mig, p);
			break;
		case MIGROS_OP_MOVED:
			on_moved(mig, p);
			break;
		}
	}
	rxe_mig_qp_unlock(qp);
put:
	rxe_put(qp);
}

/**
 * rxe_mig_rx_work - work through received packets
 * @work: dev->rx_work
 */
void rxe_mig_rx_work(struct work_struct *work)
{
	struct rxe_mig_dev *dev = container_of(work, struct rxe_mig_dev,
					       rx_work);
	struct rxe_mig_pkt *p;

	for (;;) {
		spin_lock_irq(&dev->rx_lock);
		p = list_first_entry_or_null(&dev->rx_list, struct rxe_mig_pkt,
					     entry);
		if (p) {
			list_del(&p->entry);
			dev->rx_count--;
		}
		spin_unlock_irq(&dev->rx_lock);
		if (!p)
			break;
		handle(dev, p);
		kfree(p);
		cond_resched();
	}
}
