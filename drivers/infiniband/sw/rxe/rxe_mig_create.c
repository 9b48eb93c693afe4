// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Recreating the objects of a snapshot (paper section 3.5).
 *
 * Objects are made by the ordinary create commands, whose checks then apply;
 * a hint in the driver data asks for given identifiers.  These operations
 * wrap rxe's own and are not on the data path.
 */
#include <linux/cred.h>
#include <linux/kthread.h>
#include <linux/mmu_context.h>
#include <linux/pid.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <rdma/uverbs_ioctl.h>

#include "rxe_mig.h"
#include "rxe_queue.h"

/* rxe's own operations; the same for every device */
static const struct ib_device_ops *stock;

/* ---- hints ---- */

/* Return: 1 with a hint, 0 without, negative errno if it is refused */
static int get_hint(struct ib_udata *udata, struct rxe_mig_hint *hint)
{
	int err;

	if (!udata || udata->inlen < sizeof(*hint))
		return 0;
	err = ib_copy_from_udata(hint, udata, sizeof(*hint));
	if (err)
		return err;
	if (hint->magic != RXE_MIG_HINT_MAGIC)
		return 0;
	if (hint->reserved[0] || hint->reserved[1] || hint->reserved[2])
		return -EINVAL;
	if (!rxe_mig_capable())
		return -EPERM;
	return 1;
}

void rxe_mig_cursor_set(struct rxe_pool *pool, u32 next)
{
	xa_lock(&pool->xa);
	pool->next = next;
	xa_unlock(&pool->xa);
}

/*
 * The pool allocates cyclically from its cursor, so an index that is free is
 * given out when the cursor points to it.  Somebody else may get it first;
 * the caller checks what it got.  create_lock is held until cursor_done().
 */
static int cursor_aim(struct rxe_mig_dev *dev, struct rxe_pool *pool,
		      u32 index, u32 *saved)
{
	if (index < pool->limit.min || index > pool->limit.max)
		return -EINVAL;
	mutex_lock(&dev->create_lock);
	*saved = pool->next;
	rxe_mig_cursor_set(pool, index);
	return 0;
}

/* Numbers that were freed before must not be reused at once: never go back */
static void cursor_done(struct rxe_mig_dev *dev, struct rxe_pool *pool,
			u32 index, u32 saved)
{
	rxe_mig_cursor_set(pool, max(saved, index + 1));
	mutex_unlock(&dev->create_lock);
}

static int set_offset(struct rxe_dev *rxe, struct rxe_queue *q, u64 offset)
{
	u64 end;

	if (!q || !offset)
		return 0;
	if (!q->ip)
		return -EINVAL;
	end = offset + ALIGN(q->ip->info.size, SHMLBA);
	if (!PAGE_ALIGNED(offset) || end < offset || end >> 44)
		return -EINVAL;

	spin_lock_bh(&rxe->mmap_offset_lock);
	if (rxe->mmap_offset < end)
		rxe->mmap_offset = end;
	spin_unlock_bh(&rxe->mmap_offset_lock);

	spin_lock_bh(&rxe->pending_lock);
	q->ip->info.offset = offset;
	q->ip->sticky = true;
	spin_unlock_bh(&rxe->pending_lock);
	return 0;
}

/* ---- create commands ---- */

static struct ib_ucontext *uc_of(struct ib_udata *udata)
{
	return container_of(udata, struct uverbs_attr_bundle,
			    driver_udata)->context;
}

/* A restored QP is born Stopped and on the list that RESUME works through */
static int adopt_qp(struct rxe_dev *rxe, struct rxe_qp *qp,
		    struct ib_ucontext *uc)
{
	struct rxe_mig_dev *dev = rxe->mig;
	struct rxe_mig_qp *mig = rxe_mig_get(qp, GFP_KERNEL);
	struct rxe_mig_ctx *ctx;

	if (!mig)
		return -ENOMEM;
	mutex_lock(&dev->ctx_lock);
	ctx = rxe_mig_ctx_get(dev, uc);
	if (ctx) {
		rxe_mig_ctx_add_qp(ctx, mig);
		rxe_mig_qp_lock(qp);
		qp->elem.mig_phase = RXE_MIG_CREATED;
		rxe_mig_quiesce(qp);
		rxe_mig_set_state(mig, RXE_MIG_STOPPED);
		rxe_mig_qp_unlock(qp);
	}
	mutex_unlock(&dev->ctx_lock);
	return ctx ? 0 : -ENOMEM;
}

static void unhook_qp(struct rxe_dev *rxe, struct rxe_qp *qp)
{
	struct rxe_mig_dev *dev = rxe->mig;
	struct rxe_mig_qp *mig;

	/* Who finds the QP from here on, and would make it one, must see that
	 * it is dead: nobody would wait for the work that is queued then.
	 */
	mig = rxe_mig_get(qp, GFP_KERNEL | __GFP_NOFAIL);
	mutex_lock(&dev->ctx_lock);
	rxe_mig_ctx_del_qp(mig);
	mutex_unlock(&dev->ctx_lock);

	rxe_mig_qp_lock(qp);
	spin_lock_irq(&mig->lock);
	mig->dead = true;
	spin_unlock_irq(&mig->lock);
	rxe_mig_held_ends(mig);
	if (mig->state == RXE_MIG_STOPPED)
		rxe_mig_tomb_create(mig);
	rxe_mig_qp_unlock(qp);
	cancel_delayed_work_sync(&mig->work);
}

static int mig_destroy_qp(struct ib_qp *ibqp, struct ib_udata *udata)
{
	struct rxe_qp *qp = to_rqp(ibqp);
	struct rxe_mig_qp *mig;
	int err;

	/* stock refuses to destroy such a QP and it must stay whole */
	err = rxe_qp_chk_destroy(qp);
	if (err)
		return err;

	unhook_qp(to_rdev(ibqp->device), qp);
	err = stock->destroy_qp(ibqp, udata);
	mig = qp->mig;
	qp->mig = NULL;
	kfree(mig);
	return err;
}

static int mig_create_qp(struct ib_qp *ibqp, struct ib_qp_init_attr *init,
			 struct ib_udata *udata)
{
	struct rxe_dev *rxe = to_rdev(ibqp->device);
	struct rxe_qp *qp = to_rqp(ibqp);
	struct rxe_mig_hint hint;
	size_t inlen;
	u32 saved;
	int err;

	err = get_hint(udata, &hint);
	if (err < 0)
		return err;
	if (!err)
		return stock->create_qp(ibqp, init, udata);

	err = cursor_aim(rxe->mig, &rxe->qp_pool, hint.index, &saved);
	if (err)
		return err;
	inlen = udata->inlen;
	udata->inlen = 0;	/* stock wants none */
	err = stock->create_qp(ibqp, init, udata);
	udata->inlen = inlen;
	cursor_done(rxe->mig, &rxe->qp_pool, hint.index, saved);
	if (err)
		return err;

	if (qp->elem.index != hint.index) {
		err = -EBUSY;
		goto destroy;
	}
	err = set_offset(rxe, qp->rq.queue, hint.mmap_offset[0]);
	if (!err)
		err = set_offset(rxe, qp->sq.queue, hint.mmap_offset[1]);
	if (!err)
		err = adopt_qp(rxe, qp, uc_of(udata));
	if (err)
		goto destroy;
	return 0;

destroy:
	mig_destroy_qp(ibqp, NULL);
	return err;
}

static int mig_modify_qp(struct ib_qp *ibqp, struct ib_qp_attr *attr, int mask,
			 struct ib_udata *udata)
{
	struct rxe_qp *qp = to_rqp(ibqp);
	int err;

	/* rxe_qp_reset() and the worker both disable and enable the tasks */
	rxe_mig_qp_lock(qp);
	if (qp->mig && qp->mig->state == RXE_MIG_STOPPED) {
		/* the snapshot would not know of it */
		rxe_mig_qp_unlock(qp);
		return -EBUSY;
	}
	err = stock->modify_qp(ibqp, attr, mask, udata);
	if (!err && mask & IB_QP_STATE && attr->qp_state == IB_QPS_RESET &&
	    qp->mig)
		rxe_mig_forget_peer(qp->mig);
	rxe_mig_qp_unlock(qp);
	return err;
}

/*
 * rxe never looks up PDs, CQs and SRQs and does not store them in their pools,
 * where rxe_mig_survey() looks for the objects of a context.
 */
static int mig_alloc_pd(struct ib_pd *ibpd, struct ib_udata *udata)
{
	int err = stock->alloc_pd(ibpd, udata);

	if (!err)
		rxe_finalize(to_rpd(ibpd));
	return err;
}

static int mig_create_cq(struct ib_cq *ibcq, const struct ib_cq_init_attr *attr,
			 struct uverbs_attr_bundle *attrs)
{
	struct ib_udata *udata = &attrs->driver_udata;
	struct rxe_mig_hint hint;
	int err, hinted;

	hinted = attrs ? get_hint(udata, &hint) : 0;
	if (hinted < 0)
		return hinted;
	err = stock->create_cq(ibcq, attr, attrs);
	if (err)
		return err;
	rxe_finalize(to_rcq(ibcq));
	if (!hinted)
		return 0;
	err = set_offset(to_rdev(ibcq->device), to_rcq(ibcq)->queue,
			 hint.mmap_offset[0]);
	if (err)
		stock->destroy_cq(ibcq, NULL);
	else
		to_rcq(ibcq)->elem.mig_phase = RXE_MIG_CREATED;
	return err;
}

static int mig_create_srq(struct ib_srq *ibsrq, struct ib_srq_init_attr *init,
			  struct ib_udata *udata)
{
	struct rxe_dev *rxe = to_rdev(ibsrq->device);
	struct rxe_srq *srq = to_rsrq(ibsrq);
	struct rxe_mig_hint hint;
	u32 saved;
	int err;

	err = get_hint(udata, &hint);
	if (err < 0)
		return err;
	if (!err) {
		err = stock->create_srq(ibsrq, init, udata);
		if (!err)
			rxe_finalize(srq);
		return err;
	}

	err = cursor_aim(rxe->mig, &rxe->srq_pool, hint.index, &saved);
	if (err)
		return err;
	err = stock->create_srq(ibsrq, init, udata);
	cursor_done(rxe->mig, &rxe->srq_pool, hint.index, saved);
	if (err)
		return err;
	rxe_finalize(srq);
	err = srq->srq_num == hint.index ? 0 : -EBUSY;
	if (!err)
		err = set_offset(rxe, srq->rq.queue, hint.mmap_offset[0]);
	if (err)
		stock->destroy_srq(ibsrq, NULL);
	else
		srq->elem.mig_phase = RXE_MIG_CREATED;
	return err;
}

static int mig_create_user_ah(struct ib_ah *ibah,
			      struct rdma_ah_init_attr *init,
			      struct ib_udata *udata)
{
	struct rxe_dev *rxe = to_rdev(ibah->device);
	struct rxe_mig_hint hint;
	u32 saved;
	int err;

	err = get_hint(udata, &hint);
	if (err < 0)
		return err;
	if (!err)
		return stock->create_user_ah(ibah, init, udata);

	err = cursor_aim(rxe->mig, &rxe->ah_pool, hint.index, &saved);
	if (err)
		return err;
	err = stock->create_user_ah(ibah, init, udata);
	cursor_done(rxe->mig, &rxe->ah_pool, hint.index, saved);
	if (err)
		return err;
	if (to_rah(ibah)->elem.index != hint.index) {
		stock->destroy_ah(ibah, RDMA_DESTROY_AH_SLEEPABLE);
		return -EBUSY;
	}
	to_rah(ibah)->elem.mig_phase = RXE_MIG_CREATED;
	return 0;
}

static int mig_alloc_mw(struct ib_mw *ibmw, struct ib_udata *udata)
{
	struct rxe_dev *rxe = to_rdev(ibmw->device);
	struct rxe_mw *mw = to_rmw(ibmw);
	struct rxe_mig_hint hint;
	u32 saved;
	int err;

	err = get_hint(udata, &hint);
	if (err < 0)
		return err;
	if (!err)
		return stock->alloc_mw(ibmw, udata);

	err = cursor_aim(rxe->mig, &rxe->mw_pool, hint.key >> 8, &saved);
	if (err)
		return err;
	err = stock->alloc_mw(ibmw, udata);
	cursor_done(rxe->mig, &rxe->mw_pool, hint.key >> 8, saved);
	if (err)
		return err;
	if (mw->elem.index != hint.key >> 8) {
		stock->dealloc_mw(ibmw);
		return -EBUSY;
	}
	mw->rkey = hint.key;
	ibmw->rkey = hint.key;
	mw->elem.mig_phase = RXE_MIG_CREATED;
	return 0;
}

/* ---- memory of another process ---- */

struct mig_pin {
	struct work_struct	work;
	struct mm_struct	*mm;
	struct ib_pd		*pd;
	struct ib_udata		*udata;
	struct ib_mr		*mr;
	u64			start;
	u64			length;
	u64			iova;
	int			access;
};

static void pin_work(struct work_struct *work)
{
	struct mig_pin *p = container_of(work, struct mig_pin, work);

	kthread_use_mm(p->mm);
	p->mr = stock->reg_user_mr(p->pd, p->start, p->length, p->iova,
				   p->access, p->udata);
	kthread_unuse_mm(p->mm);
}

/* A kworker may pin without limit, so the owner's limit is checked here */
static int check_memlock(struct task_struct *task, struct mm_struct *mm,
			 u64 start, u64 length)
{
	const struct cred *cred = get_task_cred(task);
	bool privileged = cred->user_ns == &init_user_ns &&
			  cap_raised(cred->cap_effective, CAP_IPC_LOCK);
	u64 pages = (ALIGN(start + length, PAGE_SIZE) -
		     ALIGN_DOWN(start, PAGE_SIZE)) >> PAGE_SHIFT;
	u64 limit = task_rlimit(task, RLIMIT_MEMLOCK) >> PAGE_SHIFT;

	put_cred(cred);
	if (privileged || atomic64_read(&mm->pinned_vm) + pages <= limit)
		return 0;
	return -ENOMEM;
}

/*
 * The caller may make this registration only for a process that it could
 * trace and that holds the same uverbs file: no way into other memory.
 */
static struct ib_mr *reg_remote(struct ib_pd *pd, u64 start, u64 length,
				u64 iova, int access, struct ib_udata *udata,
				int nr)
{
	struct mig_pin pin = {
		.pd = pd, .udata = udata, .mr = ERR_PTR(-EINVAL),
		.start = start, .length = length, .iova = iova,
		.access = access,
	};
	struct task_struct *task;
	struct pid *pid;
	int err;

	pid = find_get_pid(nr);
	task = get_pid_task(pid, PIDTYPE_TGID);
	put_pid(pid);
	if (!task)
		return ERR_PTR(-ESRCH);

	pin.mm = get_task_mm(task);
	if (!pin.mm) {
		err = -ESRCH;
		goto put_task;
	}
	err = -EPERM;
	if (!ns_capable(pin.mm->user_ns, CAP_SYS_PTRACE))
		goto put_mm;
	err = rxe_mig_file_of_task(uc_of(udata)->ufile, task);
	if (!err)
		err = check_memlock(task, pin.mm, start, length);
	if (err)
		goto put_mm;

	INIT_WORK_ONSTACK(&pin.work, pin_work);
	queue_work(system_unbound_wq, &pin.work);
	flush_work(&pin.work);
	destroy_work_on_stack(&pin.work);
put_mm:
	mmput(pin.mm);
put_task:
	put_task_struct(task);
	return err ? ERR_PTR(err) : pin.mr;
}

static struct ib_mr *mig_reg_user_mr(struct ib_pd *pd, u64 start, u64 length,
				     u64 iova, int access,
				     struct ib_udata *udata)
{
	struct rxe_dev *rxe = to_rdev(pd->device);
	struct rxe_mig_hint hint;
	struct ib_mr *ibmr;
	struct rxe_mr *mr;
	u32 saved;
	int err;

	err = get_hint(udata, &hint);
	if (err < 0)
		return ERR_PTR(err);
	if (!err)
		return stock->reg_user_mr(pd, start, length, iova, access,
					  udata);

	err = cursor_aim(rxe->mig, &rxe->mr_pool, hint.key >> 8, &saved);
	if (err)
		return ERR_PTR(err);
	ibmr = hint.pid ?
	       reg_remote(pd, start, length, iova, access, udata, hint.pid) :
	       stock->reg_user_mr(pd, start, length, iova, access, udata);
	cursor_done(rxe->mig, &rxe->mr_pool, hint.key >> 8, saved);
	if (IS_ERR(ibmr))
		return ibmr;

	mr = to_rmr(ibmr);
	if (mr->elem.index != hint.key >> 8) {
		stock->dereg_mr(ibmr, NULL);
		return ERR_PTR(-EBUSY);
	}
	/* user MRs have rkey only with remote access, lkey always */
	mr->lkey = hint.key;
	ibmr->lkey = hint.key;
	if (mr->rkey) {
		mr->rkey = hint.key;
		ibmr->rkey = hint.key;
	}
	return ibmr;
}

static void mig_dealloc_ucontext(struct ib_ucontext *uc)
{
	struct rxe_mig_dev *dev = to_rdev(uc->device)->mig;
	struct rxe_mig_ctx *ctx;

	mutex_lock(&dev->ctx_lock);
	ctx = rxe_mig_ctx_find(dev, uc);
	mutex_unlock(&dev->ctx_lock);
	if (ctx) {
		rxe_mig_lease_drop(ctx);
		mutex_lock(&dev->ctx_lock);
		WARN_ON(!list_empty(&ctx->qps));
		list_del(&ctx->entry);
		mutex_unlock(&dev->ctx_lock);
		kfree(ctx);
	}
	stock->dealloc_ucontext(uc);
}

static const struct ib_device_ops rxe_mig_dev_ops = {
	.alloc_hw_port_stats = rxe_mig_alloc_hw_port_stats,
	.alloc_mw = mig_alloc_mw,
	.alloc_pd = mig_alloc_pd,
	.create_cq = mig_create_cq,
	.create_qp = mig_create_qp,
	.create_srq = mig_create_srq,
	.create_user_ah = mig_create_user_ah,
	.dealloc_ucontext = mig_dealloc_ucontext,
	.destroy_qp = mig_destroy_qp,
	.fill_res_qp_entry = rxe_mig_fill_res_qp,
	.get_hw_stats = rxe_mig_get_hw_stats,
	.modify_qp = mig_modify_qp,
	.reg_user_mr = mig_reg_user_mr,
};

/**
 * rxe_mig_set_ops - put the wrappers before rxe's own operations
 * @rxe: device, before ib_register_device()
 * @ops: rxe's own operations
 */
void rxe_mig_set_ops(struct rxe_dev *rxe, const struct ib_device_ops *ops)
{
	stock = ops;
	ib_set_device_ops(&rxe->ib_dev, &rxe_mig_dev_ops);
}
