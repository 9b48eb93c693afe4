// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * The responder's part.  A message that arrives tells which operations were
 * executed before it; their traces in memory are checked then.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <string.h>
#include "chk.h"

#define RNR_HOLD_NS	20000000ULL	/* --rnr: keep receive buffers so long */
#define WR_SRQ		(1ULL << 63)

typedef unsigned long long ull;

static bool seq_was_missing(struct seq *s, uint64_t n)
{
	uint64_t *m = &s->missing[n % SEQ_WINDOW];

	if (*m != n + 1)
		return false;
	*m = 0;
	return true;
}

static void seq_missing(struct seq *s, uint64_t n)
{
	s->missing[n % SEQ_WINDOW] = n + 1;
}

enum seq_result seq_next(struct seq *s, uint64_t n, uint64_t *gap)
{
	uint64_t i;

	*gap = 0;
	if (n < s->next)
		return seq_was_missing(s, n) ? SEQ_LATE : SEQ_DUP;
	*gap = n - s->next;
	for (i = s->next; i < n; i++)
		seq_missing(s, i);
	s->next = n + 1;
	return *gap ? SEQ_GAP : SEQ_OK;
}

static uint8_t *slot_of(const struct area *a, uint64_t n)
{
	return a->mem + n % (2 * chk.o.p.window) * slot_size();
}

/* What a READ has to find; must be there before the credit that allows it. */
static void refresh_read(struct conn *c, uint64_t n)
{
	uint8_t *mem = slot_of(&c->rx.read, n);
	struct op op;

	sched_op(&c->rx.sched, n, &op);
	if (op.type != OP_READ)
		return;
	if (n >= 2 * chk.o.p.window && plant(PLANT_STALE_READ, c, n)) {
		/* as if the peer's READ saw what was there one lap ago */
		op.n -= 2 * chk.o.p.window;
		op.len = sizeof(struct msg_hdr);
		msg_build(mem, &c->rx.sched, &op);
		return;
	}
	msg_build(mem, &c->rx.sched, &op);
	if (op.len && plant(PLANT_CORRUPT_MEMORY, c, n))
		mem[op.len / 2] ^= 4;
}

void rx_init(struct conn *c)
{
	uint64_t first = sched_swap_value(&c->rx.sched, 0), zero = 0, n;

	memcpy(c->rx.atomic.mem, &zero, 8);
	memcpy(c->rx.atomic.mem + 64, &first, 8);
	for (n = 0; n < chk.o.p.window; n++)
		refresh_read(c, n);
}

/* A slot that was verified must still be poisoned. */
static void check_untouched(struct conn *c, uint64_t n)
{
	uint8_t *mem = slot_of(&c->rx.slot, n);
	bool was_missing;
	uint64_t *missing;
	struct op op;

	assert(chk.o.p.window);
	missing = &c->rx.slot_missing[n % (2 * chk.o.p.window)];
	was_missing = *missing == n + 1;
	*missing = 0;
	if (poisoned(mem, slot_size()))
		return;
	sched_op(&c->rx.sched, n, &op);
	if (op_in(op.type, OPS_SLOT) && msg_check(mem, &c->rx.sched, &op)) {
		if (was_missing) {
			unfault(LOST, 1);
			fault(REORDERED, 1, c, "%s %llu arrived late",
			      op_name[op.type], (ull)n);
		} else {
			fault(DUPLICATED, 1, c, "%s %llu was executed again",
			      op_name[op.type], (ull)n);
		}
	} else {
		fault(CORRUPTED, 1, c, "unexpected write to the slot of %llu",
		      (ull)n);
	}
	poison(mem, slot_size());
}

static bool check_slot(struct conn *c, const struct op *op)
{
	uint8_t *mem = slot_of(&c->rx.slot, op->n);
	struct msg_hdr h;
	bool good = false;

	if (!op->len)
		return true;
	if (!poisoned(mem + op->len, slot_size() - op->len)) {
		fault(CORRUPTED, 1, c, "%s %llu wrote beyond its end",
		      op_name[op->type], (ull)op->n);
	} else if (msg_check(mem, &c->rx.sched, op)) {
		good = true;
	} else if (poisoned(mem, op->len)) {
		fault(LOST, 1, c, "%s %llu is not in memory",
		      op_name[op->type], (ull)op->n);
		c->rx.slot_missing[op->n % (2 * chk.o.p.window)] = op->n + 1;
	} else if (msg_identify(mem, op->len, &c->rx.sched, &h) &&
		   h.seq < op->n) {
		fault(DUPLICATED, 1, c, "%s %llu overwritten by %llu",
		      op_name[op->type], (ull)op->n, (ull)h.seq);
	} else {
		fault(CORRUPTED, 1, c, "%s %llu of %u bytes",
		      op_name[op->type], (ull)op->n, op->len);
	}
	poison(mem, slot_size());
	return good;
}

/*
 * FETCH_ADD number round was executed; some later ones may have been, too.
 * The exact count is checked at the end, and by the values that come back.
 */
static bool check_counter(struct conn *c, const struct op *op)
{
	uint64_t val, done = op->round + 1;

	memcpy(&val, c->rx.atomic.mem, 8);
	if (plant(PLANT_CORRUPT_COUNTER, c, op->n)) {
		uint64_t bad = val ^ 0x40;

		memcpy(c->rx.atomic.mem, &bad, 8);
	}
	return val >= done * FADD_STEP;
}

/* Account for operation n, which the peer has executed. */
static void account(struct conn *c, uint64_t n, bool notified)
{
	bool good = true;
	struct op op;

	sched_op(&c->rx.sched, n, &op);
	if (op_in(op.type, OPS_SLOT))
		good = check_slot(c, &op);
	else if (op.type == OP_FETCH_ADD)
		check_counter(c, &op);
	else if (op.type == OP_CMP_SWP && plant(PLANT_CORRUPT_SWAP, c, n))
		c->rx.atomic.mem[64 + 3] ^= 1;
	if (op_in(op.type, OPS_NOTIFY) && !notified) {
		fault(LOST, 1, c, "%s %llu did not arrive", op_name[op.type],
		      (ull)n);
		seq_missing(&c->rx.late, n);
		good = false;
	}
	if (good)
		chk.t.verified[op.type]++;
	c->rx.next = n + 1;
	if (n >= chk.o.p.window)
		check_untouched(c, n - chk.o.p.window);
	refresh_read(c, n + chk.o.p.window);
}

static bool same_kind(const struct op *op, const struct ibv_wc *wc)
{
	bool imm = wc->wc_flags & IBV_WC_WITH_IMM;
	bool inv = wc->wc_flags & IBV_WC_WITH_INV;

	switch (op->type) {
	case OP_SEND:
		return wc->opcode == IBV_WC_RECV && !imm && !inv;
	case OP_SEND_IMM:
		return wc->opcode == IBV_WC_RECV && imm;
	case OP_SEND_INV:
		return wc->opcode == IBV_WC_RECV && inv;
	case OP_WRITE_IMM:
		return wc->opcode == IBV_WC_RECV_RDMA_WITH_IMM && imm;
	default:
		return false;
	}
}

static bool is_op(struct conn *c, const struct op *op, const struct ibv_wc *wc,
		  const uint8_t *buf)
{
	if (!same_kind(op, wc) || wc->byte_len != op->len)
		return false;
	if ((wc->wc_flags & IBV_WC_WITH_IMM) &&
	    ntohl(wc->imm_data) != (op->n & ~IMM_CREDIT))
		return false;
	if (op->type == OP_WRITE_IMM)
		return poisoned(buf, GUARD);
	return msg_check(buf, &c->rx.sched, op) &&
	       poisoned(buf + op->len, 32);
}

/* The first operation from n on that the responder notices */
static void next_notifying(struct conn *c, uint64_t n, struct op *op)
{
	do {
		sched_op(&c->rx.sched, n++, op);
	} while (!op_in(op->type, OPS_NOTIFY));
}

/*
 * Not the message that was due: which one is it?  Its header tells, or its
 * immediate, or, if it is too short for a header, its contents.
 */
static bool find_op(struct conn *c, const struct ibv_wc *wc,
		    const uint8_t *buf, struct op *op)
{
	uint64_t next = c->rx.next, w = chk.o.p.window, n;
	struct msg_hdr h;

	if (wc->opcode == IBV_WC_RECV &&
	    msg_identify(buf, wc->byte_len, &c->rx.sched, &h) &&
	    h.seq < next + w) {
		sched_op(&c->rx.sched, h.seq, op);
		return h.type == op->type;
	}
	for (n = next; n < next + w; n++) {
		sched_op(&c->rx.sched, n, op);
		if (is_op(c, op, wc, buf))
			return true;
	}
	for (n = next; n-- > 0 && n + w >= next;) {
		sched_op(&c->rx.sched, n, op);
		if (is_op(c, op, wc, buf))
			return true;
	}
	return false;
}

static void window_ended(struct conn *c, const struct op *op,
			 const struct ibv_wc *wc)
{
	struct rx *rx = &c->rx;

	if (wc->invalidated_rkey != rx->mw_rkey ||
	    (uint32_t)op->round != rx->mw_gen)
		fault(CORRUPTED, 1, c, "%s %llu ended key %#x instead of %#x",
		      op_name[op->type], (ull)op->n, wc->invalidated_rkey,
		      rx->mw_rkey);
	rx->mw_gen++;
	rx->mw_ready = false;
	rx->mw_want = true;
}

static void rx_message(struct conn *c, const struct ibv_wc *wc,
		       const uint8_t *buf)
{
	struct op due, op;
	bool good;

	next_notifying(c, c->rx.next, &due);
	op = due;
	good = is_op(c, &due, wc, buf);
	if (!good) {
		if (find_op(c, wc, buf, &op))
			good = is_op(c, &op, wc, buf);
		else
			op = due;
	}
	if (op.n < c->rx.next) {
		if (seq_was_missing(&c->rx.late, op.n)) {
			unfault(LOST, 1);
			fault(REORDERED, 1, c, "%s %llu arrived late",
			      op_name[op.type], (ull)op.n);
		} else {
			fault(DUPLICATED, 1, c, "%s %llu arrived again",
			      op_name[op.type], (ull)op.n);
		}
		return;
	}
	while (c->rx.next < op.n)
		account(c, c->rx.next, false);
	if (!good)
		fault(CORRUPTED, 1, c,
		      "message for %s %llu: opcode %d flags %#x length %u/%u",
		      op_name[op.type], (ull)op.n, wc->opcode, wc->wc_flags,
		      wc->byte_len, op.len);
	account(c, op.n, true);
	if (!good)
		chk.t.verified[op.type]--;
	if (op.type == OP_SEND_INV)
		window_ended(c, &op, wc);
}

static void rx_credit(struct conn *c, const struct ibv_wc *wc,
		      const uint8_t *buf)
{
	struct credit_msg m;
	struct msg_hdr h;
	uint64_t gap;

	if (wc->byte_len != sizeof(m) ||
	    !msg_identify(buf, sizeof(m), &c->rx.sched, &h) ||
	    h.type != OP_CREDIT ||
	    (ntohl(wc->imm_data) ^ h.seq) & ~IMM_CREDIT) {
		fault(CORRUPTED, 1, c, "credit message");
		return;
	}
	memcpy(&m, buf, sizeof(m));
	switch (seq_next(&c->rx.credit, h.seq, &gap)) {
	case SEQ_GAP:
		fault(LOST, gap, c, "credit messages before %llu", (ull)h.seq);
		break;
	case SEQ_DUP:
		fault(DUPLICATED, 1, c, "credit message %llu", (ull)h.seq);
		return;
	case SEQ_LATE:
		unfault(LOST, 1);
		fault(REORDERED, 1, c, "credit message %llu", (ull)h.seq);
		return;
	case SEQ_OK:
		break;
	}
	tx_credit(c, &m);
}

static int rx_post(struct rx_pool *p, unsigned int b, struct ibv_qp *qp,
		   struct ibv_srq *srq, uint32_t owner)
{
	uint8_t *mem = p->area.mem + b * slot_size();
	uint32_t ord = p->next_ordinal, total = slot_size() - 32;
	uint32_t len[3] = { 32 + ord * 37 % 224, ord * 101 % 1024, 0 };
	struct ibv_recv_wr wr, *bad;
	struct ibv_sge sge[3];
	uint32_t off = 0;
	int i, err;

	if (len[0] > total)
		len[0] = total;
	if (len[1] > total - len[0])
		len[1] = total - len[0];
	len[2] = total - len[0] - len[1];
	wr = (struct ibv_recv_wr) {
		.wr_id = (srq ? WR_SRQ : 0) | (uint64_t)owner << 48 |
			 (uint64_t)ord << 16 | b,
		.sg_list = sge,
	};
	for (i = 0; i < 3; i++) {
		if (!len[i])
			continue;
		sge[wr.num_sge++] = (struct ibv_sge) {
			.addr = (uintptr_t)mem + off,
			.length = len[i],
			.lkey = p->area.mr[i & 1]->lkey,
		};
		off += len[i];
	}
	err = srq ? ibv_post_srq_recv(srq, &wr, &bad) :
		    ibv_post_recv(qp, &wr, &bad);
	if (err) {
		fault(ERRORS, 1, NULL, "post receive: %s", strerror(err));
		return -1;
	}
	p->posted[b] = true;
	p->ordinal[b] = ord;
	p->next_ordinal++;
	return 0;
}

int rx_fill(struct rx_pool *p, struct ibv_qp *qp, struct ibv_srq *srq,
	    uint32_t owner)
{
	unsigned int b;

	for (b = 0; b < p->nr; b++)
		if (rx_post(p, b, qp, srq, owner))
			return -1;
	return 0;
}

/* Post consumed buffers again; with --rnr only after a while. */
bool rx_release(struct rx_pool *p, struct ibv_qp *qp, struct ibv_srq *srq,
		uint32_t owner)
{
	if (!p->held_nr)
		return false;
	if (chk.o.rnr && now_ns() - p->held_since < RNR_HOLD_NS)
		return false;
	while (p->held_nr) {
		unsigned int b = p->held[p->held_head];

		p->held_head = (p->held_head + 1) % p->nr;
		p->held_nr--;
		if (rx_post(p, b, qp, srq, owner))
			return false;
	}
	return true;
}

void rx_complete(struct conn *c, struct rx_pool *p, const struct ibv_wc *wc)
{
	unsigned int b = wc->wr_id & 0xffff;
	uint32_t ord = wc->wr_id >> 16;
	uint8_t *buf;
	uint64_t gap;

	if (wc->status != IBV_WC_SUCCESS) {
		conn_fail(c, ibv_wc_status_str(wc->status));
		return;
	}
	if (b >= p->nr || !p->posted[b] || p->ordinal[b] != ord) {
		fault(DUPLICATED, 1, c, "completion of receive WR %u", ord);
		return;
	}
	/* receives of one queue complete in order; those of a SRQ need not */
	if (!(wc->wr_id & WR_SRQ)) {
		switch (seq_next(&c->rx.wr, ord, &gap)) {
		case SEQ_GAP:
			fault(LOST, gap, c, "completions before receive WR %u",
			      ord);
			break;
		case SEQ_LATE:
			unfault(LOST, 1);
			fault(REORDERED, 1, c, "completion of receive WR %u",
			      ord);
			break;
		default:
			break;
		}
	}
	p->posted[b] = false;
	buf = p->area.mem + b * slot_size();
	if (wc->opcode == IBV_WC_RECV && (wc->wc_flags & IBV_WC_WITH_IMM) &&
	    (ntohl(wc->imm_data) & IMM_CREDIT))
		rx_credit(c, wc, buf);
	else
		rx_message(c, wc, buf);
	poison(buf, slot_size());
	if (!p->held_nr)
		p->held_since = now_ns();
	p->held[(p->held_head + p->held_nr++) % p->nr] = b;
}

/* Nothing came for too long: what the peer says it sent is lost. */
void rx_give_up(struct conn *c)
{
	while (c->peer_fin && c->rx.next < c->peer_final)
		account(c, c->rx.next, false);
}

/* The peer has ended; memory must tell the same story as the completions. */
void rx_final(struct conn *c)
{
	struct sched *s = &c->rx.sched;
	uint64_t n, val, want, adds, swaps, r;

	if (c->rx.next != c->peer_final)
		fault(ERRORS, 1, c, "peer ended at %llu, verified %llu",
		      (ull)c->peer_final, (ull)c->rx.next);
	n = c->rx.next > chk.o.p.window ? c->rx.next - chk.o.p.window : 0;
	for (; n < c->rx.next; n++)
		check_untouched(c, n);
	if (!poisoned(c->rx.slot.mem, c->rx.slot.len))
		fault(CORRUPTED, 1, c, "write outside of the slots in use");
	adds = sched_count(s, OP_FETCH_ADD, c->rx.next);
	memcpy(&val, c->rx.atomic.mem, 8);
	want = adds * FADD_STEP;
	if ((val - want) % FADD_STEP && (want - val) % FADD_STEP)
		fault(CORRUPTED, 1, c, "FETCH_ADD counter is %#llx, not %#llx",
		      (ull)val, (ull)want);
	else if (val > want)
		fault(DUPLICATED, (val - want) / FADD_STEP, c,
		      "FETCH_ADD counter is %#llx, not %#llx",
		      (ull)val, (ull)want);
	else if (val < want)
		fault(LOST, (want - val) / FADD_STEP, c,
		      "FETCH_ADD counter is %#llx, not %#llx",
		      (ull)val, (ull)want);
	swaps = sched_count(s, OP_CMP_SWP, c->rx.next);
	memcpy(&val, c->rx.atomic.mem + 64, 8);
	if (val == sched_swap_value(s, swaps))
		return;
	for (r = 0; r < swaps && val != sched_swap_value(s, r); r++)
		;
	fault(r < swaps ? LOST : CORRUPTED, 1, c,
	      "CMP_SWP cell is %#llx after %llu swaps", (ull)val, (ull)swaps);
}
