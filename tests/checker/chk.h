/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
/*
 * Integrity checker for RC connections.
 *
 * Both ends know the whole traffic in advance: operation n of a direction of a
 * connection has a type, a length and contents that follow from the seed.  So
 * each end can say of every message, buffer and returned value whether it is
 * the right one, without trusting anything that came over the wire.
 */
#ifndef CHK_H
#define CHK_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <infiniband/verbs.h>

enum op_type {
	OP_SEND,
	OP_SEND_IMM,
	OP_SEND_INV,		/* invalidates the peer's memory window */
	OP_WRITE,
	OP_WRITE_IMM,
	OP_WRITE_MW,		/* through the peer's memory window */
	OP_READ,
	OP_CMP_SWP,
	OP_FETCH_ADD,
	OP_FLUSH,
	OP_ATOMIC_WRITE,
	OP_NR,
	/* not part of the schedule */
	OP_CREDIT = 0x40,	/* SEND_IMM: what was verified, window's rkey */
	OP_BIND,		/* bind of the own memory window */
	OP_CTL,
};

#define OP_BIT(type)	(1U << (type))
#define OPS_NOTIFY	(OP_BIT(OP_SEND) | OP_BIT(OP_SEND_IMM) | \
			 OP_BIT(OP_SEND_INV) | OP_BIT(OP_WRITE_IMM))
/* types that leave contents in a slot of the write region */
#define OPS_SLOT	(OP_BIT(OP_WRITE) | OP_BIT(OP_WRITE_IMM) | \
			 OP_BIT(OP_WRITE_MW) | OP_BIT(OP_ATOMIC_WRITE))
#define OPS_MW		(OP_BIT(OP_SEND_INV) | OP_BIT(OP_WRITE_MW))

#define IMM_CREDIT	0x80000000U
#define POISON		0xa5
#define GUARD		64	/* poisoned bytes checked behind each buffer */
#define FADD_STEP	0x0000000100000001ULL
#define CONN_MAX	4096
#define CONN_NONE	UINT32_MAX

enum fault {
	LOST,
	DUPLICATED,
	REORDERED,
	CORRUPTED,
	ERRORS,
	FAULT_NR,
};

enum srq_mode { SRQ_NONE, SRQ_HALF, SRQ_ALL };

/* What both ends must agree upon; the server's choice. */
struct params {
	uint64_t seed;
	uint64_t ops;		/* per connection and direction, 0: no limit */
	uint32_t qps;
	uint32_t window;	/* operations ahead of the peer's verification */
	uint32_t max_msg;
	uint32_t min_msg;
	uint32_t types;		/* bit mask of enum op_type */
	uint32_t mtu;		/* bytes */
	uint32_t extra_ops;	/* on a connection made after a move */
	uint32_t cycles;	/* own: not the server's choice */
};

struct opts {
	struct params p;
	bool server;
	bool loopback;
	const char *host;
	const char *tcp_port;
	const char *rendezvous;
	const char *device;
	const char *control;
	const char *output;
	const char *log;
	int port;
	int gid_index;
	unsigned int depth;
	unsigned int groups;
	unsigned int seconds;
	unsigned int interval;
	unsigned int stall;
	unsigned int cycle_interval;
	unsigned int cycle_gap;
	bool cycle_faults;
	enum srq_mode srq;
	bool events;
	bool rnr;
	bool lone_bind;
	bool shared;
	unsigned int max_inline;
	unsigned int rd_atomic;
	unsigned int timeout;
	unsigned int retry_cnt;
	unsigned int rnr_retry;
	unsigned int min_rnr_timer;
};

/* Which sequence numbers came, which are missing. */
#define SEQ_WINDOW	1024
struct seq {
	uint64_t next;
	uint64_t missing[SEQ_WINDOW];	/* number + 1 */
};

struct sched {
	uint64_t key;
	uint32_t conn;
	uint8_t dir;
	uint8_t nr;		/* types in use */
	uint8_t type[OP_NR];
	uint8_t perm[OP_NR];	/* order of the types in the cached round */
	uint64_t round;
};

struct op {
	uint64_t n;
	uint64_t round;		/* also: which one of its type this is */
	uint8_t type;
	uint8_t nsge;
	bool inl;
	uint32_t len;
	uint64_t rnd;
};

struct msg_hdr {
	uint32_t magic;
	uint32_t conn;
	uint64_t seq;
	uint32_t len;
	uint8_t dir;
	uint8_t type;
	uint16_t pad;
	uint32_t nonce;
	uint32_t crc;
};

struct credit_msg {
	struct msg_hdr hdr;
	uint64_t verified;
	uint32_t mw_gen;
	uint32_t mw_rkey;	/* 0: none yet */
};

struct conn_info {
	uint32_t idx;
	uint32_t qpn;
	uint32_t psn;
	uint32_t lid;
	union ibv_gid gid;
	uint64_t slot_addr;
	uint64_t read_addr;
	uint64_t atomic_addr;
	uint32_t slot_rkey;
	uint32_t read_rkey;
	uint32_t atomic_rkey;
	uint32_t pad;
};

struct totals {
	uint64_t posted[OP_NR];		/* as initiator */
	uint64_t completed[OP_NR];
	uint64_t verified[OP_NR];	/* as responder */
	uint64_t bytes;
	uint64_t faults[FAULT_NR];
	uint64_t longest_gap_ns;
	uint64_t connections;
	uint64_t moves;
	uint64_t cycles;
	uint64_t undone;	/* cycles that came to nothing, as they should */
	uint64_t cycle_ns;	/* of all cycles together */
	uint64_t longest_cycle_ns;
};

struct area {
	uint8_t *mem;
	size_t len;
	struct ibv_mr *mr[2];	/* twice the same memory: more keys in use */
};

struct rx_pool {
	struct area area;
	unsigned int nr;
	bool *posted;
	uint32_t *ordinal;
	uint32_t next_ordinal;
	/* consumed buffers that wait for being posted again, oldest first */
	uint16_t *held;
	unsigned int held_head, held_nr;
	uint64_t held_since;
};

/* Objects shared by several connections. */
struct group {
	unsigned int idx;
	struct ibv_pd *pd;
	struct ibv_cq *scq, *rcq;
	unsigned int events[2];
	struct ibv_srq *srq;
	struct rx_pool pool;
};

struct tx_entry {
	uint8_t type;
	struct op op;
};

struct tx {
	struct sched sched;
	uint64_t next;		/* operation to post */
	uint64_t credit;	/* operations the peer has verified */
	uint64_t limit;
	bool last_notifies;
	uint64_t wr_posted;
	struct seq wr;		/* completions */
	unsigned int size;
	struct tx_entry *entry;
	struct area area;
	/* memory window of the peer */
	uint32_t mw_gen, mw_rkey;
	uint64_t fadd_adjust;
	/* credits to the peer */
	bool credit_busy, bind_busy;
	uint64_t credit_gen;
	uint64_t credited;
	/* planted faults */
	bool hold, repeat;
	struct op held, again;
};

struct rx {
	struct sched sched;
	uint64_t next;		/* operation to account for */
	struct seq late;	/* notifying messages that are missing */
	struct seq wr;		/* receive completions */
	struct seq credit;
	struct rx_pool pool;	/* unused with a SRQ */
	struct area slot, read, atomic;
	uint64_t *slot_missing;	/* operation + 1 */
	struct ibv_mw *mw;
	uint32_t mw_gen, mw_rkey;
	bool mw_ready, mw_told, mw_want;
};

struct conn {
	uint32_t idx;
	struct group *group;
	struct ibv_qp *qp;
	struct ibv_qp_ex *qpx;
	unsigned int max_inline;
	struct conn_info self, peer;
	struct tx tx;
	struct rx rx;
	bool extra;		/* made after a move, has a group of its own */
	bool running;
	bool fin_sent, bye_sent, peer_fin, peer_bye;
	bool dead, closed;
	uint64_t peer_final;
	uint64_t last_ns;
};

struct dev {
	struct ibv_context *ctx;
	struct ibv_device_attr attr;
	struct ibv_port_attr port;
	struct ibv_comp_channel *channel;
	int gid_index;
};

struct checker {
	struct opts o;
	struct dev dev;
	unsigned int nr_groups;
	struct group *group[CONN_MAX];
	unsigned int nr_conns;
	struct conn *conn[CONN_MAX];	/* by index, may have holes */
	struct totals t;
	struct totals peer;
	bool peer_valid;
	bool stopping;
	bool aborted;
	uint64_t progress;	/* any completion */
	uint64_t next_extra;
	bool peer_cycles;	/* it has not done all of its cycles */
	unsigned int extra_busy;
};

extern struct checker chk;

/* crc32c.c */
void crc32c_init(void);
uint32_t crc32c(uint32_t crc, const void *buf, size_t len);

/* opts.c */
void opts_parse(int argc, char **argv);

/* rdv.c */
int rdv_open(int fd);
int rdv_exchange(const char *phase, const void *mine, void *theirs, size_t len);
void rdv_close(void);

/* sched.c */
uint64_t mix64(uint64_t x);
void sched_init(struct sched *s, uint32_t conn, uint8_t dir);
void sched_op(struct sched *s, uint64_t n, struct op *op);
uint64_t sched_count(struct sched *s, uint8_t type, uint64_t n);
uint64_t sched_swap_value(const struct sched *s, uint64_t round);
uint64_t sched_mw_gen(struct sched *s, const struct op *op);
void msg_seal(void *buf, const struct sched *s, uint64_t seq, uint8_t type,
	      uint32_t len);
void msg_build(void *buf, const struct sched *s, const struct op *op);
bool msg_check(const void *buf, const struct sched *s, const struct op *op);
bool msg_identify(const void *buf, uint32_t len, const struct sched *s,
		  struct msg_hdr *hdr);
void poison(void *buf, size_t len);
bool poisoned(const void *buf, size_t len);

static inline bool op_in(uint8_t type, uint32_t mask)
{
	return type < OP_NR && (mask & OP_BIT(type));
}

/* conn.c */
int dev_open(void);
void dev_close(void);
int dev_gid(union ibv_gid *gid);
void *mem_alloc(size_t len);
struct group *group_create(unsigned int conns, bool srq);
int group_destroy(struct group *g);
struct ibv_qp *rc_create(struct ibv_pd *pd, struct ibv_cq *scq,
			 struct ibv_cq *rcq, struct ibv_srq *srq,
			 unsigned int send_wr, unsigned int recv_wr,
			 unsigned int *max_inline);
int rc_init(struct ibv_qp *qp);
int rc_connect(struct ibv_qp *qp, const struct conn_info *self,
	       const struct conn_info *peer);
struct conn *conn_create(uint32_t idx, struct group *g, bool extra);
int conn_start(struct conn *c);
int conn_destroy(struct conn *c);
void conn_fail(struct conn *c, const char *what);
int objects_churn(void);
size_t slot_size(void);

/* ops.c: the initiator's part */
bool tx_work(struct conn *c);
void tx_complete(struct conn *c, const struct ibv_wc *wc);
bool tx_stopped(const struct conn *c);
bool tx_drained(const struct conn *c);
uint64_t tx_outstanding(const struct conn *c);
void tx_credit(struct conn *c, const struct credit_msg *m);

/* verify.c: the responder's part */
enum seq_result { SEQ_OK, SEQ_GAP, SEQ_LATE, SEQ_DUP };
enum seq_result seq_next(struct seq *s, uint64_t n, uint64_t *gap);
void rx_init(struct conn *c);
int rx_fill(struct rx_pool *p, struct ibv_qp *qp, struct ibv_srq *srq,
	    uint32_t owner);
bool rx_release(struct rx_pool *p, struct ibv_qp *qp, struct ibv_srq *srq,
		uint32_t owner);
void rx_complete(struct conn *c, struct rx_pool *p, const struct ibv_wc *wc);
void rx_give_up(struct conn *c);
void rx_final(struct conn *c);

/* ctl.c: messages between the two checkers, over a connection of their own */
int ctl_create(struct conn_info *self);
int ctl_connect(const struct conn_info *self, const struct conn_info *peer);
bool ctl_work(void);
void ctl_fin(struct conn *c);
void ctl_bye(struct conn *c);
void ctl_dead(struct conn *c);
void ctl_stop(void);
void ctl_end(void);
void ctl_moved(void);
void ctl_cycled(void);
bool ctl_finished(void);
bool ctl_exchanged(void);
bool ctl_end_sent(void);
void ctl_notify(void);
void ctl_destroy(void);

/* cycle.c, or nocycle.c in the checker without our libibverbs */
extern const bool cycle_possible;
void cycle(void);

/* report.c */
extern const char * const op_name[];
extern const char * const fault_name[];
void fault(enum fault f, uint64_t count, const struct conn *c, const char *fmt,
	   ...) __attribute__((format(printf, 4, 5)));
void unfault(enum fault f, uint64_t count);
void logmsg(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void progress_line(uint64_t active_ns);
bool faults_any(const struct totals *t);
void totals_compare(void);
bool report(void);
uint64_t now_ns(void);

/* plant.c */
enum plant {
	PLANT_NONE,
	PLANT_LOST_SEND, PLANT_DUP_SEND, PLANT_REORDER_SEND,
	PLANT_CORRUPT_PAYLOAD, PLANT_CORRUPT_IMM, PLANT_SHORT_SEND,
	PLANT_LOST_LAST,
	PLANT_LOST_WRITE, PLANT_DUP_WRITE, PLANT_REORDER_WRITE,
	PLANT_CORRUPT_WRITE, PLANT_STRAY_WRITE,
	PLANT_LOST_MW_WRITE, PLANT_LOST_ATOMIC_WRITE,
	PLANT_LOST_ATOMIC, PLANT_DUP_ATOMIC, PLANT_LOST_SWAP, PLANT_DUP_SWAP,
	PLANT_EMPTY_READ, PLANT_EMPTY_ATOMIC,
	PLANT_LOST_CREDIT, PLANT_DUP_CREDIT,
	PLANT_CORRUPT_MEMORY, PLANT_STALE_READ, PLANT_CORRUPT_COUNTER,
	PLANT_CORRUPT_SWAP,
	PLANT_LOST_WC, PLANT_DUP_WC, PLANT_REORDER_WC, PLANT_ERROR_WC,
	PLANT_LOST_LAST_WC,
	PLANT_LOST_RECV_WC, PLANT_DUP_RECV_WC,
	PLANT_MISCOUNT,
	PLANT_NR,
};

int plant_parse(const char *arg);
void plant_list(void);
bool plant(enum plant kind, const struct conn *c, uint64_t n);
bool plant_is(enum plant kind);
int plant_completions(struct ibv_wc *wc, int nr, bool send);

#endif
