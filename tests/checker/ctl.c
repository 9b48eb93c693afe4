// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Messages between the two checkers, over an RC connection of their own: no
 * socket has to survive the move.  Sequence numbers and checksums here, too.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "chk.h"

#define CTL_SEND	16
#define CTL_RECV	64
#define CTL_CONN	0xffffff

enum ctl_type {
	CTL_STOP = 1,	/* end the run */
	CTL_CHURN,	/* create and destroy objects */
	CTL_NEW,	/* a connection more: mine */
	CTL_NEW_OK,	/* and this is my end of it */
	CTL_GO,		/* both ends are ready */
	CTL_FIN,	/* I posted so many operations, all are completed */
	CTL_BYE,	/* I verified yours; nothing will come from me */
	CTL_DEAD,	/* connection failed */
	CTL_END,	/* my totals */
	CTL_CYCLED,	/* I have done all of my cycles */
};

struct ctl_msg {
	struct msg_hdr hdr;
	uint32_t type;
	uint32_t idx;
	union {
		struct conn_info info;
		uint64_t final;
		struct totals totals;
	};
};

struct pending {
	struct pending *next;
	struct ctl_msg m;
};

static struct {
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	struct ibv_mr *mr;
	struct ctl_msg *buf;
	struct sched tx, rx;
	struct seq seq;
	uint64_t sent, completed, recv;
	struct pending *head, **tail;
	unsigned int events;
	bool dead, end_sent, end_received;
} ctl;

static void send_msg(struct ctl_msg *m, enum ctl_type type, uint32_t idx)
{
	struct pending *p = calloc(1, sizeof(*p));

	if (!p)
		abort();
	p->m = *m;
	p->m.type = type;
	p->m.idx = idx;
	*ctl.tail = p;
	ctl.tail = &p->next;
}

static void send_simple(enum ctl_type type, uint32_t idx)
{
	struct ctl_msg m = { 0 };

	send_msg(&m, type, idx);
}

static void ctl_fail(const char *what)
{
	if (ctl.dead)
		return;
	ctl.dead = true;
	/* the peer may be gone once both have said everything */
	if (ctl.end_sent && ctl.end_received)
		return;
	fault(ERRORS, 1, NULL, "control connection: %s", what);
	chk.aborted = true;
}

static int post_recv(unsigned int i)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)&ctl.buf[CTL_SEND + i],
		.length = sizeof(struct ctl_msg),
		.lkey = ctl.mr->lkey,
	};
	struct ibv_recv_wr wr = { .wr_id = i, .sg_list = &sge, .num_sge = 1 };
	struct ibv_recv_wr *bad;

	return ibv_post_recv(ctl.qp, &wr, &bad);
}

static bool flush_pending(void)
{
	bool did = false;

	while (ctl.head && !ctl.dead && ctl.sent - ctl.completed < CTL_SEND) {
		struct pending *p = ctl.head;
		struct ctl_msg *m = &ctl.buf[ctl.sent % CTL_SEND];
		struct ibv_sge sge = {
			.addr = (uintptr_t)m,
			.length = sizeof(*m),
			.lkey = ctl.mr->lkey,
		};
		struct ibv_send_wr wr = {
			.wr_id = ctl.sent,
			.sg_list = &sge,
			.num_sge = 1,
			.opcode = IBV_WR_SEND,
			.send_flags = IBV_SEND_SIGNALED,
		};
		struct ibv_send_wr *bad;

		*m = p->m;
		msg_seal(m, &ctl.tx, ctl.sent, OP_CTL, sizeof(*m));
		if (ibv_post_send(ctl.qp, &wr, &bad)) {
			ctl_fail("post send");
			break;
		}
		ctl.sent++;
		ctl.head = p->next;
		if (!ctl.head)
			ctl.tail = &ctl.head;
		free(p);
		did = true;
	}
	return did;
}

static void handle_new(const struct ctl_msg *m)
{
	struct ctl_msg reply = { 0 };
	struct group *g;
	struct conn *c = NULL;

	if (m->idx >= CONN_MAX || chk.conn[m->idx]) {
		fault(ERRORS, 1, NULL, "new connection %u: index in use",
		      m->idx);
		return;
	}
	g = group_create(1, m->idx & 2);
	if (g)
		c = conn_create(m->idx, g, true);
	if (!c) {
		fault(ERRORS, 1, NULL, "new connection %u failed", m->idx);
		chk.aborted = true;
		return;
	}
	chk.extra_busy++;
	c->peer = m->info;
	if (conn_start(c))
		return;
	reply.info = c->self;
	send_msg(&reply, CTL_NEW_OK, m->idx);
}

static void handle(const struct ctl_msg *m)
{
	struct conn *c = m->idx < CONN_MAX ? chk.conn[m->idx] : NULL;

	switch (m->type) {
	case CTL_STOP:
		chk.stopping = true;
		return;
	case CTL_CHURN:
		objects_churn();
		return;
	case CTL_NEW:
		handle_new(m);
		return;
	case CTL_CYCLED:
		chk.peer_cycles = false;
		return;
	case CTL_END:
		chk.peer = m->totals;
		chk.peer_valid = true;
		ctl.end_received = true;
		return;
	default:
		break;
	}
	if (!c) {
		fault(ERRORS, 1, NULL, "message %u for no connection %u",
		      m->type, m->idx);
		return;
	}
	switch (m->type) {
	case CTL_NEW_OK:
		c->peer = m->info;
		if (conn_start(c))
			return;
		c->running = true;
		send_simple(CTL_GO, c->idx);
		break;
	case CTL_GO:
		c->running = true;
		break;
	case CTL_FIN:
		c->peer_fin = true;
		c->peer_final = m->final;
		break;
	case CTL_BYE:
		c->peer_bye = true;
		break;
	case CTL_DEAD:
		if (!c->dead)
			fault(ERRORS, 1, c, "the peer's end failed");
		c->dead = true;
		chk.aborted = true;
		break;
	default:
		fault(CORRUPTED, 1, NULL, "control message of type %u",
		      m->type);
	}
}

static void receive(const struct ibv_wc *wc)
{
	const struct ctl_msg *m = &ctl.buf[CTL_SEND + wc->wr_id];
	struct msg_hdr h;
	uint64_t gap;

	if (wc->wr_id != ctl.recv++ % CTL_RECV)
		fault(REORDERED, 1, NULL, "control completion");
	if (wc->byte_len != sizeof(*m) ||
	    !msg_identify(m, sizeof(*m), &ctl.rx, &h)) {
		fault(CORRUPTED, 1, NULL, "control message");
		return;
	}
	switch (seq_next(&ctl.seq, h.seq, &gap)) {
	case SEQ_DUP:
		fault(DUPLICATED, 1, NULL, "control message");
		return;
	case SEQ_LATE:
		unfault(LOST, 1);
		fault(REORDERED, 1, NULL, "control message");
		break;
	case SEQ_GAP:
		fault(LOST, gap, NULL, "control messages");
		break;
	case SEQ_OK:
		break;
	}
	handle(m);
}

bool ctl_work(void)
{
	struct ibv_wc wc[8];
	int i, nr;

	nr = ibv_poll_cq(ctl.cq, 8, wc);
	if (nr < 0) {
		ctl_fail("poll");
		return false;
	}
	for (i = 0; i < nr; i++) {
		if (wc[i].status != IBV_WC_SUCCESS) {
			ctl_fail(ibv_wc_status_str(wc[i].status));
			continue;
		}
		if (wc[i].opcode == IBV_WC_SEND) {
			if (wc[i].wr_id != ctl.completed++)
				fault(REORDERED, 1, NULL,
				      "control completion");
			continue;
		}
		receive(&wc[i]);
		if (post_recv(wc[i].wr_id))
			ctl_fail("post receive");
	}
	chk.progress += nr;
	return flush_pending() || nr;
}

void ctl_fin(struct conn *c)
{
	struct ctl_msg m = { .final = c->tx.next };

	send_msg(&m, CTL_FIN, c->idx);
	c->fin_sent = true;
}

void ctl_bye(struct conn *c)
{
	send_simple(CTL_BYE, c->idx);
	c->bye_sent = true;
}

void ctl_dead(struct conn *c)
{
	send_simple(CTL_DEAD, c->idx);
}

void ctl_stop(void)
{
	send_simple(CTL_STOP, CONN_NONE);
}

void ctl_end(void)
{
	struct ctl_msg m = { .totals = chk.t };

	if (plant(PLANT_MISCOUNT, NULL, UINT64_MAX))
		m.totals.posted[OP_SEND]++;
	send_msg(&m, CTL_END, CONN_NONE);
	ctl.end_sent = true;
}

bool ctl_end_sent(void)
{
	return ctl.end_sent;
}

/* After a move: objects here and there, and a connection between them. */
void ctl_moved(void)
{
	struct ctl_msg m = { 0 };
	uint32_t idx = chk.next_extra;
	struct group *g;
	struct conn *c = NULL;

	chk.t.moves++;
	objects_churn();
	send_simple(CTL_CHURN, CONN_NONE);
	/* even and odd, so that the ends never choose the same */
	chk.next_extra += 2;
	if (chk.next_extra >= CONN_MAX)
		chk.next_extra = chk.o.p.qps + !chk.o.server;
	if (chk.conn[idx]) {
		logmsg("connection %u is still there, no new one", idx);
		return;
	}
	g = group_create(1, idx & 2);
	if (g)
		c = conn_create(idx, g, true);
	if (!c) {
		fault(ERRORS, 1, NULL, "new connection %u failed", idx);
		chk.aborted = true;
		return;
	}
	chk.extra_busy++;
	m.info = c->self;
	send_msg(&m, CTL_NEW, idx);
}

void ctl_cycled(void)
{
	send_simple(CTL_CYCLED, CONN_NONE);
}

bool ctl_finished(void)
{
	return ctl.dead || (ctl_exchanged() && ctl.completed == ctl.sent);
}

/* The acknowledgment of the last message may be lost, and who would send it again
 * have ended.
 */
bool ctl_exchanged(void)
{
	return ctl.end_sent && ctl.end_received && !ctl.head;
}

void ctl_notify(void)
{
	ctl.events++;
}

int ctl_create(struct conn_info *self)
{
	size_t len = (CTL_SEND + CTL_RECV) * sizeof(struct ctl_msg);
	unsigned int i, max_inline = 0;

	ctl.tail = &ctl.head;
	sched_init(&ctl.tx, CTL_CONN, !chk.o.server);
	sched_init(&ctl.rx, CTL_CONN, chk.o.server);
	ctl.pd = ibv_alloc_pd(chk.dev.ctx);
	ctl.cq = ibv_create_cq(chk.dev.ctx, CTL_SEND + CTL_RECV, NULL,
			       chk.dev.channel, 0);
	if (!ctl.pd || !ctl.cq)
		goto err;
	ctl.buf = mem_alloc(len);
	ctl.mr = ibv_reg_mr(ctl.pd, ctl.buf, len, IBV_ACCESS_LOCAL_WRITE);
	ctl.qp = rc_create(ctl.pd, ctl.cq, ctl.cq, NULL, CTL_SEND, CTL_RECV,
			   &max_inline);
	if (!ctl.mr || !ctl.qp || rc_init(ctl.qp) ||
	    (chk.dev.channel && ibv_req_notify_cq(ctl.cq, 0)))
		goto err;
	for (i = 0; i < CTL_RECV; i++)
		if (post_recv(i))
			goto err;
	*self = (struct conn_info) {
		.idx = CTL_CONN,
		.qpn = ctl.qp->qp_num,
		.psn = mix64(ctl.tx.key) & 0xffffff,
		.lid = chk.dev.port.lid,
	};
	return dev_gid(&self->gid);
err:
	fault(ERRORS, 1, NULL, "create control connection: %s",
	      strerror(errno));
	return -1;
}

int ctl_connect(const struct conn_info *self, const struct conn_info *peer)
{
	return rc_connect(ctl.qp, self, peer);
}

void ctl_destroy(void)
{
	int err = 0;

	if (ctl.qp)
		err |= ibv_destroy_qp(ctl.qp);
	if (ctl.cq) {
		ibv_ack_cq_events(ctl.cq, ctl.events);
		err |= ibv_destroy_cq(ctl.cq);
	}
	if (ctl.mr)
		err |= ibv_dereg_mr(ctl.mr);
	if (ctl.pd)
		err |= ibv_dealloc_pd(ctl.pd);
	if (err)
		fault(ERRORS, 1, NULL, "destroy control connection");
}
