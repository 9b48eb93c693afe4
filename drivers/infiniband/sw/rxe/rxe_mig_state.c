// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Migration states of a QP: Stopped, Paused, Resuming (paper section 3.2).
 *
 * A state is a pair of task functions.  do_task() already calls through
 * task->func, so a QP that is not migrating runs exactly the stock code.
 * attr.qp_state is never touched: applications see nothing of it.
 */
#include "rxe_mig.h"
#include "rxe_mig_trace.h"
#include "rxe_queue.h"

/* Both queues of skbs hold a reference on the QP and on the device */
static void drop_pkts(struct rxe_qp *qp, struct sk_buff_head *list)
{
	struct sk_buff *skb;

	while ((skb = skb_dequeue(list))) {
		rxe_put(qp);
		kfree_skb(skb);
		ib_device_put(qp->ibqp.device);
	}
}

/* The error and reset paths of the stock functions flush and drain; a QP in
 * those states is no longer migrating anything.
 */
static bool stock_must_run(struct rxe_qp *qp)
{
	return !qp->valid || qp_state(qp) == IB_QPS_ERR ||
	       qp_state(qp) == IB_QPS_RESET;
}

/* stands in while a QP is quiesced; do_task() reloads func every pass */
static int rxe_mig_park(struct rxe_qp *qp)
{
	return -EAGAIN;
}

static int rxe_mig_stopped_recv(struct rxe_qp *qp)
{
	struct sk_buff *skb;

	if (stock_must_run(qp))
		return rxe_receiver(qp);

	while ((skb = skb_dequeue(&qp->req_pkts))) {
		if (qp_type(qp) == IB_QPT_RC)
			rxe_mig_answer_request(qp, SKB_TO_PKT(skb)->psn);
		rxe_put(qp);
		kfree_skb(skb);
		ib_device_put(qp->ibqp.device);
	}
	return -EAGAIN;
}

/* The requester ends the drain of a send queue in SQD; while it is held an
 * empty queue is drained all the same [STATE-1].
 */
static void check_drained(struct rxe_qp *qp)
{
	struct ib_event ev = {
		.device = qp->ibqp.device,
		.element.qp = &qp->ibqp,
		.event = IB_EVENT_SQ_DRAINED,
	};
	bool drained = false;
	unsigned long flags;

	spin_lock_irqsave(&qp->state_lock, flags);
	if (qp_state(qp) == IB_QPS_SQD && qp->attr.sq_draining &&
	    queue_empty(qp->sq.queue, QUEUE_TYPE_FROM_CLIENT)) {
		qp->attr.sq_draining = 0;
		drained = true;
	}
	spin_unlock_irqrestore(&qp->state_lock, flags);
	if (drained && qp->ibqp.event_handler)
		qp->ibqp.event_handler(&ev, qp->ibqp.qp_context);
}

/**
 * rxe_mig_paused_send - send task of a Stopped, Paused or Resuming QP
 * @qp: the QP
 *
 * Sends nothing and ignores acknowledgements and timers (paper figure 6a,
 * 6c): what it drops is asked for again after RESUME.
 */
int rxe_mig_paused_send(struct rxe_qp *qp)
{
	if (stock_must_run(qp))
		return rxe_sender(qp);

	drop_pkts(qp, &qp->resp_pkts);
	if (READ_ONCE(qp->mig)->state != RXE_MIG_STOPPED)
		check_drained(qp);
	return -EAGAIN;
}

/**
 * rxe_mig_quiesce - wait until no task or timer of the QP runs
 * @qp: the QP
 *
 * The tasks stay disabled; rxe_mig_set_state() enables them again.  The wait
 * is one packet long, because the stub ends the loop in do_task().
 */
void rxe_mig_quiesce(struct rxe_qp *qp)
{
	WRITE_ONCE(qp->recv_task.func, rxe_mig_park);
	WRITE_ONCE(qp->send_task.func, rxe_mig_park);
	rxe_disable_task(&qp->recv_task);
	rxe_disable_task(&qp->send_task);
	if (qp_type(qp) == IB_QPT_RC) {
		del_timer_sync(&qp->retrans_timer);
		del_timer_sync(&qp->rnr_nak_timer);
	}
}

/* req_retry() stops at the first WQE that was not sent.  One that it has
 * rewound to the last acknowledged PSN and that was not sent since looks just
 * so; with req.opcode reset its rest would go out as a new message.
 */
static void unrewind(struct rxe_qp *qp)
{
	struct rxe_queue *q = qp->sq.queue;
	u32 index = queue_get_consumer(q, QUEUE_TYPE_FROM_CLIENT);
	u32 prod = queue_get_producer(q, QUEUE_TYPE_FROM_CLIENT);
	struct rxe_send_wqe *wqe;

	prod &= q->index_mask; /* the application can write it */
	for (; index != prod; index = queue_next_index(q, index)) {
		wqe = queue_addr_from_index(q, index);
		if (wqe->state == wqe_state_done)
			continue;
		if (wqe->state == wqe_state_posted &&
		    wqe->dma.resid != wqe->dma.length)
			wqe->state = wqe_state_processing;
		break;
	}
}

/* Continue from the last acknowledged PSN: req_retry() rebuilds the rest */
static void restart_requester(struct rxe_qp *qp)
{
	qp->comp.timeout = 0;
	qp->comp.timeout_retry = 0;
	qp->comp.started_retry = 0;
	qp->comp.retry_cnt = qp->attr.retry_cnt;
	qp->comp.rnr_retry = qp->attr.rnr_retry;
	qp->req.wait_for_rnr_timer = 0;
	qp->req.wait_fence = 0;
	qp->req.wait_psn = 0;
	qp->req.need_rd_atomic = 0;
	qp->req.noack_pkts = 0;
	qp->req.again = 0;
	qp->need_req_skb = 0;
	qp->resp.sent_psn_nak = 0;
	if (qp_type(qp) == IB_QPT_RC && qp_state(qp) >= IB_QPS_RTS &&
	    qp_state(qp) != IB_QPS_ERR) {
		unrewind(qp);
		qp->req.need_retry = 1;
	}
}

/**
 * rxe_mig_set_state - install the task functions of a state and let them run
 * @mig: migration state of a QP that rxe_mig_quiesce() was called for
 * @state: new state
 */
void rxe_mig_set_state(struct rxe_mig_qp *mig, enum rxe_mig_state state)
{
	struct rxe_qp *qp = mig->qp;
	int (*recv)(struct rxe_qp *qp) = rxe_receiver;
	int (*send)(struct rxe_qp *qp) = rxe_sender;

	switch (state) {
	case RXE_MIG_STOPPED:
		recv = rxe_mig_stopped_recv;
		send = rxe_mig_paused_send;
		break;
	case RXE_MIG_PAUSED:
	case RXE_MIG_RESUMING:
		send = rxe_mig_paused_send;
		break;
	case RXE_MIG_RUNNING:
		restart_requester(qp);
		break;
	}

	trace_rxe_mig_state(mig, state);
	mig->state = state;
	mig->nak = false;
	WRITE_ONCE(qp->recv_task.func, recv);
	WRITE_ONCE(qp->send_task.func, send);
	rxe_enable_task(&qp->recv_task);
	rxe_enable_task(&qp->send_task);
	/* In the error state each run of the receiver of a QP with an SRQ
	 * raises IB_EVENT_QP_LAST_WQE_REACHED once more.
	 */
	if (qp_state(qp) != IB_QPS_ERR || !qp->srq)
		rxe_sched_task(&qp->recv_task);
	rxe_sched_task(&qp->send_task);
}

/* Bring the responder to a state that retransmission continues from.
 *
 * resp.psn moves past a READ only with its last response.  Stopped between
 * two responses the peer would ask for a PSN in the middle, above resp.psn,
 * and be NAKed for ever.  The READ is in the responder resources: let the
 * duplicate path serve the rest of it.
 */
static void canonicalise(struct rxe_qp *qp)
{
	struct resp_res *res = qp->resp.res;

	if (res) {
		if (!res->replay && res->type == RXE_READ_MASK) {
			qp->resp.psn = (res->last_psn + 1) & BTH_PSN_MASK;
			qp->resp.opcode = -1;
		}
		qp->resp.res = NULL;
	}
	if (qp->resp.mr) {
		rxe_put(qp->resp.mr);
		qp->resp.mr = NULL;
	}
	qp->resp.sent_psn_nak = 0;
}

/**
 * rxe_mig_held_ends - the requester goes on, or has another reason not to
 * @mig: migration state of its QP
 */
void rxe_mig_held_ends(struct rxe_mig_qp *mig)
{
	if (mig->held)
		rxe_mig_count_many(to_rdev(mig->qp->ibqp.device),
				   RXE_MIG_CNT_HELD_MS,
				   jiffies_to_msecs(jiffies - mig->held_at));
	mig->held = false;
}

/**
 * rxe_mig_stop_qp - move a QP to Stopped and canonicalise it [STOP-3, STOP-4]
 * @mig: its migration state
 */
void rxe_mig_stop_qp(struct rxe_mig_qp *mig)
{
	struct rxe_qp *qp = mig->qp;
	struct rxe_mig_path path;

	rxe_mig_quiesce(qp);
	drop_pkts(qp, &qp->req_pkts);
	drop_pkts(qp, &qp->resp_pkts);
	canonicalise(qp);

	mig->proto.epoch++;
	/* An unanswered secret is the only one the partner may know [AUTH-1] */
	if (!mig->resume_pending || !mig->proto.secret)
		mig->proto.secret = rxe_mig_nonce();
	mig->resume_pending = false;
	mig->resume_over = false;
	mig->has_self_forward = false;
	rxe_mig_held_ends(mig);
	mig->stopped_at = jiffies;
	rxe_mig_count(to_rdev(qp->ibqp.device), RXE_MIG_CNT_STOPS);
	if (qp->pri_av.network_type) {
		/* resumed in place, this is the address it has not left */
		rxe_mig_path_of(qp, &path);
		mig->old_gid = path.sgid;
	}
	rxe_mig_set_state(mig, RXE_MIG_STOPPED);
}

static void gid_to_sockaddr(const union ib_gid *gid, struct rxe_av *av,
			    void *sockaddr)
{
	if (av->network_type == RXE_NETWORK_TYPE_IPV4) {
		struct sockaddr_in *in = sockaddr;

		in->sin_family = AF_INET;
		memcpy(&in->sin_addr, gid->raw + 12, sizeof(in->sin_addr));
	} else {
		struct sockaddr_in6 *in6 = sockaddr;

		in6->sin6_family = AF_INET6;
		memcpy(&in6->sin6_addr, gid->raw, sizeof(in6->sin6_addr));
	}
}

/**
 * rxe_mig_av_set_dgid - let an address vector lead to an address
 * @rxe: device that sends
 * @av: the address vector, which nobody uses now
 * @dgid: destination
 */
void rxe_mig_av_set_dgid(struct rxe_dev *rxe, struct rxe_av *av,
			 const union ib_gid *dgid)
{
	struct net_device *ndev;

	memcpy(&av->grh.dgid, dgid, sizeof(*dgid));
	gid_to_sockaddr(dgid, av, &av->dgid_addr);

	/* rxe loops a packet back when dmac is the own MAC, so dmac must say
	 * truly whether the partner is on this device
	 */
	eth_zero_addr(av->dmac);
	if (rxe_mig_gid_present(rxe, dgid, NULL)) {
		ndev = rxe_ib_device_get_netdev(&rxe->ib_dev);
		if (ndev) {
			ether_addr_copy(av->dmac, ndev->dev_addr);
			dev_put(ndev);
		}
	}
}

/**
 * rxe_mig_set_peer - the partner is at a new address [RESUME-4]
 * @mig: migration state of a quiesced QP
 * @dgid: the partner's address
 */
void rxe_mig_set_peer(struct rxe_mig_qp *mig, const union ib_gid *dgid)
{
	struct rxe_qp *qp = mig->qp;

	rxe_mig_av_set_dgid(to_rdev(qp->ibqp.device), &qp->pri_av, dgid);
	/* the cached route ignores the destination address */
	if (qp_type(qp) == IB_QPT_RC)
		sk_dst_reset(qp->sk->sk);
}

/**
 * rxe_mig_fail - the partner did not resume in time [PAUSE-10, RESUME-9]
 * @mig: migration state of a QP that is held
 *
 * Outstanding work fails as retry-exceeded.  Return: false without any, then
 * nothing happens: stock leaves an idle QP alone, too.
 */
bool rxe_mig_fail(struct rxe_mig_qp *mig)
{
	struct rxe_qp *qp = mig->qp;
	struct rxe_dev *rxe = to_rdev(qp->ibqp.device);
	struct rxe_send_wqe *wqe;
	struct rxe_cqe cqe = {};

	wqe = queue_head(qp->sq.queue, QUEUE_TYPE_FROM_CLIENT);
	if (!wqe)
		return false;

	rxe_err_qp(qp, "partner qp#%u did not resume within %u ms, giving up\n",
		   qp->attr.dest_qp_num,
		   jiffies_to_msecs(jiffies - mig->held_at));

	rxe_mig_quiesce(qp);
	rxe_mig_held_ends(mig);
	rxe_counter_inc(rxe, RXE_CNT_RETRY_EXCEEDED);
	rxe_mig_count(rxe, RXE_MIG_CNT_GAVE_UP);
	if (qp->is_user) {
		cqe.uibwc.wr_id = wqe->wr.wr_id;
		cqe.uibwc.status = IB_WC_RETRY_EXC_ERR;
		cqe.uibwc.qp_num = qp->ibqp.qp_num;
	} else {
		cqe.ibwc.wr_id = wqe->wr.wr_id;
		cqe.ibwc.status = IB_WC_RETRY_EXC_ERR;
		cqe.ibwc.qp = &qp->ibqp;
	}
	queue_advance_consumer(qp->sq.queue, QUEUE_TYPE_FROM_CLIENT);
	rxe_cq_post(qp->scq, &cqe, 0);
	rxe_mig_set_state(mig, RXE_MIG_RUNNING);
	rxe_qp_error(qp);
	return true;
}
