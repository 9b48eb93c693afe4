// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/* One of the two processes: objects, packets, requests, completions. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "grid.h"

#define QUEUE		64
#define WAIT_MS		20000

static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e3 + ts.tv_nsec / 1e6;
}

/* ---- the other process ---- */

void exchange(struct side *s, const void *mine, void *theirs, size_t len)
{
	if (send(s->socket, mine, len, MSG_NOSIGNAL) != (ssize_t)len ||
	    recv(s->socket, theirs, len, MSG_WAITALL) != (ssize_t)len)
		die("the other side has ended");
}

void barrier(struct side *s)
{
	uint64_t value = 0;

	barrier_id(s, &value);
}

/* Both get the other's value. */
void barrier_id(struct side *s, uint64_t *value)
{
	uint64_t mine[2] = { ++s->step, *value }, theirs[2];

	exchange(s, mine, theirs, sizeof(mine));
	if (mine[0] != theirs[0])
		die("step %u here, %u there", (unsigned int)mine[0],
		    (unsigned int)theirs[0]);
	*value = theirs[1];
}

/* ---- packets ---- */

static void nft(const char *rules)
{
	FILE *file = popen("nft -f -", "w");

	if (!file || fputs(rules, file) < 0 || pclose(file))
		die("nft: %s", rules);
}

static bool holding;

static void tc(const char *command)
{
	char path[128], netdev[64], line[512];
	FILE *file;

	snprintf(path, sizeof(path),
		 "/sys/class/infiniband/%s/ports/1/gid_attrs/ndevs/%d", device,
		 gid_index);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%63s", netdev) != 1)
		die("%s: %m", path);
	fclose(file);
	snprintf(line, sizeof(line), "d=%s; %s", netdev, command);
	if (system(line))
		die("%s", line);
}

/*
 * RoCE packets hardly leave this host, so a QP sends few of them: the
 * driver limits those on their way. In the end they are lost.
 */
void hold(void)
{
	holding = true;
	tc("tc qdisc add dev $d root handle 1: prio && "
	   "tc qdisc add dev $d parent 1:3 tbf rate 8kbit burst 2000 "
	   "limit 10000000 && "
	   "tc filter add dev $d parent 1: protocol all u32 "
	   "match ip protocol 17 0xff match ip dport 4791 0xffff flowid 1:3");
}

/* Packets with these opcodes no longer arrive here. */
void drop(const char *opcodes)
{
	char rules[512];

	snprintf(rules, sizeof(rules),
		 "table inet grid {\n"
		 "	chain in {\n"
		 "		type filter hook input priority 0;\n"
		 "		udp dport 4791 @th,64,8 { %s } drop\n"
		 "	}\n"
		 "}\n", opcodes);
	nft(rules);
}

void drop_nothing(void)
{
	if (holding)
		tc("tc qdisc del dev $d root");
	holding = false;
	nft("table inet grid\ndelete table inet grid\n");	/* even if not there */
}

/* What a cell that failed has left */
void drop_nothing_at_first(void)
{
	tc("tc qdisc del dev $d root 2>/dev/null || :");
	drop_nothing();
}

uint64_t counter(const char *name)
{
	char path[128];
	unsigned long long n;
	FILE *file;

	snprintf(path, sizeof(path),
		 "/sys/class/infiniband/%s/ports/1/hw_counters/%s", device,
		 name);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%llu", &n) != 1)
		die("%s: %m", path);
	fclose(file);
	return n;
}

/* ---- contents ---- */

static uint8_t pattern(uint64_t seed, size_t i)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15ULL + i;

	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9ULL;
	/* never what untouched memory holds */
	return (x >> 32) % 255 + 1;
}

void fill(uint8_t *p, size_t len, uint64_t seed)
{
	size_t i;

	for (i = 0; i != len; i++)
		p[i] = pattern(seed, i);
}

void verify(const uint8_t *p, size_t len, uint64_t seed, const char *what)
{
	size_t i;

	for (i = 0; i != len; i++)
		if (p[i] != pattern(seed, i))
			die("%s is wrong at byte %zu of %zu", what, i, len);
}

/* ---- objects ---- */

static void open_device(struct side *s)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	int i;

	for (i = 0; list && list[i]; i++)
		if (!strcmp(ibv_get_device_name(list[i]), device))
			s->ctx = ibv_open_device(list[i]);
	if (!s->ctx)
		die("no device %s", device);
	ibv_free_device_list(list);
}

static void make_memory(struct side *s)
{
	enum mem_kind kind = s->mover ? s->row->mem : MEM_PRIVATE;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS, fd = -1;

	if (kind == MEM_SHARED) {
		flags = MAP_SHARED;
		fd = memfd_create("grid", 0);
		if (fd < 0 || ftruncate(fd, MEM_LEN))
			die("memfd: %m");
	}
	if (kind == MEM_HUGE)
		flags |= MAP_HUGETLB;
	s->mem = mmap(NULL, MEM_LEN, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (s->mem == MAP_FAILED)
		die("memory: %m");
	if (fd >= 0)
		close(fd);
	memset(s->mem, 0, MEM_LEN);
	s->mr = ibv_reg_mr(s->pd, s->mem, MEM_LEN, IBV_ACCESS_LOCAL_WRITE |
			   IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
			   IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND |
			   IBV_ACCESS_FLUSH_GLOBAL);
	if (!s->mr)
		die("register memory: %m");
}

struct ibv_qp *make_qp(struct side *s, enum ibv_qp_type type,
		       struct ibv_cq *cq, struct ibv_srq *srq)
{
	struct ibv_qp_init_attr_ex init = {
		.qp_type = type,
		.send_cq = cq,
		.recv_cq = cq,
		.srq = srq,
		.cap = { .max_send_wr = QUEUE,
			 .max_recv_wr = srq ? 0 : QUEUE,
			 .max_send_sge = 2,
			 .max_recv_sge = srq ? 0 : 2,
			 .max_inline_data = 64 },
		.comp_mask = IBV_QP_INIT_ATTR_PD |
			     (type == IBV_QPT_RC ?
			      IBV_QP_INIT_ATTR_SEND_OPS_FLAGS : 0),
		.pd = s->pd,
		.send_ops_flags = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_FLUSH |
				  IBV_QP_EX_WITH_ATOMIC_WRITE,
	};
	struct ibv_qp *qp = ibv_create_qp_ex(s->ctx, &init);

	if (!qp)
		die("create QP: %m");
	return qp;
}

void make_objects(struct side *s)
{
	struct ibv_srq_init_attr srq = {
		.attr = { .max_wr = QUEUE, .max_sge = 1 },
	};
	enum mw_kind mw = s->mover ? s->row->mw : MW_NONE;
	bool events = s->mover && s->row->cq != CQ_POLL;

	open_device(s);
	check((s->pd = ibv_alloc_pd(s->ctx)));
	make_memory(s);
	if (events)
		check((s->channel = ibv_create_comp_channel(s->ctx)));
	check((s->cq = ibv_create_cq(s->ctx, 4 * QUEUE, s, s->channel, 0)));
	if (s->mover && s->row->srq)
		check((s->srq = ibv_create_srq(s->pd, &srq)));
	s->qp = make_qp(s, s->row->type, s->cq, s->srq);
	if (s->row->type == IBV_QPT_RC)
		check((s->qpx = ibv_qp_to_qp_ex(s->qp)));
	/* The peer of a SEND with invalidate needs a window, too. */
	if (!s->mover && s->row->type == IBV_QPT_RC)
		mw = MW_2_BOUND;
	if (mw)
		check((s->mw = ibv_alloc_mw(s->pd, mw >= MW_2_FREE ?
					    IBV_MW_TYPE_2 : IBV_MW_TYPE_1)));

	check0(ibv_query_gid(s->ctx, 1, gid_index, &s->me.gid));
	s->me.mem = (uintptr_t)s->mem;
	s->me.rkey = s->mr->rkey;
	s->me.window_rkey = s->mr->rkey;
	s->me.qpn = s->qp->qp_num;
	s->me.psn = s->mover ? 0xfffff0 : 0x123456;	/* wraps around */
}

void destroy_objects(struct side *s)
{
	if (s->channel) {
		ibv_ack_cq_events(s->cq, s->events);
		s->events = 0;
	}
	if (s->mw)
		check0(ibv_dealloc_mw(s->mw));
	check0(ibv_destroy_qp(s->qp));
	if (s->srq)
		check0(ibv_destroy_srq(s->srq));
	check0(ibv_destroy_cq(s->cq));
	if (s->channel)
		check0(ibv_destroy_comp_channel(s->channel));
	check0(ibv_dereg_mr(s->mr));
	check0(ibv_dealloc_pd(s->pd));
	check0(ibv_close_device(s->ctx));
}

int modify_state(struct ibv_qp *qp, enum ibv_qp_state state)
{
	struct ibv_qp_attr attr = { .qp_state = state };

	return ibv_modify_qp(qp, &attr, IBV_QP_STATE);
}

void to_init(struct side *s, struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = 1,
		.qkey = QKEY,
		.qp_access_flags = IBV_ACCESS_REMOTE_WRITE |
				   IBV_ACCESS_REMOTE_READ |
				   IBV_ACCESS_REMOTE_ATOMIC |
				   IBV_ACCESS_FLUSH_GLOBAL,
	};

	if (qp->qp_type == IBV_QPT_UC)
		attr.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
	(void)s;
	check0(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX |
			     IBV_QP_PORT | (qp->qp_type == IBV_QPT_UD ?
			     IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS)));
}

void to_rtr(struct side *s, struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = IBV_MTU_256,
		.dest_qp_num = s->peer.qpn,
		.rq_psn = s->peer.psn,
		.max_dest_rd_atomic = 4,
		.min_rnr_timer = 0,	/* the longest: 655 ms */
		.ah_attr = {
			.is_global = 1,
			.port_num = 1,
			.grh = { .dgid = s->peer.gid, .hop_limit = 64,
				 .sgid_index = gid_index },
		},
	};
	int mask = IBV_QP_STATE;

	if (qp->qp_type != IBV_QPT_UD)
		mask |= IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
			IBV_QP_RQ_PSN;
	if (qp->qp_type == IBV_QPT_RC)
		mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
	check0(ibv_modify_qp(qp, &attr, mask));
}

void to_rts(struct side *s, struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTS,
		.sq_psn = s->me.psn,
		/* 2 s: nothing is sent again before the dump */
		.timeout = 19,
		.retry_cnt = 6,
		.rnr_retry = 7,
		.max_rd_atomic = 4,
	};
	int mask = IBV_QP_STATE | IBV_QP_SQ_PSN;

	if (qp->qp_type == IBV_QPT_RC)
		mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
			IBV_QP_MAX_QP_RD_ATOMIC;
	check0(ibv_modify_qp(qp, &attr, mask));
}

/* ---- requests ---- */

static void do_post_recv(struct side *s, size_t at, size_t len, uint64_t id)
{
	struct ibv_sge sge = { (uintptr_t)s->mem + at, len, s->mr->lkey };
	struct ibv_recv_wr wr = { .wr_id = id, .sg_list = &sge, .num_sge = 1 };
	struct ibv_recv_wr *bad;

	check0(s->srq ? ibv_post_srq_recv(s->srq, &wr, &bad) :
			ibv_post_recv(s->qp, &wr, &bad));
	s->posted++;
}

#define RECV_ID		0x1000

void post_recv(struct side *s)
{
	size_t at = AT_RECV + s->next_recv % 16 * RECV_LEN;

	memset(s->mem + at, 0, RECV_LEN);
	do_post_recv(s, at, RECV_LEN, RECV_ID + s->next_recv++);
}

/* In place of the usual one */
void post_long_recv(struct side *s)
{
	do_post_recv(s, AT_LONG_RECV, HUGE_LEN, RECV_ID + s->next_recv++);
}

uint64_t post(struct side *s, struct ibv_send_wr *wr, size_t at, size_t len)
{
	struct ibv_sge sge = { (uintptr_t)s->mem + at, len, s->mr->lkey };
	struct ibv_send_wr *bad;

	wr->wr_id = ++s->next_id;
	if (len) {
		wr->sg_list = &sge;
		wr->num_sge = 1;
	}
	wr->send_flags |= IBV_SEND_SIGNALED;
	if (s->row->type == IBV_QPT_UD) {
		wr->wr.ud.ah = s->ah;
		wr->wr.ud.remote_qpn = s->peer.qpn;
		wr->wr.ud.remote_qkey = QKEY;
	}
	check0(ibv_post_send(s->qp, wr, &bad));
	return wr->wr_id;
}

uint64_t post_send(struct side *s, enum ibv_wr_opcode opcode, size_t len,
		   uint64_t seed)
{
	struct ibv_send_wr wr = { .opcode = opcode };

	if (opcode == IBV_WR_SEND_WITH_IMM)
		wr.imm_data = htonl(seed);
	if (opcode == IBV_WR_SEND_WITH_INV)
		wr.invalidate_rkey = s->peer.window_rkey;
	fill(s->mem + AT_OUT, len, seed);
	return post(s, &wr, AT_OUT, len);
}

uint64_t post_write(struct side *s, enum ibv_wr_opcode opcode, size_t len,
		    uint64_t seed)
{
	struct ibv_send_wr wr = { .opcode = opcode, .imm_data = htonl(seed) };

	wr.wr.rdma.remote_addr = s->peer.mem + AT_WINDOW;
	wr.wr.rdma.rkey = s->peer.window_rkey;
	fill(s->mem + AT_OUT, len, seed);
	return post(s, &wr, AT_OUT, len);
}

uint64_t post_read(struct side *s, size_t len)
{
	struct ibv_send_wr wr = { .opcode = IBV_WR_RDMA_READ };

	wr.wr.rdma.remote_addr = s->peer.mem + AT_SOURCE;
	wr.wr.rdma.rkey = s->peer.rkey;
	return post(s, &wr, AT_READ, len);
}

uint64_t post_atomic(struct side *s, enum ibv_wr_opcode opcode,
		     uint64_t compare_add, uint64_t swap)
{
	struct ibv_send_wr wr = { .opcode = opcode };

	wr.wr.atomic.remote_addr = s->peer.mem + AT_CELL;
	wr.wr.atomic.rkey = s->peer.rkey;
	wr.wr.atomic.compare_add = compare_add;
	wr.wr.atomic.swap = swap;
	return post(s, &wr, AT_OLD, 8);
}

uint64_t post_flush(struct side *s)
{
	ibv_wr_start(s->qpx);
	s->qpx->wr_id = ++s->next_id;
	s->qpx->wr_flags = IBV_SEND_SIGNALED;
	ibv_wr_flush(s->qpx, s->peer.rkey, s->peer.mem + AT_SOURCE, LEN,
		     IBV_FLUSH_GLOBAL, IBV_FLUSH_RANGE);
	check0(ibv_wr_complete(s->qpx));
	return s->next_id;
}

uint64_t post_atomic_write(struct side *s, uint64_t value)
{
	ibv_wr_start(s->qpx);
	s->qpx->wr_id = ++s->next_id;
	s->qpx->wr_flags = IBV_SEND_SIGNALED;
	ibv_wr_atomic_write(s->qpx, s->peer.rkey, s->peer.mem + AT_CELL,
			    &value);
	check0(ibv_wr_complete(s->qpx));
	return s->next_id;
}

/* My window, for the peer's writes; returns when it is bound. */
void bind_window(struct side *s)
{
	struct ibv_mw_bind_info info = {
		.mr = s->mr,
		.addr = (uintptr_t)s->mem + AT_WINDOW,
		.length = HUGE_LEN,
		.mw_access_flags = IBV_ACCESS_REMOTE_WRITE,
	};

	if (s->mw->type == IBV_MW_TYPE_1) {
		struct ibv_mw_bind bind = {
			.wr_id = ++s->next_id,
			.send_flags = IBV_SEND_SIGNALED,
			.bind_info = info,
		};

		check0(ibv_bind_mw(s->qp, s->mw, &bind));
		wait_wc(s, s->next_id);
		s->me.window_rkey = s->mw->rkey;
	} else {
		struct ibv_send_wr wr = {
			.opcode = IBV_WR_BIND_MW,
			.bind_mw = { .mw = s->mw, .bind_info = info,
				     .rkey = ibv_inc_rkey(s->mw->rkey) },
		};

		wait_wc(s, post(s, &wr, 0, 0));
		s->mw->rkey = wr.bind_mw.rkey;
		s->me.window_rkey = wr.bind_mw.rkey;
	}
}

/* ---- completions ---- */

static bool events_used(struct side *s)
{
	return s->channel && s->row->cq == CQ_ARMED;
}

static void wait_event(struct side *s, int ms)
{
	struct pollfd pfd = { .fd = s->channel->fd, .events = POLLIN };
	struct ibv_cq *cq;
	void *arg;

	if (poll(&pfd, 1, ms) != 1)
		return;
	check0(ibv_get_cq_event(s->channel, &cq, &arg));
	check(cq == s->cq && arg == s);
	s->woken = true;
	if (++s->events == 3) {
		ibv_ack_cq_events(s->cq, s->events);
		s->events = 0;
	}
	check0(ibv_req_notify_cq(s->cq, 0));
}

/* Whatever has completed */
static void poll_cq(struct side *s)
{
	int n;

	if (s->to_rts && !modify_state(s->qp, IBV_QPS_RTS))
		s->to_rts = false;
	do {
		check(s->wcs < WCS);
		n = ibv_poll_cq(s->cq, 1, &s->wc[s->wcs]);
		check(n >= 0);
		s->wcs += n;
	} while (n);
}

static bool take_wc(struct side *s, uint64_t id, struct ibv_wc *wc)
{
	unsigned int i;

	for (i = 0; i != s->wcs; i++) {
		if (s->wc[i].wr_id != id)
			continue;
		*wc = s->wc[i];
		memmove(&s->wc[i], &s->wc[i + 1],
			(--s->wcs - i) * sizeof(*s->wc));
		return true;
	}
	return false;
}

struct ibv_wc wait_wc(struct side *s, uint64_t id)
{
	double end = now_ms() + WAIT_MS;
	struct ibv_wc wc;

	for (;;) {
		poll_cq(s);
		if (take_wc(s, id, &wc))
			return wc;
		if (now_ms() > end)
			die("request %#llx has not completed",
			    (unsigned long long)id);
		if (events_used(s))
			wait_event(s, s->to_rts ? 10 : WAIT_MS);
		else
			usleep(500);
	}
}

/* The next message; one that is not to be looked at has length 0. */
struct ibv_wc wait_recv(struct side *s, size_t len, uint64_t seed)
{
	uint64_t n = s->done_recv++;
	struct ibv_wc wc = wait_wc(s, RECV_ID + n);
	size_t grh = s->row->type == IBV_QPT_UD ? 40 : 0;

	if (wc.status)
		die("receive: %s", ibv_wc_status_str(wc.status));
	s->posted--;
	if (wc.opcode == IBV_WC_RECV_RDMA_WITH_IMM) {
		verify(s->mem + AT_WINDOW, len, seed, "write");
	} else if (len) {
		if (wc.byte_len != len + grh)
			die("%u bytes received instead of %zu", wc.byte_len,
			    len + grh);
		verify(s->mem + (len > RECV_LEN ? AT_LONG_RECV :
				 AT_RECV + n % 16 * RECV_LEN) + grh,
		       len, seed, "message");
	}
	if (wc.wc_flags & IBV_WC_WITH_IMM && ntohl(wc.imm_data) != seed)
		die("immediate is %u", ntohl(wc.imm_data));
	return wc;
}

/* Nothing completes for a while, but what was posted in SQD. */
bool no_wc(struct side *s, unsigned int ms)
{
	unsigned int due = s->extra_due ? 1 : 0;
	double end = now_ms() + ms;

	do {
		poll_cq(s);
		usleep(1000);
	} while (s->wcs <= due && now_ms() < end);
	return s->wcs <= due;
}

/* Until the peer has changed 8 bytes of memory */
void wait_byte(struct side *s, size_t at, uint64_t value)
{
	volatile uint64_t *p = (void *)(s->mem + at);
	double end = now_ms() + WAIT_MS;

	while (*p != value) {
		if (now_ms() > end)
			die("memory is %#llx, not %#llx",
			    (unsigned long long)*p, (unsigned long long)value);
		usleep(500);
	}
}

static void expect_ok(struct side *s, uint64_t id)
{
	struct ibv_wc wc = wait_wc(s, id);

	if (wc.status)
		die("request %#llx: %s", (unsigned long long)id,
		    ibv_wc_status_str(wc.status));
}

/* Messages, and writes, in both directions */
void talk(struct side *s, uint64_t seed)
{
	bool ud = s->row->type == IBV_QPT_UD;
	size_t len = ud ? 200 : LEN;
	uint64_t mine = 2 * seed + s->mover, theirs = 2 * seed + !s->mover;

	if (!s->posted)
		post_recv(s);
	barrier(s);
	expect_ok(s, post_send(s, IBV_WR_SEND, len, mine));
	wait_recv(s, len, theirs);
	post_recv(s);
	barrier(s);
	if (ud)
		return;
	expect_ok(s, post_write(s, IBV_WR_RDMA_WRITE_WITH_IMM, len,
				mine + 1000));
	wait_recv(s, len, theirs + 1000);
	post_recv(s);
	barrier(s);
}
