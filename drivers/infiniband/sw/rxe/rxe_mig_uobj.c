// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Objects of a user context as ib_uverbs keeps them.
 *
 * The only file that includes private headers of the RDMA core: enumeration,
 * event files, event counters and the credentials of a uverbs file have no
 * exported interface.  The module is built from the sources of the kernel it
 * is loaded into, and the module version check holds it there.
 */
#include <linux/cred.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/pid.h>
#include <linux/sched/task.h>
#include <linux/security.h>
#include <rdma/uverbs_std_types.h>
#include <rdma/uverbs_ioctl.h>

#include "../../core/rdma_core.h"
#include "../../core/uverbs.h"

#include "rxe_mig.h"

static u32 type_of_class(u32 class)
{
	switch (class) {
	case UVERBS_OBJECT_PD:
		return RXE_MIG_REC_PD;
	case UVERBS_OBJECT_COMP_CHANNEL:
		return RXE_MIG_REC_CHANNEL;
	case UVERBS_OBJECT_ASYNC_EVENT:
		return RXE_MIG_REC_ASYNC;
	case UVERBS_OBJECT_CQ:
		return RXE_MIG_REC_CQ;
	case UVERBS_OBJECT_QP:
		return RXE_MIG_REC_QP;
	case UVERBS_OBJECT_SRQ:
		return RXE_MIG_REC_SRQ;
	case UVERBS_OBJECT_AH:
		return RXE_MIG_REC_AH;
	case UVERBS_OBJECT_MR:
		return RXE_MIG_REC_MR;
	case UVERBS_OBJECT_MW:
		return RXE_MIG_REC_MW;
	}
	return 0;
}

static struct rxe_pool_elem *elem_of(u32 type, void *obj)
{
	switch (type) {
	case RXE_MIG_REC_PD:
		return &to_rpd(obj)->elem;
	case RXE_MIG_REC_MR:
		return &to_rmr(obj)->elem;
	case RXE_MIG_REC_CQ:
		return &to_rcq(obj)->elem;
	case RXE_MIG_REC_SRQ:
		return &to_rsrq(obj)->elem;
	case RXE_MIG_REC_AH:
		return &to_rah(obj)->elem;
	case RXE_MIG_REC_QP:
		return &to_rqp(obj)->elem;
	case RXE_MIG_REC_MW:
		return &to_rmw(obj)->elem;
	}
	return NULL;
}

/* how many event files of each kind have been seen */
struct ordinals {
	u32 channels;
	u32 asyncs;
};

/* all but what needs the object itself */
static void describe(struct rxe_mig_obj *o, struct ib_uobject *uobj,
		     struct ordinals *seen)
{
	o->class = uobj_get_object_id(uobj);
	o->type = type_of_class(o->class);
	o->handle = uobj->id;
	o->user_handle = uobj->user_handle;
	o->obj = uobj;
	o->elem = NULL;
	if (o->type == RXE_MIG_REC_CHANNEL)
		o->handle = seen->channels++;
	else if (o->type == RXE_MIG_REC_ASYNC)
		o->handle = seen->asyncs++;
}

static bool is_file(const struct rxe_mig_obj *o)
{
	return o->type == RXE_MIG_REC_CHANNEL || o->type == RXE_MIG_REC_ASYNC;
}

/**
 * rxe_mig_walk_begin - list the objects of a context, oldest first
 * @uc: the context
 * @walk: result; holds off creation and destruction until rxe_mig_walk_end()
 *
 * Event files get ordinals as handles: their number among the files of the
 * same class.  The default asynchronous event file comes first.
 *
 * Other verbs on the context fail with EIO meanwhile: this is for a context
 * whose process does not run.
 */
int rxe_mig_walk_begin(struct ib_ucontext *uc, struct rxe_mig_walk *walk)
{
	struct ib_uverbs_file *ufile = uc->ufile;
	struct ordinals seen = {};
	struct ib_uobject *uobj;
	unsigned int n = 0, i;

	walk->ufile = ufile;
	down_write(&ufile->hw_destroy_rwsem);
	list_for_each_entry(uobj, &ufile->uobjects, list)
		n++;

	walk->objs = kvcalloc(n ?: 1, sizeof(*walk->objs), GFP_KERNEL);
	if (!walk->objs) {
		up_write(&ufile->hw_destroy_rwsem);
		return -ENOMEM;
	}
	walk->num = n;

	/* newest objects are at the head of the list */
	i = 0;
	list_for_each_entry_reverse(uobj, &ufile->uobjects, list) {
		struct rxe_mig_obj *o = &walk->objs[i++];

		describe(o, uobj, &seen);
		if (is_file(o))
			continue;
		o->obj = uobj->object;
		o->elem = elem_of(o->type, o->obj);
	}
	return 0;
}

/**
 * rxe_mig_walk_end - let the context change again
 * @walk: what rxe_mig_walk_begin() filled in
 */
void rxe_mig_walk_end(struct rxe_mig_walk *walk)
{
	up_write(&walk->ufile->hw_destroy_rwsem);
	kvfree(walk->objs);
}

/* the object of an element as others know it, and its uverbs object */
static void *ib_obj_of(struct rxe_pool_elem *elem, struct ib_uobject **uobj)
{
	struct ib_uevent_object *uevent = NULL;
	void *obj = NULL;

	*uobj = NULL;
	switch (elem->pool->type) {
	case RXE_TYPE_PD: {
		struct ib_pd *pd = &((struct rxe_pd *)elem->obj)->ibpd;

		*uobj = pd->uobject;
		return pd;
	}
	case RXE_TYPE_MR: {
		struct ib_mr *mr = &((struct rxe_mr *)elem->obj)->ibmr;

		*uobj = mr->uobject;
		return mr;
	}
	case RXE_TYPE_AH: {
		struct ib_ah *ah = &((struct rxe_ah *)elem->obj)->ibah;

		*uobj = ah->uobject;
		return ah;
	}
	case RXE_TYPE_MW: {
		struct ib_mw *mw = &((struct rxe_mw *)elem->obj)->ibmw;

		*uobj = mw->uobject;
		return mw;
	}
	case RXE_TYPE_CQ: {
		struct ib_cq *cq = &((struct rxe_cq *)elem->obj)->ibcq;

		uevent = cq->uobject ? &cq->uobject->uevent : NULL;
		obj = cq;
		break;
	}
	case RXE_TYPE_SRQ: {
		struct ib_srq *srq = &((struct rxe_srq *)elem->obj)->ibsrq;

		uevent = srq->uobject ? &srq->uobject->uevent : NULL;
		obj = srq;
		break;
	}
	case RXE_TYPE_QP: {
		struct ib_qp *qp = &((struct rxe_qp *)elem->obj)->ibqp;

		uevent = qp->uobject ? &qp->uobject->uevent : NULL;
		obj = qp;
		break;
	}
	default:
		break;
	}
	if (uevent)
		*uobj = &uevent->uobject;
	return obj;
}

/* what has no pool; under the spinlock of the list, so @fn must not sleep */
static int survey_files(struct ib_uverbs_file *ufile,
			int (*fn)(const struct rxe_mig_obj *o, void *arg),
			void *arg)
{
	struct ordinals seen = {};
	struct ib_uobject *uobj;
	struct rxe_mig_obj o;
	int err = 0;

	spin_lock_irq(&ufile->uobjects_lock);
	list_for_each_entry_reverse(uobj, &ufile->uobjects, list) {
		describe(&o, uobj, &seen);
		if (o.type && !is_file(&o))
			continue;
		err = fn(&o, arg);
		if (err)
			break;
	}
	spin_unlock_irq(&ufile->uobjects_lock);
	return err;
}

/* with a reference: destroying the object waits for us */
static struct rxe_pool_elem *get_elem(struct rxe_pool *pool, u32 index,
				      struct ib_ucontext *uc)
{
	struct rxe_pool_elem *elem = NULL;
	struct ib_uobject *uobj;
	void *obj;

	/* An AH of the kernel may be destroyed by somebody who cannot sleep */
	preempt_disable();
	obj = rxe_pool_get_index(pool, index);
	if (obj) {
		elem = obj + pool->elem_offset;
		ib_obj_of(elem, &uobj);
		if (!uobj || uobj->context != uc) {
			__rxe_put(elem);
			elem = NULL;
		}
	}
	preempt_enable();
	return elem;
}

static int survey_pool(struct rxe_pool *pool, struct ib_ucontext *uc,
		       int (*fn)(const struct rxe_mig_obj *o, void *arg),
		       void *arg)
{
	struct ordinals seen = {};
	struct rxe_pool_elem *elem;
	struct ib_uobject *uobj;
	struct rxe_mig_obj o;
	unsigned long index;
	void *obj;
	int err = 0;

	for (index = 0; !err && xa_find(&pool->xa, &index, ULONG_MAX, XA_PRESENT);
	     index++) {
		elem = get_elem(pool, index, uc);
		if (elem) {
			obj = ib_obj_of(elem, &uobj);
			describe(&o, uobj, &seen);
			o.obj = obj;
			o.elem = elem;
			err = fn(&o, arg);
			__rxe_put(elem);
		}
		cond_resched();
	}
	return err;
}

/**
 * rxe_mig_survey - visit the objects of a context, which may run
 * @uc: the context
 * @fn: is called for each, until it returns an error; must not sleep for
 *	event files and objects without type
 * @arg: for @fn
 *
 * Verbs of other threads go on and succeed, so objects may come, change and
 * be missed.  Event files and unknown objects come first, then the others in
 * the order of enum rxe_mig_rec_type.
 */
int rxe_mig_survey(struct ib_ucontext *uc,
		   int (*fn)(const struct rxe_mig_obj *o, void *arg), void *arg)
{
	struct rxe_dev *rxe = to_rdev(uc->device);
	struct rxe_pool *pools[] = {
		&rxe->pd_pool, &rxe->mr_pool, &rxe->cq_pool, &rxe->srq_pool,
		&rxe->ah_pool, &rxe->qp_pool, &rxe->mw_pool,
	};
	unsigned int i;
	int err;

	err = survey_files(uc->ufile, fn, arg);
	for (i = 0; !err && i < ARRAY_SIZE(pools); i++)
		err = survey_pool(pools[i], uc, fn, arg);
	return err;
}

u32 rxe_mig_uobj_handle(struct ib_uobject *uobj)
{
	return uobj ? uobj->id : RXE_MIG_NONE;
}

u32 rxe_mig_qp_handle(struct ib_qp *qp)
{
	return qp && qp->uobject ? qp->uobject->uevent.uobject.id :
				   RXE_MIG_NONE;
}

u32 rxe_mig_cq_handle(struct ib_cq *cq)
{
	return cq && cq->uobject ? cq->uobject->uevent.uobject.id :
				   RXE_MIG_NONE;
}

u32 rxe_mig_srq_handle(struct ib_srq *srq)
{
	return srq && srq->uobject ? srq->uobject->uevent.uobject.id :
				     RXE_MIG_NONE;
}

/* the channel of a CQ as an ordinal */
u32 rxe_mig_cq_channel(struct rxe_mig_walk *walk, struct ib_cq *cq)
{
	struct ib_uverbs_event_queue *q = cq->cq_context;
	unsigned int i;

	if (!q)
		return RXE_MIG_NONE;
	for (i = 0; i < walk->num; i++) {
		struct ib_uverbs_completion_event_file *f;

		if (walk->objs[i].type != RXE_MIG_REC_CHANNEL)
			continue;
		f = container_of((struct ib_uobject *)walk->objs[i].obj,
				 typeof(*f), uobj);
		if (&f->ev_queue == q)
			return walk->objs[i].handle;
	}
	return RXE_MIG_NONE;
}

/*
 * Counters of events that user space has read.  ibv_destroy_cq() and
 * ibv_destroy_qp() wait until the application has acknowledged as many.
 */
void rxe_mig_cq_events(struct ib_cq *cq, u32 *comp, u32 *async)
{
	*comp = cq->uobject->comp_events_reported;
	*async = cq->uobject->uevent.events_reported;
}

u32 rxe_mig_qp_events(struct ib_qp *qp)
{
	return qp->uobject->uevent.events_reported;
}

u32 rxe_mig_srq_events(struct ib_srq *srq)
{
	return srq->uobject->uevent.events_reported;
}

void rxe_mig_set_cq_events(struct ib_cq *cq, u64 uh, u32 comp, u32 async)
{
	cq->uobject->uevent.uobject.user_handle = uh;
	cq->uobject->comp_events_reported = comp;
	cq->uobject->uevent.events_reported = async;
}

void rxe_mig_set_qp_events(struct ib_qp *qp, u64 uh, u32 async)
{
	qp->uobject->uevent.uobject.user_handle = uh;
	qp->uobject->uevent.events_reported = async;
}

void rxe_mig_set_srq_events(struct ib_srq *srq, u64 uh, u32 async)
{
	srq->uobject->uevent.uobject.user_handle = uh;
	srq->uobject->uevent.events_reported = async;
}

/**
 * rxe_mig_channel_events - unread events of a completion channel
 * @channel: its uobject
 * @cqs: handles of the CQs, oldest event first, or NULL to count
 * @max: room in @cqs
 */
unsigned int rxe_mig_channel_events(void *channel, u32 *cqs, unsigned int max)
{
	struct ib_uverbs_completion_event_file *f =
		container_of((struct ib_uobject *)channel, typeof(*f), uobj);
	struct ib_uverbs_event *e;
	unsigned long flags;
	unsigned int n = 0;

	spin_lock_irqsave(&f->ev_queue.lock, flags);
	list_for_each_entry(e, &f->ev_queue.event_list, list) {
		struct ib_ucq_object *ucq = container_of(e->counter,
						struct ib_ucq_object,
						comp_events_reported);

		if (cqs && n < max)
			cqs[n] = ucq->uevent.uobject.id;
		n++;
	}
	spin_unlock_irqrestore(&f->ev_queue.lock, flags);
	return n;
}

static void async_source(struct rxe_mig_walk *walk, u32 *counter,
			 struct rxe_mig_async_event *ev)
{
	unsigned int i;

	for (i = 0; i < walk->num; i++) {
		struct rxe_mig_obj *o = &walk->objs[i];
		u32 *c = NULL;

		if (o->type == RXE_MIG_REC_QP)
			c = &((struct ib_qp *)o->obj)->uobject->uevent.events_reported;
		else if (o->type == RXE_MIG_REC_CQ)
			c = &((struct ib_cq *)o->obj)->uobject->uevent.events_reported;
		else if (o->type == RXE_MIG_REC_SRQ)
			c = &((struct ib_srq *)o->obj)->uobject->uevent.events_reported;
		if (c && c == counter) {
			ev->obj_type = o->type;
			ev->obj_handle = o->handle;
			return;
		}
	}
}

/**
 * rxe_mig_async_events - unread events of an asynchronous event file
 * @walk: the objects of its context
 * @async: its uobject
 * @ev: result, oldest first, or NULL to count
 * @max: room in @ev
 */
unsigned int rxe_mig_async_events(struct rxe_mig_walk *walk, void *async,
				  struct rxe_mig_async_event *ev,
				  unsigned int max)
{
	struct ib_uverbs_async_event_file *f =
		container_of((struct ib_uobject *)async, typeof(*f), uobj);
	struct ib_uverbs_event *e;
	unsigned long flags;
	unsigned int n = 0;

	spin_lock_irqsave(&f->ev_queue.lock, flags);
	list_for_each_entry(e, &f->ev_queue.event_list, list) {
		if (ev && n < max) {
			ev[n] = (struct rxe_mig_async_event) {
				.element = e->desc.async.element,
				.event_type = e->desc.async.event_type,
				.obj_handle = RXE_MIG_NONE,
			};
			if (e->counter)
				async_source(walk, e->counter, &ev[n]);
		}
		n++;
	}
	spin_unlock_irqrestore(&f->ev_queue.lock, flags);
	return n;
}

/* by handle, of one class; NULL if there is none */
static struct rxe_mig_obj *find_obj(struct rxe_mig_walk *walk, u32 type,
				    u32 handle)
{
	unsigned int i;

	for (i = 0; i < walk->num; i++)
		if (walk->objs[i].type == type &&
		    walk->objs[i].handle == handle)
			return &walk->objs[i];
	return NULL;
}

/**
 * rxe_mig_find - look up an MR or QP of a context by handle
 * @uc: context
 * @type: RXE_MIG_REC_MR or RXE_MIG_REC_QP
 * @handle: uverbs handle
 * @obj: struct rxe_mr or rxe_qp with a reference
 */
int rxe_mig_find(struct ib_ucontext *uc, u32 type, u32 handle, void **obj)
{
	struct rxe_mig_walk walk;
	struct rxe_mig_obj *o;
	int err;

	err = rxe_mig_walk_begin(uc, &walk);
	if (err)
		return err;
	o = find_obj(&walk, type, handle);
	if (o && __rxe_get(o->elem))
		*obj = o->elem->obj;
	else
		err = -ENOENT;
	rxe_mig_walk_end(&walk);
	return err;
}

/**
 * rxe_mig_inject_comp - put events back into a completion channel
 * @uc: context that is being restored
 * @channel: ordinal of the channel
 * @cqs: handles of the CQs, oldest event first
 * @num: how many
 *
 * Return: 0; on error no event has been put anywhere: -ENOENT if there is no
 * such CQ, -EINVAL if it reports elsewhere, -EBUSY if it is live.
 */
int rxe_mig_inject_comp(struct ib_ucontext *uc, u32 channel, const u32 *cqs,
			unsigned int num)
{
	struct rxe_mig_walk walk;
	struct rxe_mig_obj *o;
	struct ib_cq *cq;
	unsigned int i;
	int err;

	if (channel == RXE_MIG_NONE)
		return -EINVAL;
	err = rxe_mig_walk_begin(uc, &walk);
	if (err)
		return err;
	for (i = 0; !err && i < num; i++) {
		o = find_obj(&walk, RXE_MIG_REC_CQ, cqs[i]);
		if (!o)
			err = -ENOENT;
		else if (o->elem->mig_phase == RXE_MIG_LIVE)
			err = -EBUSY;
		else if (rxe_mig_cq_channel(&walk, o->obj) != channel)
			err = -EINVAL;
	}
	for (i = 0; !err && i < num; i++) {
		cq = find_obj(&walk, RXE_MIG_REC_CQ, cqs[i])->obj;
		cq->comp_handler(cq, cq->cq_context);
	}
	rxe_mig_walk_end(&walk);
	return err;
}

/* what kind of object an event is about; 0 for the port and the device */
static u32 event_source(u32 event)
{
	switch (event) {
	case IB_EVENT_CQ_ERR:
		return RXE_MIG_REC_CQ;
	case IB_EVENT_QP_FATAL:
	case IB_EVENT_QP_REQ_ERR:
	case IB_EVENT_QP_ACCESS_ERR:
	case IB_EVENT_COMM_EST:
	case IB_EVENT_SQ_DRAINED:
	case IB_EVENT_PATH_MIG:
	case IB_EVENT_PATH_MIG_ERR:
	case IB_EVENT_QP_LAST_WQE_REACHED:
		return RXE_MIG_REC_QP;
	case IB_EVENT_SRQ_ERR:
	case IB_EVENT_SRQ_LIMIT_REACHED:
		return RXE_MIG_REC_SRQ;
	}
	return 0;
}

static int check_async(struct rxe_mig_walk *walk,
		       const struct rxe_mig_async_event *ev)
{
	struct rxe_mig_obj *o;

	if (ev->reserved || ev->obj_type != event_source(ev->event_type))
		return -EINVAL;
	if (!ev->obj_type)
		return ev->event_type > IB_EVENT_WQ_FATAL ? -EINVAL : 0;
	o = find_obj(walk, ev->obj_type, ev->obj_handle);
	if (!o)
		return -ENOENT;
	return o->elem->mig_phase == RXE_MIG_LIVE ? -EBUSY : 0;
}

static void inject_async(struct ib_event *ev, u32 type, void *obj)
{
	switch (type) {
	case RXE_MIG_REC_QP:
		ev->element.qp = obj;
		if (ev->element.qp->registered_event_handler)
			ev->element.qp->registered_event_handler(ev,
					ev->element.qp->qp_context);
		break;
	case RXE_MIG_REC_CQ:
		ev->element.cq = obj;
		if (ev->element.cq->event_handler)
			ev->element.cq->event_handler(ev,
					ev->element.cq->cq_context);
		break;
	case RXE_MIG_REC_SRQ:
		ev->element.srq = obj;
		if (ev->element.srq->event_handler)
			ev->element.srq->event_handler(ev,
					ev->element.srq->srq_context);
		break;
	}
}

/**
 * rxe_mig_inject_async - put events back into the asynchronous event files
 * @uc: context that is being restored
 * @rec: the events, oldest first; those of the port are dropped, they tell of
 *	 another host
 * @num: how many
 *
 * Return: 0; on error no event has been put anywhere: -ENOENT if there is no
 * such object, -EINVAL if it has no such events, -EBUSY if it is live.
 */
int rxe_mig_inject_async(struct ib_ucontext *uc,
			 const struct rxe_mig_async_event *rec,
			 unsigned int num)
{
	struct ib_event ev = { .device = uc->device };
	struct rxe_mig_walk walk;
	unsigned int i;
	int err;

	err = rxe_mig_walk_begin(uc, &walk);
	if (err)
		return err;
	for (i = 0; !err && i < num; i++)
		err = check_async(&walk, &rec[i]);
	for (i = 0; !err && i < num; i++) {
		if (!rec[i].obj_type)
			continue;
		ev.event = rec[i].event_type;
		inject_async(&ev, rec[i].obj_type,
			     find_obj(&walk, rec[i].obj_type,
				      rec[i].obj_handle)->obj);
	}
	rxe_mig_walk_end(&walk);
	return err;
}

/**
 * rxe_mig_identify - what is this file descriptor to this context?
 * @uc: context
 * @fd: of the caller
 * @id: result
 *
 * Return: 0, -EBADF, or -ENOENT if the file has nothing to do with @uc.
 */
int rxe_mig_identify(struct ib_ucontext *uc, int fd,
		     struct rxe_mig_identity *id)
{
	struct ib_uverbs_file *ufile = uc->ufile;
	struct ordinals seen = {};
	struct ib_uobject *uobj;
	struct rxe_mig_obj o;
	struct file *file;
	int err = -ENOENT;

	file = fget(fd);
	if (!file)
		return -EBADF;
	if (file->private_data == ufile) {
		id->kind = RXE_MIG_REC_CONTEXT;
		id->id = 0;
		fput(file);
		return 0;
	}
	spin_lock_irq(&ufile->uobjects_lock);
	list_for_each_entry_reverse(uobj, &ufile->uobjects, list) {
		describe(&o, uobj, &seen);
		/* the private data of an event file is its uobject */
		if (is_file(&o) && file->private_data == uobj) {
			id->kind = o.type;
			id->id = o.handle;
			err = 0;
			break;
		}
	}
	spin_unlock_irq(&ufile->uobjects_lock);
	fput(file);
	return err;
}

static int same_ufile(const void *ufile, struct file *file, unsigned int fd)
{
	return file->private_data == ufile;
}

/**
 * rxe_mig_file_of_task - does a task hold this uverbs file?
 * @ufile: the file
 * @task: the task
 *
 * Return: 0 or -EPERM.
 */
int rxe_mig_file_of_task(struct ib_uverbs_file *ufile,
			 struct task_struct *task)
{
	int found = 0;

	task_lock(task);
	if (task->files)
		found = iterate_fd(task->files, 0, same_ufile, ufile);
	task_unlock(task);
	return found ? 0 : -EPERM;
}

/* ---- credentials ----
 *
 * Legacy write(), and with it the doorbell of post_send, is accepted only
 * from the very struct cred that opened the file.  A restored task, and each
 * of its threads, has credentials of its own that equal the old ones in
 * value.  So the restored file gets the task's credentials, and a write
 * method that compares by value.
 */

/* the operations of a uverbs file; all files have the same */
static const struct file_operations *stock_fops;
static DEFINE_MUTEX(stock_fops_lock);

static bool same_groups(const struct group_info *a, const struct group_info *b)
{
	return a == b ||
	       (a->ngroups == b->ngroups &&
		!memcmp(a->gid, b->gid, a->ngroups * sizeof(a->gid[0])));
}

static bool same_cred(const struct cred *a, const struct cred *b)
{
	u32 sid_a, sid_b;

	if (a == b)
		return true;
	if (!uid_eq(a->uid, b->uid) || !uid_eq(a->euid, b->euid) ||
	    !uid_eq(a->suid, b->suid) || !uid_eq(a->fsuid, b->fsuid) ||
	    !gid_eq(a->gid, b->gid) || !gid_eq(a->egid, b->egid) ||
	    !gid_eq(a->sgid, b->sgid) || !gid_eq(a->fsgid, b->fsgid))
		return false;
	if (a->securebits != b->securebits || a->user_ns != b->user_ns)
		return false;
	if (memcmp(&a->cap_inheritable, &b->cap_inheritable,
		   sizeof(a->cap_inheritable)) ||
	    memcmp(&a->cap_permitted, &b->cap_permitted,
		   sizeof(a->cap_permitted)) ||
	    memcmp(&a->cap_effective, &b->cap_effective,
		   sizeof(a->cap_effective)) ||
	    memcmp(&a->cap_bset, &b->cap_bset, sizeof(a->cap_bset)) ||
	    memcmp(&a->cap_ambient, &b->cap_ambient, sizeof(a->cap_ambient)))
		return false;
	if (!same_groups(a->group_info, b->group_info))
		return false;
	security_cred_getsecid(a, &sid_a);
	security_cred_getsecid(b, &sid_b);
	return sid_a == sid_b;
}

static ssize_t rxe_mig_write(struct file *filp, const char __user *buf,
			     size_t count, loff_t *pos)
{
	const struct cred *old = NULL;
	ssize_t ret;

	if (filp->f_cred != current_cred()) {
		if (!same_cred(filp->f_cred, current_cred()))
			return -EACCES;
		/* equal in value, so nothing is gained by it */
		old = override_creds(filp->f_cred);
	}
	ret = stock_fops->write(filp, buf, count, pos);
	if (old)
		revert_creds(old);
	return ret;
}

static int rxe_mig_file_mmap(struct file *filp, struct vm_area_struct *vma)
{
	return stock_fops->mmap(filp, vma);
}

static int rxe_mig_release(struct inode *inode, struct file *filp)
{
	return stock_fops->release(inode, filp);
}

static long rxe_mig_ioctl(struct file *filp, unsigned int cmd,
			  unsigned long arg)
{
	return stock_fops->unlocked_ioctl(filp, cmd, arg);
}

static const struct file_operations rxe_mig_fops = {
	.owner = THIS_MODULE,
	.write = rxe_mig_write,
	.mmap = rxe_mig_file_mmap,
	.release = rxe_mig_release,
	.unlocked_ioctl = rxe_mig_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static int adopt_fops(struct file *file)
{
	const struct file_operations *fops = file->f_op;
	int err = 0;

	mutex_lock(&stock_fops_lock);
	if (fops == &rxe_mig_fops)
		goto out;
	if (!stock_fops && fops->write && fops->mmap && fops->release &&
	    fops->unlocked_ioctl)
		stock_fops = fops;
	if (fops != stock_fops) {
		err = -EOPNOTSUPP;
		goto out;
	}
	__module_get(THIS_MODULE);
	file->f_op = &rxe_mig_fops;
	module_put(fops->owner);
out:
	mutex_unlock(&stock_fops_lock);
	return err;
}

/**
 * rxe_mig_adopt - give a restored uverbs file the credentials of its task
 * @uc: context of the file
 * @fd: the file, of the caller
 * @pid: the task, in the caller's pid namespace; must hold the file
 *
 * Return: 0, -EBADF, -ENOENT if the file is not that of @uc, -ESRCH, or
 * -EPERM without capabilities or if the task does not hold the file.
 */
int rxe_mig_adopt(struct ib_ucontext *uc, int fd, int pid)
{
	struct task_struct *task;
	const struct cred *cred, *old;
	struct file *file;
	struct pid *p;
	int err;

	if (!rxe_mig_capable() || !capable(CAP_SYS_PTRACE))
		return -EPERM;
	file = fget(fd);
	if (!file)
		return -EBADF;
	if (file->private_data != uc->ufile) {
		err = -ENOENT;
		goto put_file;
	}
	p = find_get_pid(pid);
	task = get_pid_task(p, PIDTYPE_TGID);
	put_pid(p);
	if (!task) {
		err = -ESRCH;
		goto put_file;
	}
	err = rxe_mig_file_of_task(uc->ufile, task);
	if (err)
		goto put_task;
	err = adopt_fops(file);
	if (err)
		goto put_task;

	/* nobody reads it: all tasks that hold the file are stopped */
	cred = get_task_cred(task);
	old = xchg((const struct cred **)&file->f_cred, cred);
	put_cred(old);
put_task:
	put_task_struct(task);
put_file:
	fput(file);
	return err;
}
