// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Stopping a context and taking its snapshot (paper sections 3.5, 4.1).
 *
 * The snapshot file is also the lease: as long as somebody holds it the
 * context stays Stopped.  When it goes, for whatever reason, and nobody has
 * said COMMIT, the context resumes in place.  That takes a while: a holder
 * that dies when it had begun to kill the tasks takes them along, but their
 * files go after its own, and until then nothing may happen to the QPs that the
 * snapshot does not know.
 */
#include <linux/anon_inodes.h>
#include <linux/crc32.h>
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/pid.h>
#include <linux/sched/mm.h>

#include "rxe_mig.h"
#include "rxe_mig_trace.h"
#include "rxe_queue.h"

/* Guards @dev, @ctx and @orphan against release, device and context exit */
static DEFINE_MUTEX(rxe_mig_lease_lock);

struct rxe_mig_snapshot {
	struct rxe_mig_dev	*dev;	/* NULL once nothing hangs on it */
	struct rxe_mig_ctx	*ctx;
	void			*data;
	u64			len;
	bool			orphan;	/* the file is gone */
	struct delayed_work	work;	/* the end of an orphan */
};

/* ---- writing records ---- */

struct mig_out {
	u8	*base;
	u64	len;		/* more than @size if that was too small */
	u64	size;
	u32	count;
};

/* NULL if there is no room.  Not all is stopped: the port has events, and its
 * addresses come and go.
 */
static void *out_reserve(struct mig_out *out, u64 len)
{
	void *p = out->base + out->len;

	out->len += ALIGN(len, 8);
	return out->len <= out->size ? p : NULL;
}

static void out_bytes(struct mig_out *out, const void *src, u64 len)
{
	void *p = out_reserve(out, len);

	if (p)
		memcpy(p, src, len);
}

/* a record, whose header's len is set by out_end() */
static void out_begin(struct mig_out *out, u64 *start)
{
	*start = out->len;
	out->count++;
}

static void out_end(struct mig_out *out, u64 start)
{
	if (out->len <= out->size)
		((struct rxe_mig_rec *)(out->base + start))->len =
			out->len - start;
}

static struct rxe_mig_rec rec_of(const struct rxe_mig_obj *o)
{
	return (struct rxe_mig_rec) {
		.type = o->type,
		.handle = o->handle,
		.user_handle = o->user_handle,
	};
}

/* What creates the ring again.  The next power of two may exceed the limit. */
static u32 ring_max_wr(const struct rxe_queue *q, u32 limit)
{
	return min(q->index_mask, limit);
}

static u64 ring_bytes(const struct rxe_queue *q)
{
	return q ? ((u64)q->index_mask + 1) << q->log2_elem_size : 0;
}

static void fill_ring(struct rxe_mig_ring *ring, const struct rxe_queue *q)
{
	if (!q)
		return;
	if (q->ip) {
		ring->mmap_offset = q->ip->info.offset;
		ring->mmap_size = q->ip->info.size;
	}
	ring->log2_elem_size = q->log2_elem_size;
	ring->index_mask = q->index_mask;
	ring->producer = READ_ONCE(q->buf->producer_index);
	ring->consumer = READ_ONCE(q->buf->consumer_index);
	ring->index = q->index;
	ring->data_len = ring_bytes(q);
}

static void out_ring(struct mig_out *out, const struct rxe_queue *q)
{
	if (q)
		out_bytes(out, q->buf->data, ring_bytes(q));
}

static void fill_av(struct rxe_mig_av *a, const struct rxe_av *av)
{
	a->network_type = av->network_type;
	a->port_num = av->port_num;
	a->sgid_index = av->grh.sgid_index;
	a->hop_limit = av->grh.hop_limit;
	a->traffic_class = av->grh.traffic_class;
	a->flow_label = av->grh.flow_label;
	memcpy(a->dgid, &av->grh.dgid, sizeof(a->dgid));
	if (av->network_type == RXE_NETWORK_TYPE_IPV4)
		ipv6_addr_set_v4mapped(av->sgid_addr._sockaddr_in.sin_addr.s_addr,
				       (struct in6_addr *)a->sgid);
	else if (av->network_type == RXE_NETWORK_TYPE_IPV6)
		memcpy(a->sgid, &av->sgid_addr._sockaddr_in6.sin6_addr,
		       sizeof(a->sgid));
}

static u32 max_handle(struct rxe_mig_walk *walk)
{
	u32 max = RXE_MIG_NONE;
	unsigned int i;

	for (i = 0; i < walk->num; i++) {
		struct rxe_mig_obj *o = &walk->objs[i];

		if (o->type == RXE_MIG_REC_CHANNEL ||
		    o->type == RXE_MIG_REC_ASYNC)
			continue;
		if (max == RXE_MIG_NONE || o->handle > max)
			max = o->handle;
	}
	return max;
}

static u32 num_gids(struct rxe_dev *rxe)
{
	const struct ib_gid_attr *attr;
	u32 num = 0;
	int i;

	for (i = 0; i < rxe->port.attr.gid_tbl_len; i++) {
		attr = rdma_get_gid_attr(&rxe->ib_dev, RXE_PORT, i);
		if (IS_ERR(attr))
			continue;
		if (attr->gid_type == IB_GID_TYPE_ROCE_UDP_ENCAP)
			num++;
		rdma_put_gid_attr(attr);
	}
	return num;
}

static void out_context(struct mig_out *out, struct rxe_dev *rxe,
			struct rxe_mig_walk *walk)
{
	struct rxe_mig_context c = {
		.rec.type = RXE_MIG_REC_CONTEXT,
		.node_guid = rxe->ib_dev.node_guid,
		.next_qpn = rxe->qp_pool.next,
		.next_mr = rxe->mr_pool.next,
		.next_mw = rxe->mw_pool.next,
		.next_srq = rxe->srq_pool.next,
		.next_ah = rxe->ah_pool.next,
		.max_handle = max_handle(walk),
	};
	const struct ib_gid_attr *attr;
	struct rxe_mig_gid g;
	void *hdr;
	u64 start;
	int i;

	out_begin(out, &start);
	strscpy(c.device, dev_name(&rxe->ib_dev.dev), sizeof(c.device));
	hdr = out_reserve(out, sizeof(c));
	for (i = 0; i < rxe->port.attr.gid_tbl_len; i++) {
		attr = rdma_get_gid_attr(&rxe->ib_dev, RXE_PORT, i);
		if (IS_ERR(attr))
			continue;
		if (attr->gid_type == IB_GID_TYPE_ROCE_UDP_ENCAP) {
			memset(&g, 0, sizeof(g));
			g.index = i;
			memcpy(g.gid, attr->gid.raw, sizeof(g.gid));
			out_bytes(out, &g, sizeof(g));
			c.num_gids++;
		}
		rdma_put_gid_attr(attr);
	}
	if (hdr)
		memcpy(hdr, &c, sizeof(c));
	out_end(out, start);
}

/* An event that comes after these have been counted is not in the snapshot */
static void out_async(struct mig_out *out, struct rxe_mig_walk *walk,
		      struct rxe_mig_obj *o)
{
	struct rxe_mig_async a = { .rec = rec_of(o) };
	struct rxe_mig_async_event *ev;
	u64 start;

	a.num_events = rxe_mig_async_events(walk, o->obj, NULL, 0);
	out_begin(out, &start);
	out_bytes(out, &a, sizeof(a));
	ev = out_reserve(out, a.num_events * sizeof(*ev));
	if (ev)
		rxe_mig_async_events(walk, o->obj, ev, a.num_events);
	out_end(out, start);
}

static void out_channel(struct mig_out *out, struct rxe_mig_obj *o)
{
	struct rxe_mig_channel c = { .rec = rec_of(o) };
	u64 start;
	u32 *cqs;

	c.num_events = rxe_mig_channel_events(o->obj, NULL, 0);
	out_begin(out, &start);
	out_bytes(out, &c, sizeof(c));
	cqs = out_reserve(out, c.num_events * sizeof(*cqs));
	if (cqs)
		rxe_mig_channel_events(o->obj, cqs, c.num_events);
	out_end(out, start);
}

static void out_pd(struct mig_out *out, struct rxe_mig_obj *o)
{
	struct rxe_mig_pd p = { .rec = rec_of(o) };
	u64 start;

	out_begin(out, &start);
	out_bytes(out, &p, sizeof(p));
	out_end(out, start);
}

static int mr_owner(struct rxe_mr *mr)
{
	struct task_struct *task = NULL;
	int pid = 0;

#ifdef CONFIG_MEMCG
	rcu_read_lock();
	task = rcu_dereference(mr->umem->owning_mm->owner);
	if (task)
		pid = task_tgid_nr_ns(task, task_active_pid_ns(current));
	rcu_read_unlock();
#endif
	return pid;
}

static void out_mr(struct mig_out *out, struct rxe_mig_obj *o)
{
	struct rxe_mr *mr = to_rmr(o->obj);
	struct rxe_mig_mr m = {
		.rec = rec_of(o),
		.pd = rxe_mig_uobj_handle(mr->ibmr.pd->uobject),
		.rkey = mr->rkey ?: mr->lkey,
		.start = mr->umem->address,
		.length = mr->ibmr.length,
		.iova = mr->ibmr.iova,
		.access = mr->access,
		.owner = mr_owner(mr),
	};
	u64 start;

	out_begin(out, &start);
	out_bytes(out, &m, sizeof(m));
	out_end(out, start);
}

static void out_cq(struct mig_out *out, struct rxe_mig_walk *walk,
		   struct rxe_mig_obj *o)
{
	struct rxe_cq *cq = to_rcq(o->obj);
	struct rxe_mig_cq c = {
		.rec = rec_of(o),
		.cqe = cq->ibcq.cqe,
		.channel = rxe_mig_cq_channel(walk, &cq->ibcq),
		.notify = cq->notify,
	};
	u64 start;

	rxe_mig_cq_events(&cq->ibcq, &c.comp_events_reported,
			  &c.async_events_reported);
	fill_ring(&c.ring, cq->queue);
	out_begin(out, &start);
	out_bytes(out, &c, sizeof(c));
	out_ring(out, cq->queue);
	out_end(out, start);
}

static void out_srq(struct mig_out *out, struct rxe_mig_obj *o)
{
	struct rxe_srq *srq = to_rsrq(o->obj);
	struct rxe_mig_srq s = {
		.rec = rec_of(o),
		.pd = rxe_mig_uobj_handle(srq->ibsrq.pd->uobject),
		.srq_num = srq->srq_num,
		.max_wr = ring_max_wr(srq->rq.queue, RXE_MAX_SRQ_WR),
		.max_sge = srq->rq.max_sge,
		.limit = srq->limit,
		.error = srq->error,
		.async_events_reported = rxe_mig_srq_events(&srq->ibsrq),
	};
	u64 start;

	fill_ring(&s.ring, srq->rq.queue);
	out_begin(out, &start);
	out_bytes(out, &s, sizeof(s));
	out_ring(out, srq->rq.queue);
	out_end(out, start);
}

static void out_ah(struct mig_out *out, struct rxe_mig_obj *o)
{
	struct rxe_ah *ah = to_rah(o->obj);
	struct rxe_mig_ah a = {
		.rec = rec_of(o),
		.pd = rxe_mig_uobj_handle(ah->ibah.pd->uobject),
		.ah_num = ah->elem.index,
		.new_provider = !!ah->ah_num,
	};
	u64 start;

	fill_av(&a.av, &ah->av);
	out_begin(out, &start);
	out_bytes(out, &a, sizeof(a));
	out_end(out, start);
}

static void out_mw(struct mig_out *out, struct rxe_mig_obj *o)
{
	struct rxe_mw *mw = to_rmw(o->obj);
	struct rxe_mig_mw m = {
		.rec = rec_of(o),
		.pd = rxe_mig_uobj_handle(mw->ibmw.pd->uobject),
		.rkey = mw->rkey,
		.type = mw->ibmw.type,
		.state = mw->state,
		.access = mw->access,
		.mr = mw->mr ? rxe_mig_uobj_handle(mw->mr->ibmr.uobject) :
			       RXE_MIG_NONE,
		.qp = mw->qp ? rxe_mig_qp_handle(&mw->qp->ibqp) :
			       RXE_MIG_NONE,
		.addr = mw->addr,
		.length = mw->length,
	};
	u64 start;

	out_begin(out, &start);
	out_bytes(out, &m, sizeof(m));
	out_end(out, start);
}

static void out_res(struct mig_out *out, const struct resp_res *res)
{
	struct rxe_mig_res r = {
		.type = res->type,
		.replay = res->replay,
		.first_psn = res->first_psn,
		.last_psn = res->last_psn,
		.cur_psn = res->cur_psn,
		.state = res->state,
	};

	switch (res->type) {
	case RXE_READ_MASK:
		r.va_org = res->read.va_org;
		r.va = res->read.va;
		r.rkey = res->read.rkey;
		r.length = res->read.length;
		r.resid = res->read.resid;
		break;
	case RXE_ATOMIC_MASK:
		r.va_org = res->atomic.orig_val;
		break;
	case RXE_FLUSH_MASK:
		r.va = res->flush.va;
		r.length = res->flush.length;
		r.flush = res->flush.type | res->flush.level << 8;
		break;
	}
	out_bytes(out, &r, sizeof(r));
}

static void fill_attr(struct rxe_mig_qp_rec *r, struct rxe_qp *qp)
{
	struct ib_qp_attr *a = &qp->attr;

	r->state = a->qp_state;
	r->path_mtu = a->path_mtu;
	r->path_mig_state = a->path_mig_state;
	r->qkey = a->qkey;
	r->rq_psn = a->rq_psn;
	r->sq_psn = a->sq_psn;
	r->dest_qpn = a->dest_qp_num;
	r->access = a->qp_access_flags;
	r->pkey_index = a->pkey_index;
	r->alt_pkey_index = a->alt_pkey_index;
	r->en_sqd_async_notify = a->en_sqd_async_notify;
	r->sq_draining = a->sq_draining;
	r->max_rd_atomic = a->max_rd_atomic;
	r->max_dest_rd_atomic = a->max_dest_rd_atomic;
	r->min_rnr_timer = a->min_rnr_timer;
	r->port_num = a->port_num;
	r->timeout = a->timeout;
	r->retry_cnt = a->retry_cnt;
	r->rnr_retry = a->rnr_retry;
	r->alt_port_num = a->alt_port_num;
	r->alt_timeout = a->alt_timeout;
	r->src_port = qp->src_port;
}

static void fill_machines(struct rxe_mig_qp_rec *r, struct rxe_qp *qp)
{
	r->req_psn = qp->req.psn;
	r->req_opcode = qp->req.opcode;
	r->req_wqe_index = qp->req.wqe_index;
	r->req_rd_atomic = atomic_read(&qp->req.rd_atomic);
	r->ssn = atomic_read(&qp->ssn);
	r->comp_psn = qp->comp.psn;
	r->comp_opcode = qp->comp.opcode;
	r->resp_psn = qp->resp.psn;
	r->resp_ack_psn = qp->resp.ack_psn;
	r->resp_msn = qp->resp.msn;
	r->resp_opcode = qp->resp.opcode;
	r->resp_drop_msg = qp->resp.drop_msg;
	r->resp_status = qp->resp.status;
	r->resp_resid = qp->resp.resid;
	r->resp_rkey = qp->resp.rkey;
	r->resp_length = qp->resp.length;
	r->resp_va = qp->resp.va;
	r->resp_offset = qp->resp.offset;
	r->res_head = qp->resp.res_head;
	r->res_tail = qp->resp.res_tail;
}

static void out_qp(struct mig_out *out, struct rxe_mig_obj *o)
{
	struct rxe_qp *qp = to_rqp(o->obj);
	struct rxe_mig_qp *mig = READ_ONCE(qp->mig);
	struct ib_qp *ibqp = &qp->ibqp;
	struct rxe_mig_qp_rec r = {
		.rec = rec_of(o),
		.pd = rxe_mig_uobj_handle(ibqp->pd->uobject),
		.send_cq = rxe_mig_cq_handle(ibqp->send_cq),
		.recv_cq = rxe_mig_cq_handle(ibqp->recv_cq),
		.srq = rxe_mig_srq_handle(ibqp->srq),
		.qpn = ibqp->qp_num,
		.type = ibqp->qp_type,
		.sig_all = qp->sq_sig_type == IB_SIGNAL_ALL_WR,
		.max_send_wr = ring_max_wr(qp->sq.queue, RXE_MAX_QP_WR),
		.max_send_sge = qp->sq.max_sge,
		.max_inline = qp->sq.max_inline,
		.async_events_reported = rxe_mig_qp_events(ibqp),
	};
	u64 start;
	u32 i;

	if (qp->rq.queue) {
		r.max_recv_wr = ring_max_wr(qp->rq.queue, RXE_MAX_QP_WR);
		r.max_recv_sge = qp->rq.max_sge;
	}
	fill_attr(&r, qp);
	fill_av(&r.pri_av, &qp->pri_av);
	fill_av(&r.alt_av, &qp->alt_av);
	fill_machines(&r, qp);
	if (qp->resp.resources)
		r.num_res = qp->attr.max_dest_rd_atomic;
	if (qp->resp.wqe)
		r.recv_wqe_len = sizeof(qp->resp.srq_wqe);
	if (mig)
		r.proto = mig->proto;
	fill_ring(&r.sq, qp->sq.queue);
	fill_ring(&r.rq, qp->rq.queue);

	out_begin(out, &start);
	out_bytes(out, &r, sizeof(r));
	for (i = 0; i < r.num_res; i++)
		out_res(out, &qp->resp.resources[i]);
	if (r.recv_wqe_len)
		out_bytes(out, &qp->resp.srq_wqe, r.recv_wqe_len);
	out_ring(out, qp->sq.queue);
	out_ring(out, qp->rq.queue);
	out_end(out, start);
}

static void out_obj(struct mig_out *out, struct rxe_mig_walk *walk,
		    struct rxe_mig_obj *o)
{
	switch (o->type) {
	case RXE_MIG_REC_ASYNC:
		out_async(out, walk, o);
		break;
	case RXE_MIG_REC_CHANNEL:
		out_channel(out, o);
		break;
	case RXE_MIG_REC_PD:
		out_pd(out, o);
		break;
	case RXE_MIG_REC_MR:
		out_mr(out, o);
		break;
	case RXE_MIG_REC_CQ:
		out_cq(out, walk, o);
		break;
	case RXE_MIG_REC_SRQ:
		out_srq(out, o);
		break;
	case RXE_MIG_REC_AH:
		out_ah(out, o);
		break;
	case RXE_MIG_REC_QP:
		out_qp(out, o);
		break;
	case RXE_MIG_REC_MW:
		out_mw(out, o);
		break;
	}
}

static void out_all(struct mig_out *out, struct rxe_dev *rxe,
		    struct rxe_mig_walk *walk)
{
	unsigned int i;
	u32 type;

	out_reserve(out, sizeof(struct rxe_mig_hdr));
	out_context(out, rxe, walk);
	for (type = RXE_MIG_REC_ASYNC; type <= RXE_MIG_REC_MW; type++) {
		for (i = 0; i < walk->num; i++) {
			if (walk->objs[i].type != type)
				continue;
			out_obj(out, walk, &walk->objs[i]);
		}
	}
}

static void out_header(struct mig_out *out)
{
	struct rxe_mig_hdr *h = (struct rxe_mig_hdr *)out->base;

	h->magic = RXE_MIG_MAGIC;
	h->version = RXE_MIG_VERSION;
	h->hdr_len = sizeof(*h);
	h->count = out->count;
	h->total_len = out->len;
	h->page_size = PAGE_SIZE;
	h->crc = ~crc32_le(~0, out->base + sizeof(*h), out->len - sizeof(*h));
}

/* ---- how long records are ---- */

static u64 context_size(struct rxe_dev *rxe)
{
	return sizeof(struct rxe_mig_context) +
	       num_gids(rxe) * sizeof(struct rxe_mig_gid);
}

static u64 qp_size(struct rxe_qp *qp)
{
	u64 size = sizeof(struct rxe_mig_qp_rec);

	if (qp->resp.resources)
		size += qp->attr.max_dest_rd_atomic * sizeof(struct rxe_mig_res);
	if (qp->resp.wqe)
		size += ALIGN(sizeof(qp->resp.srq_wqe), 8);
	return size + ALIGN(ring_bytes(qp->sq.queue), 8) +
	       ALIGN(ring_bytes(qp->rq.queue), 8);
}

/* The context may run: nothing may be followed that verbs would free */
static u64 obj_size(const struct rxe_mig_obj *o)
{
	switch (o->type) {
	case RXE_MIG_REC_ASYNC:
		return sizeof(struct rxe_mig_async) +
		       rxe_mig_async_events(NULL, o->obj, NULL, 0) *
		       sizeof(struct rxe_mig_async_event);
	case RXE_MIG_REC_CHANNEL:
		return sizeof(struct rxe_mig_channel) +
		       ALIGN(rxe_mig_channel_events(o->obj, NULL, 0) *
			     sizeof(u32), 8);
	case RXE_MIG_REC_PD:
		return sizeof(struct rxe_mig_pd);
	case RXE_MIG_REC_MR:
		return sizeof(struct rxe_mig_mr);
	case RXE_MIG_REC_CQ:
		return sizeof(struct rxe_mig_cq) +
		       ALIGN(ring_bytes(to_rcq(o->obj)->queue), 8);
	case RXE_MIG_REC_SRQ:
		return sizeof(struct rxe_mig_srq) +
		       ALIGN(ring_bytes(to_rsrq(o->obj)->rq.queue), 8);
	case RXE_MIG_REC_AH:
		return sizeof(struct rxe_mig_ah);
	case RXE_MIG_REC_QP:
		return qp_size(to_rqp(o->obj));
	case RXE_MIG_REC_MW:
		return sizeof(struct rxe_mig_mw);
	}
	return 0;
}

/* ---- what cannot be restored is refused before anything stops ---- */

/**
 * rxe_mig_refuse - say why
 * @why: result
 * @type: record type of the object
 * @handle: its uverbs handle
 * @reason: RXE_MIG_*
 * @value: QPN, key or the like
 * @text: for people
 */
void rxe_mig_refuse(struct rxe_mig_refusal *why, u32 type, u32 handle,
		    u32 reason, u32 value, const char *text)
{
	memset(why, 0, sizeof(*why));
	why->type = type;
	why->handle = handle;
	why->reason = reason;
	why->value = value;
	strscpy(why->text, text, sizeof(why->text));
}

/* Do the pinned pages still back the addresses they were registered with, and
 * could they be pinned there again?
 */
static bool mr_is_stale(struct rxe_mr *mr, struct mm_struct *mm)
{
	unsigned int flags = mr->umem->writable ? FOLL_WRITE : 0;
	struct sg_page_iter iter;
	unsigned long va = mr->umem->address & PAGE_MASK;
	struct page *page;
	bool stale = false;
	int locked = 1;
	long n;

	mmap_read_lock(mm);
	for_each_sgtable_page(&mr->umem->sgt_append.sgt, &iter, 0) {
		n = get_user_pages_remote(mm, va, 1, flags, &page, &locked);
		if (n != 1) {
			stale = true;
			break;
		}
		if (page != sg_page_iter_page(&iter))
			stale = true;
		put_page(page);
		if (stale)
			break;
		va += PAGE_SIZE;
		if (!locked) {
			mmap_read_lock(mm);
			locked = 1;
		}
		cond_resched();
	}
	if (locked)
		mmap_read_unlock(mm);
	return stale;
}

static int check_mr(const struct rxe_mig_obj *o, struct rxe_mig_refusal *why)
{
	struct rxe_mr *mr = to_rmr(o->obj);
	struct mm_struct *mm;
	bool stale;

	if (!mr->umem || mr->umem->is_odp || mr->umem->is_dmabuf) {
		rxe_mig_refuse(why, o->type, o->handle, RXE_MIG_ODP, mr->lkey,
			       "MR is not ordinary pinned memory (on-demand paging or dma-buf)");
		return -EOPNOTSUPP;
	}
	mm = mr->umem->owning_mm;
	if (!mmget_not_zero(mm)) {
		rxe_mig_refuse(why, o->type, o->handle, RXE_MIG_NO_OWNER,
			       mr->lkey,
			       "the process that registered this MR has exited");
		return -EOPNOTSUPP;
	}
	if (!mr_owner(mr)) {
		mmput(mm);
		rxe_mig_refuse(why, o->type, o->handle, RXE_MIG_NO_OWNER,
			       mr->lkey,
			       "the process that registered this MR is not in the PID namespace of the one that dumps");
		return -EOPNOTSUPP;
	}
	stale = mr_is_stale(mr, mm);
	mmput(mm);
	if (stale) {
		rxe_mig_refuse(why, o->type, o->handle, RXE_MIG_STALE_MR,
			       mr->lkey,
			       "pages of this MR are no longer mapped at its address with its rights; deregister it");
		return -EOPNOTSUPP;
	}
	return 0;
}

static int check_qp(const struct rxe_mig_obj *o, struct rxe_mig_refusal *why)
{
	struct rxe_qp *qp = to_rqp(o->obj);
	struct rxe_mig_qp *mig = READ_ONCE(qp->mig);

	if (atomic_read(&qp->mcg_num)) {
		rxe_mig_refuse(why, o->type, o->handle, RXE_MIG_MCAST,
			       qp_num(qp),
			       "QP is attached to a multicast group; detach it");
		return -EOPNOTSUPP;
	}
	/* Its first old host may not know yet where it is [TOMB-8] */
	if (mig && mig->resume_pending && mig->moved && !mig->resume_over) {
		rxe_mig_refuse(why, o->type, o->handle, RXE_MIG_BUSY,
			       qp_num(qp),
			       "partner has not confirmed the last migration of this QP; try again");
		return -EAGAIN;
	}
	return 0;
}

struct survey {
	struct rxe_mig_refusal	*why;
	u64			len;
	u32			count;
};

static int check_obj(const struct rxe_mig_obj *o, void *arg)
{
	struct survey *s = arg;
	int err = 0;

	switch (o->type) {
	case 0:
		rxe_mig_refuse(s->why, 0, o->handle, RXE_MIG_UNKNOWN_OBJECT,
			       o->class, "object class cannot be migrated");
		err = -EOPNOTSUPP;
		break;
	case RXE_MIG_REC_MR:
		err = check_mr(o, s->why);
		break;
	case RXE_MIG_REC_QP:
		err = check_qp(o, s->why);
		break;
	}
	s->len += obj_size(o);
	s->count++;
	return err;
}

static int ask_partner(const struct rxe_mig_obj *o, void *arg)
{
	if (o->type == RXE_MIG_REC_QP)
		rxe_mig_ask(to_rqp(o->obj));
	return 0;
}

/* ---- stop, resume in place ---- */

static int stop_all(struct rxe_mig_dev *dev, struct rxe_mig_ctx *ctx,
		    struct rxe_mig_walk *walk)
{
	struct rxe_mig_qp *mig;
	unsigned int i;

	lockdep_assert_held(&dev->ctx_lock);

	/* whatever can fail comes before the first QP is touched */
	for (i = 0; i < walk->num; i++)
		if (walk->objs[i].type == RXE_MIG_REC_QP &&
		    !rxe_mig_get(to_rqp(walk->objs[i].obj), GFP_KERNEL))
			return -ENOMEM;

	for (i = 0; i < walk->num; i++) {
		struct rxe_qp *qp;

		if (walk->objs[i].type != RXE_MIG_REC_QP)
			continue;
		qp = to_rqp(walk->objs[i].obj);
		mig = qp->mig;
		rxe_mig_ctx_add_qp(ctx, mig);
		rxe_mig_qp_lock(qp);
		if (mig->state != RXE_MIG_STOPPED)
			rxe_mig_stop_qp(mig);
		rxe_mig_qp_unlock(qp);
	}
	return 0;
}

static void announce_all(struct rxe_mig_ctx *ctx)
{
	struct rxe_mig_qp *mig;

	list_for_each_entry(mig, &ctx->qps, ctx_entry) {
		rxe_mig_qp_lock(mig->qp);
		if (!rxe_mig_restored(mig))
			rxe_mig_announce(mig);
		rxe_mig_qp_unlock(mig->qp);
	}
}

/* Restored QPs stay what they are: they go live by RESUME only [RESUME-1] */
static void resume_all(struct rxe_mig_ctx *ctx)
{
	struct rxe_mig_qp *mig, *next;

	list_for_each_entry_safe(mig, next, &ctx->qps, ctx_entry) {
		if (rxe_mig_restored(mig))
			continue;
		rxe_mig_qp_lock(mig->qp);
		if (mig->state == RXE_MIG_STOPPED)
			rxe_mig_go_live(mig);
		rxe_mig_qp_unlock(mig->qp);
		rxe_mig_ctx_del_qp(mig);
	}
}

/* ---- the snapshot file ---- */

static ssize_t snapshot_read(struct file *file, char __user *buf, size_t len,
			     loff_t *pos)
{
	struct rxe_mig_snapshot *snap = file->private_data;

	return simple_read_from_buffer(buf, len, pos, snap->data, snap->len);
}

static loff_t snapshot_llseek(struct file *file, loff_t off, int whence)
{
	struct rxe_mig_snapshot *snap = file->private_data;

	return fixed_size_llseek(file, off, whence, snap->len);
}

/* The end of an orphan: its context goes on, if it is still there */
static void snapshot_expire(struct work_struct *work)
{
	struct rxe_mig_snapshot *snap =
		container_of(work, struct rxe_mig_snapshot, work.work);

	mutex_lock(&rxe_mig_lease_lock);
	if (snap->dev) {
		mutex_lock(&snap->dev->ctx_lock);
		resume_all(snap->ctx);
		trace_rxe_mig_context(snap->ctx->uc, "lease expired");
		snap->ctx->lease = NULL;
		mutex_unlock(&snap->dev->ctx_lock);
	}
	mutex_unlock(&rxe_mig_lease_lock);
	kfree(snap);
}

static int snapshot_release(struct inode *inode, struct file *file)
{
	struct rxe_mig_snapshot *snap = file->private_data;
	unsigned int grace = READ_ONCE(rxe_mig_lease_grace_ms);

	kvfree(snap->data);
	mutex_lock(&rxe_mig_lease_lock);
	if (snap->dev) {
		/* it is the work's from now on */
		snap->orphan = true;
		queue_delayed_work(snap->dev->wq, &snap->work,
				   msecs_to_jiffies(grace));
		snap = NULL;
	}
	mutex_unlock(&rxe_mig_lease_lock);
	kfree(snap);
	return 0;
}

static const struct file_operations snapshot_fops = {
	.owner = THIS_MODULE,
	.read = snapshot_read,
	.llseek = snapshot_llseek,
	.release = snapshot_release,
};

/* the snapshot file is a plain file from now on */
static void lease_end(struct rxe_mig_ctx *ctx)
{
	struct rxe_mig_snapshot *snap = ctx->lease;

	lockdep_assert_held(&rxe_mig_lease_lock);
	if (!snap)
		return;
	ctx->lease = NULL;
	snap->dev = NULL;
	snap->ctx = NULL;
	/* if it is too late to cancel, the work waits for the lock, and frees */
	if (snap->orphan && cancel_delayed_work(&snap->work))
		kfree(snap);
}

/**
 * rxe_mig_lease_drop - nothing hangs on this context's snapshot any more
 * @ctx: the context; it goes away, is committed or resumed
 */
void rxe_mig_lease_drop(struct rxe_mig_ctx *ctx)
{
	mutex_lock(&rxe_mig_lease_lock);
	lease_end(ctx);
	mutex_unlock(&rxe_mig_lease_lock);
}

/**
 * rxe_mig_lease_commit - the QP is known to live elsewhere [STOP-9]
 * @mig: migration state of a Stopped QP that the caller holds
 */
void rxe_mig_lease_commit(struct rxe_mig_qp *mig)
{
	struct rxe_mig_dev *dev = to_rdev(mig->qp->ibqp.device)->mig;
	struct rxe_mig_ctx *ctx;

	mutex_lock(&rxe_mig_lease_lock);
	mutex_lock(&dev->ctx_lock);
	ctx = mig->ctx;
	if (ctx) {
		lease_end(ctx);
		ctx->committed = true;
		trace_rxe_mig_context(ctx->uc, "lives elsewhere");
	}
	mutex_unlock(&dev->ctx_lock);
	mutex_unlock(&rxe_mig_lease_lock);
}

/* Return: -EAGAIN if the device's addresses or events have become more */
static int take(struct rxe_dev *rxe, struct rxe_mig_walk *walk,
		struct rxe_mig_snapshot *snap, u32 *count)
{
	struct mig_out out = {
		.size = sizeof(struct rxe_mig_hdr) + context_size(rxe),
	};
	unsigned int i;

	for (i = 0; i < walk->num; i++)
		out.size += obj_size(&walk->objs[i]);
	out.base = kvzalloc(out.size, GFP_KERNEL_ACCOUNT);
	if (!out.base)
		return -ENOMEM;
	out_all(&out, rxe, walk);
	if (out.len > out.size) {
		kvfree(out.base);
		return -EAGAIN;
	}
	out_header(&out);
	snap->data = out.base;
	snap->len = out.len;
	*count = out.count;
	return 0;
}

/* Is this context the live copy, and not about to be another one's image? */
static int check_ctx(const struct rxe_mig_ctx *ctx, struct rxe_mig_refusal *why)
{
	if (!ctx || (!ctx->committed && (!ctx->lease || ctx->lease->orphan)))
		return 0;
	rxe_mig_refuse(why, 0, 0, RXE_MIG_BUSY, 0, ctx->committed ?
		       "context is committed: its snapshot is the live copy" :
		       "another dump of this context is in progress");
	return -EBUSY;
}

static int dump_locked(struct rxe_mig_dev *dev, struct ib_ucontext *uc,
		       struct rxe_mig_walk *walk, u64 *len, u32 *count,
		       int *fdp, struct rxe_mig_refusal *why)
{
	struct rxe_mig_snapshot *snap;
	struct rxe_mig_ctx *ctx;
	struct file *file;
	int fd, err;

	ctx = rxe_mig_ctx_get(dev, uc);
	if (!ctx)
		return -ENOMEM;
	err = check_ctx(ctx, why);
	if (err)
		return err;
	if (ctx->lease) {
		lease_end(ctx);
		resume_all(ctx);
	}

	snap = kzalloc(sizeof(*snap), GFP_KERNEL);
	if (!snap)
		return -ENOMEM;
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0) {
		kfree(snap);
		return fd;
	}
	/* until the file is installed its release finds no lease */
	file = anon_inode_getfile("[rdma-snapshot]", &snapshot_fops, snap,
				  O_RDONLY);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		kfree(snap);
		return PTR_ERR(file);
	}
	INIT_DELAYED_WORK(&snap->work, snapshot_expire);
	file->f_mode |= FMODE_LSEEK | FMODE_PREAD;

	err = stop_all(dev, ctx, walk);
	while (!err) {
		err = take(dev->rxe, walk, snap, count);
		if (err != -EAGAIN)
			break;
		err = fatal_signal_pending(current) ? -EINTR : 0;
	}
	if (err) {
		resume_all(ctx);
		put_unused_fd(fd);
		fput(file);
		return err;
	}
	snap->dev = dev;
	snap->ctx = ctx;
	ctx->lease = snap;
	announce_all(ctx);
	*len = snap->len;
	*fdp = fd;
	fd_install(fd, file);
	return 0;
}

/**
 * rxe_mig_dump - check a context, or stop it and take a snapshot
 * @uc: the context
 * @flags: RXE_MIG_DUMP_*
 * @len: bytes of the snapshot
 * @count: records in it
 * @fd: snapshot file, not with RXE_MIG_DUMP_CHECK
 * @why: on -EOPNOTSUPP and -EBUSY, which object and why
 *
 * A check is for a context that runs, and does not disturb it: what it may ask
 * partners, applications do not notice.  A dump is for a context whose process
 * has been frozen.
 *
 * Return: 0 or a negative errno; on error nothing is stopped.
 */
int rxe_mig_dump(struct ib_ucontext *uc, u32 flags, u64 *len, u32 *count,
		 int *fd, struct rxe_mig_refusal *why)
{
	struct rxe_dev *rxe = to_rdev(uc->device);
	struct rxe_mig_dev *dev = rxe->mig;
	struct survey s = {
		.why = why,
		.len = sizeof(struct rxe_mig_hdr) + context_size(rxe),
		.count = 1,
	};
	struct rxe_mig_walk walk;
	unsigned int i;
	int err;

	if (!rxe_mig_capable())
		return -EPERM;

	if (flags & RXE_MIG_DUMP_CHECK) {
		mutex_lock(&dev->ctx_lock);
		err = check_ctx(rxe_mig_ctx_find(dev, uc), why);
		mutex_unlock(&dev->ctx_lock);
		if (!err)
			err = rxe_mig_survey(uc, check_obj, &s);
		if (!err && flags & RXE_MIG_DUMP_ASK)
			rxe_mig_survey(uc, ask_partner, NULL);
		*len = s.len;
		*count = s.count;
		return err;
	}

	err = rxe_mig_walk_begin(uc, &walk);
	if (err)
		return err;
	for (i = 0; !err && i < walk.num; i++)
		err = check_obj(&walk.objs[i], &s);
	if (err)
		goto out;

	mutex_lock(&rxe_mig_lease_lock);
	mutex_lock(&dev->ctx_lock);
	err = dump_locked(dev, uc, &walk, len, count, fd, why);
	mutex_unlock(&dev->ctx_lock);
	mutex_unlock(&rxe_mig_lease_lock);
	if (!err)
		trace_rxe_mig_context(uc, "dumped");
out:
	rxe_mig_walk_end(&walk);
	return err;
}

/**
 * rxe_mig_cancel - resume a dumped context in place
 * @uc: the context
 *
 * Return: 0, or -EINVAL if it is not dumped.
 */
int rxe_mig_cancel(struct ib_ucontext *uc)
{
	struct rxe_mig_dev *dev = to_rdev(uc->device)->mig;
	struct rxe_mig_ctx *ctx;
	int err = -EINVAL;

	if (!rxe_mig_capable())
		return -EPERM;
	mutex_lock(&rxe_mig_lease_lock);
	mutex_lock(&dev->ctx_lock);
	ctx = rxe_mig_ctx_find(dev, uc);
	if (ctx && ctx->lease) {
		lease_end(ctx);
		resume_all(ctx);
		trace_rxe_mig_context(uc, "cancelled");
		err = 0;
	}
	mutex_unlock(&dev->ctx_lock);
	mutex_unlock(&rxe_mig_lease_lock);
	return err;
}

/**
 * rxe_mig_commit - the snapshot is the live copy now, the context never again
 * @uc: the context
 *
 * Return: 0, or -EINVAL if it is not dumped.
 */
int rxe_mig_commit(struct ib_ucontext *uc)
{
	struct rxe_mig_dev *dev = to_rdev(uc->device)->mig;
	struct rxe_mig_ctx *ctx;
	int err = -EINVAL;

	if (!rxe_mig_capable())
		return -EPERM;
	mutex_lock(&rxe_mig_lease_lock);
	mutex_lock(&dev->ctx_lock);
	ctx = rxe_mig_ctx_find(dev, uc);
	if (ctx && ctx->lease) {
		lease_end(ctx);
		ctx->committed = true;
		trace_rxe_mig_context(uc, "committed");
		err = 0;
	}
	mutex_unlock(&dev->ctx_lock);
	mutex_unlock(&rxe_mig_lease_lock);
	return err;
}
