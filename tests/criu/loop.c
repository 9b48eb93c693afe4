// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Uses what a migration has to move, all in one process: two contexts of one
 * device, connected to each other; private and shared memory; completion
 * channels, one of them non-blocking and duplicated; an rdma_cm event channel
 * without ids; a memory window. It sends messages in a circle and checks every
 * one of them, until the file "stop" exists. With -f a child does the same on
 * contexts of its own, and shares a region of memory with its parent.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <infiniband/verbs.h>

#define SIZE	 16384
#define SLOTS	 8
#define REGION	 (SIZE * SLOTS * 2)

#define DIE(...) do {				\
	fprintf(stderr, "%s: ", name);		\
	fprintf(stderr, __VA_ARGS__);		\
	fprintf(stderr, "\n");			\
	exit(1);				\
} while (0)
#define OK(x) do { if (!(x)) DIE("%s: %s", #x, strerror(errno)); } while (0)

struct end {
	struct ibv_context *ctx;
	struct ibv_comp_channel *channel;
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	uint8_t *mem;
	unsigned int unacked;
};

static const char *name = "parent";

static struct ibv_device *device(const char *wanted)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	OK(list);
	for (; *list; list++)
		if (!wanted || !strcmp(ibv_get_device_name(*list), wanted))
			return *list;
	DIE("no such device");
}

static void open_end(struct end *e, struct ibv_device *dev, int flags)
{
	struct ibv_qp_init_attr init = {
		.cap = { SLOTS, SLOTS, 1, 1, 0 },
		.qp_type = IBV_QPT_RC,
	};
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = 1,
		.qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ,
	};

	e->mem = mmap(NULL, REGION, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
	OK(e->mem != MAP_FAILED);
	OK(e->ctx = ibv_open_device(dev));
	OK(e->channel = ibv_create_comp_channel(e->ctx));
	OK(e->pd = ibv_alloc_pd(e->ctx));
	OK(e->mr = ibv_reg_mr(e->pd, e->mem, REGION,
			      IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
			      IBV_ACCESS_MW_BIND));
	OK(e->cq = ibv_create_cq(e->ctx, 4 * SLOTS, NULL, e->channel, 0));
	OK(!ibv_req_notify_cq(e->cq, 0));
	init.send_cq = init.recv_cq = e->cq;
	OK(e->qp = ibv_create_qp(e->pd, &init));
	OK(!ibv_modify_qp(e->qp, &attr,
			  IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS));
}

static void connect_end(struct end *e, struct end *to, int gid_index)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = IBV_MTU_1024,
		.dest_qp_num = to->qp->qp_num,
		.rq_psn = 17,
		.max_dest_rd_atomic = 4,
		.min_rnr_timer = 12,
		.ah_attr = {
			.is_global = 1,
			.port_num = 1,
			.grh = { .sgid_index = gid_index, .hop_limit = 64 },
		},
	};

	OK(!ibv_query_gid(to->ctx, 1, gid_index, &attr.ah_attr.grh.dgid));
	OK(!ibv_modify_qp(e->qp, &attr,
			  IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
			  IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER));
	attr = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTS,
		.timeout = 18,
		.retry_cnt = 6,
		.rnr_retry = 7,
		.sq_psn = 17,
		.max_rd_atomic = 4,
	};
	OK(!ibv_modify_qp(e->qp, &attr,
			  IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
			  IBV_QP_MAX_QP_RD_ATOMIC));
}

static void post_recv(struct end *e, unsigned int slot)
{
	struct ibv_sge sge = { (uintptr_t)e->mem + (SLOTS + slot) * SIZE, SIZE, e->mr->lkey };
	struct ibv_recv_wr wr = { .wr_id = slot, .sg_list = &sge, .num_sge = 1 }, *bad;

	OK(!ibv_post_recv(e->qp, &wr, &bad));
}

static void fill(uint8_t *mem, uint64_t number)
{
	unsigned int i;

	for (i = 0; i < SIZE; i += 8) {
		uint64_t v = (number << 16 | i) * 0x9e3779b97f4a7c15ULL;

		memcpy(mem + i, &v, 8);
	}
}

static void post_send(struct end *e, uint64_t number)
{
	unsigned int slot = number % SLOTS;
	struct ibv_sge sge = { (uintptr_t)e->mem + slot * SIZE, SIZE, e->mr->lkey };
	struct ibv_send_wr wr = {
		.wr_id = SLOTS + slot,
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = IBV_WR_SEND_WITH_IMM,
		.imm_data = number,
		.send_flags = IBV_SEND_SIGNALED,
	}, *bad;

	fill(e->mem + slot * SIZE, number);
	OK(!ibv_post_send(e->qp, &wr, &bad));
}

/* Wait for an event; the number of received messages, checked. */
static unsigned int wait_end(struct end *e, uint64_t *next, unsigned int *sent)
{
	struct pollfd pfd = { .fd = e->channel->fd, .events = POLLIN };
	static uint8_t expect[SIZE];
	struct ibv_cq *cq;
	struct ibv_wc wc;
	unsigned int nr = 0;
	void *arg;

	while (poll(&pfd, 1, 120000) != 1)
		if (errno != EINTR)
			DIE("no completion for 120 s at message %llu", (unsigned long long)*next);
	OK(!ibv_get_cq_event(e->channel, &cq, &arg));
	OK(cq == e->cq);
	if (++e->unacked == 100) {
		ibv_ack_cq_events(cq, e->unacked);
		e->unacked = 0;
	}
	OK(!ibv_req_notify_cq(cq, 0));
	while (ibv_poll_cq(cq, 1, &wc) == 1) {
		if (wc.status)
			DIE("%s at message %llu", ibv_wc_status_str(wc.status), (unsigned long long)*next);
		if (wc.wr_id >= SLOTS) {
			(*sent)++;
			continue;
		}
		fill(expect, *next);
		if (wc.imm_data != (uint32_t)*next ||
		    memcmp(e->mem + (SLOTS + wc.wr_id) * SIZE, expect, SIZE))
			DIE("message %llu is wrong", (unsigned long long)*next);
		post_recv(e, wc.wr_id);
		(*next)++;
		nr++;
	}
	return nr;
}

static void run(struct ibv_device *dev, int gid_index)
{
	struct end a = {}, b = {};
	uint64_t next_a = 0, next_b = 0, number_a = 0, number_b = 0;
	unsigned int sent = 0, i;
	struct ibv_mw *mw;
	int cm, copy;

	open_end(&a, dev, MAP_PRIVATE);
	open_end(&b, dev, MAP_SHARED);
	OK(mw = ibv_alloc_mw(a.pd, IBV_MW_TYPE_2));
	OK((copy = dup(b.channel->fd)) >= 0);
	OK(!fcntl(b.channel->fd, F_SETFL, fcntl(b.channel->fd, F_GETFL) | O_NONBLOCK));
	cm = open("/dev/infiniband/rdma_cm", O_RDWR | O_CLOEXEC);
	connect_end(&a, &b, gid_index);
	connect_end(&b, &a, gid_index);

	for (i = 0; i < SLOTS; i++) {
		post_recv(&a, i);
		post_recv(&b, i);
	}
	for (i = 0; i < SLOTS / 2; i++)
		post_send(&a, number_a++);
	while (access("stop", F_OK)) {
		for (i = wait_end(&b, &next_b, &sent); i; i--)
			post_send(&b, number_b++);
		/* what has arrived by now */
		while (number_b - next_a > SLOTS / 2 - 1)
			for (i = wait_end(&a, &next_a, &sent); i; i--)
				post_send(&a, number_a++);
	}

	OK(fcntl(copy, F_GETFL) & O_NONBLOCK);
	if (cm >= 0)
		OK(!access("/dev/infiniband/rdma_cm", F_OK) && fcntl(cm, F_GETFD) == FD_CLOEXEC);
	OK(!ibv_dealloc_mw(mw));
	ibv_ack_cq_events(a.cq, a.unacked);
	ibv_ack_cq_events(b.cq, b.unacked);
	OK(!ibv_destroy_qp(a.qp) && !ibv_destroy_qp(b.qp));
	OK(!ibv_destroy_cq(a.cq) && !ibv_destroy_cq(b.cq));
	OK(!ibv_dereg_mr(a.mr) && !ibv_dereg_mr(b.mr));
	OK(!ibv_dealloc_pd(a.pd) && !ibv_dealloc_pd(b.pd));
	OK(!ibv_destroy_comp_channel(a.channel) && !ibv_destroy_comp_channel(b.channel));
	OK(!ibv_close_device(a.ctx) && !ibv_close_device(b.ctx));
	printf("%s: %llu messages\n", name, (unsigned long long)(next_a + next_b));
	OK(next_a > 0 && sent > 0);
}

int main(int argc, char **argv)
{
	const char *wanted = NULL;
	int option, gid_index = 1, status = 0, children = 0;

	while ((option = getopt(argc, argv, "d:x:f")) != -1) {
		if (option == 'd')
			wanted = optarg;
		else if (option == 'x')
			gid_index = atoi(optarg);
		else if (option == 'f')
			children = 1;
		else
			return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (children) {
		pid_t pid = fork();

		OK(pid >= 0);
		if (!pid) {
			name = "child";
			run(device(wanted), gid_index);
			return 0;
		}
	}
	run(device(wanted), gid_index);
	if (children)
		OK(wait(&status) > 0);
	return status ? 1 : 0;
}
