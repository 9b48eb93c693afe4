// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/* Verbs objects: the device, groups of shared objects, connections. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/mman.h>
#include "chk.h"

#define RECV_SGE	3
#define SEND_SGE	4

static int failed(const char *what)
{
	fault(ERRORS, 1, NULL, "%s: %s", what, strerror(errno));
	return -1;
}

static bool gid_v4(const union ibv_gid *gid)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	return !memcmp(gid->raw, mapped, sizeof(mapped));
}

/* The address it had before, which may have come along; else an IPv4 address if there
 * is one: a link-local address does not move.
 */
static int gid_choose(const union ibv_gid *before)
{
	int i, any = -1;
	bool v4 = false;

	for (i = 0; i < chk.dev.port.gid_tbl_len; i++) {
		struct ibv_gid_entry e;

		if (ibv_query_gid_ex(chk.dev.ctx, chk.o.port, i, &e, 0))
			continue;
		if (chk.dev.port.link_layer == IBV_LINK_LAYER_ETHERNET &&
		    e.gid_type != IBV_GID_TYPE_ROCE_V2)
			continue;
		if (!memcmp(&e.gid, before, sizeof(e.gid)))
			return i;
		if (any < 0 || (gid_v4(&e.gid) && !v4))
			any = i;
		v4 = v4 || gid_v4(&e.gid);
	}
	return any;
}

/* Our address for a new connection; after a move its place in the table is another. */
int dev_gid(union ibv_gid *gid)
{
	static union ibv_gid before;

	chk.dev.gid_index = chk.o.gid_index >= 0 ? chk.o.gid_index : gid_choose(&before);
	if (chk.dev.gid_index < 0) {
		errno = EADDRNOTAVAIL;
		return failed("choose GID");
	}
	if (ibv_query_gid(chk.dev.ctx, chk.o.port, chk.dev.gid_index, gid))
		return failed("query GID");
	before = *gid;
	return 0;
}

/* Does the device create a QP for these operations of the extended API? */
static bool send_op_works(struct ibv_pd *pd, struct ibv_cq *cq, uint64_t op)
{
	struct ibv_qp_init_attr_ex a = {
		.send_cq = cq,
		.recv_cq = cq,
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = 1, .max_recv_wr = 1,
			 .max_send_sge = 1, .max_recv_sge = 1 },
		.comp_mask = IBV_QP_INIT_ATTR_PD |
			     IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.pd = pd,
		.send_ops_flags = op,
	};
	struct ibv_qp *qp = ibv_create_qp_ex(chk.dev.ctx, &a);

	if (!qp)
		return false;
	ibv_destroy_qp(qp);
	return true;
}

/* Leave out of the mix what the device does not have. */
static void probe_types(void)
{
	static uint64_t page[512] __attribute__((aligned(4096)));
	uint32_t *types = &chk.o.p.types;
	struct ibv_pd *pd = ibv_alloc_pd(chk.dev.ctx);
	struct ibv_cq *cq = ibv_create_cq(chk.dev.ctx, 4, NULL, NULL, 0);
	struct ibv_mr *mr;

	if (!(chk.dev.attr.device_cap_flags & (IBV_DEVICE_MEM_WINDOW_TYPE_2A |
					       IBV_DEVICE_MEM_WINDOW_TYPE_2B)))
		*types &= ~OPS_MW;
	if (chk.dev.attr.atomic_cap == IBV_ATOMIC_NONE)
		*types &= ~(OP_BIT(OP_CMP_SWP) | OP_BIT(OP_FETCH_ADD));
	if (pd && cq) {
		if (!send_op_works(pd, cq, IBV_QP_EX_WITH_ATOMIC_WRITE))
			*types &= ~OP_BIT(OP_ATOMIC_WRITE);
		mr = ibv_reg_mr(pd, page, sizeof(page), IBV_ACCESS_LOCAL_WRITE |
				IBV_ACCESS_REMOTE_WRITE |
				IBV_ACCESS_FLUSH_GLOBAL);
		if (!mr || !send_op_works(pd, cq, IBV_QP_EX_WITH_FLUSH))
			*types &= ~OP_BIT(OP_FLUSH);
		if (mr)
			ibv_dereg_mr(mr);
	}
	if (cq)
		ibv_destroy_cq(cq);
	if (pd)
		ibv_dealloc_pd(pd);
}

int dev_open(void)
{
	struct ibv_device **list, *d = NULL;
	struct dev *dev = &chk.dev;
	int i, nr = 0;

	list = ibv_get_device_list(&nr);
	for (i = 0; i < nr && !d; i++)
		if (!chk.o.device ||
		    !strcmp(chk.o.device, ibv_get_device_name(list[i])))
			d = list[i];
	if (!d) {
		fprintf(stderr, "no RDMA device%s%s\n",
			chk.o.device ? " " : "",
			chk.o.device ? chk.o.device : "");
		if (list)
			ibv_free_device_list(list);
		return -1;
	}
	dev->ctx = ibv_open_device(d);
	ibv_free_device_list(list);
	if (!dev->ctx)
		return failed("open device");
	if (ibv_query_device(dev->ctx, &dev->attr) ||
	    ibv_query_port(dev->ctx, chk.o.port, &dev->port))
		return failed("query device and port");
	/* an event that nobody asked for must not block the loop */
	fcntl(dev->ctx->async_fd, F_SETFL,
	      fcntl(dev->ctx->async_fd, F_GETFL) | O_NONBLOCK);
	if (chk.o.events) {
		dev->channel = ibv_create_comp_channel(dev->ctx);
		if (!dev->channel)
			return failed("create completion channel");
		fcntl(dev->channel->fd, F_SETFL,
		      fcntl(dev->channel->fd, F_GETFL) | O_NONBLOCK);
	}
	if (!chk.o.p.mtu)
		chk.o.p.mtu = 128U << dev->port.active_mtu;
	probe_types();
	return 0;
}

void dev_close(void)
{
	if (chk.dev.channel && ibv_destroy_comp_channel(chk.dev.channel))
		failed("destroy completion channel");
	if (chk.dev.ctx && ibv_close_device(chk.dev.ctx))
		failed("close device");
}

size_t slot_size(void)
{
	size_t len = chk.o.p.max_msg;

	if (len < sizeof(struct credit_msg))
		len = sizeof(struct credit_msg);
	return (len + GUARD + 63) & ~63UL;
}

void *mem_alloc(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_ANONYMOUS |
		       (chk.o.shared ? MAP_SHARED : MAP_PRIVATE), -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(2);
	}
	return p;
}

static int area_create(struct area *a, struct ibv_pd *pd, size_t len, int nr,
		       int access)
{
	int i;

	a->len = (len + 4095) & ~4095UL;
	a->mem = mem_alloc(a->len);
	poison(a->mem, a->len);
	for (i = 0; i < nr; i++) {
		a->mr[i] = ibv_reg_mr(pd, a->mem, a->len, access);
		if (!a->mr[i])
			return failed("register memory");
	}
	return 0;
}

static int area_destroy(struct area *a)
{
	int i, err = 0;

	for (i = 0; i < 2; i++)
		if (a->mr[i] && ibv_dereg_mr(a->mr[i]))
			err = failed("deregister memory");
	if (a->mem)
		munmap(a->mem, a->len);
	memset(a, 0, sizeof(*a));
	return err;
}

static int pool_create(struct rx_pool *p, struct ibv_pd *pd, unsigned int nr)
{
	p->nr = nr;
	p->posted = calloc(nr, sizeof(*p->posted));
	p->ordinal = calloc(nr, sizeof(*p->ordinal));
	p->held = calloc(nr, sizeof(*p->held));
	if (!p->posted || !p->ordinal || !p->held)
		return failed("allocate receive pool");
	return area_create(&p->area, pd, nr * slot_size(), 2,
			   IBV_ACCESS_LOCAL_WRITE);
}

static int pool_destroy(struct rx_pool *p)
{
	free(p->posted);
	free(p->ordinal);
	free(p->held);
	return area_destroy(&p->area);
}

static int group_index(void)
{
	unsigned int i;

	for (i = 0; i < CONN_MAX && chk.group[i]; i++)
		;
	return i < CONN_MAX ? (int)i : -1;
}

struct group *group_create(unsigned int conns, bool srq)
{
	unsigned int sq = conns * (chk.o.depth + 4);
	unsigned int rq = conns * (chk.o.p.window + 4);
	struct group *g = calloc(1, sizeof(*g));
	int idx = group_index();

	if (!g || idx < 0) {
		free(g);
		return NULL;
	}
	g->idx = idx;
	chk.group[idx] = g;
	if (g->idx >= chk.nr_groups)
		chk.nr_groups = g->idx + 1;
	if (chk.o.rnr)
		rq = conns * 2;
	g->pd = ibv_alloc_pd(chk.dev.ctx);
	if (!g->pd) {
		failed("allocate PD");
		return NULL;
	}
	if (srq) {
		/* a third of the worst case: RNR waits are part of the mix */
		struct ibv_srq_init_attr a = {
			.attr.max_wr = chk.o.rnr ? conns + 1 : rq / 3,
			.attr.max_sge = RECV_SGE,
		};
		unsigned int nr;

		if ((int)a.attr.max_wr > chk.dev.attr.max_srq_wr)
			a.attr.max_wr = chk.dev.attr.max_srq_wr;
		nr = a.attr.max_wr;	/* the call may round it up */
		g->srq = ibv_create_srq(g->pd, &a);
		if (!g->srq) {
			failed("create SRQ");
			return NULL;
		}
		if (pool_create(&g->pool, g->pd, nr))
			return NULL;
		if (rx_fill(&g->pool, NULL, g->srq, g->idx))
			return NULL;
	}
	g->scq = ibv_create_cq(chk.dev.ctx, sq, g, chk.dev.channel, 0);
	g->rcq = ibv_create_cq(chk.dev.ctx, rq, g, chk.dev.channel, 0);
	if (!g->scq || !g->rcq) {
		failed("create CQ");
		return NULL;
	}
	if (chk.dev.channel && (ibv_req_notify_cq(g->scq, 0) ||
				ibv_req_notify_cq(g->rcq, 0))) {
		failed("request notification");
		return NULL;
	}
	return g;
}

int group_destroy(struct group *g)
{
	int err = 0;

	if (g->scq) {
		ibv_ack_cq_events(g->scq, g->events[0]);
		if (ibv_destroy_cq(g->scq))
			err = failed("destroy send CQ");
	}
	if (g->rcq) {
		ibv_ack_cq_events(g->rcq, g->events[1]);
		if (ibv_destroy_cq(g->rcq))
			err = failed("destroy receive CQ");
	}
	if (g->srq && ibv_destroy_srq(g->srq))
		err = failed("destroy SRQ");
	if (pool_destroy(&g->pool))
		err = -1;
	if (g->pd && ibv_dealloc_pd(g->pd))
		err = failed("deallocate PD");
	chk.group[g->idx] = NULL;
	free(g);
	return err;
}

struct ibv_qp *rc_create(struct ibv_pd *pd, struct ibv_cq *scq,
			 struct ibv_cq *rcq, struct ibv_srq *srq,
			 unsigned int send_wr, unsigned int recv_wr,
			 unsigned int *max_inline)
{
	struct ibv_qp_init_attr_ex a = {
		.send_cq = scq,
		.recv_cq = rcq,
		.srq = srq,
		.qp_type = IBV_QPT_RC,
		.sq_sig_all = 0,
		.cap = { .max_send_wr = send_wr,
			 .max_recv_wr = srq ? 0 : recv_wr,
			 .max_send_sge = SEND_SGE,
			 .max_recv_sge = srq ? 0 : RECV_SGE,
			 .max_inline_data = *max_inline },
		.comp_mask = IBV_QP_INIT_ATTR_PD,
		.pd = pd,
	};
	struct ibv_qp *qp;

	if (op_in(OP_FLUSH, chk.o.p.types))
		a.send_ops_flags |= IBV_QP_EX_WITH_FLUSH;
	if (op_in(OP_ATOMIC_WRITE, chk.o.p.types))
		a.send_ops_flags |= IBV_QP_EX_WITH_ATOMIC_WRITE;
	if (a.send_ops_flags)
		a.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
	qp = ibv_create_qp_ex(chk.dev.ctx, &a);
	if (!qp) {
		failed("create QP");
		return NULL;
	}
	*max_inline = a.cap.max_inline_data;
	return qp;
}

int rc_init(struct ibv_qp *qp)
{
	struct ibv_qp_attr a = {
		.qp_state = IBV_QPS_INIT,
		.port_num = chk.o.port,
		.qp_access_flags = IBV_ACCESS_REMOTE_WRITE |
				   IBV_ACCESS_REMOTE_READ |
				   IBV_ACCESS_REMOTE_ATOMIC,
	};

	if (op_in(OP_FLUSH, chk.o.p.types))
		a.qp_access_flags |= IBV_ACCESS_FLUSH_GLOBAL;
	if (ibv_modify_qp(qp, &a, IBV_QP_STATE | IBV_QP_PKEY_INDEX |
			  IBV_QP_PORT | IBV_QP_ACCESS_FLAGS))
		return failed("modify QP to INIT");
	return 0;
}

static enum ibv_mtu mtu_enum(unsigned int bytes)
{
	enum ibv_mtu m = IBV_MTU_256;

	while (m < IBV_MTU_4096 && 128U << (m + 1) <= bytes)
		m++;
	return m;
}

int rc_connect(struct ibv_qp *qp, const struct conn_info *self,
	       const struct conn_info *peer)
{
	struct ibv_qp_attr a = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = mtu_enum(chk.o.p.mtu),
		.dest_qp_num = peer->qpn,
		.rq_psn = peer->psn,
		.max_dest_rd_atomic = chk.o.rd_atomic,
		.min_rnr_timer = chk.o.min_rnr_timer,
		.ah_attr = {
			.is_global = 1,
			.port_num = chk.o.port,
			.dlid = peer->lid,
			.grh = { .dgid = peer->gid,
				 .sgid_index = chk.dev.gid_index,
				 .hop_limit = 64 },
		},
	};

	if (ibv_modify_qp(qp, &a, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU |
			  IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
			  IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER))
		return failed("modify QP to RTR");
	a.qp_state = IBV_QPS_RTS;
	a.sq_psn = self->psn;
	a.timeout = chk.o.timeout;
	a.retry_cnt = chk.o.retry_cnt;
	a.rnr_retry = chk.o.rnr_retry;
	a.max_rd_atomic = chk.o.rd_atomic;
	if (ibv_modify_qp(qp, &a, IBV_QP_STATE | IBV_QP_SQ_PSN |
			  IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
			  IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC))
		return failed("modify QP to RTS");
	return 0;
}

static int conn_memory(struct conn *c)
{
	struct ibv_pd *pd = c->group->pd;
	uint32_t w = chk.o.p.window;
	int access;

	if (area_create(&c->tx.area, pd, c->tx.size * slot_size(), 2,
			IBV_ACCESS_LOCAL_WRITE))
		return -1;
	access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
	if (chk.o.p.types & OPS_MW)
		access |= IBV_ACCESS_MW_BIND;
	if (op_in(OP_FLUSH, chk.o.p.types))
		access |= IBV_ACCESS_FLUSH_GLOBAL;
	/*
	 * Twice the window: the half that was verified stays poisoned until
	 * the other half is, so that a write executed again leaves a trace;
	 * and a READ may be replayed until the peer has completed it.
	 */
	if (area_create(&c->rx.slot, pd, 2 * w * slot_size(), 1, access) ||
	    area_create(&c->rx.read, pd, 2 * w * slot_size(), 1,
			IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ) ||
	    area_create(&c->rx.atomic, pd, 4096, 1, IBV_ACCESS_LOCAL_WRITE |
			IBV_ACCESS_REMOTE_ATOMIC))
		return -1;
	return 0;
}

/*
 * A bound window holds the QP, and rdma_rxe waits 50 s then.  Objects are
 * destroyed in the reverse order when a process ends, so the window comes last.
 */
static int conn_window(struct conn *c)
{
	if (!(chk.o.p.types & OPS_MW))
		return 0;
	c->rx.mw = ibv_alloc_mw(c->group->pd, IBV_MW_TYPE_2);
	return c->rx.mw ? 0 : failed("allocate memory window");
}

struct conn *conn_create(uint32_t idx, struct group *g, bool extra)
{
	/* as many receives as the peer can have in flight, or far fewer */
	unsigned int recv_wr = chk.o.rnr ? 2 : chk.o.p.window + 4;
	struct conn *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->idx = idx;
	c->group = g;
	c->extra = extra;
	c->max_inline = chk.o.max_inline;
	c->tx.size = chk.o.depth + 4;	/* room for credits and binds */
	c->tx.limit = extra ? chk.o.p.extra_ops : chk.o.p.ops;
	c->tx.last_notifies = true;
	c->tx.entry = calloc(c->tx.size, sizeof(*c->tx.entry));
	c->rx.slot_missing = calloc(2 * chk.o.p.window, sizeof(uint64_t));
	chk.conn[idx] = c;
	if (idx >= chk.nr_conns)
		chk.nr_conns = idx + 1;
	if (!c->tx.entry || !c->rx.slot_missing)
		return NULL;
	sched_init(&c->tx.sched, idx, !chk.o.server);
	sched_init(&c->rx.sched, idx, chk.o.server);
	if (conn_memory(c))
		return NULL;
	c->qp = rc_create(g->pd, g->scq, g->rcq, g->srq, c->tx.size, recv_wr,
			  &c->max_inline);
	if (!c->qp || rc_init(c->qp) || conn_window(c))
		return NULL;
	c->qpx = ibv_qp_to_qp_ex(c->qp);
	if (!g->srq && (pool_create(&c->rx.pool, g->pd, recv_wr) ||
			rx_fill(&c->rx.pool, c->qp, NULL, idx)))
		return NULL;
	rx_init(c);
	c->self = (struct conn_info) {
		.idx = idx,
		.qpn = c->qp->qp_num,
		.psn = mix64(c->tx.sched.key) & 0xffffff,
		.lid = chk.dev.port.lid,
		.slot_addr = (uintptr_t)c->rx.slot.mem,
		.read_addr = (uintptr_t)c->rx.read.mem,
		.atomic_addr = (uintptr_t)c->rx.atomic.mem,
		.slot_rkey = c->rx.slot.mr[0]->rkey,
		.read_rkey = c->rx.read.mr[0]->rkey,
		.atomic_rkey = c->rx.atomic.mr[0]->rkey,
	};
	if (dev_gid(&c->self.gid))
		return NULL;
	return c;
}

int conn_start(struct conn *c)
{
	if (rc_connect(c->qp, &c->self, &c->peer)) {
		conn_fail(c, "connect");
		return -1;
	}
	chk.t.connections++;
	c->rx.mw_want = c->rx.mw != NULL;
	return 0;
}

int conn_destroy(struct conn *c)
{
	int err = 0;

	/* see conn_window() */
	if (c->rx.mw && ibv_dealloc_mw(c->rx.mw))
		err = failed("deallocate memory window");
	if (c->qp && ibv_destroy_qp(c->qp))
		err = failed("destroy QP");
	if (area_destroy(&c->tx.area) || area_destroy(&c->rx.slot) ||
	    area_destroy(&c->rx.read) || area_destroy(&c->rx.atomic) ||
	    pool_destroy(&c->rx.pool))
		err = -1;
	if (c->extra && group_destroy(c->group))
		err = -1;
	chk.conn[c->idx] = NULL;
	free(c->tx.entry);
	free(c->rx.slot_missing);
	free(c);
	return err;
}

/* One broken connection ends the run: what follows would say nothing new. */
void conn_fail(struct conn *c, const char *what)
{
	if (c->dead)
		return;
	fault(ERRORS, 1, c, "connection failed: %s", what);
	c->dead = true;
	chk.aborted = true;
	ctl_dead(c);
}

/* Objects that live only here: identifiers must neither run out nor clash. */
int objects_churn(void)
{
	struct ibv_srq_init_attr sa = { .attr = { .max_wr = 8, .max_sge = 1 } };
	unsigned int max_inline = 0;
	struct ibv_pd *pd = NULL;
	struct ibv_cq *cq = NULL;
	struct ibv_mr *mr = NULL;
	struct ibv_mw *mw = NULL;
	struct ibv_srq *srq = NULL;
	struct ibv_qp *qp = NULL;
	void *mem = mem_alloc(65536);
	int err = 0;

	pd = ibv_alloc_pd(chk.dev.ctx);
	cq = ibv_create_cq(chk.dev.ctx, 16, NULL, chk.dev.channel, 0);
	if (pd && cq) {
		mr = ibv_reg_mr(pd, mem, 65536, IBV_ACCESS_LOCAL_WRITE);
		srq = ibv_create_srq(pd, &sa);
		qp = rc_create(pd, cq, cq, srq, 4, 0, &max_inline);
		if (chk.o.p.types & OPS_MW)
			mw = ibv_alloc_mw(pd, IBV_MW_TYPE_2);
	}
	if (!mr || !srq || !qp || rc_init(qp) ||
	    (!mw && (chk.o.p.types & OPS_MW)))
		err = failed("create objects");
	if ((qp && ibv_destroy_qp(qp)) || (mw && ibv_dealloc_mw(mw)) ||
	    (srq && ibv_destroy_srq(srq)) || (mr && ibv_dereg_mr(mr)) ||
	    (cq && ibv_destroy_cq(cq)) || (pd && ibv_dealloc_pd(pd)))
		err = failed("destroy objects");
	munmap(mem, 65536);
	return err;
}
