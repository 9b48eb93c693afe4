// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * endpoint: the driver's end of the connections of a conformance case.
 *
 * Listens on TCP port 4000 of a host for the peer that speaks to the driver
 * packet by packet, and does with the verbs what the peer wants:
 *
 *   NAME KEY=VALUE...         ->  ok KEY=VALUE...    or    error TEXT
 *
 * Numbers are decimal or 0x; bytes are hexadecimal. What a command takes and
 * returns stands with its function. QPs are numbered from 0 in order of setup.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <glob.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <infiniband/verbs.h>
#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/rdma_user_ioctl_cmds.h>

#include "../../drivers/infiniband/sw/rxe/rxe_mig_uapi.h"
#include "../verbs/selfmig.h"

#define PORT		4000
#define MAX_QPS		1100
#define MEMORY		(1 << 20)
#define QKEY		0x1234
#define ACCESS		(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | \
			 IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC)

static struct ibv_context *ctx;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_mr *mr;
static uint8_t *memory;
static struct ibv_qp *qps[MAX_QPS];
static unsigned int num_qps;
static struct selfmig *migration;

/* ---- requests and answers ---- */

static char *words[64];
static unsigned int num_words;
static char answer[1 << 16];
static size_t answer_len;

__attribute__((format(printf, 1, 2)))
static void say(const char *format, ...)
{
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(answer + answer_len, sizeof(answer) - answer_len,
			format, args);
	va_end(args);
	answer_len += len;
	if (answer_len >= sizeof(answer)) {
		fprintf(stderr, "answer too long\n");
		exit(1);
	}
}

__attribute__((format(printf, 1, 2)))
static int wrong(const char *format, ...)
{
	va_list args;

	answer_len = 0;
	va_start(args, format);
	answer_len = vsnprintf(answer, sizeof(answer), format, args);
	va_end(args);
	return -1;
}

/* The value of a word of the request, or otherwise */
static const char *text(const char *key, const char *otherwise)
{
	size_t len = strlen(key);
	unsigned int i;

	for (i = 1; i != num_words; i++)
		if (!strncmp(words[i], key, len) && words[i][len] == '=')
			return words[i] + len + 1;
	return otherwise;
}

static uint64_t number(const char *key, uint64_t otherwise)
{
	const char *value = text(key, NULL);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

static struct ibv_qp *the_qp(void)
{
	uint64_t index = number("qp", 0);

	return index < num_qps ? qps[index] : NULL;
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ull + ts.tv_nsec / 1000000;
}

/* ---- objects ---- */

static int address(const char *string, union ibv_gid *gid)
{
	struct in_addr v4;

	memset(gid, 0, sizeof(*gid));
	if (inet_pton(AF_INET, string, &v4) == 1) {
		gid->raw[10] = 0xff;
		gid->raw[11] = 0xff;
		memcpy(gid->raw + 12, &v4, 4);
		return 0;
	}
	return inet_pton(AF_INET6, string, gid->raw) == 1 ? 0 : -1;
}

static int gid_index(const union ibv_gid *wanted)
{
	union ibv_gid gid;
	int i;

	for (i = 0; i != 64; i++)
		if (!ibv_query_gid(ctx, 1, i, &gid) &&
		    !memcmp(&gid, wanted, sizeof(gid)))
			return i;
	return -1;
}

/* open [cqe]: a context, PD, CQ and memory; returns va, rkey */
static int do_open(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	if (ctx)
		return wrong("open already");
	ctx = list && *list ? ibv_open_device(*list) : NULL;
	if (!ctx)
		return wrong("no device: %s", strerror(errno));
	ibv_free_device_list(list);
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pd = ibv_alloc_pd(ctx);
	cq = pd ? ibv_create_cq(ctx, number("cqe", 4096), NULL, NULL, 0) : NULL;
	/* FLUSH of our own: persistent or global, as the case wants */
	mr = cq ? ibv_reg_mr(pd, memory, MEMORY, ACCESS | IBV_ACCESS_MW_BIND |
			     IBV_ACCESS_FLUSH_GLOBAL) : NULL;
	if (memory == MAP_FAILED || !mr)
		return wrong("open: %s", strerror(errno));
	say(" va=%#lx rkey=%#x", (unsigned long)memory, mr->rkey);
	return 0;
}

static enum ibv_qp_state state_named(const char *name)
{
	static const char *const names[] = { "RESET", "INIT", "RTR", "RTS",
					     "SQD", "SQE", "ERR" };
	unsigned int i;

	for (i = 0; i != 7; i++)
		if (!strcmp(names[i], name))
			return i;
	return IBV_QPS_UNKNOWN;
}

static int to_init(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = 1,
		.qp_access_flags = ACCESS | IBV_ACCESS_FLUSH_GLOBAL,
		.qkey = QKEY,
	};

	return ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX |
			     IBV_QP_PORT | (qp->qp_type == IBV_QPT_UD ?
			     IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS));
}

static int to_rtr(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = number("mtu", IBV_MTU_1024),
		.dest_qp_num = number("dest", 0x77),
		.rq_psn = number("rq_psn", 0x5000),
		.max_dest_rd_atomic = number("dest_rd_atomic", 8),
		.min_rnr_timer = number("min_rnr", 12),
		.ah_attr = { .is_global = 1, .port_num = 1,
			     .grh = { .hop_limit = 64,
				      .traffic_class = number("tclass", 0) } },
	};
	union ibv_gid local;
	int index;

	if (address(text("local", ""), &local) ||
	    address(text("remote", ""), &attr.ah_attr.grh.dgid))
		return EINVAL;
	index = gid_index(&local);
	if (index < 0)
		return ENOENT;
	attr.ah_attr.grh.sgid_index = index;
	return ibv_modify_qp(qp, &attr, IBV_QP_STATE | (qp->qp_type ==
			     IBV_QPT_UD ? 0 : IBV_QP_AV | IBV_QP_PATH_MTU |
			     IBV_QP_DEST_QPN | IBV_QP_RQ_PSN) |
			     (qp->qp_type == IBV_QPT_RC ?
			     IBV_QP_MAX_DEST_RD_ATOMIC |
			     IBV_QP_MIN_RNR_TIMER : 0));
}

static int to_rts(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTS,
		.timeout = number("timeout", 0),
		.retry_cnt = number("retry", 7),
		.rnr_retry = number("rnr", 7),
		.sq_psn = number("sq_psn", 0x1000),
		.max_rd_atomic = number("rd_atomic", 8),
	};

	return ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN |
			     (qp->qp_type == IBV_QPT_RC ? IBV_QP_TIMEOUT |
			     IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
			     IBV_QP_MAX_QP_RD_ATOMIC : 0));
}

/* move it through the states, up to the one named */
static int bring(struct ibv_qp *qp, enum ibv_qp_state state)
{
	struct ibv_qp_attr attr = { .qp_state = state };
	int err = 0;

	if (state >= IBV_QPS_INIT)
		err = to_init(qp);
	if (!err && state >= IBV_QPS_RTR)
		err = to_rtr(qp);
	if (!err && state >= IBV_QPS_RTS)
		err = to_rts(qp);
	if (!err && state > IBV_QPS_RTS)
		err = ibv_modify_qp(qp, &attr, IBV_QP_STATE);
	return err;
}

/*
 * setup local remote [type=RC|UC|UD] [state=RTS] [mtu dest rq_psn sq_psn timeout
 * retry rnr rd_atomic dest_rd_atomic min_rnr tclass wr]: another QP; returns qp, qpn
 */
static int do_setup(void)
{
	const char *type = text("type", "RC");
	struct ibv_qp_init_attr_ex init = {
		.send_cq = cq,
		.recv_cq = cq,
		.cap = { .max_send_wr = number("wr", 64),
			 .max_recv_wr = number("wr", 64),
			 .max_send_sge = 1, .max_recv_sge = 1 },
		.qp_type = !strcmp(type, "UD") ? IBV_QPT_UD :
			   !strcmp(type, "UC") ? IBV_QPT_UC : IBV_QPT_RC,
		.sq_sig_all = 1,
		.comp_mask = IBV_QP_INIT_ATTR_PD,
		.pd = pd,
	};
	struct ibv_qp *qp;
	int err;

	if (init.qp_type == IBV_QPT_RC) {
		init.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
		init.send_ops_flags = IBV_QP_EX_WITH_SEND |
			IBV_QP_EX_WITH_SEND_WITH_IMM | IBV_QP_EX_WITH_SEND_WITH_INV |
			IBV_QP_EX_WITH_RDMA_WRITE |
			IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM |
			IBV_QP_EX_WITH_RDMA_READ |
			IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP |
			IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD |
			IBV_QP_EX_WITH_FLUSH | IBV_QP_EX_WITH_ATOMIC_WRITE |
			IBV_QP_EX_WITH_BIND_MW | IBV_QP_EX_WITH_LOCAL_INV;
	}
	if (num_qps == MAX_QPS)
		return wrong("too many QPs");
	qp = ibv_create_qp_ex(ctx, &init);
	if (!qp)
		return wrong("create: %s", strerror(errno));
	err = bring(qp, state_named(text("state", "RTS")));
	if (err)
		return wrong("setup: %s", strerror(err));
	say(" qp=%u qpn=%#x", num_qps, qp->qp_num);
	qps[num_qps++] = qp;
	return 0;
}

/*
 * modify qp state [what setup takes]: to SQD, ERR, RTS from SQD; with anew=1 to RESET and
 * up again; with next=1 from RTR to RTS
 */
static int do_modify(void)
{
	enum ibv_qp_state state = state_named(text("state", ""));
	struct ibv_qp_attr attr = { .qp_state = state };
	struct ibv_qp *qp = the_qp();
	int err;

	if (!qp)
		return wrong("no such QP");
	if (number("anew", 0)) {
		attr.qp_state = IBV_QPS_RESET;
		err = ibv_modify_qp(qp, &attr, IBV_QP_STATE);
		if (!err)
			err = bring(qp, state);
	} else if (number("next", 0)) {
		err = to_rts(qp);
	} else {
		err = ibv_modify_qp(qp, &attr, IBV_QP_STATE);
	}
	return err ? wrong("modify: %s", strerror(err)) : 0;
}

/* query qp: what ibv_query_qp() says */
static int do_query(void)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;
	struct ibv_qp *qp = the_qp();
	char gid[INET6_ADDRSTRLEN];
	int err;

	if (!qp)
		return wrong("no such QP");
	err = ibv_query_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV |
			   IBV_QP_RQ_PSN | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT, &init);
	if (err)
		return wrong("query: %s", strerror(err));
	inet_ntop(AF_INET6, attr.ah_attr.grh.dgid.raw, gid, sizeof(gid));
	say(" state=%u cur_state=%u qp_state=%u sq_psn=%#x rq_psn=%#x dgid=%s"
	    " sgid_index=%u path_mig_state=%u", qp->state, attr.cur_qp_state,
	    attr.qp_state, attr.sq_psn, attr.rq_psn, gid,
	    attr.ah_attr.grh.sgid_index, attr.path_mig_state);
	return 0;
}

/* destroy qp */
static int do_destroy(void)
{
	struct ibv_qp *qp = the_qp();
	int err;

	if (!qp)
		return wrong("no such QP");
	err = ibv_destroy_qp(qp);
	if (err)
		return wrong("destroy: %s", strerror(err));
	qps[number("qp", 0)] = NULL;
	return 0;
}

/* ---- work and memory ---- */

/* recv qp [count id offset len]: post receives with ids that count up */
static int do_recv(void)
{
	struct ibv_qp *qp = the_qp();
	unsigned int i, count = number("count", 1);
	int err;

	for (i = 0; qp && i != count; i++) {
		struct ibv_sge sge = {
			.addr = (uintptr_t)memory + number("offset", MEMORY / 2),
			.length = number("len", 65536),
			.lkey = mr->lkey,
		};
		struct ibv_recv_wr *bad, wr = {
			.wr_id = number("id", 1000) + i,
			.sg_list = &sge,
			.num_sge = 1,
		};

		err = ibv_post_recv(qp, &wr, &bad);
		if (err)
			return wrong("recv: %s", strerror(err));
	}
	return qp ? 0 : wrong("no such QP");
}

/*
 * post qp op [id offset len va remote_key fence count]: post a request
 * (IBV_WR_* without RDMA_ and ATOMIC_: SEND, SEND_IMM, SEND_INV, WRITE,
 * WRITE_IMM, READ, CAS, FAA, FLUSH, ATOMIC_WRITE, LOCAL_INV), count of them,
 * whose ids count up
 */
static int do_post(void)
{
	const char *op = text("op", "SEND");
	uint64_t va = number("va", 0x1234000);
	uint32_t key = number("remote_key", 0x5678);
	uint64_t i, count = number("count", 1);
	struct ibv_qp *qp = the_qp();
	struct ibv_qp_ex *ex = qp ? ibv_qp_to_qp_ex(qp) : NULL;
	int err;

	if (!ex)
		return wrong("no such QP, or none to post to");
	for (i = 0; i != count; i++) {
		bool sge = true;

		ibv_wr_start(ex);
		ex->wr_id = number("id", 1) + i;
		ex->wr_flags = IBV_SEND_SIGNALED |
			       (number("fence", 0) ? IBV_SEND_FENCE : 0);
		if (!strcmp(op, "SEND")) {
			ibv_wr_send(ex);
		} else if (!strcmp(op, "SEND_IMM")) {
			ibv_wr_send_imm(ex, htonl(0x11223344));
		} else if (!strcmp(op, "SEND_INV")) {
			ibv_wr_send_inv(ex, key);
		} else if (!strcmp(op, "WRITE")) {
			ibv_wr_rdma_write(ex, key, va);
		} else if (!strcmp(op, "WRITE_IMM")) {
			ibv_wr_rdma_write_imm(ex, key, va, htonl(0x11223344));
		} else if (!strcmp(op, "READ")) {
			ibv_wr_rdma_read(ex, key, va);
		} else if (!strcmp(op, "CAS")) {
			ibv_wr_atomic_cmp_swp(ex, key, va, 1, 2);
		} else if (!strcmp(op, "FAA")) {
			ibv_wr_atomic_fetch_add(ex, key, va, 1);
		} else if (!strcmp(op, "FLUSH")) {
			ibv_wr_flush(ex, key, va, number("len", 64),
				     IBV_FLUSH_GLOBAL, IBV_FLUSH_RANGE);
			sge = false;
		} else if (!strcmp(op, "ATOMIC_WRITE")) {
			ibv_wr_atomic_write(ex, key, va, memory);
			sge = false;
		} else if (!strcmp(op, "LOCAL_INV")) {
			ibv_wr_local_inv(ex, key);
			sge = false;
		} else {
			ibv_wr_abort(ex);
			return wrong("op %s?", op);
		}
		if (sge)
			ibv_wr_set_sge(ex, mr->lkey, (uintptr_t)memory +
				       number("offset", 0), number("len", 64));
		err = ibv_wr_complete(ex);
		if (err)
			return wrong("post: %s", strerror(err));
	}
	return 0;
}

/* bind qp [id offset len fence]: a new memory window of type 2 to the memory; returns rkey */
static int do_bind(void)
{
	struct ibv_qp *qp = the_qp();
	struct ibv_qp_ex *ex = qp ? ibv_qp_to_qp_ex(qp) : NULL;
	struct ibv_mw_bind_info info = {
		.mr = mr,
		.addr = (uintptr_t)memory + number("offset", 0),
		.length = number("len", 64),
		.mw_access_flags = IBV_ACCESS_REMOTE_WRITE |
				   IBV_ACCESS_REMOTE_READ,
	};
	struct ibv_mw *mw;
	uint32_t rkey;
	int err;

	if (!ex)
		return wrong("no such QP, or none to post to");
	mw = ibv_alloc_mw(pd, IBV_MW_TYPE_2);
	if (!mw)
		return wrong("window: %s", strerror(errno));
	rkey = ibv_inc_rkey(mw->rkey);
	ibv_wr_start(ex);
	ex->wr_id = number("id", 1);
	ex->wr_flags = IBV_SEND_SIGNALED |
		       (number("fence", 0) ? IBV_SEND_FENCE : 0);
	ibv_wr_bind_mw(ex, mw, rkey, &info);
	err = ibv_wr_complete(ex);
	if (err)
		return wrong("bind: %s", strerror(err));
	say(" rkey=%#x", rkey);
	return 0;
}

/* by the sender, besides its data */
static uint32_t brought(const struct ibv_wc *wc)
{
	if (wc->wc_flags & IBV_WC_WITH_IMM)
		return ntohl(wc->imm_data);
	return wc->wc_flags & IBV_WC_WITH_INV ? wc->invalidated_rkey : 0;
}

/*
 * poll [ms count more]: completions until there are count, as wc=ID:STATUS,...; with
 * more=1 ID:STATUS:FLAGS:VALUE, with the immediate value or the key invalidated
 */
static int do_poll(void)
{
	uint64_t end = now_ms() + number("ms", 0);
	unsigned int count = number("count", 1), found = 0;
	struct ibv_wc wc;

	say(" wc=");
	for (;;) {
		while (ibv_poll_cq(cq, 1, &wc) == 1) {
			say("%s%lu:%u", found++ ? "," : "", wc.wr_id, wc.status);
			if (number("more", 0))
				say(":%u:%#x", wc.wc_flags & (IBV_WC_WITH_IMM |
				    IBV_WC_WITH_INV), brought(&wc));
		}
		if (found >= count || now_ms() >= end)
			return 0;
		usleep(1000);
	}
}

/* fill [offset len seed]: a pattern that a byte's place decides */
static int do_fill(void)
{
	uint64_t offset = number("offset", 0), len = number("len", 0), i;

	if (offset + len > MEMORY)
		return wrong("beyond the memory");
	for (i = 0; i != len; i++)
		memory[offset + i] = (i * 7 + (i >> 8) + number("seed", 1));
	return 0;
}

/* write offset data */
static int do_write(void)
{
	const char *data = text("data", "");
	uint64_t offset = number("offset", 0);
	unsigned int byte;

	for (; sscanf(data, "%2x", &byte) == 1 && offset < MEMORY; data += 2)
		memory[offset++] = byte;
	return 0;
}

/* read offset len: returns data */
static int do_read(void)
{
	uint64_t offset = number("offset", 0), len = number("len", 8), i;

	if (offset + len > MEMORY || len > 16384)
		return wrong("too much");
	say(" data=");
	for (i = 0; i != len; i++)
		say("%02x", memory[offset + i]);
	return 0;
}

/* ---- migration ---- */

/* ask: each QP asks its partner whether it speaks the protocol */
static int do_ask(void)
{
	uint64_t len;
	uint32_t count;
	struct {
		struct ib_uverbs_ioctl_hdr hdr;
		struct ib_uverbs_attr attrs[3];
	} c = {
		{ .length = sizeof(c), .object_id = UVERBS_OBJECT_DEVICE,
		  .method_id = RXE_MIG_METHOD_DUMP, .num_attrs = 3,
		  .driver_id = RDMA_DRIVER_RXE },
		{ { .attr_id = RXE_MIG_ATTR_DUMP_FLAGS, .len = 4,
		    .flags = UVERBS_ATTR_F_MANDATORY,
		    .data = RXE_MIG_DUMP_CHECK | RXE_MIG_DUMP_ASK },
		  { .attr_id = RXE_MIG_ATTR_DUMP_LEN, .len = sizeof(len),
		    .flags = UVERBS_ATTR_F_MANDATORY, .data = (uintptr_t)&len },
		  { .attr_id = RXE_MIG_ATTR_DUMP_COUNT, .len = sizeof(count),
		    .flags = UVERBS_ATTR_F_MANDATORY,
		    .data = (uintptr_t)&count } },
	};

	return ioctl(ctx->cmd_fd, RDMA_VERBS_IOCTL, &c) ?
	       wrong("%s", strerror(errno)) : 0;
}

/* stop: dump, which stops. Returns what the image says of the first QP. */
static int do_stop(void)
{
	const struct rxe_mig_qp_rec *q = NULL;
	const uint8_t *image, *at;
	struct selfmig *second;
	size_t len;

	if (migration)
		return wrong("%s", selfmig_stop(ctx, &second) ?
			     selfmig_error() : "ok a second time");
	if (selfmig_stop(ctx, &migration))
		return wrong("%s", selfmig_error());
	image = selfmig_image(migration, &len);
	at = image + ((const struct rxe_mig_hdr *)image)->hdr_len;
	for (; at < image + len; at += ((const struct rxe_mig_rec *)at)->len)
		if (((const struct rxe_mig_rec *)at)->type == RXE_MIG_REC_QP &&
		    !q)
			q = (const void *)at;
	say(" len=%zu", len);
	if (q)
		say(" epoch=%u peer_epoch=%u secret=%#llx challenge=%#llx"
		    " peer_secret=%#llx peer_challenge=%#llx capable=%u"
		    " peer_stopped=%u state=%u req_psn=%#x comp_psn=%#x"
		    " resp_psn=%#x msn=%u", q->proto.epoch, q->proto.peer_epoch,
		    q->proto.secret, q->proto.challenge, q->proto.peer_secret,
		    q->proto.peer_challenge,
		    !!(q->proto.flags & RXE_MIG_PROTO_PEER_CAPABLE),
		    !!(q->proto.flags & RXE_MIG_PROTO_PEER_STOPPED), q->state,
		    q->req_psn, q->comp_psn, q->resp_psn, q->resp_msn);
	return 0;
}

static int step(int err)
{
	return err ? wrong("%s", selfmig_error()) : 0;
}

/* cancel: live again where it is */
static int do_cancel(void)
{
	int err;

	/* Not ours to refuse */
	if (!migration) {
		err = ibv_restore_object(ctx, NULL, IBV_RESTORE_TYPE_CONTEXT,
					 IBV_RESTORE_CANCEL, NULL, 0);
		return err ? wrong("%s", strerror(err)) : 0;
	}
	err = step(selfmig_cancel(migration));

	if (!err)
		migration = NULL;
	return err;
}

/* commit: no cancel any more; the copy that is here stays, Stopped */
static int do_commit(void)
{
	int err = migration ? ibv_restore_object(ctx, NULL,
						 IBV_RESTORE_TYPE_CONTEXT,
						 IBV_RESTORE_COMMIT, NULL, 0) :
			      EINVAL;

	return err ? wrong("commit: %s", strerror(err)) : 0;
}

/* lose: close the snapshot's file, as if its holder were killed */
static int do_lose(void)
{
	char path[32], target[64];
	int fd, found = 0;
	ssize_t len;

	for (fd = 3; fd != 1024; fd++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		len = readlink(path, target, sizeof(target) - 1);
		target[len > 0 ? len : 0] = 0;
		if (strstr(target, "[rdma-snapshot]"))
			found += !close(fd);
	}
	return found ? 0 : wrong("no snapshot");
}

/* leave: give the copy that is here up: tombstones */
static int do_leave(void)
{
	return step(migration ? selfmig_leave(migration) : -EINVAL);
}

/* Change the first QP of the image, or that with this number: [qpn] [state] and whose
 * partner it is, [dest=N] [local=ADDRESS] [remote=ADDRESS].
 */
static int do_edit(void)
{
	struct rxe_mig_qp_rec *q = NULL, *each;
	uint64_t qpn = number("qpn", 0);
	union ibv_gid gid;
	uint8_t *at, *end;
	size_t len;

	if (!migration)
		return wrong("no image");
	/* not constant in fact */
	at = (uint8_t *)selfmig_image(migration, &len);
	end = at + len;
	for (at += ((struct rxe_mig_hdr *)at)->hdr_len; at < end && !q;
	     at += ((struct rxe_mig_rec *)at)->len) {
		each = (void *)at;
		if (each->rec.type == RXE_MIG_REC_QP && (!qpn || each->qpn == qpn))
			q = each;
	}
	if (!q)
		return wrong("no such QP in the image");
	if (text("state", NULL))
		q->state = state_named(text("state", NULL));
	q->dest_qpn = number("dest", q->dest_qpn);
	if (!address(text("local", ""), &gid))
		memcpy(q->pri_av.sgid, gid.raw, sizeof(gid.raw));
	if (!address(text("remote", ""), &gid))
		memcpy(q->pri_av.dgid, gid.raw, sizeof(gid.raw));
	return 0;
}

/* restore: it is here again, not yet live */
static int do_restore(void)
{
	return step(migration ? selfmig_restore(migration) : -EINVAL);
}

/* resume [new_addr check] */
static int do_resume(void)
{
	unsigned int flags = (number("new_addr", 0) ? IBV_RESTORE_NEW_ADDR : 0) |
			     (number("check", 0) ? IBV_RESTORE_CHECK : 0);
	int err = step(migration ? selfmig_resume(migration, flags) : -EINVAL);

	if (!err)
		migration = NULL;
	return err;
}

/* ---- the host ---- */

/* shell WORD...: run a command in this host */
static int do_shell(void)
{
	char command[4096] = "{ ";
	unsigned int i;

	for (i = 1; i != num_words; i++) {
		strncat(command, words[i], sizeof(command) - strlen(command) - 1);
		strncat(command, " ", sizeof(command) - strlen(command) - 1);
	}
	strncat(command, "; } >&2", sizeof(command) - strlen(command) - 1);
	return system(command) ? wrong("the command failed") : 0;
}

/* counters: what the device has counted of migrations so far */
static int do_counters(void)
{
	unsigned long long value;
	char pattern[256];
	glob_t found;
	FILE *file;
	size_t i;

	snprintf(pattern, sizeof(pattern),
		 "/sys/class/infiniband/%s/ports/1/hw_counters/mig_*",
		 ibv_get_device_name(ctx->device));
	if (glob(pattern, 0, NULL, &found))
		return wrong("no counters");
	for (i = 0; i != found.gl_pathc; i++) {
		file = fopen(found.gl_pathv[i], "r");
		if (file && fscanf(file, "%llu", &value) == 1)
			say(" %s=%llu", strrchr(found.gl_pathv[i], '/') + 1, value);
		if (file)
			fclose(file);
	}
	globfree(&found);
	return 0;
}

static const struct {
	const char *name;
	int (*run)(void);
} commands[] = {
	{ "open", do_open },	   { "setup", do_setup },
	{ "modify", do_modify },   { "query", do_query },
	{ "destroy", do_destroy }, { "recv", do_recv },
	{ "post", do_post },	   { "bind", do_bind },
	{ "poll", do_poll },
	{ "fill", do_fill },	   { "write", do_write },
	{ "read", do_read },	   { "stop", do_stop },
	{ "ask", do_ask },
	{ "cancel", do_cancel },   { "commit", do_commit },
	{ "lose", do_lose },	   { "leave", do_leave },
	{ "edit", do_edit },	   { "restore", do_restore },
	{ "resume", do_resume },   { "shell", do_shell },
	{ "counters", do_counters },
};

static void execute(char *line)
{
	char *word, *rest = line;
	unsigned int i;
	int err;

	num_words = 0;
	while ((word = strsep(&rest, " \n")) && num_words != 64)
		if (*word)
			words[num_words++] = word;
	answer_len = 0;
	for (i = 0; num_words && i != sizeof(commands) / sizeof(*commands); i++)
		if (!strcmp(words[0], commands[i].name)) {
			err = commands[i].run();
			printf("%s%s%.*s\n", err ? "error" : "ok", err ? " " : "",
			       (int)answer_len, answer);
			return;
		}
	printf("error command?\n");
}

int main(void)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6,
				    .sin6_port = htons(PORT) };
	int on = 1, listener = socket(AF_INET6, SOCK_STREAM, 0), link;
	char *line = NULL;
	size_t size = 0;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (listener < 0 || bind(listener, (void *)&any, sizeof(any)) ||
	    listen(listener, 16)) {
		perror("endpoint");
		return 1;
	}
	/* A connection is a case: a process of its own, gone with it. */
	signal(SIGCHLD, SIG_IGN);
	while ((link = accept(listener, NULL, NULL)) >= 0) {
		if (!fork()) {
			/* system() waits for its child */
			signal(SIGCHLD, SIG_DFL);
			close(listener);
			dup2(link, 0);
			dup2(link, 1);
			close(link);
			setvbuf(stdout, NULL, _IOLBF, 0);
			while (getline(&line, &size, stdin) > 0)
				execute(line);
			_exit(0);
		}
		close(link);
	}
	return 0;
}
