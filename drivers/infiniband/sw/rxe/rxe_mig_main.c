// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Migration: set-up per device, bookkeeping of QPs and contexts.
 */
#include <linux/capability.h>
#include <linux/module.h>

#include "rxe_mig.h"

unsigned int rxe_mig_pause_limit_ms = MIGROS_PAUSE_LIMIT_MS;
module_param_named(mig_pause_limit_ms, rxe_mig_pause_limit_ms, uint, 0644);
MODULE_PARM_DESC(mig_pause_limit_ms,
		 "a QP whose partner is migrating fails after this time, 0: never");

unsigned int rxe_mig_resume_limit_ms = MIGROS_RESUME_LIMIT_MS;
module_param_named(mig_resume_limit_ms, rxe_mig_resume_limit_ms, uint, 0644);
MODULE_PARM_DESC(mig_resume_limit_ms,
		 "a migrated QP sends RESUME for at most this time, 0: for ever");

unsigned int rxe_mig_tombstone_ms = MIGROS_TOMBSTONE_MS;
module_param_named(mig_tombstone_ms, rxe_mig_tombstone_ms, uint, 0644);
MODULE_PARM_DESC(mig_tombstone_ms,
		 "how long to answer for a QP that has left, 0: not at all");

unsigned int rxe_mig_lease_grace_ms = MIGROS_LEASE_GRACE_MS;
module_param_named(mig_lease_grace_ms, rxe_mig_lease_grace_ms, uint, 0644);
MODULE_PARM_DESC(mig_lease_grace_ms,
		 "a context whose dump is lost resumes after this time");

/**
 * rxe_mig_capable - may the caller dump and restore?
 */
bool rxe_mig_capable(void)
{
	return checkpoint_restore_ns_capable(&init_user_ns);
}

/**
 * rxe_mig_get - migration state of a QP, allocated on first use
 * @qp: the QP; the caller holds a reference
 * @gfp: how to allocate
 */
struct rxe_mig_qp *rxe_mig_get(struct rxe_qp *qp, gfp_t gfp)
{
	struct rxe_mig_qp *mig = READ_ONCE(qp->mig);
	struct rxe_mig_qp *old;

	if (mig)
		return mig;

	mig = kzalloc(sizeof(*mig), gfp);
	if (!mig)
		return NULL;
	mig->qp = qp;
	mig->proto.challenge = rxe_mig_nonce();
	INIT_LIST_HEAD(&mig->ctx_entry);
	spin_lock_init(&mig->lock);
	INIT_DELAYED_WORK(&mig->work, rxe_mig_work);

	old = cmpxchg(&qp->mig, NULL, mig);
	if (old) {
		kfree(mig);
		return old;
	}
	return mig;
}

/**
 * rxe_mig_ctx_find - the record of a context that is dumped or restored
 * @dev: device, ctx_lock held
 * @uc: context
 */
struct rxe_mig_ctx *rxe_mig_ctx_find(struct rxe_mig_dev *dev,
				     struct ib_ucontext *uc)
{
	struct rxe_mig_ctx *ctx;

	lockdep_assert_held(&dev->ctx_lock);
	list_for_each_entry(ctx, &dev->contexts, entry)
		if (ctx->uc == uc)
			return ctx;
	return NULL;
}

/**
 * rxe_mig_ctx_get - the same, made if need be
 * @dev: device, ctx_lock held
 * @uc: context
 */
struct rxe_mig_ctx *rxe_mig_ctx_get(struct rxe_mig_dev *dev,
				    struct ib_ucontext *uc)
{
	struct rxe_mig_ctx *ctx = rxe_mig_ctx_find(dev, uc);

	if (ctx)
		return ctx;
	ctx = kzalloc(sizeof(*ctx), GFP_KERNEL);
	if (!ctx)
		return NULL;
	ctx->uc = uc;
	INIT_LIST_HEAD(&ctx->qps);
	list_add(&ctx->entry, &dev->contexts);
	return ctx;
}

/**
 * rxe_mig_ctx_add_qp - put a QP on its context's list of stopped QPs
 * @ctx: the context
 * @mig: the QP's migration state; ctx_lock held
 */
void rxe_mig_ctx_add_qp(struct rxe_mig_ctx *ctx, struct rxe_mig_qp *mig)
{
	if (!mig->ctx) {
		mig->ctx = ctx;
		list_add_tail(&mig->ctx_entry, &ctx->qps);
	}
}

/**
 * rxe_mig_ctx_del_qp - take it off again
 * @mig: the QP's migration state; ctx_lock held
 */
void rxe_mig_ctx_del_qp(struct rxe_mig_qp *mig)
{
	if (mig->ctx) {
		list_del_init(&mig->ctx_entry);
		mig->ctx = NULL;
	}
}

/**
 * rxe_mig_dev_init - prepare a device before it is registered
 * @rxe: the device
 * @ops: rxe's own operations, which the migration ones wrap
 *
 * Operations set first win in ib_set_device_ops(), so the wrappers go in
 * before the caller sets rxe's own.
 */
int rxe_mig_dev_init(struct rxe_dev *rxe, const struct ib_device_ops *ops)
{
	struct rxe_mig_dev *dev;
	int i;

	dev = kzalloc(sizeof(*dev), GFP_KERNEL);
	if (!dev)
		return -ENOMEM;
	dev->rxe = rxe;
	dev->wq = alloc_workqueue("rxe_mig", WQ_UNBOUND, 0);
	if (!dev->wq) {
		kfree(dev);
		return -ENOMEM;
	}
	for (i = 0; i < RXE_MIG_QP_MUTEXES; i++)
		mutex_init(&dev->qp_mutex[i]);
	mutex_init(&dev->ctx_lock);
	mutex_init(&dev->create_lock);
	mutex_init(&dev->tomb_lock);
	INIT_LIST_HEAD(&dev->contexts);
	spin_lock_init(&dev->rx_lock);
	INIT_LIST_HEAD(&dev->rx_list);
	INIT_WORK(&dev->rx_work, rxe_mig_rx_work);
	xa_init(&dev->tombs);
	INIT_DELAYED_WORK(&dev->tomb_work, rxe_mig_tomb_work);

	if (rxe_mig_counters_init(dev)) {
		destroy_workqueue(dev->wq);
		kfree(dev);
		return -ENOMEM;
	}
	rxe->mig = dev;
	rxe->ib_dev.driver_def = rxe_mig_defs;
	rxe_mig_set_ops(rxe, ops);
	return 0;
}

/**
 * rxe_mig_dev_exit - undo rxe_mig_dev_init()
 * @rxe: a device without users and without packets under way
 */
void rxe_mig_dev_exit(struct rxe_dev *rxe)
{
	struct rxe_mig_dev *dev = rxe->mig;
	struct rxe_mig_pkt *p, *n;

	if (!dev)
		return;
	cancel_work_sync(&dev->rx_work);
	cancel_delayed_work_sync(&dev->tomb_work);
	destroy_workqueue(dev->wq);
	list_for_each_entry_safe(p, n, &dev->rx_list, entry)
		kfree(p);
	rxe_mig_tomb_exit(dev);
	WARN_ON(!list_empty(&dev->contexts));
	for (int i = 0; i < RXE_MIG_QP_MUTEXES; i++)
		mutex_destroy(&dev->qp_mutex[i]);
	mutex_destroy(&dev->ctx_lock);
	mutex_destroy(&dev->create_lock);
	mutex_destroy(&dev->tomb_lock);
	rxe->mig = NULL;
	kfree(dev->descs);
	kfree(dev);
}
