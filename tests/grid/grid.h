/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
/*
 * The grid: every kind of object, in every state, with every kind of traffic
 * in flight, goes through dump, destruction and restore.
 *
 * A cell is a row (what there is) and a column (what is in flight). Two
 * processes on two hosts run the same function; the mover is the one whose
 * context is dumped. Packets are held back by their opcode, so each situation
 * is forced, and the image must show it or the cell fails.
 */
#ifndef GRID_H
#define GRID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_user_rxe.h>

#include "../../drivers/infiniband/sw/rxe/rxe_mig_uapi.h"

#define MTU		256
#define LEN		2048	/* a message of several packets */
#define LONG_LEN	60000	/* more packets than may be unacknowledged */
#define HUGE_LEN	(256 << 10)
#define MEM_LEN		(2 << 20)	/* one huge page */
#define RECVS		8	/* posted at first */
#define QKEY		0x11111111

/* where what is in the registered memory */
#define AT_OUT		0		/* source of my SEND and WRITE */
#define AT_READ		HUGE_LEN	/* destination of my READ */
#define AT_RECV		(2 * HUGE_LEN)	/* receive buffers, 16 of RECV_LEN */
#define RECV_LEN	(32 << 10)
#define AT_LONG_RECV	(4 * HUGE_LEN)	/* one for a long message */
#define AT_WINDOW	(5 * HUGE_LEN)	/* the peer writes here */
#define AT_SOURCE	(6 * HUGE_LEN)	/* the peer reads here */
#define AT_CELL		(7 * HUGE_LEN)	/* the peer's atomics go here */
#define AT_OLD		(AT_CELL + 4096)	/* results of mine */
#define AT_UD		(AT_CELL + 8192)

enum mem_kind { MEM_PRIVATE, MEM_SHARED, MEM_HUGE };
enum cq_kind { CQ_POLL, CQ_ARMED, CQ_UNARMED, CQ_UNREAD };
enum mw_kind { MW_NONE, MW_1_FREE, MW_1_BOUND, MW_2_FREE, MW_2_BOUND };

struct side;

struct image {
	const uint8_t *data;
	size_t len;
	const struct rxe_mig_qp_rec *qp;	/* of the connection */
};

struct row {
	const char *name;
	enum ibv_qp_type type;		/* 0: RC */
	enum ibv_qp_state state;	/* of the mover's QP; 0: see reset */
	bool reset;			/* it is in RESET */
	bool srq;
	enum mem_kind mem;
	enum cq_kind cq;
	enum mw_kind mw;
	/* more objects, before the traffic; evidence; what becomes of them */
	void (*before)(struct side *s);
	void (*prove)(struct side *s, const struct image *im);
	void (*after)(struct side *s);
};

struct col {
	const char *name;
	bool retry;	/* the moment is a matter of luck: dump until it is hit */
	void (*start)(struct side *s);
	/* false, with s->why, if the image does not show the situation */
	bool (*prove)(struct side *s, const struct image *im);
	void (*finish)(struct side *s);
};

struct address {
	union ibv_gid gid;
	uint64_t mem;
	uint32_t rkey;
	uint32_t window_rkey;	/* the same as rkey without a window */
	uint32_t qpn, psn;
	uint32_t ud_qpn;
};

#define WCS	64

struct side {
	const struct row *row;
	const struct col *col;
	bool mover;
	int socket;
	unsigned int step;
	struct ibv_context *ctx;
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	uint8_t *mem;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_srq *srq;
	struct ibv_qp *qp;
	struct ibv_qp_ex *qpx;
	struct ibv_mw *mw;
	/* rows with more objects */
	struct ibv_pd *pds[4];
	struct ibv_cq *xcq;
	struct ibv_srq *xsrq;
	struct ibv_qp *xqp;
	struct ibv_ah *ah;
	unsigned int events;
	bool woken;		/* by an event of a CQ, since it was armed */
	struct address me, peer;
	uint64_t next_id, next_recv, done_recv;
	unsigned int posted;	/* receives */
	struct ibv_wc wc[WCS];	/* not asked for yet */
	unsigned int wcs;
	bool to_rts;		/* the QP is in SQD, and shall not stay so */
	uint64_t rnrs;
	uint64_t id[16];	/* of what is in flight */
	uint64_t extra;		/* posted while in SQD */
	bool extra_due;
	unsigned int tries;
	char why[256];
};

extern const struct row rows[];
extern const struct col cols[];
extern const char *device;
extern int gid_index;
extern const char *save_image;

#define die(...) die_at(__func__, __LINE__, __VA_ARGS__)
void die_at(const char *func, int line, const char *format, ...)
	__attribute__((noreturn, format(printf, 3, 4)));

#define check(cond)                                                            \
	do {                                                                   \
		if (!(cond))                                                   \
			die("not so: %s", #cond);                              \
	} while (0)

#define check0(call)                                                           \
	do {                                                                   \
		int ret_ = (call);                                             \
		if (ret_)                                                      \
			die("%s: error %d", #call, ret_);                      \
	} while (0)

/* main.c */
void swap_addresses(struct side *s);

/* side.c */
void make_objects(struct side *s);
void destroy_objects(struct side *s);
struct ibv_qp *make_qp(struct side *s, enum ibv_qp_type type,
		       struct ibv_cq *cq, struct ibv_srq *srq);
void to_init(struct side *s, struct ibv_qp *qp);
void to_rtr(struct side *s, struct ibv_qp *qp);
void to_rts(struct side *s, struct ibv_qp *qp);
int modify_state(struct ibv_qp *qp, enum ibv_qp_state state);
void exchange(struct side *s, const void *mine, void *theirs, size_t len);
void barrier(struct side *s);
void barrier_id(struct side *s, uint64_t *value);
void fill(uint8_t *p, size_t len, uint64_t seed);
void verify(const uint8_t *p, size_t len, uint64_t seed, const char *what);
void post_recv(struct side *s);
void post_long_recv(struct side *s);
uint64_t post(struct side *s, struct ibv_send_wr *wr, size_t at, size_t len);
uint64_t post_send(struct side *s, enum ibv_wr_opcode opcode, size_t len,
		   uint64_t seed);
uint64_t post_write(struct side *s, enum ibv_wr_opcode opcode, size_t len,
		    uint64_t seed);
uint64_t post_read(struct side *s, size_t len);
uint64_t post_atomic(struct side *s, enum ibv_wr_opcode opcode,
		     uint64_t compare_add, uint64_t swap);
uint64_t post_flush(struct side *s);
uint64_t post_atomic_write(struct side *s, uint64_t value);
void bind_window(struct side *s);
struct ibv_wc wait_wc(struct side *s, uint64_t id);
struct ibv_wc wait_recv(struct side *s, size_t len, uint64_t seed);
bool no_wc(struct side *s, unsigned int ms);
void wait_byte(struct side *s, size_t at, uint64_t value);
void drop(const char *opcodes);
void drop_nothing(void);
void drop_nothing_at_first(void);
void hold(void);
uint64_t counter(const char *name);
void talk(struct side *s, uint64_t seed);

/* image.c */
int image_open(struct side *s, struct image *im, const void *data, size_t len);
const void *image_find(const struct image *im, uint32_t type, uint32_t handle);
unsigned int image_count(const struct image *im, uint32_t type);
const struct rxe_send_wqe *sq_wqe(const struct image *im, unsigned int i);
unsigned int sq_count(const struct image *im);
unsigned int rq_count(const struct image *im);
unsigned int ring_count(const struct rxe_mig_ring *ring);
const struct rxe_mig_res *image_res(const struct image *im, unsigned int i);

enum { WQE_POSTED, WQE_PROCESSING, WQE_PENDING, WQE_DONE, WQE_ERROR };

#endif
