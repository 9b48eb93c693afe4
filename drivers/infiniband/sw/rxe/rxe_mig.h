/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
/*
 * Live migration of RC connections: internal interface.
 *
 * Locking
 *  - rxe_mig_qp_lock(qp): a mutex out of a small hashed set of the device.
 *    Serialises every change of a QP's migration state and every swap of its
 *    task functions against modify_qp and destroy_qp.  Process context only.
 *  - mig->lock (spinlock): only @dead and the queueing of @work, so that
 *    softirq and task context can ask for work.
 *  - dev->ctx_lock (mutex): list of contexts, their lists of stopped QPs and
 *    their leases.  Taken outside the QP mutex.
 *  - dev->tomb_lock (mutex): tombstones.  Inside the QP mutex.
 *  - dev->create_lock (mutex): creation at a given index.
 *  - dev->rx_lock (spinlock): packets waiting for the worker.
 * Order: ib_uverbs_file.hw_destroy_rwsem, rxe_mig_lease_lock, ctx_lock,
 * QP mutex, mig->lock.
 */
#ifndef RXE_MIG_H
#define RXE_MIG_H

#include <rdma/uverbs_ioctl.h>

#include "rxe.h"
#include "rxe_mig_wire.h"
#include "rxe_mig_uapi.h"

#define RXE_MIG_QP_MUTEXES	16
#define RXE_MIG_RX_MAX		4096

enum rxe_mig_state {
	RXE_MIG_RUNNING,	/* stock behaviour */
	RXE_MIG_STOPPED,	/* checkpointed, or restored and not live yet */
	RXE_MIG_PAUSED,		/* requester held: partner is Stopped */
	RXE_MIG_RESUMING,	/* requester held: partner has not confirmed */
};

/* What rxe_pool_elem.mig_phase tells of an object; all but a few are live. */
enum rxe_mig_phase {
	RXE_MIG_LIVE,		/* ordinary, or RESUME has made it so */
	RXE_MIG_CREATED,	/* by a create command with a hint */
	RXE_MIG_REFILLED,	/* and REFILL has given it its state */
};

/* Events of a device, see rxe_mig_show.c [SEC-8] */
enum rxe_mig_counter {
	RXE_MIG_CNT_STOPS,		/* QPs stopped */
	RXE_MIG_CNT_PAUSES,		/* QPs held for a Stopped partner */
	RXE_MIG_CNT_HELD_MS,		/* for how long, Resuming too; at the end */
	RXE_MIG_CNT_RESUMES,		/* partners that came back */
	RXE_MIG_CNT_GAVE_UP,		/* QPs failed, theirs did not */
	RXE_MIG_CNT_REFUSED,		/* packets with a wrong or old proof */
	RXE_MIG_CNT_CONTRADICTED,	/* proven RESUMEs that do not fit the QP */
	RXE_MIG_CNT_DROPPED,		/* malformed, too many, or for nobody */
	RXE_MIG_CNT_SENT_PKTS,		/* with an opcode of ours */
	RXE_MIG_CNT_RCVD_PKTS,
	RXE_MIG_CNT_SENT_RESUME,	/* of these */
	RXE_MIG_CNT_RCVD_RESUME,
	RXE_MIG_CNT_SENT_NAK_STOPPED,
	RXE_MIG_CNT_RCVD_NAK_STOPPED,
	RXE_MIG_NUM_COUNTERS
};

/**
 * struct rxe_mig_path - where a packet goes, without needing a QP
 * @sgid: local GID
 * @dgid: remote GID
 * @src_port: UDP source port, host order
 * @hop_limit: TTL
 * @tclass: TOS or traffic class
 */
struct rxe_mig_path {
	union ib_gid	sgid;
	union ib_gid	dgid;
	u16		src_port;
	u8		hop_limit;
	u8		tclass;
};

/* at most this many packets per opcode in one MIGROS_RETRY_MIN_MS [ACC-3] */
#define RXE_MIG_BURST		4

/**
 * struct rxe_mig_rate - packets sent of each opcode
 * @count: in the current interval
 * @from: when that began, in jiffies
 */
struct rxe_mig_rate {
	u8		count[MIGROS_OP_LAST - MIGROS_OP_FIRST + 1];
	unsigned long	from[MIGROS_OP_LAST - MIGROS_OP_FIRST + 1];
};

/**
 * struct rxe_mig_qp - migration state of one QP, allocated on first need
 * @qp: the QP
 * @state: what its task functions do, see enum rxe_mig_state
 * @ctx: context on whose list of stopped QPs this is, or NULL
 * @ctx_entry: link there, under ctx_lock
 * @proto: the variables that travel in the snapshot [section 3]
 * @resume_pending: our RESUME is not answered
 * @resume_over: RESUME is no longer repeated [RESUME-9]
 * @nak_paused: held by a NAK_STOPPED that no PAUSE has confirmed
 * @moved: its address is not the one it was stopped with
 * @old_gid: that address
 * @has_forward: a MOVED named @forward [TOMB-6]
 * @forward: where else to send RESUME and PROBE
 * @has_self_forward: Stopped, and the QP lives at @self_forward [TOMB-4]
 * @self_forward: where
 * @stopped_at: jiffies of the stop
 * @held: the requester is held since @held_at
 * @held_at: jiffies
 * @interval: current retransmission interval, ms
 * @deadline: jiffies when an announcement or RESUME ends, if @bounded
 * @bounded: @deadline is valid
 * @rate: what limits its packets
 * @lock: see above
 * @dead: QP is being destroyed, no more work
 * @nak: the completer saw NAK_STOPPED and swapped the send function
 * @want_probe: the completer saw one that it did not believe
 * @want_pause: Stopped, and the responder saw a request of a partner that may
 *	not know
 * @work: timer and deferred work of this QP
 */
struct rxe_mig_qp {
	struct rxe_qp		*qp;
	enum rxe_mig_state	state;
	struct rxe_mig_ctx	*ctx;
	struct list_head	ctx_entry;
	struct rxe_mig_proto	proto;
	bool			resume_pending;
	bool			resume_over;
	bool			nak_paused;
	bool			moved;
	union ib_gid		old_gid;
	bool			has_forward;
	union ib_gid		forward;
	bool			has_self_forward;
	union ib_gid		self_forward;
	unsigned long		stopped_at;
	bool			held;
	unsigned long		held_at;
	unsigned int		interval;
	unsigned long		deadline;
	bool			bounded;
	struct rxe_mig_rate	rate;
	spinlock_t		lock;	/* guards dead and queueing of work */
	bool			dead;
	bool			nak;
	bool			want_probe;
	bool			want_pause;
	struct delayed_work	work;
};

/* A migration packet, or a request for a QP that is gone, on its way to the
 * worker.
 */
struct rxe_mig_pkt {
	struct list_head	entry;
	union ib_gid		saddr;
	union ib_gid		daddr;
	u8			opcode;
	u32			qpn;
	u32			psn;
	struct migros_eth	eth;
};

struct rxe_mig_snapshot;

/**
 * struct rxe_mig_ctx - a user context that is being dumped or restored
 * @entry: in dev->contexts
 * @uc: the context
 * @qps: its stopped QPs
 * @lease: snapshot whose last close makes the context resume, or NULL
 * @committed: a snapshot is the live copy, this one stays Stopped for ever
 */
struct rxe_mig_ctx {
	struct list_head	entry;
	struct ib_ucontext	*uc;
	struct list_head	qps;
	struct rxe_mig_snapshot	*lease;
	bool			committed;
};

struct rxe_mig_dev {
	struct rxe_dev		*rxe;
	struct mutex		qp_mutex[RXE_MIG_QP_MUTEXES]; /* guard QPs */
	struct mutex		ctx_lock;	/* guards contexts and below */
	struct list_head	contexts;
	struct mutex		create_lock;	/* guards creation at an index */
	struct workqueue_struct	*wq;
	spinlock_t		rx_lock;	/* guards rx_list, rx_count */
	struct list_head	rx_list;
	unsigned int		rx_count;
	struct work_struct	rx_work;
	struct mutex		tomb_lock;	/* guards tombs */
	struct xarray		tombs;		/* by QPN */
	struct delayed_work	tomb_work;
	atomic64_t		counters[RXE_MIG_NUM_COUNTERS];
	struct rdma_stat_desc	*descs;		/* those of rxe, then ours */
	unsigned int		num_descs;
};

/* rxe_mig_main.c; what stock code calls is declared in rxe_loc.h */
extern unsigned int rxe_mig_pause_limit_ms;
extern unsigned int rxe_mig_resume_limit_ms;
extern unsigned int rxe_mig_tombstone_ms;
extern unsigned int rxe_mig_lease_grace_ms;
bool rxe_mig_capable(void);
struct rxe_mig_qp *rxe_mig_get(struct rxe_qp *qp, gfp_t gfp);
struct rxe_mig_ctx *rxe_mig_ctx_get(struct rxe_mig_dev *dev,
				    struct ib_ucontext *uc);
struct rxe_mig_ctx *rxe_mig_ctx_find(struct rxe_mig_dev *dev,
				     struct ib_ucontext *uc);
void rxe_mig_ctx_add_qp(struct rxe_mig_ctx *ctx, struct rxe_mig_qp *mig);
void rxe_mig_ctx_del_qp(struct rxe_mig_qp *mig);

static inline struct mutex *rxe_mig_qp_mutex(struct rxe_qp *qp)
{
	struct rxe_mig_dev *dev = to_rdev(qp->ibqp.device)->mig;

	return &dev->qp_mutex[qp->elem.index % RXE_MIG_QP_MUTEXES];
}

static inline void rxe_mig_qp_lock(struct rxe_qp *qp)
{
	mutex_lock(rxe_mig_qp_mutex(qp));
}

static inline void rxe_mig_qp_unlock(struct rxe_qp *qp)
{
	mutex_unlock(rxe_mig_qp_mutex(qp));
}

/* made with a hint, and RESUME has not been called */
static inline bool rxe_mig_restored(const struct rxe_mig_qp *mig)
{
	return mig->qp->elem.mig_phase != RXE_MIG_LIVE;
}

/* it understands NAK_STOPPED, and will believe ours [CAP-1, CAP-2] */
static inline bool rxe_mig_knows_peer(const struct rxe_mig_proto *proto)
{
	return proto->flags & RXE_MIG_PROTO_PEER_CAPABLE &&
	       proto->peer_challenge;
}

/* a nonce is never 0, which means "none" [AUTH-1] */
static inline u64 rxe_mig_nonce(void)
{
	return get_random_u64() ?: 1;
}

static inline void rxe_mig_count_many(struct rxe_dev *rxe,
				      enum rxe_mig_counter counter, u64 times)
{
	atomic64_add(times, &rxe->mig->counters[counter]);
}

static inline void rxe_mig_count(struct rxe_dev *rxe,
				 enum rxe_mig_counter counter)
{
	rxe_mig_count_many(rxe, counter, 1);
}

/* rxe_mig_show.c */
int rxe_mig_counters_init(struct rxe_mig_dev *dev);
struct rdma_hw_stats *rxe_mig_alloc_hw_port_stats(struct ib_device *ibdev,
						  u32 port);
int rxe_mig_get_hw_stats(struct ib_device *ibdev, struct rdma_hw_stats *stats,
			 u32 port, int index);
int rxe_mig_fill_res_qp(struct sk_buff *msg, struct ib_qp *ibqp);

/* rxe_mig_state.c: all need the QP mutex */
void rxe_mig_quiesce(struct rxe_qp *qp);
void rxe_mig_set_state(struct rxe_mig_qp *mig, enum rxe_mig_state state);
void rxe_mig_stop_qp(struct rxe_mig_qp *mig);
void rxe_mig_held_ends(struct rxe_mig_qp *mig);
void rxe_mig_av_set_dgid(struct rxe_dev *rxe, struct rxe_av *av,
			 const union ib_gid *dgid);
void rxe_mig_set_peer(struct rxe_mig_qp *mig, const union ib_gid *dgid);
bool rxe_mig_fail(struct rxe_mig_qp *mig);
int rxe_mig_paused_send(struct rxe_qp *qp);

/* rxe_mig_proto.c */
void rxe_mig_work(struct work_struct *work);
void rxe_mig_kick(struct rxe_mig_qp *mig, unsigned int delay_ms);
void rxe_mig_ask(struct rxe_qp *qp);
void rxe_mig_announce(struct rxe_mig_qp *mig);
void rxe_mig_go_live(struct rxe_mig_qp *mig);
void rxe_mig_rx_work(struct work_struct *work);
void rxe_mig_answer_request(struct rxe_qp *qp, u32 psn);
void rxe_mig_forget_peer(struct rxe_mig_qp *mig);
bool rxe_mig_meets_itself(struct rxe_mig_qp *mig);

/* rxe_mig_net.c */
void rxe_mig_av_gids(const struct rxe_av *av, union ib_gid *sgid,
		     union ib_gid *dgid);
void rxe_mig_path_of(struct rxe_qp *qp, struct rxe_mig_path *path);
int rxe_mig_send(struct rxe_dev *rxe, const struct rxe_mig_path *path,
		 u8 opcode, u32 qpn, u32 psn, const struct migros_eth *eth);
int rxe_mig_send_nak(struct rxe_dev *rxe, const struct rxe_mig_path *path,
		     u8 syndrome, u32 msn, u32 qpn, u32 psn);
bool rxe_mig_reachable(struct rxe_dev *rxe, const struct rxe_mig_path *path);
bool rxe_mig_may_send(struct rxe_mig_rate *rate, u8 opcode);
bool rxe_mig_gid_present(struct rxe_dev *rxe, const union ib_gid *gid,
			 int *index);

/* rxe_mig_tomb.c */
void rxe_mig_tomb_create(struct rxe_mig_qp *mig);
void rxe_mig_tomb_end(struct rxe_mig_qp *mig);
bool rxe_mig_send_stopped(struct rxe_dev *rxe, const struct rxe_mig_path *path,
			  const struct rxe_mig_proto *proto, u32 qpn, u32 psn,
			  u32 msn, unsigned long stopped_at, u32 rnr_retry);
bool rxe_mig_tomb_rcv(struct rxe_mig_dev *dev, struct rxe_mig_pkt *p);
bool rxe_mig_tomb_exists(struct rxe_mig_dev *dev, u32 qpn);
void rxe_mig_tomb_work(struct work_struct *work);
void rxe_mig_tomb_exit(struct rxe_mig_dev *dev);

/* rxe_mig_dump.c */
int rxe_mig_dump(struct ib_ucontext *uc, u32 flags, u64 *len, u32 *count,
		 int *fd, struct rxe_mig_refusal *why);
int rxe_mig_cancel(struct ib_ucontext *uc);
int rxe_mig_commit(struct ib_ucontext *uc);
void rxe_mig_lease_drop(struct rxe_mig_ctx *ctx);
void rxe_mig_lease_commit(struct rxe_mig_qp *mig);
void rxe_mig_refuse(struct rxe_mig_refusal *why, u32 type, u32 handle,
		    u32 reason, u32 value, const char *text);

/* rxe_mig_create.c */
void rxe_mig_set_ops(struct rxe_dev *rxe, const struct ib_device_ops *ops);
void rxe_mig_cursor_set(struct rxe_pool *pool, u32 next);

/* rxe_mig_refill.c */
int rxe_mig_refill(struct ib_ucontext *uc, u32 type, void *obj,
		   const void *rec, u64 len);

/* rxe_mig_resume.c */
int rxe_mig_resume(struct ib_ucontext *uc, u32 flags,
		   struct rxe_mig_refusal *why);

/* rxe_mig_uobj.c: the only file that knows private structures of ib_uverbs */

/**
 * struct rxe_mig_obj - one object of a context
 * @type: RXE_MIG_REC_*, 0 for a class that cannot be restored
 * @class: uverbs object class
 * @handle: uverbs handle, ordinal for event files
 * @user_handle: as given by user space
 * @obj: struct ib_pd, ib_mr, ... or the uobject of an event file
 * @elem: the object's element of its pool, NULL for an event file
 */
struct rxe_mig_obj {
	u32	type;
	u32	class;
	u32	handle;
	u64	user_handle;
	void	*obj;
	struct rxe_pool_elem *elem;
};

struct rxe_mig_walk {
	struct ib_uverbs_file	*ufile;
	struct rxe_mig_obj	*objs;
	unsigned int		num;
};

int rxe_mig_walk_begin(struct ib_ucontext *uc, struct rxe_mig_walk *walk);
void rxe_mig_walk_end(struct rxe_mig_walk *walk);
int rxe_mig_survey(struct ib_ucontext *uc,
		   int (*fn)(const struct rxe_mig_obj *o, void *arg), void *arg);
u32 rxe_mig_uobj_handle(struct ib_uobject *uobj);
u32 rxe_mig_qp_handle(struct ib_qp *qp);
u32 rxe_mig_cq_handle(struct ib_cq *cq);
u32 rxe_mig_srq_handle(struct ib_srq *srq);
u32 rxe_mig_cq_channel(struct rxe_mig_walk *walk, struct ib_cq *cq);
void rxe_mig_cq_events(struct ib_cq *cq, u32 *comp, u32 *async);
u32 rxe_mig_qp_events(struct ib_qp *qp);
u32 rxe_mig_srq_events(struct ib_srq *srq);
void rxe_mig_set_cq_events(struct ib_cq *cq, u64 uh, u32 comp, u32 async);
void rxe_mig_set_qp_events(struct ib_qp *qp, u64 uh, u32 async);
void rxe_mig_set_srq_events(struct ib_srq *srq, u64 uh, u32 async);
unsigned int rxe_mig_channel_events(void *channel, u32 *cqs, unsigned int max);
unsigned int rxe_mig_async_events(struct rxe_mig_walk *walk, void *async,
				  struct rxe_mig_async_event *ev,
				  unsigned int max);
int rxe_mig_find(struct ib_ucontext *uc, u32 type, u32 handle, void **obj);
int rxe_mig_inject_comp(struct ib_ucontext *uc, u32 channel, const u32 *cqs,
			unsigned int num);
int rxe_mig_inject_async(struct ib_ucontext *uc,
			 const struct rxe_mig_async_event *ev,
			 unsigned int num);
int rxe_mig_identify(struct ib_ucontext *uc, int fd,
		     struct rxe_mig_identity *id);
int rxe_mig_file_of_task(struct ib_uverbs_file *ufile,
			 struct task_struct *task);
int rxe_mig_adopt(struct ib_ucontext *uc, int fd, int pid);

/* rxe_mig_methods.c */
extern const struct uapi_definition rxe_mig_defs[];

#endif /* RXE_MIG_H */
