/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
/*
 * objects: makes objects of one type, and measures what their migration takes.
 */
#ifndef OBJECTS_H
#define OBJECTS_H

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

#define die(...)                                                               \
	do {                                                                   \
		fprintf(stderr, __VA_ARGS__);                                  \
		fputc('\n', stderr);                                           \
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

/* ---- meter.c: time, and calls of the kernel ---- */

struct meter {
	uint64_t ticks;		/* of the time stamp counter */
	uint64_t times;
	uint64_t ioctls;
	uint64_t others;	/* read, write, mmap */
};

void meter_start(struct meter *m);
void meter_stop(struct meter *m);
void meter_print(const char *name, const struct meter *m);
void meter_check_clock(void);

/* What the calls of libibverbs have taken so far */
extern struct meter dumps;
extern struct meter restores[RXE_MIG_REC_MW + 1][8];	/* by type and command */

/* ---- setup.c ---- */

extern struct options {
	char type[8];
	unsigned int count;
	unsigned int depth;	/* of the queues of a QP */
	size_t bytes;		/* of an MR */
	size_t flight;		/* bytes of a SEND that is under way when it is migrated */
	unsigned int sends;	/* of each QP */
	bool only_dump;
	const char *hold;	/* a directory: somebody else migrates it */
	bool plain;		/* no RDMA, */
	size_t rings;		/* but memory, as many bytes as rings have */
} options;

/* What both processes know of the QPs */
struct shared {
	volatile int ready[2];
	volatile int failed;
	uint32_t qpn[];		/* of side 0, then of side 1 */
};

extern struct shared *shared;

struct side {
	struct ibv_context *ctx;
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	struct ibv_cq *cq;
	struct ibv_qp **qps;
	uint8_t *memory;
	size_t len;
};

void make_memory(struct side *s);
void make_base(struct side *s);
void make_objects(struct side *s, struct meter *m);
void make_qps(struct side *s, unsigned int which, struct meter *m);
void post_receives(struct side *s);
void send_all(struct side *s);
void sent_all(struct side *s);
void receive_all(struct side *s);
void make_busy(struct side *s);
void receive_busy(struct side *s);
size_t ring_bytes(void);

#endif
