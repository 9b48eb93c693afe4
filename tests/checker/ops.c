// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/* The initiator's part: post the schedule, check what comes back. */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include "chk.h"

#define BURST		4	/* operations a connection posts per turn */

uint64_t tx_outstanding(const struct conn *c)
{
	return c->tx.wr_posted - c->tx.wr.next;
}

static struct tx_entry *entry_of(struct conn *c, uint64_t wr)
{
	return &c->tx.entry[wr % c->tx.size];
}

static uint8_t *buffer_of(struct conn *c, uint64_t wr)
{
	return c->tx.area.mem + wr % c->tx.size * slot_size();
}

static uint64_t wr_id(const struct conn *c)
{
	return (uint64_t)c->idx << 48 | (c->tx.wr_posted & 0xffffffffffffULL);
}

static void posted(struct conn *c, uint8_t type, const struct op *op)
{
	struct tx_entry *e = entry_of(c, c->tx.wr_posted);

	e->type = type;
	if (op)
		e->op = *op;
	c->tx.wr_posted++;
}

static int post(struct conn *c, struct ibv_send_wr *wr)
{
	struct ibv_send_wr *bad;
	int err;

	wr->wr_id = wr_id(c);
	wr->send_flags |= IBV_SEND_SIGNALED;
	err = ibv_post_send(c->qp, wr, &bad);
	if (err) {
		errno = err;
		conn_fail(c, strerror(err));
	}
	return err;
}

/* One buffer as several elements, through alternating keys */
static int scatter(struct conn *c, const struct op *op, uint8_t *buf,
		   struct ibv_sge *sge)
{
	uint32_t off = 0, rnd = op->rnd >> 16;
	int i, nr = 0;

	for (i = 0; i < op->nsge && off < op->len; i++) {
		uint32_t left = op->len - off;
		uint32_t len = i == op->nsge - 1 ? left : 1 + rnd % left;

		sge[nr++] = (struct ibv_sge) {
			.addr = (uintptr_t)buf + off,
			.length = len,
			.lkey = c->tx.area.mr[i & 1]->lkey,
		};
		off += len;
		rnd = rnd * 1103515245U + 12345U;
	}
	return nr;
}

static uint64_t slot_addr(uint64_t base, uint64_t n)
{
	return base + n % (2 * chk.o.p.window) * slot_size();
}

static int post_extended(struct conn *c, const struct op *op, const void *buf)
{
	uint64_t addr = slot_addr(c->peer.slot_addr, op->n);
	int err;

	ibv_wr_start(c->qpx);
	c->qpx->wr_id = wr_id(c);
	c->qpx->wr_flags = IBV_SEND_SIGNALED;
	if (op->type == OP_FLUSH)
		ibv_wr_flush(c->qpx, c->peer.slot_rkey, addr,
			     op->len ? op->len : 1, IBV_FLUSH_GLOBAL,
			     IBV_FLUSH_RANGE);
	else
		ibv_wr_atomic_write(c->qpx, c->peer.slot_rkey, addr, buf);
	err = ibv_wr_complete(c->qpx);
	if (err)
		conn_fail(c, strerror(err));
	return err;
}

static void damage(struct conn *c, const struct op *op, uint8_t *buf,
		   struct ibv_send_wr *wr)
{
	if (op->len >= sizeof(struct msg_hdr)) {
		if (op->type == OP_SEND &&
		    plant(PLANT_CORRUPT_PAYLOAD, c, op->n))
			buf[op->len - 1] ^= 1;
		if (op->type == OP_WRITE &&
		    plant(PLANT_CORRUPT_WRITE, c, op->n))
			buf[op->len / 2] ^= 0x80;
	}
	if (op->type == OP_SEND_IMM && plant(PLANT_CORRUPT_IMM, c, op->n))
		wr->imm_data ^= htonl(0x40000000);
	/* beyond the end of what was to be written */
	if (op->type == OP_WRITE && wr->num_sge && op->len + 8 < chk.o.p.max_msg &&
	    plant(PLANT_STRAY_WRITE, c, op->n)) {
		wr->sg_list[wr->num_sge - 1].length += 4;
		memset(buf + op->len, 0, 4);
	}
	if (op->type == OP_SEND && op->len > 64 &&
	    plant(PLANT_SHORT_SEND, c, op->n)) {
		wr->num_sge = 1;
		wr->sg_list[0].length = op->len - 1;
	}
}

static int post_op(struct conn *c, const struct op *op)
{
	static const enum ibv_wr_opcode opcode[OP_NR] = {
		[OP_SEND] = IBV_WR_SEND,
		[OP_SEND_IMM] = IBV_WR_SEND_WITH_IMM,
		[OP_SEND_INV] = IBV_WR_SEND_WITH_INV,
		[OP_WRITE] = IBV_WR_RDMA_WRITE,
		[OP_WRITE_IMM] = IBV_WR_RDMA_WRITE_WITH_IMM,
		[OP_WRITE_MW] = IBV_WR_RDMA_WRITE,
		[OP_READ] = IBV_WR_RDMA_READ,
		[OP_CMP_SWP] = IBV_WR_ATOMIC_CMP_AND_SWP,
		[OP_FETCH_ADD] = IBV_WR_ATOMIC_FETCH_AND_ADD,
	};
	uint8_t *buf = buffer_of(c, c->tx.wr_posted);
	struct ibv_sge sge[4];
	struct ibv_send_wr wr = { .sg_list = sge, };
	const struct conn_info *p = &c->peer;
	int err;

	wr.num_sge = scatter(c, op, buf, sge);
	if (op->type == OP_READ || op->type == OP_CMP_SWP ||
	    op->type == OP_FETCH_ADD)
		poison(buf, op->len + GUARD);
	else if (op->type != OP_FLUSH)
		msg_build(buf, &c->tx.sched, op);

	if (op->type == OP_FLUSH || op->type == OP_ATOMIC_WRITE) {
		err = post_extended(c, op, buf);
		goto out;
	}
	wr.opcode = opcode[op->type];
	switch (op->type) {
	case OP_SEND_IMM:
		wr.imm_data = htonl(op->n & ~IMM_CREDIT);
		break;
	case OP_SEND_INV:
		wr.invalidate_rkey = c->tx.mw_rkey;
		break;
	case OP_WRITE_IMM:
		wr.imm_data = htonl(op->n & ~IMM_CREDIT);
		/* fallthrough */
	case OP_WRITE:
	case OP_WRITE_MW:
		wr.wr.rdma.remote_addr = slot_addr(p->slot_addr, op->n);
		wr.wr.rdma.rkey = op->type == OP_WRITE_MW ? c->tx.mw_rkey :
				  p->slot_rkey;
		break;
	case OP_READ:
		wr.wr.rdma.remote_addr = slot_addr(p->read_addr, op->n);
		wr.wr.rdma.rkey = p->read_rkey;
		break;
	case OP_FETCH_ADD:
		wr.wr.atomic.remote_addr = p->atomic_addr;
		wr.wr.atomic.rkey = p->atomic_rkey;
		wr.wr.atomic.compare_add = FADD_STEP;
		break;
	case OP_CMP_SWP:
		wr.wr.atomic.remote_addr = p->atomic_addr + 64;
		wr.wr.atomic.rkey = p->atomic_rkey;
		wr.wr.atomic.compare_add =
			sched_swap_value(&c->tx.sched, op->round);
		wr.wr.atomic.swap =
			sched_swap_value(&c->tx.sched, op->round + 1);
		break;
	default:
		break;
	}
	damage(c, op, buf, &wr);
	if (op->inl && op->len <= c->max_inline && op->type <= OP_WRITE_MW)
		wr.send_flags |= IBV_SEND_INLINE;
	err = post(c, &wr);
	/* an inline buffer is the caller's again: the copy must be used */
	if (!err && (wr.send_flags & IBV_SEND_INLINE))
		poison(buf, op->len);
out:
	if (!err)
		posted(c, op->type, op);
	return err;
}

static bool post_credit(struct conn *c)
{
	struct rx *rx = &c->rx;
	struct tx *tx = &c->tx;
	struct credit_msg *m = (void *)buffer_of(c, tx->wr_posted);
	bool told = rx->mw_told || !rx->mw_ready;
	struct ibv_sge sge = {
		.addr = (uintptr_t)m,
		.length = sizeof(*m),
		.lkey = tx->area.mr[0]->lkey,
	};
	struct ibv_send_wr wr = {
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = IBV_WR_SEND_WITH_IMM,
		.imm_data = htonl(IMM_CREDIT | (tx->credit_gen & ~IMM_CREDIT)),
	};

	m->verified = rx->next;
	m->mw_gen = rx->mw_gen;
	m->mw_rkey = rx->mw_ready ? rx->mw_rkey : 0;
	msg_seal(m, &tx->sched, tx->credit_gen, OP_CREDIT, sizeof(*m));
	if (sizeof(*m) <= c->max_inline)
		wr.send_flags = IBV_SEND_INLINE;
	tx->credited = rx->next;
	rx->mw_told = true;
	/* not the one that announces a window: its loss ends all progress */
	if (told && plant(PLANT_LOST_CREDIT, c, tx->credit_gen * 8)) {
		tx->credit_gen++;
		return true;
	}
	if (post(c, &wr))
		return false;
	posted(c, OP_CREDIT, NULL);
	if (plant(PLANT_DUP_CREDIT, c, tx->credit_gen * 8)) {
		memcpy(buffer_of(c, tx->wr_posted), m, sizeof(*m));
		sge.addr = (uintptr_t)buffer_of(c, tx->wr_posted);
		if (!post(c, &wr))
			posted(c, OP_CREDIT, NULL);
	}
	tx->credit_gen++;
	tx->credit_busy = true;
	return true;
}

static bool post_bind(struct conn *c)
{
	struct rx *rx = &c->rx;
	uint32_t rkey = ibv_inc_rkey(rx->mw->rkey);
	struct ibv_send_wr wr = {
		.opcode = IBV_WR_BIND_MW,
		.bind_mw = {
			.mw = rx->mw,
			.rkey = rkey,
			.bind_info = {
				.mr = rx->slot.mr[0],
				.addr = (uintptr_t)rx->slot.mem,
				.length = rx->slot.len,
				.mw_access_flags = IBV_ACCESS_REMOTE_WRITE,
			},
		},
	};

	if (post(c, &wr))
		return false;
	rx->mw_rkey = rkey;
	rx->mw_want = false;
	c->tx.bind_busy = true;
	posted(c, OP_BIND, NULL);
	return true;
}

/* Housekeeping for the other direction; needs no credit, so cannot deadlock. */
static bool work_for_peer(struct conn *c)
{
	struct rx *rx = &c->rx;
	bool did = false;

	if (!c->running || c->bye_sent || c->dead)
		return false;
	if (rx->mw_want && !c->tx.bind_busy &&
	    !(chk.o.lone_bind && tx_outstanding(c)))
		did |= post_bind(c);
	if (c->peer_fin || c->tx.credit_busy ||
	    (chk.o.lone_bind && (rx->mw_want || c->tx.bind_busy)))
		return did;
	if ((rx->mw_ready && !rx->mw_told) ||
	    rx->next - c->tx.credited >= chk.o.p.window / 4)
		did |= post_credit(c);
	return did;
}

static bool want_stop(const struct conn *c)
{
	/* connections made after a move end by themselves */
	if (chk.stopping && !c->extra)
		return true;
	return c->tx.limit && c->tx.next >= c->tx.limit;
}

/* The last operation must be one that the peer notices. */
bool tx_stopped(const struct conn *c)
{
	if (!c->idx && plant_is(PLANT_LOST_LAST))
		return false;
	return want_stop(c) && c->tx.last_notifies && !c->tx.hold;
}

bool tx_drained(const struct conn *c)
{
	return tx_stopped(c) && !tx_outstanding(c);
}

/* The window to use, or to end, must have been announced. */
static bool window_ready(struct conn *c, const struct op *op)
{
	if (!op_in(op->type, OPS_MW))
		return true;
	return c->tx.mw_rkey &&
	       c->tx.mw_gen == (uint32_t)sched_mw_gen(&c->tx.sched, op);
}

static bool skip_op(struct conn *c, const struct op *op)
{
	static const struct {
		uint8_t type;
		enum plant plant;
	} lost[] = {
		{ OP_SEND, PLANT_LOST_SEND },
		{ OP_WRITE, PLANT_LOST_WRITE },
		{ OP_WRITE_MW, PLANT_LOST_MW_WRITE },
		{ OP_ATOMIC_WRITE, PLANT_LOST_ATOMIC_WRITE },
		{ OP_FETCH_ADD, PLANT_LOST_ATOMIC },
		{ OP_CMP_SWP, PLANT_LOST_SWAP },
	};
	unsigned int i;

	for (i = 0; i < sizeof(lost) / sizeof(*lost); i++)
		if (op->type == lost[i].type &&
		    (op->len || op->type == OP_SEND) &&
		    plant(lost[i].plant, c, op->n))
			return true;
	/* the very last one: nothing comes after it that would show the gap */
	return op_in(op->type, OPS_NOTIFY) && want_stop(c) &&
	       op->type != OP_SEND_INV && plant(PLANT_LOST_LAST, c, op->n);
}

/* Post the next operation.  Some faults are planted here. */
static bool post_next(struct conn *c)
{
	struct tx *tx = &c->tx;
	bool notifies;
	struct op op;

	if (tx->repeat && tx->credit > tx->again.n) {
		/* the peer has verified and poisoned the slot */
		tx->repeat = false;
		return !post_op(c, &tx->again);
	}
	if (tx->hold && tx->credit > tx->held.n) {
		/* the peer has looked, and missed it */
		tx->hold = false;
		return !post_op(c, &tx->held);
	}
	sched_op(&tx->sched, tx->next, &op);
	if (!window_ready(c, &op))
		return false;
	notifies = op_in(op.type, OPS_NOTIFY);
	if (!tx->hold &&
	    ((op.type == OP_SEND && plant(PLANT_REORDER_SEND, c, op.n)) ||
	     (op.type == OP_WRITE && op.len >= sizeof(struct msg_hdr) &&
	      plant(PLANT_REORDER_WRITE, c, op.n)))) {
		tx->hold = true;
		tx->held = op;
	} else if (!skip_op(c, &op)) {
		if (post_op(c, &op))
			return false;
		if ((op.type == OP_SEND && plant(PLANT_DUP_SEND, c, op.n)) ||
		    (op.type == OP_FETCH_ADD &&
		     plant(PLANT_DUP_ATOMIC, c, op.n)) ||
		    (op.type == OP_CMP_SWP && plant(PLANT_DUP_SWAP, c, op.n)))
			post_op(c, &op);
		if (op.type == OP_WRITE && op.len &&
		    plant(PLANT_DUP_WRITE, c, op.n)) {
			tx->repeat = true;
			tx->again = op;
		}
	}
	tx->next++;
	tx->last_notifies = notifies;
	chk.t.posted[op.type]++;
	chk.t.bytes += op.type == OP_FLUSH ? 0 : op.len;
	if (tx->hold && notifies && op.n != tx->held.n &&
	    tx->held.type == OP_SEND) {
		tx->hold = false;
		post_op(c, &tx->held);
	}
	return true;
}

bool tx_work(struct conn *c)
{
	bool did = work_for_peer(c);
	int i;

	for (i = 0; i < BURST && c->running && !c->dead; i++) {
		if (tx_stopped(c))
			break;
		if (chk.o.lone_bind && (c->rx.mw_want || c->tx.bind_busy))
			break;
		if (c->tx.next >= c->tx.credit + chk.o.p.window)
			break;
		/* a planted fault may post one more */
		if (tx_outstanding(c) + 1 >= chk.o.depth)
			break;
		if (!post_next(c))
			break;
		did = true;
	}
	return did;
}

void tx_credit(struct conn *c, const struct credit_msg *m)
{
	if (m->verified > c->tx.credit)
		c->tx.credit = m->verified;
	if (m->mw_rkey) {
		c->tx.mw_gen = m->mw_gen;
		c->tx.mw_rkey = m->mw_rkey;
	}
}

static void check_read(struct conn *c, const struct op *op, uint8_t *buf)
{
	struct msg_hdr h;

	if (op->len && plant(PLANT_EMPTY_READ, c, op->n))
		poison(buf, op->len);
	if (!poisoned(buf + op->len, GUARD))
		fault(CORRUPTED, 1, c, "READ %llu wrote beyond its end",
		      (unsigned long long)op->n);
	if (msg_check(buf, &c->tx.sched, op))
		return;
	if (op->len && poisoned(buf, op->len))
		fault(LOST, 1, c, "READ %llu completed without data",
		      (unsigned long long)op->n);
	else if (msg_identify(buf, op->len + GUARD, &c->tx.sched, &h) &&
		 h.type == OP_READ)
		fault(REORDERED, 1, c, "READ %llu returned version %llu",
		      (unsigned long long)op->n, (unsigned long long)h.seq);
	else
		fault(CORRUPTED, 1, c, "READ %llu of %u bytes",
		      (unsigned long long)op->n, op->len);
}

static void check_fetch_add(struct conn *c, const struct op *op, uint64_t got)
{
	uint64_t want = op->round * FADD_STEP + c->tx.fadd_adjust;
	int64_t diff = got - want;

	if (!diff)
		return;
	c->tx.fadd_adjust += diff;
	if (diff % (int64_t)FADD_STEP || got >> 32 > op->round + SEQ_WINDOW)
		fault(CORRUPTED, 1, c,
		      "FETCH_ADD %llu returned %#llx instead of %#llx",
		      (unsigned long long)op->n, (unsigned long long)got,
		      (unsigned long long)want);
	else if (diff > 0)
		fault(DUPLICATED, diff / FADD_STEP, c,
		      "FETCH_ADD before %llu executed again",
		      (unsigned long long)op->n);
	else
		fault(LOST, -diff / FADD_STEP, c,
		      "FETCH_ADD before %llu not executed",
		      (unsigned long long)op->n);
}

static void check_swap(struct conn *c, const struct op *op, uint64_t got)
{
	uint64_t r;

	if (got == sched_swap_value(&c->tx.sched, op->round))
		return;
	for (r = op->round + 1; r < op->round + 64; r++) {
		if (got != sched_swap_value(&c->tx.sched, r))
			continue;
		fault(DUPLICATED, 1, c, "CMP_SWP %llu executed again",
		      (unsigned long long)op->n);
		return;
	}
	for (r = 0; r < op->round; r++) {
		if (got != sched_swap_value(&c->tx.sched, r))
			continue;
		fault(LOST, 1, c, "CMP_SWP before %llu not executed",
		      (unsigned long long)op->n);
		return;
	}
	fault(CORRUPTED, 1, c, "CMP_SWP %llu returned %#llx",
	      (unsigned long long)op->n, (unsigned long long)got);
}

static enum ibv_wc_opcode wc_opcode(uint8_t type)
{
	switch (type) {
	case OP_WRITE:
	case OP_WRITE_IMM:
	case OP_WRITE_MW:
		return IBV_WC_RDMA_WRITE;
	case OP_READ:
		return IBV_WC_RDMA_READ;
	case OP_CMP_SWP:
		return IBV_WC_COMP_SWAP;
	case OP_FETCH_ADD:
		return IBV_WC_FETCH_ADD;
	case OP_FLUSH:
		return IBV_WC_FLUSH;
	case OP_ATOMIC_WRITE:
		return IBV_WC_ATOMIC_WRITE;
	case OP_BIND:
		return IBV_WC_BIND_MW;
	default:
		return IBV_WC_SEND;
	}
}

static void check_result(struct conn *c, const struct op *op, uint8_t *buf)
{
	uint64_t val;

	switch (op->type) {
	case OP_READ:
		check_read(c, op, buf);
		break;
	case OP_FETCH_ADD:
	case OP_CMP_SWP:
		if (plant(PLANT_EMPTY_ATOMIC, c, op->n))
			poison(buf, 8);
		if (poisoned(buf, 8)) {
			fault(LOST, 1, c, "%s %llu completed without a result",
			      op_name[op->type], (unsigned long long)op->n);
			break;
		}
		memcpy(&val, buf, 8);
		if (!poisoned(buf + 8, GUARD))
			fault(CORRUPTED, 1, c, "atomic %llu beyond 8 bytes",
			      (unsigned long long)op->n);
		if (op->type == OP_FETCH_ADD)
			check_fetch_add(c, op, val);
		else
			check_swap(c, op, val);
		break;
	default:
		break;
	}
}

void tx_complete(struct conn *c, const struct ibv_wc *wc)
{
	uint64_t wr = wc->wr_id & 0xffffffffffffULL, gap, i;
	struct tx_entry *e = entry_of(c, wr);

	if (wc->status != IBV_WC_SUCCESS) {
		logmsg("connection %u: %s %llu: %s, vendor error %#x", c->idx,
		       e->type < OP_NR ? op_name[e->type] : "housekeeping",
		       (unsigned long long)(e->type < OP_NR ? e->op.n : wr),
		       ibv_wc_status_str(wc->status), wc->vendor_err);
		conn_fail(c, ibv_wc_status_str(wc->status));
		return;
	}
	if (wr >= c->tx.wr_posted) {
		fault(CORRUPTED, 1, c, "completion of send WR %llu, not posted",
		      (unsigned long long)wr);
		return;
	}
	switch (seq_next(&c->tx.wr, wr, &gap)) {
	case SEQ_DUP:
		fault(DUPLICATED, 1, c, "completion of send WR %llu",
		      (unsigned long long)wr);
		return;
	case SEQ_LATE:
		unfault(LOST, 1);
		fault(REORDERED, 1, c, "completion of send WR %llu",
		      (unsigned long long)wr);
		return;
	case SEQ_GAP:
		fault(LOST, gap, c, "completions before send WR %llu",
		      (unsigned long long)wr);
		for (i = wr - gap; i < wr; i++) {
			if (entry_of(c, i)->type == OP_CREDIT)
				c->tx.credit_busy = false;
			if (entry_of(c, i)->type == OP_BIND)
				c->tx.bind_busy = false;
		}
		break;
	case SEQ_OK:
		break;
	}
	if (wc->opcode != wc_opcode(e->type))
		fault(CORRUPTED, 1, c, "send WR %llu completed as opcode %d",
		      (unsigned long long)wr, wc->opcode);
	switch (e->type) {
	case OP_CREDIT:
		c->tx.credit_busy = false;
		break;
	case OP_BIND:
		c->tx.bind_busy = false;
		c->rx.mw->rkey = c->rx.mw_rkey;	/* the next bind's old key */
		c->rx.mw_ready = true;
		c->rx.mw_told = false;
		break;
	default:
		chk.t.completed[e->type]++;
		check_result(c, &e->op, buffer_of(c, wr));
	}
}
