// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * objects: restore a context as objects of libibverbs, which the program then
 * uses and destroys like any other. Two connected QPs in one context, with a
 * message under way, are dumped; the whole context is closed; all is restored
 * into new objects; the message arrives and others follow.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <infiniband/verbs.h>

#include "../../drivers/infiniband/sw/rxe/rxe_mig_uapi.h"

#define BUF_LEN 4096
#define HALF (BUF_LEN / 2)

static struct {
	struct ibv_context *ctx;
	struct ibv_comp_channel *channel;
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	struct ibv_mw *mw;
	struct ibv_cq *cq;
	struct ibv_srq *srq;
	struct ibv_ah *ah;
	struct ibv_qp *qp[2];
} o;

static uint8_t *buf;
static int gid_index = 1;

#define check(cond, what)                                                      \
	do {                                                                   \
		if (!(cond)) {                                                 \
			fprintf(stderr, "line %d: %s: %s\n", __LINE__, what,   \
				strerror(errno));                              \
			exit(1);                                               \
		}                                                              \
	} while (0)

#define check0(call)                                                           \
	do {                                                                   \
		int ret_ = (call);                                             \
		if (ret_) {                                                    \
			fprintf(stderr, "line %d: %s: %s\n", __LINE__, #call,  \
				strerror(ret_ > 0 ? ret_ : errno));            \
			exit(1);                                               \
		}                                                              \
	} while (0)

static void open_device(const char *name)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	int i;

	check(list, "device list");
	for (i = 0; list[i]; i++)
		if (!strcmp(ibv_get_device_name(list[i]), name))
			o.ctx = ibv_open_device(list[i]);
	ibv_free_device_list(list);
	check(o.ctx, "open");
}

static void make_objects(void)
{
	struct ibv_srq_init_attr srq = { .attr = { .max_wr = 8,
						   .max_sge = 1 } };
	struct ibv_ah_attr ah = {
		.is_global = 1,
		.port_num = 1,
		.grh = { .sgid_index = gid_index, .hop_limit = 64 },
	};
	struct ibv_device_attr device;
	union ibv_gid gid;
	int i;

	check0(ibv_query_device(o.ctx, &device));
	check0(ibv_query_gid(o.ctx, 1, gid_index, &gid));
	ah.grh.dgid = gid;
	check((o.pd = ibv_alloc_pd(o.ctx)), "alloc_pd");
	check((o.mr = ibv_reg_mr(o.pd, buf, BUF_LEN, IBV_ACCESS_LOCAL_WRITE)),
	      "reg_mr");
	check((o.mw = ibv_alloc_mw(o.pd, IBV_MW_TYPE_1)), "alloc_mw");
	check((o.channel = ibv_create_comp_channel(o.ctx)), "channel");
	check((o.cq = ibv_create_cq(o.ctx, 32, NULL, o.channel, 0)),
	      "create_cq");
	check((o.srq = ibv_create_srq(o.pd, &srq)), "create_srq");
	check((o.ah = ibv_create_ah(o.pd, &ah)), "create_ah");
	for (i = 0; i != 2; i++) {
		struct ibv_qp_init_attr init = {
			.qp_type = IBV_QPT_RC,
			.send_cq = o.cq,
			.recv_cq = o.cq,
			.srq = i ? o.srq : NULL,
			/* The longest ring there is, in one of them */
			.cap = { .max_send_wr = 8,
				 .max_recv_wr = i ? 8 : device.max_qp_wr,
				 .max_send_sge = 1, .max_recv_sge = 1 },
		};
		check((o.qp[i] = ibv_create_qp(o.pd, &init)), "create_qp");
	}
	for (i = 0; i != 2; i++) {
		struct ibv_qp_attr init = {
			.qp_state = IBV_QPS_INIT,
			.port_num = 1,
		};
		struct ibv_qp_attr rtr = {
			.qp_state = IBV_QPS_RTR,
			.path_mtu = IBV_MTU_1024,
			.dest_qp_num = o.qp[!i]->qp_num,
			.min_rnr_timer = 12,
			.ah_attr = ah,
		};
		struct ibv_qp_attr rts = {
			.qp_state = IBV_QPS_RTS,
			.timeout = 18,
			.retry_cnt = 5,
			.rnr_retry = 6,
		};

		check0(ibv_modify_qp(o.qp[i], &init, IBV_QP_STATE |
				     IBV_QP_PKEY_INDEX | IBV_QP_PORT |
				     IBV_QP_ACCESS_FLAGS));
		check0(ibv_modify_qp(o.qp[i], &rtr, IBV_QP_STATE | IBV_QP_AV |
				     IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
				     IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
				     IBV_QP_MIN_RNR_TIMER));
		check0(ibv_modify_qp(o.qp[i], &rts, IBV_QP_STATE |
				     IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
				     IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
				     IBV_QP_MAX_QP_RD_ATOMIC));
	}
}

static void post_recv(void)
{
	struct ibv_sge sge = { (uintptr_t)buf + HALF, HALF, o.mr->lkey };
	struct ibv_recv_wr wr = { .wr_id = 2, .sg_list = &sge, .num_sge = 1 };
	struct ibv_recv_wr *bad;

	check0(ibv_post_srq_recv(o.srq, &wr, &bad));
}

static void post_send(const char *text)
{
	struct ibv_sge sge = { (uintptr_t)buf, HALF, o.mr->lkey };
	struct ibv_send_wr wr = { .wr_id = 1, .sg_list = &sge, .num_sge = 1,
				  .opcode = IBV_WR_SEND,
				  .send_flags = IBV_SEND_SIGNALED };
	struct ibv_send_wr *bad;

	strcpy((char *)buf, text);
	check0(ibv_post_send(o.qp[0], &wr, &bad));
}

/* Waits for both completions of a message, by events */
static void wait_for(const char *text)
{
	struct pollfd pfd = { .fd = o.channel->fd, .events = POLLIN };
	struct ibv_wc wc;
	struct ibv_cq *cq;
	int due = 3, n;
	void *arg;

	for (;;) {
		while ((n = ibv_poll_cq(o.cq, 1, &wc)) > 0) {
			check(!wc.status, ibv_wc_status_str(wc.status));
			due &= ~wc.wr_id;
		}
		check(!n, "poll_cq");
		if (!due)
			break;
		check(poll(&pfd, 1, 20000) == 1, "no completion");
		check0(ibv_get_cq_event(o.channel, &cq, &arg));
		check(cq == o.cq, "event of an unknown CQ");
		ibv_ack_cq_events(cq, 1);
		check0(ibv_req_notify_cq(o.cq, 0));
	}
	check(!strcmp((char *)buf + HALF, text), "wrong message");
	buf[HALF] = 0;
}

static void *dump(void)
{
	struct rxe_mig_hdr *hdr;
	void *image = NULL;
	size_t len = sizeof(*hdr);
	int count, ret;

	/* Until it is stopped the context may need more and more */
	for (;;) {
		hdr = image = realloc(image, len);
		check(image, "memory");
		ret = ibv_dump_context(o.ctx, &count, image, len);
		if (ret != ENOSPC)
			break;
		check(hdr->total_len > len, "length in the header");
		len = hdr->total_len;
	}
	if (ret == EOPNOTSUPP && count == -1) {
		printf("no migration on this device\n");
		exit(77);
	}
	check(!ret, strerror(ret));
	return image;
}

/* Destroys it all, but the memory of the MR */
static void forget(void)
{
	check0(ibv_destroy_ah(o.ah));
	check0(ibv_destroy_qp(o.qp[0]));
	check0(ibv_destroy_qp(o.qp[1]));
	check0(ibv_destroy_srq(o.srq));
	check0(ibv_destroy_cq(o.cq));
	check0(ibv_destroy_comp_channel(o.channel));
	check0(ibv_dealloc_mw(o.mw));
	check0(ibv_dereg_mr(o.mr));
	check0(ibv_dealloc_pd(o.pd));
	check0(ibv_close_device(o.ctx));
	memset(&o, 0, sizeof(o));
}

static void restore_one(struct rxe_mig_rec *rec, int cmd, void **object)
{
	struct ibv_restore_args args = {
		.comp_mask = IBV_RESTORE_ARGS_PARENTS,
		.record = rec,
		.record_len = rec->len,
		.fd = -1,
		.channel = o.channel,
		.pd = o.pd,
		.send_cq = o.cq,
		.recv_cq = o.cq,
	};
	int ret;

	if (rec->type == RXE_MIG_REC_QP &&
	    ((struct rxe_mig_qp_rec *)rec)->srq != RXE_MIG_NONE)
		args.srq = o.srq;
	ret = ibv_restore_object(o.ctx, object, rec->type, cmd, &args,
				 sizeof(args));
	if (ret) {
		fprintf(stderr, "command %d, type %u, handle %u: %s\n", cmd,
			rec->type, rec->handle, strerror(ret));
		exit(1);
	}
	if (cmd == IBV_RESTORE_CREATE && rec->type >= RXE_MIG_REC_PD)
		check(args.handle == rec->handle, "wrong handle");
}

static void restore(void *image)
{
	struct rxe_mig_hdr *hdr = image;
	struct rxe_mig_rec *rec = image + hdr->hdr_len;
	unsigned int i;
	int qps = 0;

	for (i = 0; i != hdr->count; i++, rec = (void *)rec + rec->len) {
		void **object = NULL;

		switch (rec->type) {
		case RXE_MIG_REC_CHANNEL:
			object = (void **)&o.channel;
			break;
		case RXE_MIG_REC_PD:
			object = (void **)&o.pd;
			break;
		case RXE_MIG_REC_MR:
			object = (void **)&o.mr;
			break;
		case RXE_MIG_REC_CQ:
			object = (void **)&o.cq;
			break;
		case RXE_MIG_REC_SRQ:
			object = (void **)&o.srq;
			break;
		case RXE_MIG_REC_AH:
			object = (void **)&o.ah;
			break;
		case RXE_MIG_REC_QP:
			object = (void **)&o.qp[qps++];
			break;
		case RXE_MIG_REC_MW:
			object = (void **)&o.mw;
			break;
		case RXE_MIG_REC_ASYNC:
			/* That of the context */
			continue;
		}
		restore_one(rec, IBV_RESTORE_CREATE, object);
		/* Its events come last */
		if (rec->type != RXE_MIG_REC_CHANNEL)
			restore_one(rec, IBV_RESTORE_REFILL, object);
	}
	rec = image + hdr->hdr_len;
	for (i = 0; i != hdr->count; i++, rec = (void *)rec + rec->len)
		if (rec->type == RXE_MIG_REC_CHANNEL ||
		    rec->type == RXE_MIG_REC_ASYNC)
			restore_one(rec, IBV_RESTORE_REFILL, NULL);
}

/* Lets the SRQ report that it is running low, with the next message */
static void arm_srq(void)
{
	struct ibv_srq_attr attr = { .srq_limit = 1 };

	check0(ibv_modify_srq(o.srq, &attr, IBV_SRQ_LIMIT));
}

static void srq_event(void)
{
	struct pollfd pfd = { .fd = o.ctx->async_fd, .events = POLLIN };
	struct ibv_async_event event;

	for (;;) {
		check(poll(&pfd, 1, 5000) == 1, "no asynchronous event");
		check0(ibv_get_async_event(o.ctx, &event));
		if (event.event_type == IBV_EVENT_SRQ_LIMIT_REACHED)
			break;
		ibv_ack_async_event(&event);
	}
	check(event.element.srq == o.srq, "event of an unknown SRQ");
	ibv_ack_async_event(&event);
}

static int context_cmd(int cmd)
{
	return ibv_restore_object(o.ctx, NULL, IBV_RESTORE_TYPE_CONTEXT, cmd,
				  NULL, 0);
}

int main(int argc, char **argv)
{
	const char *device = argc > 1 ? argv[1] : "rxe0";
	uint32_t qpn, rkey;
	void *image;
	int i;

	check(!posix_memalign((void **)&buf, 4096, BUF_LEN), "memory");
	memset(buf, 0, BUF_LEN);
	open_device(device);
	make_objects();
	check0(ibv_req_notify_cq(o.cq, 0));
	post_recv();
	post_send("before");
	wait_for("before");

	for (i = 0; i != 3; i++) {
		qpn = o.qp[0]->qp_num;
		rkey = o.mr->lkey;
		/* One event is read before the dump and one is not */
		arm_srq();
		post_recv();
		post_send("before");
		wait_for("before");
		srq_event();
		arm_srq();
		post_recv();
		post_send("before");
		wait_for("before");
		post_recv();
		post_send("meanwhile");
		image = dump();
		check0(context_cmd(IBV_RESTORE_COMMIT));
		srq_event();
		forget();

		open_device(device);
		restore(image);
		free(image);
		check(o.qp[0]->qp_num == qpn && o.mr->lkey == rkey,
		      "other numbers");
		check0(context_cmd(IBV_RESTORE_RESUME));
		srq_event();
		wait_for("meanwhile");
		post_recv();
		post_send("after");
		wait_for("after");
	}
	forget();
	printf("restored and used 3 times\n");
	return 0;
}
