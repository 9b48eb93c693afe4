// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/* What there is when the mover is dumped, besides what is in flight. */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "grid.h"

#define need(cond)                                                             \
	do {                                                                   \
		if (!(cond))                                                   \
			die("not in the image: %s", #cond);                    \
	} while (0)

/* ---- PD ---- */

static void before_pd(struct side *s)
{
	int i;

	if (!s->mover)
		return;
	for (i = 0; i != 4; i++)
		check((s->pds[i] = ibv_alloc_pd(s->ctx)));
	check0(ibv_dealloc_pd(s->pds[1]));
}

static void prove_pd(struct side *s, const struct image *im)
{
	need(image_count(im, RXE_MIG_REC_PD) == 4);
	need(image_find(im, RXE_MIG_REC_PD, s->pds[3]->handle));
	need(!image_find(im, RXE_MIG_REC_PD, s->pds[1]->handle));
	need(im->qp->pd == s->pd->handle);
}

static void after_pd(struct side *s)
{
	static char page[4096] __attribute__((aligned(4096)));
	struct ibv_mr *mr;

	if (!s->mover)
		return;
	/* the gap is a gap again */
	check((s->pds[1] = ibv_alloc_pd(s->ctx)));
	check((mr = ibv_reg_mr(s->pds[3], page, sizeof(page),
			       IBV_ACCESS_LOCAL_WRITE)));
	check(ibv_dealloc_pd(s->pds[3]));
	check0(ibv_dereg_mr(mr));
	check0(ibv_dealloc_pd(s->pds[0]));
	check0(ibv_dealloc_pd(s->pds[1]));
	check0(ibv_dealloc_pd(s->pds[2]));
	check0(ibv_dealloc_pd(s->pds[3]));
}

/* ---- MR ---- */

static void prove_mr(struct side *s, const struct image *im)
{
	const struct rxe_mig_mr *mr = image_find(im, RXE_MIG_REC_MR,
						 s->mr->handle);

	need(mr && mr->rkey == s->mr->rkey && mr->rkey == s->mr->lkey);
	need(mr->start == (uintptr_t)s->mem && mr->length == MEM_LEN);
	need(mr->pd == s->pd->handle);
	need(mr->owner == getpid());
}

/* The memory itself is not in the image. */
static void prove_mr_backing(struct side *s, const char *name)
{
	unsigned long start, end;
	char line[512], found[512] = "";
	FILE *file = fopen("/proc/self/maps", "r");

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "%lx-%lx", &start, &end) == 2 &&
		    start == (uintptr_t)s->mem)
			strcpy(found, line);
	if (!strstr(found, name))
		die("memory is not %s but %s", name, found);
	if (file)
		fclose(file);
}

static void prove_mr_shared(struct side *s, const struct image *im)
{
	prove_mr(s, im);
	prove_mr_backing(s, "/memfd:grid");
}

static void prove_mr_huge(struct side *s, const struct image *im)
{
	prove_mr(s, im);
	prove_mr_backing(s, "/anon_hugepage");
}

/* ---- CQ ---- */

static const struct rxe_mig_cq *cq_rec(struct side *s, const struct image *im)
{
	const struct rxe_mig_cq *cq = image_find(im, RXE_MIG_REC_CQ,
						 s->cq->handle);

	need(cq && im->qp->send_cq == s->cq->handle);
	return cq;
}

static void prove_cq_poll(struct side *s, const struct image *im)
{
	need(cq_rec(s, im)->channel == RXE_MIG_NONE);
	need(!image_count(im, RXE_MIG_REC_CHANNEL));
}

static const struct rxe_mig_channel *channel_rec(struct side *s,
						 const struct image *im)
{
	const struct rxe_mig_channel *channel =
		image_find(im, RXE_MIG_REC_CHANNEL, cq_rec(s, im)->channel);

	need(channel);
	return channel;
}

static void prove_cq_armed(struct side *s, const struct image *im)
{
	/* or the event is there already */
	need(cq_rec(s, im)->notify || channel_rec(s, im)->num_events == 1);
	need(channel_rec(s, im));
}

static void before_cq_armed(struct side *s)
{
	if (s->mover)
		check0(ibv_req_notify_cq(s->cq, 0));
	s->woken = false;
}

static void prove_cq_unarmed(struct side *s, const struct image *im)
{
	need(!cq_rec(s, im)->notify);
	need(!channel_rec(s, im)->num_events);
}

static int readable(int fd, int ms)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, ms);
}

/* Completions are found without it, too. */
static void after_cq_armed(struct side *s)
{
	swap_addresses(s);
	talk(s, 1);
	if (s->mover)
		check(s->woken || readable(s->channel->fd, 1000) == 1);
}

static void after_cq_unarmed(struct side *s)
{
	if (s->mover)
		check(!readable(s->channel->fd, 0));
}

static void before_cq_unread(struct side *s)
{
	if (s->mover)
		check0(ibv_req_notify_cq(s->cq, 0));
	talk(s, 50);
	if (s->mover)
		check(readable(s->channel->fd, 0) == 1);
}

static void prove_cq_unread(struct side *s, const struct image *im)
{
	const struct rxe_mig_channel *channel = channel_rec(s, im);

	need(channel->num_events == 1);
	need(channel->cq_handle[0] == s->cq->handle);
}

static void after_cq_unread(struct side *s)
{
	struct ibv_cq *cq;
	void *arg;

	if (!s->mover)
		return;
	check(readable(s->channel->fd, 0) == 1);
	check0(ibv_get_cq_event(s->channel, &cq, &arg));
	check(cq == s->cq && arg == s);
	ibv_ack_cq_events(cq, 1);
	/* once only */
	check(!readable(s->channel->fd, 0));
}

/* ---- asynchronous events ---- */

static const struct rxe_mig_async_event *
event_rec(const struct image *im, uint32_t type, uint32_t obj_type,
	  uint32_t handle)
{
	const struct rxe_mig_async *async =
		image_find(im, RXE_MIG_REC_ASYNC, RXE_MIG_NONE);
	unsigned int i;

	need(async);
	for (i = 0; i != async->num_events; i++)
		if (async->events[i].event_type == type &&
		    async->events[i].obj_type == obj_type &&
		    async->events[i].obj_handle == handle)
			return &async->events[i];
	return NULL;
}

static struct ibv_async_event read_event(struct side *s)
{
	struct ibv_async_event event;

	check(readable(s->ctx->async_fd, 5000) == 1);
	check0(ibv_get_async_event(s->ctx, &event));
	ibv_ack_async_event(&event);
	return event;
}

#define XCQ_RECVS	16

/* More is flushed than there is room for. */
static void before_cq_async(struct side *s)
{
	struct ibv_recv_wr wr = {}, *bad;

	if (!s->mover)
		return;
	check((s->xcq = ibv_create_cq(s->ctx, 3, NULL, NULL, 0)));
	s->xqp = make_qp(s, IBV_QPT_RC, s->xcq, NULL);
	to_init(s, s->xqp);
	for (wr.wr_id = 0; wr.wr_id != XCQ_RECVS; wr.wr_id++)
		check0(ibv_post_recv(s->xqp, &wr, &bad));
	check0(modify_state(s->xqp, IBV_QPS_ERR));
	check(readable(s->ctx->async_fd, 5000) == 1);
}

static void prove_cq_async(struct side *s, const struct image *im)
{
	const struct rxe_mig_cq *cq = image_find(im, RXE_MIG_REC_CQ,
						 s->xcq->handle);

	need(cq && ring_count(&cq->ring) == cq->ring.index_mask);
	need(event_rec(im, IBV_EVENT_CQ_ERR, RXE_MIG_REC_CQ,
		       s->xcq->handle));
}

static void after_cq_async(struct side *s)
{
	struct ibv_async_event event;
	struct ibv_wc wc;
	int n = 0;

	if (!s->mover)
		return;
	event = read_event(s);
	check(event.event_type == IBV_EVENT_CQ_ERR);
	check(event.element.cq == s->xcq);
	while (ibv_poll_cq(s->xcq, 1, &wc)) {
		check(wc.status == IBV_WC_WR_FLUSH_ERR);
		check(wc.wr_id == (uint64_t)n++);
	}
	check(n == s->xcq->cqe);
	check0(ibv_destroy_qp(s->xqp));
	check0(ibv_destroy_cq(s->xcq));
}

/* A QP on a shared receive queue has flushed all. */
static void before_async(struct side *s)
{
	struct ibv_srq_init_attr srq = { .attr = { .max_wr = 4, .max_sge = 1 } };

	if (!s->mover)
		return;
	check((s->xsrq = ibv_create_srq(s->pd, &srq)));
	s->xqp = make_qp(s, IBV_QPT_RC, s->cq, s->xsrq);
	to_init(s, s->xqp);
	check0(modify_state(s->xqp, IBV_QPS_ERR));
	check(readable(s->ctx->async_fd, 5000) == 1);
}

static void prove_async(struct side *s, const struct image *im)
{
	need(event_rec(im, IBV_EVENT_QP_LAST_WQE_REACHED, RXE_MIG_REC_QP,
		       s->xqp->handle));
}

static void after_async(struct side *s)
{
	struct ibv_async_event event;

	if (!s->mover)
		return;
	event = read_event(s);
	check(event.event_type == IBV_EVENT_QP_LAST_WQE_REACHED);
	check(event.element.qp == s->xqp);
	check(!readable(s->ctx->async_fd, 0));
	check0(ibv_destroy_qp(s->xqp));
	check0(ibv_destroy_srq(s->xsrq));
}

/* ---- SRQ ---- */

static void prove_srq(struct side *s, const struct image *im)
{
	const struct rxe_mig_srq *srq = image_find(im, RXE_MIG_REC_SRQ,
						   s->srq->handle);

	need(srq && im->qp->srq == s->srq->handle);
	need(ring_count(&srq->ring) + (im->qp->recv_wqe_len ? 1 : 0) ==
	     s->posted);
	need(!srq->limit && !srq->error);
}

#define LIMIT 2

static void before_srq_limit(struct side *s)
{
	struct ibv_srq_attr attr = { .srq_limit = LIMIT };

	if (s->mover)
		check0(ibv_modify_srq(s->srq, &attr, IBV_SRQ_LIMIT));
}

static void prove_srq_limit(struct side *s, const struct image *im)
{
	const struct rxe_mig_srq *srq = image_find(im, RXE_MIG_REC_SRQ,
						   s->srq->handle);

	/* the situation may have used them up */
	need(srq && (srq->limit == LIMIT ||
		     event_rec(im, IBV_EVENT_SRQ_LIMIT_REACHED,
			       RXE_MIG_REC_SRQ, s->srq->handle)));
}

/* Receives are used up until the limit is reached. */
static void after_srq_limit(struct side *s)
{
	uint64_t posted = s->posted;
	struct ibv_async_event event;

	barrier_id(s, &posted);
	if (s->mover) {
		while (s->posted)
			wait_recv(s, LEN, 60);
		event = read_event(s);
		check(event.event_type == IBV_EVENT_SRQ_LIMIT_REACHED);
		check(event.element.srq == s->srq);
		check(!readable(s->ctx->async_fd, 0));
	} else {
		while (posted--)
			check(!wait_wc(s, post_send(s, IBV_WR_SEND, LEN,
						    60)).status);
	}
	barrier(s);
}

/* ---- AH ---- */

static void prove_ah(struct side *s, const struct image *im)
{
	const struct rxe_mig_ah *ah = image_find(im, RXE_MIG_REC_AH,
						 s->ah->handle);

	need(ah && ah->pd == s->pd->handle);
	need(!memcmp(ah->av.dgid, &s->peer.gid, 16));
}

/* ---- MW ---- */

enum { MW_INVALID, MW_FREE, MW_VALID };

static void prove_mw(struct side *s, const struct image *im)
{
	const struct rxe_mig_mw *mw = image_find(im, RXE_MIG_REC_MW,
						 s->mw->handle);
	bool bound = s->row->mw == MW_1_BOUND || s->row->mw == MW_2_BOUND;
	bool two = s->row->mw >= MW_2_FREE;

	need(mw && mw->type == (two ? IBV_MW_TYPE_2 : IBV_MW_TYPE_1));
	need(mw->rkey == (bound ? s->me.window_rkey : s->mw->rkey));
	need(mw->pd == s->pd->handle);
	need(mw->state == (two && !bound ? MW_FREE : MW_VALID));
	need(mw->mr == (bound ? s->mr->handle : RXE_MIG_NONE));
	need(mw->qp == (bound && two ? s->qp->handle : RXE_MIG_NONE));
	need(!bound || (mw->addr == (uintptr_t)s->mem + AT_WINDOW &&
			mw->length == HUGE_LEN));
}

/* The writes that follow go through it. */
static void after_mw_free(struct side *s)
{
	if (s->mover)
		bind_window(s);
}

/* ---- QP ---- */

static void prove_qp(struct side *s, const struct image *im)
{
	const struct rxe_mig_cq *cq = image_find(im, RXE_MIG_REC_CQ,
						 s->cq->handle);

	need(im->qp->type == s->row->type);
	need(im->qp->state == (s->row->reset ? IBV_QPS_RESET : s->row->state));
	need((im->qp->srq == RXE_MIG_NONE) == !s->row->srq);
	if (s->row->type == IBV_QPT_UD && s->ah)
		prove_ah(s, im);
	need(im->qp->qkey == (s->row->type == IBV_QPT_UD && !s->row->reset ?
			      QKEY : 0));
	if (im->qp->state == IBV_QPS_ERR && !s->srq)
		need(cq && ring_count(&cq->ring) >= RECVS);
	else
		need(rq_count(im) + (im->qp->recv_wqe_len && s->srq ? 1 : 0) ==
		     s->posted);
	if (im->qp->state < IBV_QPS_RTR || im->qp->state == IBV_QPS_ERR ||
	    s->row->type == IBV_QPT_UD)
		return;
	need(im->qp->dest_qpn == s->peer.qpn);
	need(!memcmp(im->qp->pri_av.dgid, &s->peer.gid, 16));
	if (im->qp->state != IBV_QPS_SQD || !s->extra)
		return;
	/* posted in SQD: waits there */
	need(sq_count(im) >= 1);
	need(sq_wqe(im, sq_count(im) - 1)->wr.wr_id == s->extra);
	need(sq_wqe(im, sq_count(im) - 1)->state == WQE_POSTED);
}

#define RC	.type = IBV_QPT_RC
#define UC	.type = IBV_QPT_UC
#define UD	.type = IBV_QPT_UD
#define RTS	.state = IBV_QPS_RTS

#define QP_ROWS(name_, type_, srq_)                                            \
	{ name_ "-reset", type_, .reset = true, .srq = srq_,                   \
	  .prove = prove_qp },                                                 \
	{ name_ "-init", type_, .state = IBV_QPS_INIT, .srq = srq_,            \
	  .prove = prove_qp },                                                 \
	{ name_ "-rtr", type_, .state = IBV_QPS_RTR, .srq = srq_,              \
	  .prove = prove_qp },                                                 \
	{ name_ "-rts", type_, RTS, .srq = srq_, .prove = prove_qp },          \
	{ name_ "-sqd", type_, .state = IBV_QPS_SQD, .srq = srq_,              \
	  .prove = prove_qp },                                                 \
	{ name_ "-err", type_, .state = IBV_QPS_ERR, .srq = srq_,              \
	  .prove = prove_qp }

const struct row rows[] = {
	{ "pd", RC, RTS, .before = before_pd, .prove = prove_pd,
	  .after = after_pd },
	{ "mr-private", RC, RTS, .prove = prove_mr },
	{ "mr-shared", RC, RTS, .mem = MEM_SHARED, .prove = prove_mr_shared },
	{ "mr-huge", RC, RTS, .mem = MEM_HUGE, .prove = prove_mr_huge },
	{ "cq-poll", RC, RTS, .prove = prove_cq_poll },
	{ "cq-armed", RC, RTS, .cq = CQ_ARMED, .before = before_cq_armed,
	  .prove = prove_cq_armed, .after = after_cq_armed },
	{ "cq-unarmed", RC, RTS, .cq = CQ_UNARMED, .prove = prove_cq_unarmed,
	  .after = after_cq_unarmed },
	{ "cq-unread", RC, RTS, .cq = CQ_UNREAD, .before = before_cq_unread,
	  .prove = prove_cq_unread, .after = after_cq_unread },
	{ "cq-async", RC, RTS, .before = before_cq_async,
	  .prove = prove_cq_async, .after = after_cq_async },
	{ "async", RC, RTS, .before = before_async, .prove = prove_async,
	  .after = after_async },
	{ "srq", RC, RTS, .srq = true, .prove = prove_srq },
	{ "srq-limit", RC, RTS, .srq = true, .before = before_srq_limit,
	  .prove = prove_srq_limit, .after = after_srq_limit },
	{ "ah", UD, RTS, .prove = prove_ah },
	{ "mw1-free", RC, RTS, .mw = MW_1_FREE, .prove = prove_mw,
	  .after = after_mw_free },
	{ "mw1-bound", RC, RTS, .mw = MW_1_BOUND, .prove = prove_mw },
	{ "mw2-free", RC, RTS, .mw = MW_2_FREE, .prove = prove_mw,
	  .after = after_mw_free },
	{ "mw2-bound", RC, RTS, .mw = MW_2_BOUND, .prove = prove_mw },
	QP_ROWS("rc", RC, false),
	QP_ROWS("rc-srq", RC, true),
	QP_ROWS("uc", UC, false),
	QP_ROWS("ud", UD, false),
	QP_ROWS("ud-srq", UD, true),
	{}
};
