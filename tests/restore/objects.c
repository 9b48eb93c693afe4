// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Making objects, and bringing them into states.
 */
#include <poll.h>

#include "suite.h"

struct objects o;

struct ibv_context *open_device(const char *name)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_context *ctx = NULL;
	int i;

	check(list, "device list");
	for (i = 0; list[i]; i++)
		if (!strcmp(ibv_get_device_name(list[i]), name))
			ctx = ibv_open_device(list[i]);
	ibv_free_device_list(list);
	check(ctx, "open");
	return ctx;
}

/* The index of the device's first IPv4 or IPv6 GID that is not link-local */
int find_gid(bool v4, union ibv_gid *gid)
{
	static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };
	int i;

	for (i = 0; i != 16; i++) {
		if (ibv_query_gid(o.ctx, 1, i, gid) || !gid->raw[15])
			continue;
		if (gid->raw[0] != 0xfe && v4 == !memcmp(gid, prefix, 12))
			return i;
	}
	die("no address on %s", device);
}

static struct ibv_ah_attr path(bool v4)
{
	struct ibv_ah_attr ah = {
		.is_global = 1,
		.port_num = 1,
		.grh = { .hop_limit = 63, .traffic_class = 5,
			 .flow_label = 0x12345 },
	};

	ah.grh.sgid_index = find_gid(v4, &ah.grh.dgid);
	return ah;
}

struct ibv_pd *make_pd(void)
{
	check((o.pd = ibv_alloc_pd(o.ctx)), "alloc_pd");
	return o.pd;
}

struct ibv_mr *make_mr(unsigned int access)
{
	check((o.mr = ibv_reg_mr(o.pd, BUF, 8192, access)), "reg_mr");
	return o.mr;
}

struct ibv_comp_channel *make_channel(void)
{
	check((o.channel = ibv_create_comp_channel(o.ctx)), "channel");
	return o.channel;
}

struct ibv_cq *make_cq(int cqe, struct ibv_comp_channel *channel)
{
	o.cq = ibv_create_cq(o.ctx, cqe, NULL, channel, 0);
	check(o.cq, "create_cq");
	return o.cq;
}

struct ibv_srq *make_srq(int max_wr)
{
	struct ibv_srq_init_attr attr = {
		.attr = { .max_wr = max_wr, .max_sge = 2 },
	};

	check((o.srq = ibv_create_srq(o.pd, &attr)), "create_srq");
	return o.srq;
}

struct ibv_ah *make_ah(bool v4)
{
	struct ibv_ah_attr attr = path(v4);

	check((o.ah = ibv_create_ah(o.pd, &attr)), "create_ah");
	return o.ah;
}

struct ibv_mw *make_mw(enum ibv_mw_type type)
{
	check((o.mw = ibv_alloc_mw(o.pd, type)), "alloc_mw");
	return o.mw;
}

struct ibv_qp *make_qp(enum ibv_qp_type type, struct ibv_srq *srq)
{
	struct ibv_qp_init_attr init = {
		.qp_type = type,
		.send_cq = o.cq,
		.recv_cq = o.cq,
		.srq = srq,
		.cap = { .max_send_wr = 4, .max_recv_wr = srq ? 0 : 4,
			 .max_send_sge = 2, .max_recv_sge = srq ? 0 : 2,
			 .max_inline_data = 32 },
	};

	check((o.qp = ibv_create_qp(o.pd, &init)), "create_qp");
	return o.qp;
}

void to_init(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = 0x1234567,
		.qp_access_flags = IBV_ACCESS_LOCAL_WRITE |
				   IBV_ACCESS_REMOTE_READ |
				   IBV_ACCESS_REMOTE_WRITE,
	};

	check0(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX |
			     IBV_QP_PORT | (qp->qp_type == IBV_QPT_UD ?
			     IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS)));
}

/* The partner's number is nobody's: nothing that is sent arrives */
static void to_rtr(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = IBV_MTU_2048,
		.dest_qp_num = 0x654321,
		.rq_psn = 0xfffffe,
		.max_dest_rd_atomic = 4,
		.min_rnr_timer = 13,
	};
	int mask = IBV_QP_STATE;

	if (qp->qp_type != IBV_QPT_UD) {
		attr.ah_attr = path(true);
		mask |= IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
			IBV_QP_RQ_PSN;
	}
	if (qp->qp_type == IBV_QPT_RC)
		mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
	check0(ibv_modify_qp(qp, &attr, mask));
}

static void to_rts(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTS,
		.timeout = 21,
		.retry_cnt = 6,
		.rnr_retry = 5,
		.sq_psn = 0xfffffd,
		.max_rd_atomic = 3,
	};

	check0(ibv_modify_qp(qp, &attr, qp->qp_type == IBV_QPT_RC ?
			     IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT |
			     IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
			     IBV_QP_MAX_QP_RD_ATOMIC :
			     IBV_QP_STATE | IBV_QP_SQ_PSN));
}

void to_state(struct ibv_qp *qp, enum ibv_qp_state state, bool notify)
{
	struct ibv_qp_attr attr = { .qp_state = state,
				    .en_sqd_async_notify = notify };

	if (state == IBV_QPS_RESET)
		return;
	to_init(qp);
	if (state == IBV_QPS_INIT)
		return;
	to_rtr(qp);
	if (state == IBV_QPS_RTR)
		return;
	to_rts(qp);
	if (state == IBV_QPS_RTS)
		return;
	check0(ibv_modify_qp(qp, &attr, IBV_QP_STATE |
			     (notify ? IBV_QP_EN_SQD_ASYNC_NOTIFY : 0)));
	/* rxe says that it has drained, whether asked to or not. */
	if (state == IBV_QPS_SQD)
		wait_readable(o.ctx->async_fd);
}

void to_other(struct ibv_qp *qp, enum ibv_qp_state state)
{
	struct ibv_qp_attr attr = { .qp_state = state };

	check0(ibv_modify_qp(qp, &attr, IBV_QP_STATE));
}

void post_recv(struct ibv_qp *qp, struct ibv_srq *srq, int num)
{
	struct ibv_sge sge = { (uintptr_t)BUF, 4096, o.mr->lkey };
	struct ibv_recv_wr wr = { .wr_id = 0x1122334455667788,
				  .sg_list = &sge, .num_sge = 1 };
	struct ibv_recv_wr *first_bad;

	check(srq || qp, "a queue");
	for (; num; num--, wr.wr_id++)
		check0(srq ? ibv_post_srq_recv(srq, &wr, &first_bad) :
			     ibv_post_recv(qp, &wr, &first_bad));
}

void wait_readable(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	check(poll(&pfd, 1, 20000) == 1, "no event");
}

/* Waits for a completion */
void wait_cq(struct ibv_cq *cq, enum ibv_wc_status status)
{
	struct ibv_wc wc;
	int n, i;

	for (i = 0; i != 10000; i++) {
		n = ibv_poll_cq(cq, 1, &wc);
		check(n >= 0, "poll_cq");
		if (n) {
			check(wc.status == status,
			      ibv_wc_status_str(wc.status));
			return;
		}
		usleep(1000);
	}
	die("no completion");
}

/* A UD QP sends to itself, so that a receive of its SRQ or its own completes */
void ud_send(struct ibv_qp *qp, int flags)
{
	struct ibv_sge sge = { (uintptr_t)BUF + 4096, 64, o.mr->lkey };
	struct ibv_send_wr wr = {
		.wr_id = 77, .sg_list = &sge, .num_sge = 1,
		.opcode = IBV_WR_SEND, .send_flags = flags,
		.wr.ud = { .ah = o.ah, .remote_qpn = qp->qp_num,
			   .remote_qkey = 0x1234567 },
	};
	struct ibv_send_wr *first_bad;

	check0(ibv_post_send(qp, &wr, &first_bad));
}

void rc_send(struct ibv_qp *qp, enum ibv_wr_opcode opcode)
{
	struct ibv_sge sge = { (uintptr_t)BUF, 64, o.mr->lkey };
	struct ibv_send_wr wr = {
		.wr_id = 78, .sg_list = &sge, .num_sge = 1, .opcode = opcode,
		.send_flags = IBV_SEND_SIGNALED,
		.wr.rdma = { (uintptr_t)BUF, o.mr->rkey },
	};
	struct ibv_send_wr *first_bad;

	check0(ibv_post_send(qp, &wr, &first_bad));
}

/* ---- sets of objects that more than one file uses ---- */

void s_pd(void)
{
	make_pd();
	make_pd();
}

void s_mr_remote(void)
{
	make_pd();
	make_mr(REMOTE);
}

void s_ah4(void)
{
	make_pd();
	make_ah(true);
}

/* Two CQs with unread events in one channel, in this order */
void s_channel_events(void)
{
	struct ibv_comp_channel *channel = make_channel();
	struct ibv_cq *cqs[2];
	int i;

	make_pd();
	make_mr(IBV_ACCESS_LOCAL_WRITE);
	for (i = 0; i != 2; i++) {
		cqs[i] = make_cq(10, channel);
		check0(ibv_req_notify_cq(cqs[i], 0));
	}
	for (i = 1; i >= 0; i--) {
		o.cq = cqs[i];
		make_qp(IBV_QPT_UC, NULL);
		to_init(o.qp);
		post_recv(o.qp, NULL, 1);
		to_other(o.qp, IBV_QPS_ERR);
		wait_cq(o.cq, IBV_WC_WR_FLUSH_ERR);
	}
}

void s_channels(void)
{
	make_channel();
	s_channel_events();
	make_channel();
	make_cq(2, o.channel);
}

void s_srq(void)
{
	make_pd();
	make_srq(10);
}

void s_srq_posted(void)
{
	s_srq();
	make_mr(IBV_ACCESS_LOCAL_WRITE);
	post_recv(NULL, o.srq, 5);
}

/* The limit event was read once, and is unread another time */
void s_srq_event(void)
{
	struct ibv_srq_attr attr = { .srq_limit = 5 };
	struct ibv_async_event event;
	int i;

	s_srq_posted();
	make_cq(20, NULL);
	make_ah(true);
	make_qp(IBV_QPT_UD, o.srq);
	to_state(o.qp, IBV_QPS_RTS, false);
	for (i = 0; i != 2; i++) {
		check0(ibv_modify_srq(o.srq, &attr, IBV_SRQ_LIMIT));
		post_recv(NULL, o.srq, 1);
		ud_send(o.qp, 0);
		ud_send(o.qp, 0);
		wait_cq(o.cq, IBV_WC_SUCCESS);
		wait_cq(o.cq, IBV_WC_SUCCESS);
		wait_readable(o.ctx->async_fd);
		if (!i)
			check0(ibv_get_async_event(o.ctx, &event));
	}
}

/* Not in the order of the image: there are placeholders for a while */
void s_connected(void)
{
	make_cq(10, NULL);
	make_pd();
	make_mr(REMOTE);
	make_qp(IBV_QPT_RC, NULL);
	to_state(o.qp, IBV_QPS_RTS, false);
}

/* One of each kind, in the order of the image, so that no handle is skipped */
void s_all(void)
{
	make_channel();
	make_pd();
	make_mr(REMOTE | IBV_ACCESS_MW_BIND);
	make_cq(10, o.channel);
	check0(ibv_req_notify_cq(o.cq, 0));
	make_srq(10);
	post_recv(NULL, o.srq, 2);
	make_ah(true);
	o.ud = make_qp(IBV_QPT_UD, o.srq);
	to_state(o.ud, IBV_QPS_RTS, false);
	make_qp(IBV_QPT_RC, NULL);
	to_state(o.qp, IBV_QPS_RTS, false);
	post_recv(o.qp, NULL, 1);
}

/* The same and a bound window, an unread completion event and a limit event */
void s_all_events(void)
{
	struct ibv_srq_attr limit = { .srq_limit = 2 };
	struct ibv_send_wr *first_bad;
	struct ibv_send_wr wr = {
		.opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED,
		.bind_mw = { .bind_info = { .addr = (uintptr_t)BUF,
			.length = 4096,
			.mw_access_flags = IBV_ACCESS_REMOTE_WRITE } },
	};

	s_all();
	make_mw(IBV_MW_TYPE_2);
	wr.bind_mw.bind_info.mr = o.mr;
	wr.bind_mw.mw = o.mw;
	wr.bind_mw.rkey = ibv_inc_rkey(o.mw->rkey);
	check0(ibv_post_send(o.qp, &wr, &first_bad));
	wait_readable(o.channel->fd);
	check0(ibv_modify_srq(o.srq, &limit, IBV_SRQ_LIMIT));
	ud_send(o.ud, 0);
	wait_readable(o.ctx->async_fd);
	/* The message goes on after the event */
	usleep(50000);
}
