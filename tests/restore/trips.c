// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * dump -> restore -> dump, for all types and states: the images are equal.
 */
#include "suite.h"

struct trip {
	void (*setup)(void);
	bool busy;		/* goes on after RESUME */
	enum ibv_qp_type qp_type;
	enum ibv_qp_state qp_state;
};

static enum ibv_qp_type qp_type;	/* of s_qp() */
static enum ibv_qp_state qp_state;

static void s_nothing(void) { }

static void s_mr_local(void)
{
	make_pd();
	make_mr(0);
}

static void s_mr_write(void)
{
	make_pd();
	make_mr(IBV_ACCESS_LOCAL_WRITE);
}

static void s_mr_bind(void)
{
	make_pd();
	make_mr(REMOTE | IBV_ACCESS_MW_BIND);
}

static void s_mr_iova(void)
{
	make_pd();
	check(ibv_reg_mr_iova(o.pd, BUF + 123, 5000, 0x7777000 + 123, REMOTE),
	      "reg_mr_iova");
	check(ibv_reg_mr_iova(o.pd, BUF, 4096, 0, REMOTE), "reg_mr_iova");
}

static void s_mr_small(void)
{
	make_pd();
	check(ibv_reg_mr(o.pd, BUF + 4095, 1, REMOTE), "reg_mr");
	check(ibv_reg_mr(o.pd, BUF + 4095, 2, REMOTE), "reg_mr");
}

static void s_mr_overlap(void)
{
	make_pd();
	make_mr(REMOTE);
	make_pd();
	make_mr(REMOTE);
	check(ibv_reg_mr(o.pd, BUF, BUF_LEN, 0), "reg_mr");
}

static void s_cq(void) { make_cq(10, NULL); }

static void s_cq_min(void) { make_cq(1, NULL); }

static void s_cq_max(void)
{
	struct ibv_device_attr attr;

	check0(ibv_query_device(o.ctx, &attr));
	make_cq(attr.max_cqe, NULL);
}

static void s_cq_channel(void) { make_cq(10, make_channel()); }

static void s_cq_armed(void)
{
	s_cq_channel();
	check0(ibv_req_notify_cq(o.cq, 0));
}

static void s_cq_solicited(void)
{
	s_cq_channel();
	check0(ibv_req_notify_cq(o.cq, 1));
}

static void s_cq_resized(void)
{
	make_cq(3, NULL);
	check0(ibv_resize_cq(o.cq, 100));
}

/* Completions that were not polled */
static void s_cq_full(void)
{
	s_cq();
	make_pd();
	make_mr(IBV_ACCESS_LOCAL_WRITE);
	make_qp(IBV_QPT_RC, NULL);
	to_init(o.qp);
	post_recv(o.qp, NULL, 3);
	to_other(o.qp, IBV_QPS_ERR);
	wait_cq(o.cq, IBV_WC_WR_FLUSH_ERR);
}

/* Events that were read, but only some of them acknowledged */
static void s_cq_unacked(void)
{
	struct ibv_cq *cq;
	void *arg;
	int i;

	s_cq_channel();
	make_pd();
	make_mr(IBV_ACCESS_LOCAL_WRITE);
	for (i = 0; i != 3; i++) {
		check0(ibv_req_notify_cq(o.cq, 0));
		make_qp(IBV_QPT_RC, NULL);
		to_init(o.qp);
		post_recv(o.qp, NULL, 1);
		to_other(o.qp, IBV_QPS_ERR);
		wait_readable(o.channel->fd);
		check0(ibv_get_cq_event(o.channel, &cq, &arg));
		wait_cq(o.cq, IBV_WC_WR_FLUSH_ERR);
	}
	ibv_ack_cq_events(o.cq, 1);
}

static void s_srq_limit(void)
{
	struct ibv_srq_attr attr = { .srq_limit = 3 };

	s_srq_posted();
	check0(ibv_modify_srq(o.srq, &attr, IBV_SRQ_LIMIT));
}

static void s_srq_resized(void)
{
	struct ibv_srq_attr attr = { .max_wr = 100 };

	s_srq_posted();
	check0(ibv_modify_srq(o.srq, &attr, IBV_SRQ_MAX_WR));
	post_recv(NULL, o.srq, 9);
}

static void s_srq_max(void)
{
	struct ibv_device_attr attr;

	check0(ibv_query_device(o.ctx, &attr));
	make_pd();
	make_srq(attr.max_srq_wr > 10000 ? 10000 : attr.max_srq_wr);
}

static void s_ah6(void)
{
	make_pd();
	make_ah(false);
	make_ah(true);
}

static void s_mw(enum ibv_mw_type type, bool bind, bool invalidate)
{
	struct ibv_send_wr *first_bad;
	struct ibv_send_wr wr = {
		.opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED,
		.bind_mw = { .bind_info = { .addr = (uintptr_t)BUF + 100,
			.length = 1000,
			.mw_access_flags = IBV_ACCESS_REMOTE_WRITE } },
	};
	struct ibv_mw_bind info = { .send_flags = IBV_SEND_SIGNALED };

	make_cq(10, NULL);
	make_pd();
	make_mr(REMOTE | IBV_ACCESS_MW_BIND);
	make_qp(IBV_QPT_RC, NULL);
	to_state(o.qp, IBV_QPS_RTS, false);
	make_mw(type);
	wr.bind_mw.bind_info.mr = o.mr;
	wr.bind_mw.mw = o.mw;
	wr.bind_mw.rkey = ibv_inc_rkey(o.mw->rkey);
	info.bind_info = wr.bind_mw.bind_info;
	if (!bind)
		return;
	if (type == IBV_MW_TYPE_1)
		check0(ibv_bind_mw(o.qp, o.mw, &info));
	else
		check0(ibv_post_send(o.qp, &wr, &first_bad));
	wait_cq(o.cq, IBV_WC_SUCCESS);
	if (!invalidate)
		return;
	wr.opcode = IBV_WR_LOCAL_INV;
	wr.invalidate_rkey = wr.bind_mw.rkey;
	check0(ibv_post_send(o.qp, &wr, &first_bad));
	wait_cq(o.cq, IBV_WC_SUCCESS);
}

static void s_mw1(void) { s_mw(IBV_MW_TYPE_1, false, false); }

static void s_mw2(void) { s_mw(IBV_MW_TYPE_2, false, false); }

static void s_mw1_bound(void) { s_mw(IBV_MW_TYPE_1, true, false); }

static void s_mw2_bound(void) { s_mw(IBV_MW_TYPE_2, true, false); }

static void s_mw2_invalid(void) { s_mw(IBV_MW_TYPE_2, true, true); }

static void s_qp(void)
{
	make_cq(10, NULL);
	make_pd();
	make_mr(REMOTE);
	make_qp(qp_type, NULL);
	to_state(o.qp, qp_state, false);
}

static void s_qp_reset_again(void)
{
	s_qp();
	to_other(o.qp, IBV_QPS_RESET);
}

static void s_qp_posted(void)
{
	s_qp();
	post_recv(o.qp, NULL, 3);
}

static void s_qp_srq(void)
{
	s_srq_posted();
	make_cq(10, make_channel());
	make_qp(qp_type, o.srq);
	to_state(o.qp, qp_state, false);
}

static void s_qp_cqs(void)
{
	struct ibv_qp_init_attr init = {
		.qp_type = IBV_QPT_RC,
		.sq_sig_all = 1,
		.cap = { .max_send_wr = 1000, .max_recv_wr = 1000,
			 .max_send_sge = 32, .max_recv_sge = 32,
			 .max_inline_data = 400 },
	};

	make_pd();
	init.send_cq = make_cq(10, NULL);
	init.recv_cq = make_cq(20, make_channel());
	check((o.qp = ibv_create_qp(o.pd, &init)), "create_qp");
	to_state(o.qp, IBV_QPS_RTS, false);
}

static void s_qp_min(void)
{
	struct ibv_qp_init_attr init = { .qp_type = IBV_QPT_RC };

	make_pd();
	init.send_cq = make_cq(10, NULL);
	init.recv_cq = o.cq;
	check((o.qp = ibv_create_qp(o.pd, &init)), "create_qp");
}

/* Nobody answers these */
static void s_qp_sends(void)
{
	qp_state = IBV_QPS_RTS;
	s_qp();
	rc_send(o.qp, IBV_WR_SEND);
	rc_send(o.qp, IBV_WR_RDMA_READ);
	rc_send(o.qp, IBV_WR_RDMA_WRITE);
	usleep(50000);
}

/* Unread and in this order: drained, last receive of an SRQ, CQ overrun */
static void s_async_events(void)
{
	struct ibv_qp *qp;

	make_pd();
	make_mr(REMOTE);
	make_cq(1, NULL);
	make_srq(4);
	qp = make_qp(IBV_QPT_RC, NULL);
	to_state(qp, IBV_QPS_SQD, true);
	make_qp(IBV_QPT_RC, o.srq);
	to_state(o.qp, IBV_QPS_ERR, false);
	usleep(100000);
	make_qp(IBV_QPT_RC, NULL);
	to_init(o.qp);
	post_recv(o.qp, NULL, 3);
	to_other(o.qp, IBV_QPS_ERR);
	usleep(100000);
}

/* Read and not acknowledged: destroy_qp() will wait for it */
static void s_async_unacked(void)
{
	struct ibv_async_event event;

	qp_type = IBV_QPT_RC;
	qp_state = IBV_QPS_RESET;
	s_qp();
	to_state(o.qp, IBV_QPS_SQD, true);
	check0(ibv_get_async_event(o.ctx, &event));
	check(event.event_type == IBV_EVENT_SQ_DRAINED, "another event");
}

/* An event file for each import of the context */
static void s_async_files(void)
{
	check(ibv_import_device(dup(o.ctx->cmd_fd)), "import");
	s_pd();
}

/* Objects whose handles lie between free ones */
static void s_gaps(void)
{
	struct ibv_pd *gap[8];
	int i;

	for (i = 0; i != 8; i++) {
		gap[i] = make_pd();
		if (i == 3)
			make_cq(5, NULL);
	}
	make_mr(REMOTE);
	for (i = 0; i != 7; i++)
		check0(ibv_dealloc_pd(gap[i]));
	make_mw(IBV_MW_TYPE_1);
}

static void c_gaps(void)
{
	struct ibv_context *ctx;

	make_image(s_gaps);
	ctx = open_device(device);
	restore_into(ctx, NULL);
	/* Until RESUME, something else occupies the handles between them */
	go_live(ctx);
	dump(ctx, 1);
	compare(0, 1, true);
}

static void c_trip(void)
{
	const struct trip *trip = this_test->arg;

	qp_type = trip->qp_type;
	qp_state = trip->qp_state;
	round_trip(trip->setup, !trip->busy);
}

#define TRIP(name, ...)                                                        \
	{ "equal: " name, c_trip, .arg = &(const struct trip){ __VA_ARGS__ } }

#define QP_TRIP(type, state, name, setup, ...)                                 \
	TRIP(#type " QP " name, setup, .qp_type = IBV_QPT_##type,              \
	     .qp_state = IBV_QPS_##state, ##__VA_ARGS__)

/* rxe has no way into SQE */
#define QP_TRIPS(type)                                                         \
	QP_TRIP(type, RESET, "in RESET", s_qp),                                \
	QP_TRIP(type, INIT, "in INIT", s_qp),                                  \
	QP_TRIP(type, RTR, "in RTR", s_qp),                                    \
	QP_TRIP(type, RTS, "in RTS", s_qp),                                    \
	QP_TRIP(type, SQD, "in SQD", s_qp),                                    \
	QP_TRIP(type, ERR, "in ERR", s_qp),                                    \
	QP_TRIP(type, INIT, "with receives", s_qp_posted),                     \
	QP_TRIP(type, RTS, "in RESET again", s_qp_reset_again)

const struct test trip_tests[] = {
	TRIP("an empty context", s_nothing),
	TRIP("PDs", s_pd),
	TRIP("MR: without access", s_mr_local),
	TRIP("MR: local access", s_mr_write),
	TRIP("MR: remote access", s_mr_remote),
	TRIP("MR: for windows", s_mr_bind),
	TRIP("MR: other addresses", s_mr_iova),
	TRIP("MR: single bytes", s_mr_small),
	TRIP("MRs of the same memory", s_mr_overlap),
	TRIP("CQ", s_cq),
	TRIP("CQ: smallest", s_cq_min),
	TRIP("CQ: largest", s_cq_max),
	TRIP("CQ: with a channel", s_cq_channel),
	TRIP("CQ: armed", s_cq_armed),
	TRIP("CQ: armed for solicited", s_cq_solicited),
	TRIP("CQ: resized", s_cq_resized),
	TRIP("CQ: completions not polled", s_cq_full),
	TRIP("CQ: events not acknowledged", s_cq_unacked),
	TRIP("channel: unread events of two CQs", s_channel_events),
	TRIP("channels: several", s_channels),
	TRIP("SRQ", s_srq),
	TRIP("SRQ: with receives", s_srq_posted),
	TRIP("SRQ: with a limit", s_srq_limit),
	TRIP("SRQ: resized", s_srq_resized),
	TRIP("SRQ: large", s_srq_max),
	TRIP("SRQ: unread limit event", s_srq_event),
	TRIP("AH: IPv4", s_ah4),
	TRIP("AHs: IPv6 and IPv4", s_ah6),
	TRIP("MW: type 1", s_mw1),
	TRIP("MW: type 1, bound", s_mw1_bound),
	TRIP("MW: type 2", s_mw2),
	TRIP("MW: type 2, bound", s_mw2_bound),
	TRIP("MW: type 2, invalidated", s_mw2_invalid),
	TRIP("QP: two CQs, large, all signaled", s_qp_cqs),
	TRIP("QP: smallest", s_qp_min),
	TRIP("async: unread events", s_async_events),
	TRIP("async: event not acknowledged", s_async_unacked),
	TRIP("async: two files", s_async_files),
	TRIP("one of each", s_all),
	TRIP("one of each with events", s_all_events, .busy = true),
	{ "equal: handles with gaps", c_gaps },

	QP_TRIPS(RC),
	QP_TRIPS(UC),
	QP_TRIPS(UD),
	QP_TRIP(RC, RTR, "with an SRQ", s_qp_srq),
	QP_TRIP(UD, RTR, "with an SRQ", s_qp_srq),
	QP_TRIP(RC, RTS, "with unanswered sends", s_qp_sends, .busy = true),
	{}
};
