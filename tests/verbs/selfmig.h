/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
/*
 * Self-migration: dump an RDMA context of this process, destroy it, and restore
 * it in its place, as CRIU would do with the whole process.
 */
#ifndef SELFMIG_H
#define SELFMIG_H

#include <stddef.h>
#include <infiniband/verbs.h>

struct selfmig_info {
	double total_ms;	/* from the dump until RESUME has returned */
	double dump_ms;		/* the dump's part of it */
	size_t bytes;		/* size of the image */
	int records;
};

/*
 * Dumps and restores ctx, which may have been used in any way, but is not used
 * by other threads now. All handles, numbers, keys, ring addresses and fd
 * numbers stay, so the objects made from ctx can be used as before. Only epoll
 * and the like, which refer to files and not to fd numbers, have to be told.
 *
 * Needs CAP_CHECKPOINT_RESTORE. info may be NULL. Returns 0 or a negative errno
 * value, and then selfmig_error() says what has failed. -EOPNOTSUPP and -EPERM
 * mean that nothing has happened; after other errors, ctx may be unusable.
 */
int selfmig_cycle(struct ibv_context *ctx, struct selfmig_info *info);

/*
 * The same, but once the context is stopped and dumped, look() sees the image
 * and decides. Unless it returns 0 the context resumes where it is, and the
 * result is -ECANCELED.
 */
int selfmig_cycle_if(struct ibv_context *ctx, struct selfmig_info *info,
		     int (*look)(const void *image, size_t len, void *arg),
		     void *arg);

/*
 * The same step by step. The context is stopped after selfmig_stop(), gone after
 * selfmig_leave(), back but stopped after selfmig_restore(), and live after
 * selfmig_resume() or selfmig_cancel(), which free the struct if they return 0.
 * flags are those of ibv_restore_flags.
 */
struct selfmig;
int selfmig_stop(struct ibv_context *ctx, struct selfmig **migration);
const void *selfmig_image(const struct selfmig *m, size_t *len);
int selfmig_cancel(struct selfmig *m);
int selfmig_leave(struct selfmig *m);
int selfmig_restore(struct selfmig *m);
int selfmig_resume(struct selfmig *m, unsigned int flags);

/*
 * Migrations that come to nothing, after which the context goes on in place: the
 * dump fails when all is stopped; or the process that has dumped it dies, and the
 * lease is over some time later. 0 if it went as it should.
 */
int selfmig_fail(struct ibv_context *ctx);
int selfmig_lose(struct ibv_context *ctx);

const char *selfmig_error(void);

#endif /* SELFMIG_H */
