// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Making the objects, and a message over each QP.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "objects.h"

#define MESSAGE 64
#define BUSY_MESSAGE (4 << 20)
#define FLIGHT_MEMORY (1 << 20)
#define REMOTE (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |              \
		IBV_ACCESS_REMOTE_WRITE)

static bool is(const char *type)
{
	return !strcmp(options.type, type);
}

/* That a side sends or receives */
static unsigned int messages(void)
{
	return options.count * options.sends;
}

static struct ibv_sge message(struct side *s)
{
	return (struct ibv_sge){ (uintptr_t)s->memory,
				 options.flight ?: MESSAGE, s->mr->lkey };
}

/* All of it is there: neither pinning nor dumping has to make pages */
void make_memory(struct side *s)
{
	s->len = is("mr") ? options.bytes : is("busy") ? BUSY_MESSAGE : 4096;
	/* The same whatever is under way */
	if (options.flight)
		s->len = FLIGHT_MEMORY;
	s->memory = mmap(NULL, s->len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	check(s->memory != MAP_FAILED, "memory");
	memset(s->memory, 1, s->len);
}

/* What each measurement has */
void make_base(struct side *s)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	check(list && *list, "a device");
	check((s->ctx = ibv_open_device(*list)), "open");
	ibv_free_device_list(list);
	check((s->pd = ibv_alloc_pd(s->ctx)), "alloc_pd");
	check((s->mr = ibv_reg_mr(s->pd, s->memory, is("mr") ? 4096 : s->len, REMOTE)), "reg_mr");
	s->cq = ibv_create_cq(s->ctx, messages() + 8, NULL, NULL, 0);
	check(s->cq, "create_cq");
}

/* The index of the device's IPv4 address */
static int own_gid(struct side *s, union ibv_gid *gid)
{
	static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };
	int i;

	for (i = 0; i != 16; i++)
		if (!ibv_query_gid(s->ctx, 1, i, gid) &&
		    !memcmp(gid, prefix, 12))
			return i;
	die("no IPv4 address on the device");
}

static void make_one(struct side *s)
{
	struct ibv_srq_init_attr srq = {
		.attr = { .max_wr = options.depth, .max_sge = 1 },
	};
	struct ibv_ah_attr ah = { .is_global = 1, .port_num = 1 };

	if (is("pd")) {
		check(ibv_alloc_pd(s->ctx), "alloc_pd");
	} else if (is("mr")) {
		check(ibv_reg_mr(s->pd, s->memory, s->len, REMOTE), "reg_mr");
	} else if (is("cq")) {
		check(ibv_create_cq(s->ctx, options.depth, NULL, NULL, 0),
		      "create_cq");
	} else if (is("srq")) {
		check(ibv_create_srq(s->pd, &srq), "create_srq");
	} else if (is("ah")) {
		ah.grh.sgid_index = own_gid(s, &ah.grh.dgid);
		check(ibv_create_ah(s->pd, &ah), "create_ah");
	} else if (is("mw")) {
		check(ibv_alloc_mw(s->pd, IBV_MW_TYPE_2), "alloc_mw");
	} else {
		die("no type %s", options.type);
	}
}

void make_objects(struct side *s, struct meter *m)
{
	unsigned int i;

	for (i = 0; i != options.count; i++) {
		meter_start(m);
		make_one(s);
		meter_stop(m);
	}
}

static void connect_qp(struct ibv_qp *qp, struct ibv_ah_attr *ah, uint32_t to)
{
	struct ibv_qp_attr init = {
		.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = REMOTE,
	};
	struct ibv_qp_attr rtr = {
		.qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024,
		.dest_qp_num = to, .ah_attr = *ah, .max_dest_rd_atomic = 1,
		.min_rnr_timer = 12,
	};
	struct ibv_qp_attr rts = {
		.qp_state = IBV_QPS_RTS, .timeout = 18, .retry_cnt = 7,
		.rnr_retry = 7, .max_rd_atomic = 1,
	};

	check0(ibv_modify_qp(qp, &init, IBV_QP_STATE | IBV_QP_PKEY_INDEX |
			     IBV_QP_PORT | IBV_QP_ACCESS_FLAGS));
	check0(ibv_modify_qp(qp, &rtr, IBV_QP_STATE | IBV_QP_AV |
			     IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
			     IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER));
	check0(ibv_modify_qp(qp, &rts, IBV_QP_STATE | IBV_QP_TIMEOUT |
			     IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
			     IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC));
}

static void wait_for(unsigned int which)
{
	while (!shared->ready[which]) {
		if (shared->failed)
			die("the other side has failed");
		usleep(1000);
	}
}

void post_receives(struct side *s)
{
	struct ibv_sge sge = message(s);
	struct ibv_recv_wr wr = { .sg_list = &sge, .num_sge = 1 }, *bad;
	unsigned int i, j;

	for (i = 0; i != options.count; i++) {
		/* For the analyser: it takes options for changed by any call */
		check(s->qps[i], "a QP");
		for (j = 0; j != options.sends; j++)
			check0(ibv_post_recv(s->qps[i], &wr, &bad));
	}
}

/* This side is number WHICH; the meter is of what a QP takes to reach RTS */
void make_qps(struct side *s, unsigned int which, struct meter *m)
{
	struct ibv_ah_attr ah = { .is_global = 1, .port_num = 1 };
	struct ibv_qp_init_attr init = {
		.qp_type = IBV_QPT_RC, .send_cq = s->cq, .recv_cq = s->cq,
		.cap = { .max_send_wr = options.depth, .max_send_sge = 1,
			 .max_recv_wr = options.depth, .max_recv_sge = 1 },
	};
	unsigned int i, n = options.count;

	ah.grh.sgid_index = own_gid(s, &ah.grh.dgid);
	ah.grh.hop_limit = 64;
	check((s->qps = calloc(n + 1, sizeof(*s->qps))), "memory");
	for (i = 0; i != n; i++) {
		meter_start(m);
		check((s->qps[i] = ibv_create_qp(s->pd, &init)), "create_qp");
		meter_stop(m);
		shared->qpn[which * n + i] = s->qps[i]->qp_num;
	}
	shared->ready[which] = 1;
	wait_for(!which);
	for (i = 0; i != n; i++) {
		meter_start(m);
		connect_qp(s->qps[i], &ah, shared->qpn[!which * n + i]);
		meter_stop(m);
	}
	if (!options.flight)
		post_receives(s);
	m->times = n;
	shared->ready[which] = 2;
	while (shared->ready[!which] != 2)
		usleep(1000);
}

static void wait_cq(struct side *s, enum ibv_wc_opcode opcode, unsigned int num)
{
	unsigned int i, waited = 0;
	struct ibv_wc wc;
	int n;

	for (i = 0; i != num;) {
		n = ibv_poll_cq(s->cq, 1, &wc);
		check(n >= 0, "poll_cq");
		if (n) {
			if (wc.status || wc.opcode != opcode)
				die("message %u: %s", i,
				    ibv_wc_status_str(wc.status));
			i++;
		} else if (++waited == 120000) {
			die("%u messages of %u", i, num);
		} else {
			usleep(1000);
		}
	}
}

/* Over each QP */
void send_all(struct side *s)
{
	struct ibv_sge sge = message(s);
	struct ibv_send_wr wr = { .sg_list = &sge, .num_sge = 1,
				  .opcode = IBV_WR_SEND,
				  .send_flags = IBV_SEND_SIGNALED }, *bad;
	unsigned int i;

	for (i = 0; i != messages(); i++)
		check0(ibv_post_send(s->qps[i % options.count], &wr, &bad));
}

void sent_all(struct side *s)
{
	wait_cq(s, IBV_WC_SEND, messages());
}

void receive_all(struct side *s)
{
	wait_cq(s, IBV_WC_RECV, messages());
}

/* A long message, from a QP to another one with an SRQ, is on its way */
void make_busy(struct side *s)
{
	struct ibv_srq_init_attr srq = { .attr = { .max_wr = 1 } };
	struct ibv_device_attr device;
	struct ibv_qp_init_attr init = {
		.qp_type = IBV_QPT_RC, .send_cq = s->cq, .recv_cq = s->cq,
		.cap = { .max_send_wr = 4, .max_send_sge = 1 },
	};
	struct ibv_ah_attr ah = { .is_global = 1, .port_num = 1 };
	struct ibv_sge sge = { (uintptr_t)s->memory, s->len, s->mr->lkey };
	struct ibv_recv_wr recv = { .sg_list = &sge, .num_sge = 1 }, *bad_recv;
	struct ibv_send_wr send = { .sg_list = &sge, .num_sge = 1,
				    .opcode = IBV_WR_SEND }, *bad;
	static struct ibv_srq *queue;
	static struct ibv_qp *qps[2];

	if (!queue) {
		check0(ibv_query_device(s->ctx, &device));
		srq.attr.max_sge = device.max_srq_sge;
		check((queue = ibv_create_srq(s->pd, &srq)), "create_srq");
		check((qps[0] = ibv_create_qp(s->pd, &init)), "create_qp");
		init.srq = queue;
		check((qps[1] = ibv_create_qp(s->pd, &init)), "create_qp");
		ah.grh.sgid_index = own_gid(s, &ah.grh.dgid);
		connect_qp(qps[0], &ah, qps[1]->qp_num);
		connect_qp(qps[1], &ah, qps[0]->qp_num);
	}
	check0(ibv_post_srq_recv(queue, &recv, &bad_recv));
	check0(ibv_post_send(qps[0], &send, &bad));
}

void receive_busy(struct side *s)
{
	wait_cq(s, IBV_WC_RECV, 1);
}

/* Of all mappings of device files */
size_t ring_bytes(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long start, end;
	size_t sum = 0;
	char line[512];

	check(maps, "/proc/self/maps");
	while (fgets(line, sizeof(line), maps))
		if (strstr(line, "uverbs") &&
		    sscanf(line, "%lx-%lx", &start, &end) == 2)
			sum += end - start;
	fclose(maps);
	return sum;
}
