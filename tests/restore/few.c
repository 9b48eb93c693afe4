// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * A dump takes the same system calls for any number of objects, and a restored QP
 * takes four: two for its handle, CREATE, REFILL.
 */
#include <sys/syscall.h>

#include "suite.h"

#define FEW 3
#define MORE 50

static int num_qps;
static bool own_cqs;

/* Libraries call this one in place of that of the C library; ioctl(): version.c */
ssize_t read(int fd, void *buf, size_t len)
{
	calls++;
	return syscall(SYS_read, fd, buf, len);
}

static void s_qps(void)
{
	int i;

	make_pd();
	make_cq(10, NULL);
	for (i = 0; i != num_qps; i++) {
		if (own_cqs)
			make_cq(10, NULL);
		make_qp(IBV_QPT_RC, NULL);
		to_init(o.qp);
	}
}

static unsigned int calls_of_dump(void)
{
	calls = 0;
	dump(o.ctx, 0);
	check(calls, "system calls are not seen");
	return calls;
}

static void c_dump(void)
{
	unsigned int few;

	o.ctx = open_device(device);
	num_qps = FEW;
	s_qps();
	/* The first one asks which version the driver speaks, too */
	calls_of_dump();
	check0(context_cmd(o.ctx, IBV_RESTORE_CANCEL));
	few = calls_of_dump();
	check0(context_cmd(o.ctx, IBV_RESTORE_CANCEL));
	num_qps = MORE;
	s_qps();
	if (calls_of_dump() != few)
		bad("%u system calls for %d QPs, %u for %d", few, FEW, calls,
		    FEW + MORE);
	check0(context_cmd(o.ctx, IBV_RESTORE_CANCEL));
}

static void c_restore(void)
{
	const bool *own = this_test->arg;
	const struct rxe_mig_rec *rec;
	struct ibv_context *ctx;

	num_qps = MORE;
	own_cqs = *own;
	make_image(s_qps);
	ctx = open_device(device);
	create_types(ctx, FROM(CONTEXT) & ~FROM(QP));
	calls = 0;
	for_each_rec(0, rec)
		if (rec->type == RXE_MIG_REC_QP) {
			check0(create(ctx, rec));
			check0(refill(ctx, rec));
		}
	check(calls, "system calls are not seen");
	if (calls > 4 * MORE)
		bad("%u system calls for %d QPs", calls, MORE);
}

static const bool shared, own = true;

const struct test few_tests[] = {
	{ "few: system calls of a dump", c_dump },
	{ "few: system calls of a restored QP", c_restore, .arg = &shared },
	{ "few: system calls of a restored QP that has a CQ of its own",
	  c_restore, .arg = &own },
	{ }
};
