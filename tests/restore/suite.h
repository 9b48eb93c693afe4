/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
/*
 * The conformance suite of ibv_dump_context() and ibv_restore_object().
 *
 * Each case runs in a process of its own, and so do the objects that it dumps:
 * when that process has ended they are gone, and their numbers are free. Both
 * share the memory for the images and for the MRs, at the same address.
 */
#ifndef SUITE_H
#define SUITE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <infiniband/verbs.h>

#include "../../drivers/infiniband/sw/rxe/rxe_mig_uapi.h"

#define BUF ((uint8_t *)0x200000000000)	/* of all MRs */
#define BUF_LEN (1 << 20)
#define AREA_LEN (256UL << 20)
#define CASE_LIMIT 600	/* seconds, for slow machines */

/* ---- main.c: cases and their results ---- */

enum phase { BEFORE_CREATE, AFTER_CREATE, BEFORE_REFILL, AFTER_REFILL };

typedef void hook_fn(struct ibv_context *ctx, enum phase phase,
		     const struct rxe_mig_rec *rec);

struct test {
	const char *name;	/* %s: that of the type */
	void (*fn)(void);	/* without it: with_hook(hook) */
	hook_fn *hook;
	uint32_t types;		/* one case for each of these record types */
	const void *arg;	/* what else fn() or hook() want to know */
};

/* Of test.types; FROM() goes on to the last type of an image */
#define ONLY(type)	(1U << RXE_MIG_REC_##type)
#define FROM(type)	(ONLY(MW) * 2 - ONLY(type))

/* Of each file; they end with one without a name */
extern const struct test trip_tests[], record_tests[], order_tests[],
	lease_tests[], event_tests[], call_tests[], process_tests[],
	memory_tests[], refuse_tests[], cgroup_tests[], device_tests[],
	version_tests[], many_tests[], few_tests[];

extern const struct test *this_test;
extern uint32_t case_type;		/* of its types, or 0 */
extern const char *const type_names[];
extern uint8_t *area[3];		/* images, shared with children */
extern const char *device;
extern int failures;
extern int expectations;		/* that were looked at */

void bad(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *err_name(int err);
void expect_at(const char *file, int line, int want, int got, const char *what);

#define die(...)                                                               \
	do {                                                                   \
		bad(__VA_ARGS__);                                              \
		_exit(1);                                                      \
	} while (0)

#define check(cond, what)                                                      \
	do {                                                                   \
		if (!(cond))                                                   \
			die("%s:%d: %s: %s", __FILE__, __LINE__, what,         \
			    strerror(errno));                                  \
	} while (0)

#define check0(call)                                                           \
	do {                                                                   \
		int ret_ = (call);                                             \
		if (ret_)                                                      \
			die("%s:%d: %s: %s", __FILE__, __LINE__, #call,        \
			    strerror(ret_ > 0 ? ret_ : errno));                \
	} while (0)

/* The call has to fail with this errno value */
#define expect(want, got, what) expect_at(__FILE__, __LINE__, want, got, what)

/* ---- objects.c ---- */

extern struct objects {			/* the newest of each kind */
	struct ibv_context *ctx;
	struct ibv_comp_channel *channel;
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	struct ibv_cq *cq;
	struct ibv_srq *srq;
	struct ibv_ah *ah;
	struct ibv_qp *qp;
	struct ibv_qp *ud;		/* of s_all() */
	struct ibv_mw *mw;
} o;

#define REMOTE (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |              \
		IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC)

struct ibv_context *open_device(const char *name);
int find_gid(bool v4, union ibv_gid *gid);
struct ibv_pd *make_pd(void);
struct ibv_mr *make_mr(unsigned int access);
struct ibv_comp_channel *make_channel(void);
struct ibv_cq *make_cq(int cqe, struct ibv_comp_channel *channel);
struct ibv_srq *make_srq(int max_wr);
struct ibv_ah *make_ah(bool v4);
struct ibv_mw *make_mw(enum ibv_mw_type type);
struct ibv_qp *make_qp(enum ibv_qp_type type, struct ibv_srq *srq);
void to_init(struct ibv_qp *qp);
void to_state(struct ibv_qp *qp, enum ibv_qp_state state, bool notify);
void to_other(struct ibv_qp *qp, enum ibv_qp_state state);
void post_recv(struct ibv_qp *qp, struct ibv_srq *srq, int num);
void wait_readable(int fd);
void wait_cq(struct ibv_cq *cq, enum ibv_wc_status status);
void ud_send(struct ibv_qp *qp, int flags);
void rc_send(struct ibv_qp *qp, enum ibv_wr_opcode opcode);
void s_pd(void);
void s_mr_remote(void);
void s_channel_events(void);
void s_channels(void);
void s_srq(void);
void s_srq_posted(void);
void s_srq_event(void);
void s_ah4(void);
void s_connected(void);
void s_all(void);
void s_all_events(void);

/* ---- image.c ---- */

struct sig {
	int count;		/* records the context would have now */
	uint64_t len;		/* its image's length */
	char resources[256];	/* what the kernel has on all devices */
};

#define for_each_rec(n, rec)                                                   \
	for (rec = first_of(n);                                                \
	     (uint8_t *)rec < area[n] + hdr_of(n)->total_len;                  \
	     rec = (void *)((uint8_t *)rec + rec->len))

struct rxe_mig_hdr *hdr_of(int n);
struct rxe_mig_rec *first_of(int n);
struct rxe_mig_rec *find(int n, uint32_t type);
void *copy_of(const struct rxe_mig_rec *rec);
void check_records(int n, int count);
void check_image(int n, int count);
int dump_error(struct ibv_context *ctx, int n);
void dump(struct ibv_context *ctx, int n);
int context_cmd(struct ibv_context *ctx, int cmd);
void make_image(void (*setup)(void));
struct sig sig_of(struct ibv_context *ctx);
void same_sig(struct sig a, struct sig b, const char *what);

/* ---- equal.c ---- */

void compare_rec(const struct rxe_mig_rec *ra, const struct rxe_mig_rec *rb,
		 bool live);
void compare(int na, int nb, bool live);

/* ---- restore.c ---- */

typedef int step_fn(struct ibv_context *ctx, const void *record);

extern int event_fd[2][16];	/* of ASYNC and CHANNEL */

int *fd_of(const struct rxe_mig_rec *rec);
int restore_args(struct ibv_context *ctx, const void *record, int cmd,
		 struct ibv_restore_args *args);
int raw(struct ibv_context *ctx, int type, int cmd, const void *rec,
	size_t len);
int create(struct ibv_context *ctx, const void *record);
int refill(struct ibv_context *ctx, const void *record);
int resume(struct ibv_context *ctx, int flags, struct ibv_dump_refusal *why);
void leave(struct ibv_context *ctx);
void create_types(struct ibv_context *ctx, uint32_t types);
void refill_objects(struct ibv_context *ctx);
void refill_events(struct ibv_context *ctx);
void restore_into(struct ibv_context *ctx, hook_fn *hook);
void dump_restored(struct ibv_context *ctx);
void go_live(struct ibv_context *ctx);
void finish(struct ibv_context *ctx, bool idle);
void round_trip(void (*setup)(void), bool idle);
void with_hook(hook_fn *hook);
void refused(struct ibv_context *ctx, int want, step_fn *call,
	     const void *record, const char *what);
void expect_blame(const struct ibv_dump_refusal *why,
		  const struct rxe_mig_rec *rec, uint32_t reason);

/* ---- refuse.c ---- */

void refused_dump(struct ibv_context *ctx, int err, uint32_t type,
		  uint32_t handle, uint32_t reason, uint32_t value,
		  const char *text);
void still_works(void);

/* ---- device.c, version.c ---- */

void remove_device(void);

/* ioctl() and read() so far */
extern unsigned int calls;

/* What the driver itself has said at the last dump */
extern struct rxe_mig_refusal dump_refusal;
extern bool skip_check;	/* libibverbs has found nothing in the way of a dump */

void refused_all(struct ibv_context *ctx);
int store_image(const char *name);
extern const char *image_name;
void c_stored_image(void);

#endif
