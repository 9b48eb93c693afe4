// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Who goes on: a context that was dumped, or what its image becomes. CANCEL,
 * COMMIT and RESUME decide, once.
 */
#include "suite.h"

/* The context is held by a dump */
static void expect_busy(uint32_t reason, const char *text)
{
	if (reason != IBV_DUMP_REASON_BUSY || !*text)
		bad("refusal with reason %u: %.112s", reason, text);
}

static void c_lease(void)
{
	o.ctx = open_device(device);
	s_all();
	expect(EINVAL, context_cmd(o.ctx, IBV_RESTORE_CANCEL), "CANCEL first");
	expect(EINVAL, context_cmd(o.ctx, IBV_RESTORE_COMMIT), "COMMIT first");
	dump(o.ctx, 0);
	expect(EBUSY, dump_error(o.ctx, 1), "second dump");
	check0(context_cmd(o.ctx, IBV_RESTORE_CANCEL));
	expect(EINVAL, context_cmd(o.ctx, IBV_RESTORE_CANCEL), "CANCEL again");
	expect(EINVAL, context_cmd(o.ctx, IBV_RESTORE_COMMIT),
	       "COMMIT after CANCEL");
	dump(o.ctx, 1);
	compare(0, 1, true);
	check0(context_cmd(o.ctx, IBV_RESTORE_COMMIT));
	expect(EINVAL, context_cmd(o.ctx, IBV_RESTORE_CANCEL),
	       "CANCEL after COMMIT");
	expect(EINVAL, context_cmd(o.ctx, IBV_RESTORE_COMMIT), "COMMIT again");
}

static void c_resume_check(void)
{
	struct ibv_dump_refusal why = {};
	struct ibv_context *ctx;

	make_image(s_all);
	ctx = open_device(device);
	restore_into(ctx, NULL);
	check0(resume(ctx, IBV_RESTORE_CHECK, &why));
	/* Still stopped: the epoch is that of the first Stop */
	finish(ctx, true);
}

static void c_resume_dumped(void)
{
	struct ibv_dump_refusal why = {};

	o.ctx = open_device(device);
	s_all();
	dump(o.ctx, 0);
	expect(EBUSY, resume(o.ctx, 0, &why), "RESUME of a dumped context");
	expect_busy(why.reason, why.text);
	check0(context_cmd(o.ctx, IBV_RESTORE_CANCEL));
	dump(o.ctx, 1);
	compare(0, 1, true);
}

/* Until RESUME no QP sends or receives anything, whatever else is done */
static void c_cancel_restored(void)
{
	struct ibv_context *ctx;

	make_image(s_all);
	ctx = open_device(device);
	create_types(ctx, FROM(CONTEXT));
	dump(ctx, 1);
	check0(context_cmd(ctx, IBV_RESTORE_CANCEL));
	expect(EINVAL, resume(ctx, IBV_RESTORE_CHECK, NULL),
	       "RESUME before REFILL, after CANCEL");
	refill_objects(ctx);
	finish(ctx, true);
}

/* RESUME comes after all QPs */
static void c_resume_first(void)
{
	struct ibv_dump_refusal why = {};
	struct rxe_mig_rec *rec, *qp = NULL;
	struct ibv_context *ctx;
	struct sig before;
	int flags;

	make_image(s_all);
	ctx = open_device(device);
	create_types(ctx, FROM(CONTEXT));
	for_each_rec(0, rec) {
		if (fd_of(rec))
			continue;
		for (flags = 0; rec->type == RXE_MIG_REC_QP && flags != 2;
		     flags++) {
			qp = rec;
			before = sig_of(ctx);
			memset(&why, 0, sizeof(why));
			expect(EINVAL, resume(ctx, flags, &why),
			       "RESUME before REFILL");
			if (why.type != RXE_MIG_REC_QP ||
			    why.reason != IBV_DUMP_REASON_NOT_STOPPED ||
			    !why.text[0])
				bad("refusal of type %u, reason %u: %.112s",
				    why.type, why.reason, why.text);
			same_sig(before, sig_of(ctx), "RESUME before REFILL");
		}
		check0(refill(ctx, rec));
	}
	/* With all the others refilled it was the last one's fault */
	expect_blame(&why, qp, IBV_DUMP_REASON_NOT_STOPPED);
	refill_events(ctx);
	finish(ctx, true);
}

static void c_resume_twice(void)
{
	struct ibv_context *ctx;
	struct sig before;

	make_image(s_all);
	ctx = open_device(device);
	restore_into(ctx, NULL);
	go_live(ctx);
	before = sig_of(ctx);
	/* There is nothing left to do */
	expect(0, resume(ctx, 0, NULL), "second RESUME");
	same_sig(before, sig_of(ctx), "second RESUME");
	dump(ctx, 1);
	compare(0, 1, true);
}

/* ---- after COMMIT the snapshot is the only live copy ---- */

/*
 * No sig_of() the context, as a check of it fails, too. libibverbs stores a
 * refusal with EOPNOTSUPP only, so it is the driver's own that is looked at.
 */
static void refused_committed(struct ibv_context *ctx)
{
	struct sig before = sig_of(NULL);

	memset(&dump_refusal, 0, sizeof(dump_refusal));
	expect(EBUSY, dump_error(ctx, 2), "dump after COMMIT");
	expect_busy(dump_refusal.reason, dump_refusal.text);
	expect(EBUSY, ibv_dump_context(ctx, NULL, NULL, 0), "check");
	/* No other dump has been made, and it is committed once */
	expect(EINVAL, context_cmd(ctx, IBV_RESTORE_CANCEL), "CANCEL");
	expect(EINVAL, context_cmd(ctx, IBV_RESTORE_COMMIT), "COMMIT");
	same_sig(before, sig_of(NULL), "dump after COMMIT");
}

static void dump_committed(void (*setup)(void))
{
	struct ibv_context *ctx = open_device(device);

	o.ctx = ctx;
	setup();
	dump(ctx, 0);
	check0(context_cmd(ctx, IBV_RESTORE_COMMIT));
	refused_committed(ctx);
}

static void c_dump_committed(void)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;

	dump_committed(s_all);
	check0(ibv_query_qp(o.qp, &attr, IBV_QP_STATE, &init));
	if (attr.qp_state != IBV_QPS_RTS)
		bad("the QP's state is %d", attr.qp_state);
}

/* What the driver knows of a context must not depend on its QPs */
static void c_dump_committed_mr(void)
{
	dump_committed(s_mr_remote);
}

static void c_resume_committed(void)
{
	struct ibv_context *ctx;
	struct sig before;
	int flags;

	make_image(s_all);
	ctx = open_device(device);
	restore_into(ctx, NULL);
	dump(ctx, 1);
	compare(0, 1, false);
	check0(context_cmd(ctx, IBV_RESTORE_COMMIT));
	before = sig_of(NULL);
	for (flags = IBV_RESTORE_CHECK; flags >= 0; flags--) {
		struct ibv_dump_refusal why = {};

		expect(EBUSY, resume(ctx, flags, &why), flags ?
		       "RESUME after COMMIT, CHECK" : "RESUME after COMMIT");
		expect_busy(why.reason, why.text);
	}
	same_sig(before, sig_of(NULL), "RESUME after COMMIT");
	refused_committed(ctx);

	/* Once it is gone, the committed image can be restored */
	leave(ctx);
	memcpy(area[0], area[1], hdr_of(1)->total_len);
	ctx = open_device(device);
	restore_into(ctx, NULL);
	finish(ctx, true);
}

const struct test lease_tests[] = {
	{ "EINVAL: CANCEL and COMMIT of no dump", c_lease },
	{ "EBUSY: RESUME of a dumped context", c_resume_dumped },
	{ "EBUSY: dump after COMMIT", c_dump_committed },
	{ "EBUSY: dump after COMMIT, without QPs", c_dump_committed_mr },
	{ "EBUSY: RESUME after COMMIT", c_resume_committed },
	{ "no effect: dump and CANCEL before RESUME", c_cancel_restored },
	{ "no effect: RESUME with CHECK", c_resume_check },
	{ "wrong order: RESUME before REFILL", c_resume_first },
	{ "second RESUME", c_resume_twice },
	{}
};
