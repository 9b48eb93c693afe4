// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * What is in flight when the mover is dumped: how it comes to that, how the
 * image shows it, and how it ends after the restore.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "grid.h"

#define ADD	0x100000001ULL
#define SWAP	0x1122334455667788ULL

/* opcodes on the wire */
enum {
	OP_SEND_MIDDLE = 0x01,
	OP_SEND_LAST_IMM = 0x03,
	OP_WRITE_MIDDLE = 0x07,
	OP_READ_FIRST = 0x0d,
	OP_READ_MIDDLE = 0x0e,
	OP_UC_SEND_MIDDLE = 0x21,
	OP_UC_WRITE_MIDDLE = 0x27,
};

#define RESPONSES "0x0d, 0x0e, 0x0f, 0x10, 0x11, 0x12"

/* In prove(): the image must show this. */
#define shows(cond)                                                            \
	do {                                                                   \
		if (!(cond)) {                                                 \
			snprintf(s->why, sizeof(s->why), "not in the image: %s", \
				 #cond);                                       \
			return false;                                          \
		}                                                              \
	} while (0)

static void done(struct side *s, uint64_t id, enum ibv_wc_opcode opcode)
{
	struct ibv_wc wc = wait_wc(s, id);

	if (wc.status)
		die("request: %s", ibv_wc_status_str(wc.status));
	if (wc.opcode != opcode)
		die("request completed as opcode %d, not %d", wc.opcode,
		    opcode);
}

/* ---- nothing ---- */

static void nothing(struct side *s)
{
	barrier(s);
}

static bool prove_idle(struct side *s, const struct image *im)
{
	shows(sq_count(im) == (s->extra ? 1 : 0));
	shows(!im->qp->recv_wqe_len);
	return true;
}

/* ---- requests of the mover that the peer has executed: responses lost ---- */

static void start_lost(struct side *s, uint64_t (*request)(struct side *s),
		       void (*executed)(struct side *s))
{
	if (s->mover) {
		memset(s->mem + AT_READ, 0, LEN);
		memset(s->mem + AT_OLD, 0, 8);
		drop(RESPONSES);
		barrier(s);
		s->id[0] = request(s);
		barrier(s);
	} else {
		fill(s->mem + AT_SOURCE, HUGE_LEN, 77);
		barrier(s);
		executed(s);
		barrier(s);
	}
}

/* sent, not acknowledged */
static bool prove_sent(struct side *s, const struct image *im, uint32_t opcode)
{
	const struct rxe_send_wqe *wqe = sq_wqe(im, 0);

	shows(sq_count(im) >= 1);
	shows(wqe->wr.wr_id == s->id[0]);
	shows(wqe->wr.opcode == opcode);
	shows(wqe->state == WQE_PENDING);
	shows(im->qp->comp_psn == wqe->first_psn);
	shows(im->qp->req_psn == ((wqe->last_psn + 1) & 0xffffff));
	return true;
}

#define LOST(name, wr, wc, verify_, request_, happens_, afterwards_)           \
	static uint64_t lost_##name(struct side *s)                            \
	{                                                                      \
		return request_;                                               \
	}                                                                      \
	static void happened_##name(struct side *s)                            \
	{                                                                      \
		happens_;                                                      \
	}                                                                      \
	static void start_##name(struct side *s)                               \
	{                                                                      \
		start_lost(s, lost_##name, happened_##name);                   \
	}                                                                      \
	static bool prove_##name(struct side *s, const struct image *im)       \
	{                                                                      \
		return prove_sent(s, im, wr);                                  \
	}                                                                      \
	static void finish_##name(struct side *s)                              \
	{                                                                      \
		if (s->mover) {                                                \
			done(s, s->id[0], wc);                                 \
			verify_;                                               \
		} else {                                                       \
			afterwards_;                                           \
		}                                                              \
	}

/* nothing shows it; packets are on their way by then */
static void executed_unseen(struct side *s)
{
	(void)s;
	usleep(50000);
}

static void inv_received(struct side *s)
{
	struct ibv_wc wc = wait_recv(s, LEN, 12);

	check(wc.invalidated_rkey == s->me.window_rkey);
}

/* Bind it anew, for the writes to come. */
static void window_again(struct side *s)
{
	bind_window(s);
}

static uint64_t cell(struct side *s)
{
	return *(volatile uint64_t *)(s->mem + AT_CELL);
}

static uint64_t old(struct side *s)
{
	return *(volatile uint64_t *)(s->mem + AT_OLD);
}

static void last_byte(struct side *s, uint64_t seed)
{
	uint8_t want[LEN];
	uint64_t last;

	fill(want, LEN, seed);
	memcpy(&last, want + LEN - 8, 8);
	wait_byte(s, AT_WINDOW + LEN - 8, last);
	verify(s->mem + AT_WINDOW, LEN, seed, "write");
	/* executed again, it would be here again */
	memset(s->mem + AT_WINDOW, 0, LEN);
}

static void unwritten(struct side *s)
{
	size_t i;

	for (i = 0; i != LEN; i++)
		if (s->mem[AT_WINDOW + i])
			die("the write was executed again");
}

LOST(send, IBV_WR_SEND, IBV_WC_SEND, ,
     post_send(s, IBV_WR_SEND, LEN, 10), wait_recv(s, LEN, 10),
     check(no_wc(s, 20)))
LOST(send_imm, IBV_WR_SEND_WITH_IMM, IBV_WC_SEND, ,
     post_send(s, IBV_WR_SEND_WITH_IMM, LEN, 11), wait_recv(s, LEN, 11),
     check(no_wc(s, 20)))
LOST(send_inv, IBV_WR_SEND_WITH_INV, IBV_WC_SEND, ,
     post_send(s, IBV_WR_SEND_WITH_INV, LEN, 12), inv_received(s),
     check(no_wc(s, 20)); window_again(s))
LOST(write, IBV_WR_RDMA_WRITE, IBV_WC_RDMA_WRITE, ,
     post_write(s, IBV_WR_RDMA_WRITE, LEN, 13), last_byte(s, 13),
     unwritten(s))
LOST(write_imm, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WC_RDMA_WRITE, ,
     post_write(s, IBV_WR_RDMA_WRITE_WITH_IMM, LEN, 14),
     wait_recv(s, LEN, 14), check(no_wc(s, 20)))
LOST(cmp_swp, IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WC_COMP_SWAP,
     check(old(s) == 0),
     post_atomic(s, IBV_WR_ATOMIC_CMP_AND_SWP, 0, SWAP),
     wait_byte(s, AT_CELL, SWAP), check(cell(s) == SWAP))
LOST(fetch_add, IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WC_FETCH_ADD,
     check(old(s) == 0),
     post_atomic(s, IBV_WR_ATOMIC_FETCH_AND_ADD, ADD, 0),
     wait_byte(s, AT_CELL, ADD), check(cell(s) == ADD))
LOST(flush, IBV_WR_FLUSH, IBV_WC_FLUSH, ,
     post_flush(s), executed_unseen(s), )
LOST(atomic_write, IBV_WR_ATOMIC_WRITE, IBV_WC_ATOMIC_WRITE, ,
     post_atomic_write(s, SWAP), wait_byte(s, AT_CELL, SWAP),
     check(cell(s) == SWAP))

/*
 * ---- not posted yet: between ibv_wr_start() and ibv_wr_complete() ----
 *
 * They are in the ring, beyond its producer index. libibverbs knows where it was.
 */

#define BUILT		2

static void build_send(struct side *s, unsigned int i)
{
	s->id[i] = s->qpx->wr_id = ++s->next_id;
	s->qpx->wr_flags = IBV_SEND_SIGNALED;
	ibv_wr_send(s->qpx);
	ibv_wr_set_sge(s->qpx, s->mr->lkey, (uintptr_t)s->mem + AT_OUT, LEN);
}

static void start_building(struct side *s)
{
	unsigned int i;

	if (s->mover) {
		fill(s->mem + AT_OUT, LEN, 17);
		ibv_wr_start(s->qpx);
		for (i = 0; i != BUILT; i++)
			build_send(s, i);
	}
	barrier(s);
}

static bool prove_building(struct side *s, const struct image *im)
{
	const struct rxe_send_wqe *wqe;
	unsigned int i;

	shows(sq_count(im) == 0);
	for (i = 0; i != BUILT; i++) {
		wqe = sq_wqe(im, i);
		shows(wqe->wr.wr_id == s->id[i]);
		shows(wqe->dma.length == LEN);
	}
	return true;
}

static void finish_building(struct side *s)
{
	unsigned int i;

	if (s->mover) {
		build_send(s, BUILT);
		check0(ibv_wr_complete(s->qpx));
	}
	for (i = 0; i != BUILT + 1; i++)
		if (s->mover)
			done(s, s->id[i], IBV_WC_SEND);
		else
			wait_recv(s, LEN, 17);
}

/* ---- READ: some of the responses have come ---- */

static void start_read(struct side *s)
{
	if (s->mover) {
		memset(s->mem + AT_READ, 0, LEN);
		drop("0x0f");
		barrier(s);
		s->id[0] = post_read(s, LEN);
		/* the last one that is not lost */
		while (!s->mem[AT_READ + LEN - MTU - 1])
			usleep(500);
		usleep(5000);
	} else {
		fill(s->mem + AT_SOURCE, HUGE_LEN, 77);
		barrier(s);
	}
	barrier(s);
}

static bool prove_read(struct side *s, const struct image *im)
{
	const struct rxe_send_wqe *wqe = sq_wqe(im, 0);

	shows(sq_count(im) >= 1);
	shows(wqe->wr.wr_id == s->id[0]);
	shows(wqe->wr.opcode == IBV_WR_RDMA_READ);
	shows(im->qp->comp_opcode == OP_READ_FIRST ||
	      im->qp->comp_opcode == OP_READ_MIDDLE);
	shows(im->qp->comp_psn == wqe->last_psn);
	shows(wqe->dma.resid == MTU);
	return true;
}

static void finish_read(struct side *s)
{
	if (!s->mover)
		return;
	done(s, s->id[0], IBV_WC_RDMA_READ);
	verify(s->mem + AT_READ, LEN, 77, "read");
}

/* ---- behind a fence ---- */

static void start_fence(struct side *s)
{
	start_read(s);
	if (s->mover) {
		struct ibv_send_wr wr = { .opcode = IBV_WR_SEND,
					  .send_flags = IBV_SEND_FENCE };

		fill(s->mem + AT_OUT, LEN, 15);
		s->id[1] = post(s, &wr, AT_OUT, LEN);
	}
	barrier(s);
}

static bool prove_fence(struct side *s, const struct image *im)
{
	const struct rxe_send_wqe *wqe = sq_wqe(im, 1);

	if (!prove_read(s, im))
		return false;
	shows(sq_count(im) >= 2);
	shows(wqe->wr.wr_id == s->id[1]);
	shows(wqe->wr.send_flags & IBV_SEND_FENCE);
	shows(wqe->state == WQE_POSTED);
	return true;
}

static void finish_fence(struct side *s)
{
	finish_read(s);
	if (s->mover)
		done(s, s->id[1], IBV_WC_SEND);
	else
		wait_recv(s, LEN, 15);
}

/* ---- the peer has no receive ---- */

static void take_receives(struct side *s, unsigned int n)
{
	/* those posted at first are used up by empty messages */
	while (n--)
		done(s, post_send(s, IBV_WR_SEND, 0, 0), IBV_WC_SEND);
}

static void start_rnr_from(struct side *s, bool sender)
{
	uint64_t posted = s->posted, before = 0;

	barrier_id(s, &posted);	/* now the other's */
	if (sender) {
		take_receives(s, posted);
		before = counter("rcvd_rnr_err");
		s->id[0] = post_send(s, IBV_WR_SEND, LEN, 16);
		while (counter("rcvd_rnr_err") == before)
			usleep(1000);
	} else {
		while (s->posted)
			wait_recv(s, 0, 0);
	}
	barrier(s);
}

static void start_rnr(struct side *s)
{
	start_rnr_from(s, s->mover);
}

static bool prove_rnr(struct side *s, const struct image *im)
{
	shows(sq_count(im) >= 1);
	shows(sq_wqe(im, 0)->wr.wr_id == s->id[0]);
	shows(im->qp->comp_psn == sq_wqe(im, 0)->first_psn);
	return true;
}

static void finish_rnr_from(struct side *s, bool sender)
{
	if (sender) {
		check(no_wc(s, 20));
		barrier(s);
		done(s, s->id[0], IBV_WC_SEND);
	} else {
		barrier(s);
		post_recv(s);
		wait_recv(s, LEN, 16);
	}
}

static void finish_rnr(struct side *s)
{
	finish_rnr_from(s, s->mover);
}

static void start_rnr_sent(struct side *s)
{
	start_rnr_from(s, !s->mover);
}

static bool prove_rnr_sent(struct side *s, const struct image *im)
{
	shows(!rq_count(im));
	shows(!im->qp->recv_wqe_len);
	return true;
}

static void finish_rnr_sent(struct side *s)
{
	finish_rnr_from(s, !s->mover);
}

/* ---- half sent: more packets than may be unacknowledged ---- */

/* Over UC nothing is acknowledged, and what is held is lost in the end. */
static void start_half_sent_uc(struct side *s, enum ibv_wr_opcode opcode)
{
	if (s->mover) {
		hold();
		s->id[0] = opcode == IBV_WR_SEND ?
			   post_send(s, opcode, HUGE_LEN, 17) :
			   post_write(s, opcode, HUGE_LEN, 18);
		usleep(50000);
	}
	barrier(s);
}

static void start_half_sent(struct side *s)
{
	uint64_t posted = s->posted;

	if (s->row->type == IBV_QPT_UC) {
		start_half_sent_uc(s, IBV_WR_SEND);
		return;
	}
	if (!s->mover)
		drop("0x01");
	barrier_id(s, &posted);
	if (s->mover) {
		take_receives(s, posted);
		barrier(s);
		s->id[0] = post_send(s, IBV_WR_SEND, LONG_LEN, 17);
		usleep(50000);
	} else {
		while (s->posted)
			wait_recv(s, 0, 0);
		post_long_recv(s);
		barrier(s);
	}
	barrier(s);
}

static bool prove_half(struct side *s, const struct image *im, uint32_t opcode)
{
	const struct rxe_send_wqe *wqe = sq_wqe(im, 0);

	shows(sq_count(im) >= 1);
	shows(wqe->wr.wr_id == s->id[0]);
	shows(wqe->state == WQE_PROCESSING);
	shows(wqe->dma.resid && wqe->dma.resid < wqe->dma.length);
	shows(im->qp->req_opcode == opcode);
	shows(im->qp->req_wqe_index == im->qp->sq.consumer);
	return true;
}

static bool prove_half_sent(struct side *s, const struct image *im)
{
	return prove_half(s, im, s->row->type == IBV_QPT_UC ?
				 OP_UC_SEND_MIDDLE : OP_SEND_MIDDLE);
}

static void finish_half_sent(struct side *s)
{
	if (s->mover)
		done(s, s->id[0], IBV_WC_SEND);
	else if (s->row->type != IBV_QPT_UC)
		wait_recv(s, LONG_LEN, 17);
}

static void start_half_sent_write(struct side *s)
{
	if (s->row->type == IBV_QPT_UC) {
		start_half_sent_uc(s, IBV_WR_RDMA_WRITE_WITH_IMM);
		return;
	}
	if (!s->mover)
		drop("0x07");
	barrier(s);
	if (s->mover) {
		s->id[0] = post_write(s, IBV_WR_RDMA_WRITE_WITH_IMM, LONG_LEN,
				      18);
		usleep(50000);
	}
	barrier(s);
}

static bool prove_half_sent_write(struct side *s, const struct image *im)
{
	return prove_half(s, im, s->row->type == IBV_QPT_UC ?
				 OP_UC_WRITE_MIDDLE : OP_WRITE_MIDDLE);
}

static void finish_half_sent_write(struct side *s)
{
	if (s->mover)
		done(s, s->id[0], IBV_WC_RDMA_WRITE);
	else if (s->row->type != IBV_QPT_UC)
		wait_recv(s, LONG_LEN, 18);
}

/* ---- half received ---- */

static void start_half_received(struct side *s)
{
	bool uc = s->row->type == IBV_QPT_UC;

	if (s->mover)
		drop(uc ? "0x22" : "0x02");
	barrier(s);
	if (!s->mover) {
		s->id[0] = post_send(s, IBV_WR_SEND, LEN, 20);
		usleep(50000);
	}
	barrier(s);
}

static bool prove_half_received(struct side *s, const struct image *im)
{
	bool uc = s->row->type == IBV_QPT_UC;

	shows(im->qp->resp_opcode == (uc ? OP_UC_SEND_MIDDLE : OP_SEND_MIDDLE));
	shows(im->qp->recv_wqe_len);
	return true;
}

static void finish_half_received(struct side *s)
{
	if (!s->mover)
		done(s, s->id[0], IBV_WC_SEND);
	else if (s->row->type != IBV_QPT_UC)
		wait_recv(s, LEN, 20);
	/* over UC the message is lost, and its receive is used again */
}

static void start_half_received_write(struct side *s)
{
	bool uc = s->row->type == IBV_QPT_UC;

	if (s->mover)
		drop(uc ? "0x28, 0x29" : "0x08, 0x09");
	barrier(s);
	if (!s->mover) {
		s->id[0] = post_write(s, IBV_WR_RDMA_WRITE_WITH_IMM, LEN, 21);
		usleep(50000);
	}
	barrier(s);
}

static bool prove_half_received_write(struct side *s, const struct image *im)
{
	bool uc = s->row->type == IBV_QPT_UC;

	shows(im->qp->resp_opcode == (uc ? OP_UC_WRITE_MIDDLE :
					   OP_WRITE_MIDDLE));
	shows(im->qp->resp_resid == MTU);
	return true;
}

static void finish_half_received_write(struct side *s)
{
	if (!s->mover)
		done(s, s->id[0], IBV_WC_RDMA_WRITE);
	else if (s->row->type != IBV_QPT_UC)
		wait_recv(s, LEN, 21);
}

/* ---- requests of the peer that the mover has executed: replay ---- */

static void start_replay(struct side *s, uint64_t (*request)(struct side *s),
			 void (*executed)(struct side *s))
{
	if (s->mover) {
		fill(s->mem + AT_SOURCE, HUGE_LEN, 78);
		barrier(s);
		executed(s);
	} else {
		memset(s->mem + AT_READ, 0, LEN);
		drop(RESPONSES);
		barrier(s);
		s->id[0] = request(s);
	}
	barrier(s);
}

/* a responder resource for the last request */
static bool prove_resource(struct side *s, const struct image *im,
			   const struct rxe_mig_res **found)
{
	const struct rxe_mig_res *res;
	unsigned int i;

	*found = NULL;
	for (i = 0; (res = image_res(im, i)); i++)
		if (res->type &&
		    ((res->last_psn + 1) & 0xffffff) == im->qp->resp_psn)
			*found = res;
	shows(*found);
	return true;
}

static uint64_t request_send(struct side *s)
{
	return post_send(s, IBV_WR_SEND_WITH_IMM, LEN, 22);
}

static void executed_send22(struct side *s)
{
	wait_recv(s, LEN, 22);
}

static void start_replay_send(struct side *s)
{
	start_replay(s, request_send, executed_send22);
}

static bool prove_replay_send(struct side *s, const struct image *im)
{
	shows(im->qp->resp_opcode == OP_SEND_LAST_IMM);
	shows(!im->qp->recv_wqe_len);
	return true;
}

static void finish_replay_send(struct side *s)
{
	if (s->mover)
		check(no_wc(s, 20));
	else
		done(s, s->id[0], IBV_WC_SEND);
}

static uint64_t request_read(struct side *s)
{
	return post_read(s, LEN);
}

static void start_replay_read(struct side *s)
{
	start_replay(s, request_read, executed_unseen);
}

static bool prove_replay_read(struct side *s, const struct image *im)
{
	const struct rxe_mig_res *res;

	if (!prove_resource(s, im, &res))
		return false;
	shows(res->length == LEN);
	shows(((res->last_psn - res->first_psn) & 0xffffff) == LEN / MTU - 1);
	return true;
}

static void finish_replay_read(struct side *s)
{
	if (s->mover)
		return;
	done(s, s->id[0], IBV_WC_RDMA_READ);
	verify(s->mem + AT_READ, LEN, 78, "read");
}

static uint64_t request_atomic(struct side *s)
{
	return post_atomic(s, IBV_WR_ATOMIC_FETCH_AND_ADD, ADD, 0);
}

static void executed_atomic(struct side *s)
{
	wait_byte(s, AT_CELL, ADD);
}

static void start_replay_atomic(struct side *s)
{
	if (s->mover)
		memset(s->mem + AT_CELL, 0, 8);
	start_replay(s, request_atomic, executed_atomic);
}

static bool prove_replay_atomic(struct side *s, const struct image *im)
{
	const struct rxe_mig_res *res;

	if (!prove_resource(s, im, &res))
		return false;
	shows(res->va_org == 0);	/* the original value */
	shows(res->first_psn == res->last_psn);
	return true;
}

static void finish_replay_atomic(struct side *s)
{
	if (!s->mover) {
		done(s, s->id[0], IBV_WC_FETCH_ADD);
		check(old(s) == 0);
	}
	barrier(s);
	if (s->mover)
		check(cell(s) == ADD);
}

static void start_replay_flush(struct side *s)
{
	start_replay(s, post_flush, executed_unseen);
}

static bool prove_replay_flush(struct side *s, const struct image *im)
{
	const struct rxe_mig_res *res;

	return prove_resource(s, im, &res);
}

static void finish_replay_flush(struct side *s)
{
	if (!s->mover)
		done(s, s->id[0], IBV_WC_FLUSH);
}

static uint64_t request_atomic_write(struct side *s)
{
	return post_atomic_write(s, SWAP);
}

static void executed_atomic_write(struct side *s)
{
	wait_byte(s, AT_CELL, SWAP);
	/* executed again, it would be there again */
	memset(s->mem + AT_CELL, 0, 8);
}

static void start_replay_atomic_write(struct side *s)
{
	start_replay(s, request_atomic_write, executed_atomic_write);
}

static void finish_replay_atomic_write(struct side *s)
{
	if (!s->mover)
		done(s, s->id[0], IBV_WC_ATOMIC_WRITE);
	barrier(s);
	if (s->mover)
		check(cell(s) == 0);
}

/* ---- in the middle of serving a READ: tried until it is hit ---- */

#define READS		16
/* a task gives way after 1024 packets: that must not be at a READ's end */
#define SERVE_LEN	(600 * MTU)

static void start_serving(struct side *s)
{
	uint64_t sent;
	int i;

	if (s->mover) {
		fill(s->mem + AT_SOURCE, SERVE_LEN, 79);
		sent = counter("sent_pkts");
		barrier(s);
		while (counter("sent_pkts") < sent + 10)
			;
		return;
	}
	/* the previous attempt */
	if (s->tries++)
		for (i = 0; i != READS; i++) {
			done(s, s->id[i], IBV_WC_RDMA_READ);
			verify(s->mem + AT_READ, SERVE_LEN, 79, "read");
		}
	memset(s->mem + AT_READ, 0, SERVE_LEN);
	barrier(s);
	for (i = 0; i != READS; i++)
		s->id[i] = post_read(s, SERVE_LEN);
}

static bool prove_serving(struct side *s, const struct image *im)
{
	const struct rxe_mig_res *res;
	unsigned int i;

	for (i = 0; (res = image_res(im, i)); i++)
		if (res->type && res->resid && res->resid < res->length)
			return true;
	snprintf(s->why, sizeof(s->why), "no READ was half served");
	return false;
}

static void finish_serving(struct side *s)
{
	int i;

	for (i = 0; !s->mover && i != READS; i++) {
		done(s, s->id[i], IBV_WC_RDMA_READ);
		verify(s->mem + AT_READ, SERVE_LEN, 79, "read");
	}
}

#define COL(c) { #c, .start = start_##c, .prove = prove_##c,                   \
		 .finish = finish_##c }

const struct col cols[] = {
	{ "idle", .start = nothing, .prove = prove_idle },
	COL(send),
	COL(send_imm),
	COL(send_inv),
	COL(write),
	COL(write_imm),
	COL(read),
	COL(cmp_swp),
	COL(fetch_add),
	COL(flush),
	COL(atomic_write),
	COL(building),
	COL(rnr),
	COL(fence),
	COL(half_sent),
	COL(half_sent_write),
	COL(half_received),
	COL(half_received_write),
	COL(rnr_sent),
	COL(replay_send),
	COL(replay_read),
	COL(replay_atomic),
	COL(replay_flush),
	{ "replay_atomic_write", .start = start_replay_atomic_write,
	  .prove = prove_replay_flush, .finish = finish_replay_atomic_write },
	{ "serving_read", .retry = true, .start = start_serving,
	  .prove = prove_serving, .finish = finish_serving },
	{}
};
