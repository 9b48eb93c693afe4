// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * cycle: two processes exchange data over RDMA while one or both dump, destroy
 * and restore their context again and again. Every message, write, read and
 * atomic operation must arrive exactly once, in order, with the right contents.
 *
 * cycle [OPTION]...        both processes on this host
 * cycle [OPTION]... -l     wait for a partner
 * cycle [OPTION]... HOST   be the partner; this one migrates, -b: both do
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <infiniband/verbs.h>

#include "selfmig.h"

#define SENDS	12		/* messages in a round */
#define SIZE	6000		/* bytes of a message: several packets */
#define QUEUE	64
#define PORT	"18516"
#define QKEY	0x11111111

/* The kinds of work requests, in wr_id */
enum { WR_SEND = 1, WR_RECV, WR_WRITE, WR_READ, WR_ATOMIC, WR_BIND, WR_UD,
       WR_UD_RECV };

struct mem {
	uint8_t send[SENDS][SIZE];
	uint8_t recv[2 * SENDS][SIZE];
	uint8_t write[SIZE];	/* source of my WRITE */
	uint8_t window[SIZE];	/* the partner writes here */
	uint8_t read[SIZE];	/* destination of my READ */
	uint8_t source[SIZE];	/* the partner reads here */
	uint64_t old;		/* result of my FETCH_ADD */
	uint64_t counter;	/* the partner adds here */
	uint8_t ud[64];
	uint8_t ud_recv[40 + 64];
};

struct address {
	union ibv_gid gid;
	uint64_t addr;
	uint32_t rkey;		/* of all memory */
	uint32_t window_rkey;	/* of the memory window over it */
	uint32_t qpn;
	uint32_t ud_qpn;
	uint32_t psn;
};

static struct side {
	const char *name;
	int socket;
	bool migrates;
	struct ibv_context *ctx;
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	struct ibv_mw *mw;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_cq *ud_cq;
	struct ibv_srq *srq;
	struct ibv_qp *qp;
	struct ibv_qp *ud;
	struct ibv_ah *ah;
	struct mem *mem;
	struct address me, peer;
	unsigned int events;
	unsigned int received;	/* messages so far */
} s;

static const char *device = "rxe0";
static int gid_index = 1;
static unsigned int rounds = 10;
static bool use_ud = true;
static bool mw_first;
static bool stay;

__attribute__((noreturn, format(printf, 1, 2)))
static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "%s: ", s.name);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

#define check(cond, what)                                                      \
	do {                                                                   \
		if (!(cond))                                                   \
			die("%s: %s", what, strerror(errno));                  \
	} while (0)

#define check0(call)                                                           \
	do {                                                                   \
		int ret_ = (call);                                             \
		if (ret_)                                                      \
			die("%s: %s", #call,                                   \
			    strerror(ret_ > 0 ? ret_ : errno));                \
	} while (0)

/* ---- the partner ---- */

static void exchange(const void *mine, void *theirs, size_t len)
{
	if (send(s.socket, mine, len, MSG_NOSIGNAL) != (ssize_t)len ||
	    recv(s.socket, theirs, len, MSG_WAITALL) != (ssize_t)len)
		die("lost the partner");
}

static void barrier(unsigned int round)
{
	unsigned int theirs;

	exchange(&round, &theirs, sizeof(round));
	if (round != theirs)
		die("round %u, partner's round %u", round, theirs);
}

static int tcp(const char *host)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
				  .ai_flags = host ? 0 : AI_PASSIVE };
	struct addrinfo *ai;
	int fd, ret, on = 1, i;

	if (getaddrinfo(host, PORT, &hints, &ai))
		die("no address for %s", host ? host : PORT);
	for (i = 0; ; i++) {
		fd = socket(ai->ai_family, SOCK_STREAM, 0);
		check(fd >= 0, "socket");
		if (!host)
			break;
		if (!connect(fd, ai->ai_addr, ai->ai_addrlen)) {
			freeaddrinfo(ai);
			return fd;
		}
		if (i == 50)
			die("connect: %s", strerror(errno));
		close(fd);
		usleep(200000);
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	check(!bind(fd, ai->ai_addr, ai->ai_addrlen) && !listen(fd, 1),
	      "listen");
	freeaddrinfo(ai);
	ret = accept(fd, NULL, NULL);
	check(ret >= 0, "accept");
	close(fd);
	return ret;
}

/* ---- objects ---- */

static void open_device(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	int i;

	check(list, "device list");
	for (i = 0; list[i]; i++)
		if (!strcmp(ibv_get_device_name(list[i]), device))
			break;
	if (!list[i])
		die("no device %s", device);
	s.ctx = ibv_open_device(list[i]);
	check(s.ctx, "open");
	ibv_free_device_list(list);
}

static struct ibv_qp *make_qp(enum ibv_qp_type type, struct ibv_cq *cq,
			      struct ibv_srq *srq)
{
	struct ibv_qp_init_attr init = {
		.qp_type = type,
		.send_cq = cq,
		.recv_cq = cq,
		.srq = srq,
		.cap = { .max_send_wr = QUEUE, .max_recv_wr = QUEUE,
			 .max_send_sge = 2, .max_recv_sge = 2,
			 .max_inline_data = 64 },
	};
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = 1,
		.qkey = QKEY,
		.qp_access_flags = IBV_ACCESS_REMOTE_WRITE |
				   IBV_ACCESS_REMOTE_READ |
				   IBV_ACCESS_REMOTE_ATOMIC,
	};
	struct ibv_qp *qp = ibv_create_qp(s.pd, &init);

	check(qp, "create_qp");
	check0(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX |
			     IBV_QP_PORT | (type == IBV_QPT_UD ?
			     IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS)));
	return qp;
}

static void make_objects(void)
{
	struct ibv_srq_init_attr srq = {
		.attr = { .max_wr = 2 * QUEUE, .max_sge = 1 },
	};
	struct ibv_pd *gap[3];
	int i;

	/* Some handles that are free later */
	for (i = 0; i != 3; i++)
		check((gap[i] = ibv_alloc_pd(s.ctx)), "alloc_pd");
	check((s.pd = ibv_alloc_pd(s.ctx)), "alloc_pd");
	check(!posix_memalign((void **)&s.mem, 4096, sizeof(*s.mem)), "memory");
	memset(s.mem, 0, sizeof(*s.mem));
	s.mr = ibv_reg_mr(s.pd, s.mem, sizeof(*s.mem), IBV_ACCESS_LOCAL_WRITE |
			  IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
			  IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND);
	check(s.mr, "reg_mr");
	if (mw_first)
		check((s.mw = ibv_alloc_mw(s.pd, IBV_MW_TYPE_2)), "alloc_mw");
	check((s.channel = ibv_create_comp_channel(s.ctx)), "channel");
	s.cq = ibv_create_cq(s.ctx, 4 * QUEUE, &s, s.channel, 0);
	check(s.cq, "create_cq");
	check((s.ud_cq = ibv_create_cq(s.ctx, QUEUE, NULL, NULL, 0)),
	      "create_cq");
	check((s.srq = ibv_create_srq(s.pd, &srq)), "create_srq");
	s.qp = make_qp(IBV_QPT_RC, s.cq, s.srq);
	s.ud = make_qp(IBV_QPT_UD, s.ud_cq, NULL);
	if (!mw_first)
		check((s.mw = ibv_alloc_mw(s.pd, IBV_MW_TYPE_2)), "alloc_mw");
	for (i = 0; i != 3; i++)
		check0(ibv_dealloc_pd(gap[i]));

	check0(ibv_query_gid(s.ctx, 1, gid_index, &s.me.gid));
	s.me.addr = (uintptr_t)s.mem;
	s.me.rkey = s.mr->rkey;
	s.me.window_rkey = ibv_inc_rkey(s.mw->rkey);
	s.me.qpn = s.qp->qp_num;
	s.me.ud_qpn = s.ud->qp_num;
	s.me.psn = (getpid() * 7919) & 0xffffff;
}

static void connect_qps(void)
{
	struct ibv_ah_attr ah = {
		.is_global = 1,
		.port_num = 1,
		.grh = { .dgid = s.peer.gid, .sgid_index = gid_index,
			 .hop_limit = 64 },
	};
	struct ibv_qp_attr rtr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = IBV_MTU_1024,
		.dest_qp_num = s.peer.qpn,
		.rq_psn = s.peer.psn,
		.max_dest_rd_atomic = 4,
		.min_rnr_timer = 12,
		.ah_attr = ah,
	};
	struct ibv_qp_attr rts = {
		.qp_state = IBV_QPS_RTS,
		.timeout = 18,
		.retry_cnt = 5,
		.rnr_retry = 6,
		.sq_psn = s.me.psn,
		.max_rd_atomic = 4,
	};

	check0(ibv_modify_qp(s.qp, &rtr, IBV_QP_STATE | IBV_QP_AV |
			     IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
			     IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
			     IBV_QP_MIN_RNR_TIMER));
	check0(ibv_modify_qp(s.qp, &rts, IBV_QP_STATE | IBV_QP_TIMEOUT |
			     IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
			     IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC));
	check0(ibv_modify_qp(s.ud, &rtr, IBV_QP_STATE));
	check0(ibv_modify_qp(s.ud, &rts, IBV_QP_STATE | IBV_QP_SQ_PSN));
	if (use_ud)
		check((s.ah = ibv_create_ah(s.pd, &ah)), "create_ah");
}

/* ---- traffic ---- */

/* Contents of byte i of what a side sends, writes or offers in a round */
static uint8_t pattern(uint32_t psn, unsigned int round, unsigned int msg,
		       unsigned int i)
{
	uint32_t x = psn * 2654435761u + round * 40503u + msg * 977u + i;

	x ^= x >> 15;
	x *= 2246822519u;
	return x >> 13;
}

static void fill(uint8_t *p, unsigned int round, unsigned int msg)
{
	unsigned int i;

	for (i = 0; i != SIZE; i++)
		p[i] = pattern(s.me.psn, round, msg, i);
}

static void verify(const uint8_t *p, unsigned int round, unsigned int msg,
		   const char *what)
{
	unsigned int i;

	for (i = 0; i != SIZE; i++)
		if (p[i] != pattern(s.peer.psn, round, msg, i))
			die("round %u: %s %u is wrong at byte %u", round, what,
			    msg, i);
}

enum { MSG_WRITE = 1000, MSG_READ };

static struct ibv_sge sge(void *p, size_t len)
{
	return (struct ibv_sge) { (uintptr_t)p, len, s.mr->lkey };
}

static void post_recv(unsigned int slot)
{
	struct ibv_sge sg = sge(s.mem->recv[slot], SIZE);
	struct ibv_recv_wr wr = { .wr_id = slot << 8 | WR_RECV, .sg_list = &sg,
				  .num_sge = 1 }, *bad;

	check0(ibv_post_srq_recv(s.srq, &wr, &bad));
}

static void post_ud_recv(void)
{
	struct ibv_sge sg = sge(s.mem->ud_recv, sizeof(s.mem->ud_recv));
	struct ibv_recv_wr wr = { .wr_id = WR_UD_RECV, .sg_list = &sg,
				  .num_sge = 1 }, *bad;

	check0(ibv_post_recv(s.ud, &wr, &bad));
}

static void post(struct ibv_qp *qp, struct ibv_send_wr *wr, void *p, size_t len)
{
	struct ibv_sge sg = sge(p, len);
	struct ibv_send_wr *bad;

	if (len) {
		wr->sg_list = &sg;
		wr->num_sge = 1;
	}
	wr->send_flags |= IBV_SEND_SIGNALED;
	check0(ibv_post_send(qp, wr, &bad));
}

#define REMOTE(member) (s.peer.addr + offsetof(struct mem, member))

static void post_round(unsigned int round)
{
	struct ibv_send_wr wr;
	unsigned int i;

	/* To tell results that were not written */
	memset(s.mem->read, 0, SIZE);
	s.mem->old = ~0ULL;

	if (s.ah) {
		wr = (struct ibv_send_wr) { .wr_id = WR_UD,
					    .opcode = IBV_WR_SEND };
		wr.wr.ud.ah = s.ah;
		wr.wr.ud.remote_qpn = s.peer.ud_qpn;
		wr.wr.ud.remote_qkey = QKEY;
		post(s.ud, &wr, s.mem->ud, sizeof(s.mem->ud));
	}
	for (i = 0; i != SENDS; i++) {
		fill(s.mem->send[i], round, i);
		wr = (struct ibv_send_wr) { .wr_id = i << 8 | WR_SEND,
					    .opcode = IBV_WR_SEND_WITH_IMM,
					    .imm_data = round * SENDS + i };
		post(s.qp, &wr, s.mem->send[i], SIZE);
		if (i == SENDS / 3) {
			wr = (struct ibv_send_wr) { .wr_id = WR_READ,
						    .opcode = IBV_WR_RDMA_READ };
			wr.wr.rdma.remote_addr = REMOTE(source);
			wr.wr.rdma.rkey = s.peer.rkey;
			post(s.qp, &wr, s.mem->read, SIZE);
		}
		if (i == SENDS / 2) {
			fill(s.mem->write, round, MSG_WRITE);
			wr = (struct ibv_send_wr) { .wr_id = WR_WRITE,
						    .opcode = IBV_WR_RDMA_WRITE };
			wr.wr.rdma.remote_addr = REMOTE(window);
			wr.wr.rdma.rkey = s.peer.window_rkey;
			post(s.qp, &wr, s.mem->write, SIZE);

			wr = (struct ibv_send_wr) { .wr_id = WR_ATOMIC,
				.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD };
			wr.wr.atomic.remote_addr = REMOTE(counter);
			wr.wr.atomic.rkey = s.peer.rkey;
			wr.wr.atomic.compare_add = round + 1;
			post(s.qp, &wr, &s.mem->old, sizeof(s.mem->old));
		}
	}
}

static void bind_window(void)
{
	struct ibv_send_wr wr = {
		.wr_id = WR_BIND,
		.opcode = IBV_WR_BIND_MW,
		.bind_mw = {
			.mw = s.mw,
			.rkey = s.me.window_rkey,
			.bind_info = {
				.mr = s.mr,
				.addr = (uintptr_t)s.mem->window,
				.length = SIZE,
				.mw_access_flags = IBV_ACCESS_REMOTE_WRITE,
			},
		},
	};

	post(s.qp, &wr, NULL, 0);
}

struct due {
	unsigned int sends, recvs, others;
};

static void completed(struct ibv_wc *wc, unsigned int round, struct due *due)
{
	unsigned int slot = wc->wr_id >> 8;

	if (wc->status)
		die("round %u: request %u of kind %u: %s", round, slot,
		    (unsigned int)wc->wr_id & 0xff,
		    ibv_wc_status_str(wc->status));

	switch (wc->wr_id & 0xff) {
	case WR_SEND:
		if (slot != SENDS - due->sends)
			die("round %u: send %u completed, %u expected", round,
			    slot, SENDS - due->sends);
		due->sends--;
		break;
	case WR_RECV:
		if (wc->imm_data != s.received)
			die("round %u: message %u received, %u expected", round,
			    wc->imm_data, s.received);
		if (wc->byte_len != SIZE)
			die("round %u: %u bytes received", round, wc->byte_len);
		verify(s.mem->recv[slot], round, wc->imm_data % SENDS,
		       "message");
		post_recv(slot);
		s.received++;
		due->recvs--;
		break;
	default:
		due->others--;
	}
}

static void poll_all(unsigned int round, struct due *due)
{
	struct ibv_wc wc[8];
	int n, i;

	while ((n = ibv_poll_cq(s.cq, 8, wc)) > 0)
		for (i = 0; i != n; i++)
			completed(&wc[i], round, due);
	check(!n, "poll_cq");

	while ((n = ibv_poll_cq(s.ud_cq, 8, wc)) > 0)
		for (i = 0; i != n; i++) {
			if (wc[i].status)
				die("round %u: datagram: %s", round,
				    ibv_wc_status_str(wc[i].status));
			if ((wc[i].wr_id & 0xff) == WR_UD_RECV)
				post_ud_recv();
		}
}

/* Waits for completions as applications do: armed CQ, channel, poll */
static void wait_all(unsigned int round, struct due *due)
{
	struct pollfd pfd = { .fd = s.channel->fd, .events = POLLIN };
	struct ibv_cq *cq;
	void *arg;

	for (;;) {
		poll_all(round, due);
		if (!due->sends && !due->recvs && !due->others)
			return;
		if (poll(&pfd, 1, 60000) != 1)
			die("round %u: nothing for 60 s; due: %u sends, %u receives, %u others",
			    round, due->sends, due->recvs, due->others);
		check0(ibv_get_cq_event(s.channel, &cq, &arg));
		if (cq != s.cq || arg != &s)
			die("round %u: event of another CQ", round);
		s.events++;
		if (!(s.events % 3)) {
			ibv_ack_cq_events(s.cq, s.events);
			s.events = 0;
		}
		check0(ibv_req_notify_cq(s.cq, 0));
	}
}

static void verify_round(unsigned int round)
{
	uint64_t sum = (uint64_t)round * (round + 1) / 2;

	verify(s.mem->read, 0, MSG_READ, "read");
	if (s.mem->old != sum)
		die("round %u: atomic returned %lld, not %lld", round,
		    (long long)s.mem->old, (long long)sum);
	/* The partner has got all completions too */
	barrier(round);
	verify(s.mem->window, round, MSG_WRITE, "write");
	if (s.mem->counter != sum + round + 1)
		die("round %u: counter is %llu", round,
		    (unsigned long long)s.mem->counter);
	barrier(round);
}

static int run(void)
{
	struct selfmig_info info, sum = {};
	struct due due = { .others = 1 };
	unsigned int round, i;
	int err;

	open_device();
	make_objects();
	exchange(&s.me, &s.peer, sizeof(s.me));
	connect_qps();
	fill(s.mem->source, 0, MSG_READ);
	for (i = 0; i != 2 * SENDS; i++)
		post_recv(i);
	post_ud_recv();
	check0(ibv_req_notify_cq(s.cq, 0));
	barrier(0);
	bind_window();
	wait_all(0, &due);
	barrier(0);

	for (round = 0; round != rounds; round++) {
		due = (struct due) { .sends = SENDS, .recvs = SENDS,
				     .others = 3 };
		post_round(round);
		if (s.migrates) {
			err = selfmig_cycle(s.ctx, &info);
			if (err == -EOPNOTSUPP && !round) {
				printf("%s\n", selfmig_error());
				return 77;
			}
			if (err)
				die("round %u: %s", round, selfmig_error());
			sum.total_ms += info.total_ms;
			sum.dump_ms += info.dump_ms;
		}
		wait_all(round, &due);
		verify_round(round);
	}

	if (s.migrates && rounds)
		printf("%s: %u cycles, %.1f ms each, dump %.1f ms, %d records, %zu bytes\n",
		       s.name, rounds, sum.total_ms / rounds,
		       sum.dump_ms / rounds, info.records, info.bytes);

	/* Everything can be destroyed: counters of events are right */
	ibv_ack_cq_events(s.cq, s.events);
	if (s.ah)
		check0(ibv_destroy_ah(s.ah));
	check0(ibv_destroy_qp(s.ud));
	check0(ibv_dealloc_mw(s.mw));
	check0(ibv_destroy_qp(s.qp));
	check0(ibv_destroy_srq(s.srq));
	check0(ibv_destroy_cq(s.ud_cq));
	check0(ibv_destroy_cq(s.cq));
	check0(ibv_destroy_comp_channel(s.channel));
	check0(ibv_dereg_mr(s.mr));
	check0(ibv_dealloc_pd(s.pd));
	check0(ibv_close_device(s.ctx));
	return 0;
}

int main(int argc, char **argv)
{
	bool both = false, listener = false;
	int opt, pair[2], status, ret;
	pid_t child;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((opt = getopt(argc, argv, "bd:g:ln:suw")) != -1) {
		switch (opt) {
		case 'b':
			both = true;
			break;
		case 'd':
			device = optarg;
			break;
		case 'g':
			gid_index = atoi(optarg);
			break;
		case 'l':
			listener = true;
			break;
		case 'n':
			rounds = atoi(optarg);
			break;
		case 's':
			stay = true;
			break;
		case 'u':
			use_ud = false;
			break;
		case 'w':
			mw_first = true;
			break;
		default:
			fprintf(stderr, "usage: cycle [-d DEVICE] [-g GID-INDEX] [-n ROUNDS] [-b: both migrate] [-s: none migrates] [-u: no UD] [-w: memory window before QP] [-l | HOST]\n");
			return 2;
		}
	}

	if (listener || optind < argc) {
		s.name = listener ? "listener" : "connector";
		s.socket = tcp(listener ? NULL : argv[optind]);
		s.migrates = !stay && (!listener || both);
		return run();
	}

	check(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
	child = fork();
	check(child >= 0, "fork");
	s.name = child ? "parent" : "child";
	s.socket = pair[!child];
	close(pair[!!child]);
	s.migrates = !stay && (child || both);
	ret = run();
	if (!child)
		return ret;
	if (ret)
		kill(child, SIGTERM);
	if (waitpid(child, &status, 0) != child)
		die("the child is gone");
	return ret ? ret : WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
