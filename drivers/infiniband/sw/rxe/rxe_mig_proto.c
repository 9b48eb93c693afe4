// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * The migration protocol between two QPs.  Clause numbers are those of
 * docs/protocol.md; its state table (section 12) is this file.
 *
 * Everything here but rxe_mig_nak_stopped() runs in process context, one
 * packet or timer at a time per QP, under the QP mutex.
 */
#include "rxe_mig.h"
#include "rxe_mig_trace.h"
#include "rxe_queue.h"

#define PEER_STOPPED(mig) ((mig)->proto.flags & RXE_MIG_PROTO_PEER_STOPPED)
#define PEER_CAPABLE(mig) ((mig)->proto.flags & RXE_MIG_PROTO_PEER_CAPABLE)

/* ---- where packets come from ---- */

static bool from(const union ib_gid *gid, const struct rxe_mig_pkt *p)
{
	return !memcmp(gid, &p->saddr, sizeof(*gid));
}

static bool from_peer(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	struct rxe_mig_path path;

	rxe_mig_path_of(mig->qp, &path);
	return from(&path.dgid, p);
}

/* our nonces go nowhere else [AUTH-3, ACC-4] */
static bool trusted(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	return from_peer(mig, p) || (mig->has_forward && from(&mig->forward, p));
}

/**
 * rxe_mig_meets_itself - does what a QP sends to its partner come back to it?
 * @mig: its migration state
 *
 * Both ends have the same QP number, and this one has come to where the
 * partner was [TOMB-2].
 */
bool rxe_mig_meets_itself(struct rxe_mig_qp *mig)
{
	struct rxe_mig_path path;

	if (!mig->moved || mig->qp->attr.dest_qp_num != qp_num(mig->qp))
		return false;
	rxe_mig_path_of(mig->qp, &path);
	return !memcmp(&path.sgid, &path.dgid, sizeof(path.sgid));
}

/* It asks for its partner, whose tombstone may be here [TOMB-2] */
static bool its_own(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	return (p->opcode == MIGROS_OP_PROBE ||
		p->opcode == MIGROS_OP_RESUME) &&
	       from_peer(mig, p) && rxe_mig_meets_itself(mig);
}

/* ---- sending ---- */

static void send_to(struct rxe_mig_qp *mig, const struct rxe_mig_path *path,
		    u8 opcode, u8 flags, u64 nonce, u64 echo, u32 epoch,
		    const union ib_gid *gid)
{
	struct rxe_qp *qp = mig->qp;
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
	u32 qpn = flags & MIGROS_F_SELF ? qp_num(qp) : qp->attr.dest_qp_num;

	memcpy(eth.gid, gid ? gid->raw : path->sgid.raw, sizeof(eth.gid));
	rxe_mig_send(to_rdev(qp->ibqp.device), path, opcode, qpn,
		     qp->comp.psn & BTH_PSN_MASK, &eth);
}

/* to one address: NULL is the AV */
static void send_op(struct rxe_mig_qp *mig, u8 opcode, u8 flags,
		    const union ib_gid *to, u64 nonce, u64 echo, u32 epoch)
{
	struct rxe_mig_path path;

	if (!rxe_mig_may_send(&mig->rate, opcode))
		return;
	rxe_mig_path_of(mig->qp, &path);
	if (to)
		path.dgid = *to;
	send_to(mig, &path, opcode, flags, nonce, echo, epoch, NULL);
}

/* to the AV and to where a MOVED sent us: all that may see a nonce [AUTH-3] */
static void send_both(struct rxe_mig_qp *mig, u8 opcode, u8 flags, u64 nonce,
		      u64 echo)
{
	struct rxe_mig_path path;

	if (!rxe_mig_may_send(&mig->rate, opcode))
		return;
	rxe_mig_path_of(mig->qp, &path);
	send_to(mig, &path, opcode, flags, nonce, echo, mig->proto.epoch, NULL);
	if (mig->has_forward) {
		path.dgid = mig->forward;
		send_to(mig, &path, opcode, flags, nonce, echo,
			mig->proto.epoch, NULL);
	}
}

static void send_pause(struct rxe_mig_qp *mig)
{
	send_both(mig, MIGROS_OP_PAUSE, 0, mig->proto.secret,
		  mig->proto.peer_challenge);
}

static u8 probe_flags(struct rxe_mig_qp *mig)
{
	return PEER_STOPPED(mig) || mig->nak_paused ? MIGROS_F_PAUSED : 0;
}

static void send_probe(struct rxe_mig_qp *mig)
{
	send_both(mig, MIGROS_OP_PROBE, probe_flags(mig), mig->proto.challenge,
		  PEER_STOPPED(mig) ? mig->proto.peer_secret : 0);
}

/* Its nonce, echoed, makes us known as capable [CAP-1, ACC-4] */
static void answer_probe(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	u64 nonce = be64_to_cpu(p->eth.nonce);

	if (trusted(mig, p))
		send_op(mig, MIGROS_OP_PROBE, probe_flags(mig), &p->saddr,
			mig->proto.challenge, nonce, mig->proto.epoch);
	else
		send_both(mig, MIGROS_OP_PROBE, probe_flags(mig),
			  mig->proto.challenge, nonce);
}

static void send_resume(struct rxe_mig_qp *mig)
{
	send_both(mig, MIGROS_OP_RESUME, 0, mig->proto.secret,
		  mig->proto.peer_challenge);
}

static void send_moved(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	struct rxe_mig_path path;

	if (!rxe_mig_may_send(&mig->rate, MIGROS_OP_MOVED))
		return;
	rxe_mig_path_of(mig->qp, &path);
	path.dgid = p->saddr;
	send_to(mig, &path, MIGROS_OP_MOVED, 0, 0, be64_to_cpu(p->eth.nonce),
		mig->proto.epoch, &mig->self_forward);
}

/**
 * rxe_mig_send_stopped - what a request is told whose QP is Stopped [CAP-2]
 * @rxe: device
 * @path: to the partner
 * @proto: protocol state of the Stopped QP
 * @qpn: the partner
 * @psn: PSN of the request, not beyond what the Stopped QP expects [STOP-6]
 * @msn: MSN of the Stopped QP
 * @stopped_at: jiffies of the stop
 * @rnr_retry: its own, taken as a guess of the partner's
 *
 * Return: true if PAUSE has to be sent, too, because the partner may have lost
 * each one before.
 */
bool rxe_mig_send_stopped(struct rxe_dev *rxe, const struct rxe_mig_path *path,
			  const struct rxe_mig_proto *proto, u32 qpn, u32 psn,
			  u32 msn, unsigned long stopped_at, u32 rnr_retry)
{
	if (rxe_mig_knows_peer(proto)) {
		rxe_mig_send_nak(rxe, path, MIGROS_SYN_NAK_STOPPED,
				 proto->peer_challenge & MIGROS_TOKEN_MASK,
				 qpn, psn);
		return false;
	}
	if (!time_after(jiffies, stopped_at +
				 msecs_to_jiffies(MIGROS_CAP_WAIT_MS)))
		return false;
	if (rnr_retry)
		rxe_mig_send_nak(rxe, path, AETH_RNR_NAK | IB_RNR_TIMER_655_36,
				 msn, qpn, psn);
	return true;
}

/**
 * rxe_mig_answer_request - a request reached a Stopped QP [STOP-6]
 * @qp: the QP; its receive task calls
 * @psn: PSN of the request
 */
void rxe_mig_answer_request(struct rxe_qp *qp, u32 psn)
{
	struct rxe_mig_qp *mig = READ_ONCE(qp->mig);
	struct rxe_mig_path path;

	/* a restored QP may not have its state yet */
	if (!mig || rxe_mig_restored(mig) || psn_compare(psn, qp->resp.psn) > 0)
		return;
	rxe_mig_path_of(qp, &path);
	if (rxe_mig_send_stopped(to_rdev(qp->ibqp.device), &path, &mig->proto,
				 qp->attr.dest_qp_num, psn, qp->resp.msn,
				 mig->stopped_at, qp->attr.rnr_retry)) {
		mig->want_pause = true;
		rxe_mig_kick(mig, 0);
	}
}

/* ---- states and timers ---- */

/**
 * rxe_mig_kick - run a QP's deferred work
 * @mig: its migration state
 * @delay_ms: milliseconds from now; replaces a time set before
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

static bool pause_expired(struct rxe_mig_qp *mig)
{
	return rxe_mig_pause_limit_ms && mig->held &&
	       time_after_eq(jiffies, mig->held_at +
			     msecs_to_jiffies(rxe_mig_pause_limit_ms));
}

static void next_interval(struct rxe_mig_qp *mig, unsigned int max)
{
	/* up to a quarter more, so that thousands of QPs spread [TIME-2] */
	rxe_mig_kick(mig, mig->interval +
			  get_random_u32_below(mig->interval / 4 + 1));
	mig->interval = min(mig->interval * 2, max);
}

/* may take part: connected, and in a state that knows its partner [ACC-1] */
static bool connected(struct rxe_qp *qp)
{
	return qp_type(qp) == IB_QPT_RC && qp_state(qp) >= IB_QPS_RTR &&
	       qp_state(qp) <= IB_QPS_SQD;
}

static void count(struct rxe_mig_qp *mig, enum rxe_mig_counter counter)
{
	rxe_mig_count(to_rdev(mig->qp->ibqp.device), counter);
}

/* The state that follows from the variables; @restart: retransmit in any case */
static void settle(struct rxe_mig_qp *mig, bool restart)
{
	enum rxe_mig_state to = RXE_MIG_RUNNING;

	if (mig->state == RXE_MIG_STOPPED && !restart)
		return;

	/* A stock partner never answers.  If the address came along, its and
	 * our retransmission are all that is needed [RESUME-2, CAP-4].
	 */
	if (mig->resume_pending && !mig->resume_over &&
	    (mig->moved || PEER_CAPABLE(mig)))
		to = RXE_MIG_RESUMING;
	else if (PEER_STOPPED(mig) || mig->nak_paused)
		to = RXE_MIG_PAUSED;

	if (to == RXE_MIG_RUNNING) {
		rxe_mig_held_ends(mig);
	} else if (!mig->held) {
		mig->held = true;
		mig->held_at = jiffies;
	}
	if (to == mig->state && !restart && !mig->nak)
		return;
	if (to == RXE_MIG_PAUSED && mig->state != RXE_MIG_PAUSED)
		count(mig, RXE_MIG_CNT_PAUSES);
	rxe_mig_quiesce(mig->qp);
	rxe_mig_set_state(mig, to);
	if (to == RXE_MIG_PAUSED) {
		mig->interval = MIGROS_PROBE_MIN_MS;
		next_interval(mig, MIGROS_PROBE_MAX_MS);
	}
}

/**
 * rxe_mig_ask - does the partner speak this protocol? [CAP-6]
 * @qp: a QP
 *
 * One PROBE, if that is not known.  The answer brings what a NAK_STOPPED needs.
 * Process context, without the QP mutex.
 */
void rxe_mig_ask(struct rxe_qp *qp)
{
	struct rxe_mig_qp *mig;

	if (!connected(qp))
		return;
	mig = rxe_mig_get(qp, GFP_KERNEL);
	if (!mig)
		return;	/* it is asked when it is told of the Stop */
	rxe_mig_qp_lock(qp);
	if (!mig->dead && connected(qp) && mig->state == RXE_MIG_RUNNING &&
	    !rxe_mig_knows_peer(&mig->proto))
		send_probe(mig);
	rxe_mig_qp_unlock(qp);
}

/**
 * rxe_mig_announce - tell the partner of a Stopped QP [STOP-7]
 * @mig: its migration state
 */
void rxe_mig_announce(struct rxe_mig_qp *mig)
{
	if (!connected(mig->qp))
		return;
	mig->interval = MIGROS_RETRY_MIN_MS;
	set_deadline(mig, MIGROS_ANNOUNCE_MS);
	rxe_mig_kick(mig, 0);
}

/* RESUME is repeated from now on, until RESUME_LIMIT [RESUME-1, RESUME-9] */
static void begin_resume(struct rxe_mig_qp *mig)
{
	mig->resume_over = false;
	mig->interval = MIGROS_RETRY_MIN_MS;
	set_deadline(mig, rxe_mig_resume_limit_ms);
}

/**
 * rxe_mig_go_live - end of Stopped: RESUME if there is a partner [RESUME-1]
 * @mig: migration state of a Stopped QP
 */
void rxe_mig_go_live(struct rxe_mig_qp *mig)
{
	struct rxe_mig_path path;

	mig->qp->elem.mig_phase = RXE_MIG_LIVE;
	mig->resume_pending = connected(mig->qp);
	if (mig->resume_pending) {
		rxe_mig_path_of(mig->qp, &path);
		mig->moved = memcmp(&path.sgid, &mig->old_gid,
				    sizeof(path.sgid));
		begin_resume(mig);
	}
	settle(mig, true);
	if (mig->resume_pending)
		rxe_mig_kick(mig, 0);
}

/**
 * rxe_mig_forget_peer - the QP was reset: what follows is a new connection
 * @mig: its migration state
 */
void rxe_mig_forget_peer(struct rxe_mig_qp *mig)
{
	bool held = mig->state != RXE_MIG_RUNNING || mig->nak;

	mig->proto.flags = 0;
	mig->proto.peer_epoch = 0;
	mig->proto.peer_secret = 0;
	mig->proto.peer_challenge = 0;
	mig->proto.challenge = rxe_mig_nonce();
	mig->resume_pending = false;
	mig->nak_paused = false;
	mig->has_forward = false;
	mig->moved = false;
	if (held)
		settle(mig, true);
}

/* Until it is heard or over; then to whoever still asks [STOP-7, CAP-2] */
static void announce(struct rxe_mig_qp *mig)
{
	bool over = rxe_mig_restored(mig) || expired(mig);

	if (!over || mig->want_pause)
		send_pause(mig);
	mig->want_pause = false;
	if (!over)
		next_interval(mig, MIGROS_RETRY_MAX_MS);
}

static void tick(struct rxe_mig_qp *mig)
{
	struct rxe_mig_path path;

	if (mig->want_probe) {
		mig->want_probe = false;
		send_probe(mig);
	}
	if (mig->nak) {
		mig->nak_paused = true;
		settle(mig, true);
		send_probe(mig);
		return;
	}

	if (mig->state == RXE_MIG_STOPPED) {
		announce(mig);
		return;
	}

	if ((PEER_STOPPED(mig) || mig->nak_paused)) {
		if (pause_expired(mig) && rxe_mig_fail(mig))
			return;
		send_probe(mig);
	}

	if (mig->resume_pending && !mig->resume_over) {
		bool over = expired(mig) && !PEER_STOPPED(mig);

		/* it would take its own packets for the partner's */
		if (over && rxe_mig_meets_itself(mig)) {
			if (rxe_mig_fail(mig))
				return;
		} else if (over) {
			mig->resume_over = true;
			settle(mig, false);
			return;
		}
		send_resume(mig);
		rxe_mig_path_of(mig->qp, &path);
		if (mig->moved)
			send_op(mig, MIGROS_OP_RESUME, MIGROS_F_SELF,
				&mig->old_gid, mig->proto.secret, 0,
				mig->proto.epoch);
		next_interval(mig, MIGROS_RETRY_MAX_MS);
	} else if (PEER_STOPPED(mig) || mig->nak_paused) {
		next_interval(mig, MIGROS_PROBE_MAX_MS);
	}
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
	if (!mig->dead) {
		if (connected(qp)) {
			tick(mig);
		} else if (mig->state != RXE_MIG_STOPPED &&
			   (mig->state != RXE_MIG_RUNNING || mig->nak)) {
			/* an error, or the application, took it out */
			rxe_mig_quiesce(qp);
			rxe_mig_held_ends(mig);
			rxe_mig_set_state(mig, RXE_MIG_RUNNING);
		}
	}
	rxe_mig_qp_unlock(qp);
}

/**
 * rxe_mig_nak_stopped - the completer received NAK_STOPPED [PAUSE-4, PAUSE-5]
 * @qp: the QP
 * @pkt: the acknowledge packet; rxe has checked its source address
 *
 * Called from the send task itself, which therefore may not be disabled
 * here: swap its function and let the worker do the rest.
 */
void rxe_mig_nak_stopped(struct rxe_qp *qp, struct rxe_pkt_info *pkt)
{
	struct rxe_mig_qp *mig = rxe_mig_get(qp, GFP_ATOMIC);
	u32 token = be32_to_cpu(*(__be32 *)(pkt->hdr + RXE_BTH_BYTES)) &
		    MIGROS_TOKEN_MASK;

	if (!mig)
		return;
	count(mig, RXE_MIG_CNT_RCVD_NAK_STOPPED);
	if (token != (mig->proto.challenge & MIGROS_TOKEN_MASK) ||
	    psn_compare(pkt->psn, qp->comp.psn) < 0 ||
	    psn_compare(pkt->psn, qp->req.psn) >= 0) {
		count(mig, RXE_MIG_CNT_REFUSED);
		mig->want_probe = true;
	} else {
		/* not if a worker is just swapping it for something else */
		if (cmpxchg(&qp->send_task.func, rxe_sender,
			    rxe_mig_paused_send) != rxe_sender)
			return;
		mig->nak = true;
	}
	rxe_mig_kick(mig, 0);
}

/* ---- receiving ---- */

static bool matches(u64 field, u64 variable)
{
	return field && field == variable;
}

/* [EPOCH-2] */
static bool fresh(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	u32 epoch = be32_to_cpu(p->eth.epoch);

	return (s32)(epoch - mig->proto.peer_epoch) > 0 ||
	       (epoch == mig->proto.peer_epoch && PEER_STOPPED(mig));
}

/* [PAUSE-1, PAUSE-2] */
static void on_pause(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	u64 nonce = be64_to_cpu(p->eth.nonce);

	if (mig->state == RXE_MIG_STOPPED)
		return;
	if (!fresh(mig, p)) {
		count(mig, RXE_MIG_CNT_REFUSED);
		return;
	}
	if (matches(be64_to_cpu(p->eth.echo), mig->proto.challenge)) {
		mig->proto.peer_epoch = be32_to_cpu(p->eth.epoch);
		mig->proto.peer_secret = nonce;
		mig->proto.flags |= RXE_MIG_PROTO_PEER_STOPPED |
				    RXE_MIG_PROTO_PEER_CAPABLE;
		mig->nak_paused = false;
		settle(mig, false);
	} else if (p->eth.echo) {	/* without one it does not know us yet */
		count(mig, RXE_MIG_CNT_REFUSED);
	}
	answer_probe(mig, p);
}

/* [PAUSE-7, PAUSE-9] */
static void on_probe(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	u64 nonce = be64_to_cpu(p->eth.nonce);
	bool known = matches(be64_to_cpu(p->eth.echo), mig->proto.secret);

	if (mig->state != RXE_MIG_STOPPED) {
		if (mig->resume_pending && trusted(mig, p))
			send_op(mig, MIGROS_OP_RESUME, 0, &p->saddr,
				mig->proto.secret, nonce, mig->proto.epoch);
		else if (!mig->resume_pending && from_peer(mig, p))
			send_op(mig, MIGROS_OP_RUNNING, 0, &p->saddr,
				mig->proto.challenge, nonce, mig->proto.epoch);
		return;
	}

	if (known) {
		mig->proto.flags |= RXE_MIG_PROTO_PEER_CAPABLE;
		mig->proto.peer_challenge = nonce;
		if (p->eth.flags & MIGROS_F_PAUSED)
			set_deadline(mig, 1);	/* announced */
	}
	if (mig->has_self_forward)
		send_moved(mig, p);
	else if (trusted(mig, p) && !(known && p->eth.flags & MIGROS_F_PAUSED))
		send_op(mig, MIGROS_OP_PAUSE, 0, &p->saddr, mig->proto.secret,
			nonce, mig->proto.epoch);
}

/* [PAUSE-8] */
static void on_running(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	if (mig->state == RXE_MIG_STOPPED)
		return;
	if (!matches(be64_to_cpu(p->eth.echo), mig->proto.challenge)) {
		count(mig, RXE_MIG_CNT_REFUSED);
		return;
	}
	mig->proto.flags |= RXE_MIG_PROTO_PEER_CAPABLE;
	/* one that is known is newer, or this answers a later question */
	if (!mig->proto.peer_challenge)
		mig->proto.peer_challenge = be64_to_cpu(p->eth.nonce);
	mig->nak_paused = false;
	settle(mig, false);
}

/* How many PSNs the requests from the first unacknowledged one on take, at
 * least: what was sent of them is not known once the requester has gone back.
 */
static u64 psns_posted(struct rxe_qp *qp)
{
	struct rxe_queue *q = qp->sq.queue;
	u32 index = queue_get_consumer(q, QUEUE_TYPE_FROM_CLIENT);
	u32 prod = queue_get_producer(q, QUEUE_TYPE_FROM_CLIENT);
	u64 psns = 0;

	prod &= q->index_mask; /* the application can write it */
	for (; index != prod; index = queue_next_index(q, index)) {
		struct rxe_send_wqe *wqe = queue_addr_from_index(q, index);
		u32 length = READ_ONCE(wqe->dma.length);

		psns += length ? (length - 1) / qp->mtu + 1 : 1;
	}
	return psns;
}

/* Holds for every genuine snapshot.  Fails for a stale one, be it that which
 * the partner was made from or that which this QP was [RESUME-4].
 */
static bool numbers_agree(struct rxe_qp *qp, const struct rxe_mig_pkt *p)
{
	u32 rq = be32_to_cpu(p->eth.rq_psn) & BTH_PSN_MASK;
	u64 posted;

	if (qp_state(qp) < IB_QPS_RTS)
		return true;
	/* before comp.psn, which the completer moves behind the queue */
	posted = psns_posted(qp);
	return psn_compare(rq, qp->comp.psn) >= 0 &&
	       ((rq - qp->comp.psn) & BTH_PSN_MASK) <= posted;
}

static void ack_resume(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	send_op(mig, MIGROS_OP_RESUME_ACK, 0, &p->saddr, mig->proto.challenge,
		be64_to_cpu(p->eth.nonce), be32_to_cpu(p->eth.epoch));
}

static bool same_family(const union ib_gid *a, const union ib_gid *b)
{
	return ipv6_addr_v4mapped((struct in6_addr *)a->raw) ==
	       ipv6_addr_v4mapped((struct in6_addr *)b->raw);
}

/* [RESUME-5]: a worker, because both tasks must be idle for it */
static void apply_resume(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	rxe_mig_quiesce(mig->qp);
	/* with the old address too: MAC and route have changed */
	rxe_mig_set_peer(mig, &p->saddr);
	mig->proto.peer_epoch = be32_to_cpu(p->eth.epoch);
	mig->proto.peer_secret = be64_to_cpu(p->eth.nonce);
	mig->proto.flags &= ~RXE_MIG_PROTO_PEER_STOPPED;
	mig->proto.flags |= RXE_MIG_PROTO_PEER_CAPABLE;
	mig->proto.challenge = rxe_mig_nonce();
	mig->nak_paused = false;
	mig->nak = false;
	mig->has_forward = false;
	/* the partner waits for it, and could not answer before */
	if (mig->resume_pending)
		begin_resume(mig);
	count(mig, RXE_MIG_CNT_RESUMES);
	settle(mig, true);
	ack_resume(mig, p);
	if (mig->resume_pending)
		rxe_mig_kick(mig, 0);
}

/* Return: true if the snapshot is live elsewhere [TOMB-4, STOP-9] */
static bool on_self(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	if (mig->state != RXE_MIG_STOPPED || rxe_mig_restored(mig) ||
	    !matches(be64_to_cpu(p->eth.nonce), mig->proto.secret) ||
	    (s32)(be32_to_cpu(p->eth.epoch) - mig->proto.epoch) < 0)
		return false;
	mig->self_forward = p->saddr;
	mig->has_self_forward = true;
	return true;
}

/* [RESUME-3 to RESUME-7, TOMB-5] */
static void on_resume(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	u64 nonce = be64_to_cpu(p->eth.nonce);
	u32 epoch = be32_to_cpu(p->eth.epoch);
	struct rxe_mig_path path;
	bool peer;

	rxe_mig_path_of(mig->qp, &path);
	peer = from(&path.dgid, p);

	/* never acknowledged: our image may be written already [STOP-8] */
	if (mig->state == RXE_MIG_STOPPED) {
		if (mig->has_self_forward)
			send_moved(mig, p);
		else if (peer)
			send_op(mig, MIGROS_OP_PAUSE, 0, &p->saddr,
				mig->proto.secret, mig->proto.peer_challenge,
				mig->proto.epoch);
		return;
	}
	if (!fresh(mig, p)) {
		if (epoch == mig->proto.peer_epoch && peer &&
		    matches(nonce, mig->proto.peer_secret) &&
		    numbers_agree(mig->qp, p))
			ack_resume(mig, p);
		else
			count(mig, RXE_MIG_CNT_REFUSED);
		return;
	}
	if (!(PEER_STOPPED(mig) && matches(nonce, mig->proto.peer_secret)) &&
	    !matches(be64_to_cpu(p->eth.echo), mig->proto.challenge)) {
		if (PEER_STOPPED(mig) || p->eth.echo)
			count(mig, RXE_MIG_CNT_REFUSED);
		answer_probe(mig, p);
		return;
	}
	path.dgid = p->saddr;
	if (memcmp(p->eth.gid, &p->saddr, sizeof(p->saddr)) ||
	    !rxe_mig_reachable(to_rdev(mig->qp->ibqp.device), &path) ||
	    !numbers_agree(mig->qp, p)) {
		/* a stale image, or only a late packet: the next one tells */
		rxe_dbg_qp(mig->qp, "RESUME of epoch %u contradicts this QP\n",
			   epoch);
		count(mig, RXE_MIG_CNT_CONTRADICTED);
		return;
	}
	apply_resume(mig, p);
}

/* [RESUME-8] */
static void on_resume_ack(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	if (!mig->resume_pending)
		return;
	if (be32_to_cpu(p->eth.epoch) != mig->proto.epoch ||
	    !matches(be64_to_cpu(p->eth.echo), mig->proto.secret)) {
		count(mig, RXE_MIG_CNT_REFUSED);
		return;
	}
	mig->proto.flags |= RXE_MIG_PROTO_PEER_CAPABLE;
	mig->proto.peer_challenge = be64_to_cpu(p->eth.nonce);
	if (!from_peer(mig, p))
		return;	/* it has moved, too, and will say so itself */
	mig->resume_pending = false;
	mig->has_forward = false;
	settle(mig, mig->state == RXE_MIG_RESUMING);
}

/* [TOMB-6] */
static void on_moved(struct rxe_mig_qp *mig, const struct rxe_mig_pkt *p)
{
	u64 echo = be64_to_cpu(p->eth.echo);
	bool probe = matches(echo, mig->proto.challenge);
	struct rxe_mig_path path;
	union ib_gid gid;

	if (mig->state == RXE_MIG_STOPPED)
		return;
	if (!fresh(mig, p) ||
	    !(probe || (mig->resume_pending &&
			matches(echo, mig->proto.secret)))) {
		count(mig, RXE_MIG_CNT_REFUSED);
		return;
	}
	memcpy(&gid, p->eth.gid, sizeof(gid));
	rxe_mig_path_of(mig->qp, &path);
	if (!same_family(&path.dgid, &gid) ||
	    (mig->has_forward && !memcmp(&mig->forward, &gid, sizeof(gid))))
		return;
	mig->forward = gid;
	mig->has_forward = true;
	if (probe)
		send_probe(mig);
	else
		send_resume(mig);
}

/* Return: true if the QP's lease must be given up */
static bool dispatch(struct rxe_mig_qp *mig, struct rxe_mig_pkt *p)
{
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
		if (p->eth.flags & MIGROS_F_SELF)
			return on_self(mig, p);
		on_resume(mig, p);
		break;
	case MIGROS_OP_RESUME_ACK:
		on_resume_ack(mig, p);
		break;
	case MIGROS_OP_MOVED:
		on_moved(mig, p);
		break;
	}
	return false;
}

/* @otherwise: what it counts as if it is not for a tombstone */
static void to_tomb(struct rxe_mig_dev *dev, struct rxe_mig_pkt *p,
		    enum rxe_mig_counter otherwise)
{
	if (!rxe_mig_tomb_rcv(dev, p) && p->opcode >= MIGROS_OP_FIRST)
		rxe_mig_count(dev->rxe, otherwise);
}

/* [ACC-1, TOMB-2] */
static void handle(struct rxe_mig_dev *dev, struct rxe_mig_pkt *p)
{
	bool self = p->opcode == MIGROS_OP_RESUME &&
		    p->eth.flags & MIGROS_F_SELF;
	u32 src_qpn = be32_to_cpu(p->eth.src_qpn);
	struct rxe_mig_qp *mig;
	struct rxe_qp *qp;
	bool commit = false;
	bool tomb = self;

	if (p->opcode >= MIGROS_OP_FIRST)
		trace_rxe_mig_rcvd(dev->rxe, &p->saddr, &p->daddr, p->opcode,
				   p->qpn, &p->eth);
	qp = p->opcode < MIGROS_OP_FIRST ? NULL :
	     rxe_pool_get_index(&dev->rxe->qp_pool, p->qpn);
	if (!qp) {
		to_tomb(dev, p, RXE_MIG_CNT_DROPPED);
		return;
	}

	mig = READ_ONCE(qp->mig);
	if (!connected(qp) || !qp->valid || (mig && rxe_mig_restored(mig)) ||
	    src_qpn != (self ? qp_num(qp) : qp->attr.dest_qp_num)) {
		rxe_put(qp);
		to_tomb(dev, p, RXE_MIG_CNT_DROPPED);
		return;
	}

	mig = rxe_mig_get(qp, GFP_KERNEL);
	if (mig) {
		rxe_mig_qp_lock(qp);
		if (!mig->dead) {
			if (its_own(mig, p))
				tomb = true;
			else
				commit = dispatch(mig, p);
		}
		rxe_mig_qp_unlock(qp);
		if (commit)
			rxe_mig_lease_commit(mig);
		else if (tomb)
			to_tomb(dev, p, self ? RXE_MIG_CNT_REFUSED :
					       RXE_MIG_CNT_DROPPED);
	}
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
