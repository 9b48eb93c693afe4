// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Steps in the wrong order or a second time, and objects whose handles or
 * numbers are taken.
 */
#include "suite.h"

static void h_created_twice(struct ibv_context *ctx, enum phase phase,
			    const struct rxe_mig_rec *rec)
{
	if (phase == AFTER_CREATE && rec->type == case_type)
		refused(ctx, EBUSY, create, rec, "CREATE again");
}

static void h_handle_in_use(struct ibv_context *ctx, enum phase phase,
			    const struct rxe_mig_rec *rec)
{
	struct rxe_mig_rec *copy;

	if (phase != BEFORE_CREATE || rec->type != case_type)
		return;
	copy = copy_of(rec);
	copy->handle = find(0, RXE_MIG_REC_PD)->handle;
	refused(ctx, EBUSY, create, copy, "CREATE with the PD's handle");
	free(copy);
}

static void h_refill_first(struct ibv_context *ctx, enum phase phase,
			   const struct rxe_mig_rec *rec)
{
	if (phase == BEFORE_CREATE && rec->type == case_type)
		refused(ctx, ENOENT, refill, rec, "REFILL before CREATE");
}

static void h_refilled_twice(struct ibv_context *ctx, enum phase phase,
			     const struct rxe_mig_rec *rec)
{
	if (phase == AFTER_REFILL && rec->type == case_type)
		refused(ctx, EBUSY, refill, rec, "REFILL again");
}

/*
 * The numbers are those of objects that live in another context. The handles
 * are the next ones that are free, so that there are no placeholders.
 */
static void numbers_in_use(struct ibv_context *owner)
{
	struct ibv_context *ctx = open_device(device);
	struct rxe_mig_rec *rec, *pd = copy_of(find(0, RXE_MIG_REC_PD));
	struct rxe_mig_cq *cq = copy_of(find(0, RXE_MIG_REC_CQ));
	struct rxe_mig_qp_rec *qp;
	struct sig before;

	pd->handle = 0;
	cq->rec.handle = 1;
	cq->channel = RXE_MIG_NONE;
	check0(create(ctx, pd));
	check0(create(ctx, cq));
	before = sig_of(owner);
	for_each_rec(0, rec) {
		if (rec->type < RXE_MIG_REC_MR || rec->type == RXE_MIG_REC_CQ ||
		    (case_type && rec->type != case_type))
			continue;
		qp = copy_of(rec);
		qp->rec.handle = 2;
		qp->pd = 0;	/* all types have it at this place */
		if (rec->type == RXE_MIG_REC_QP) {
			qp->send_cq = qp->recv_cq = 1;
			qp->srq = RXE_MIG_NONE;
		}
		refused(ctx, EBUSY, create, qp, type_names[rec->type]);
		free(qp);
	}
	same_sig(before, sig_of(owner), "the context with the numbers");
	ibv_close_device(ctx);
}

static void c_number_in_use(void)
{
	o.ctx = open_device(device);
	s_all_events();
	dump(o.ctx, 0);
	check0(context_cmd(o.ctx, IBV_RESTORE_CANCEL));
	numbers_in_use(o.ctx);
	/* The owner of the numbers has not noticed */
	dump(o.ctx, 1);
	compare(0, 1, true);
}

static void c_second_restore(void)
{
	struct ibv_context *ctx;

	make_image(s_all_events);
	ctx = open_device(device);
	restore_into(ctx, NULL);
	dump_restored(ctx);
	go_live(ctx);
	numbers_in_use(ctx);
	dump(ctx, 1);
	compare(0, 1, true);
	check0(context_cmd(ctx, IBV_RESTORE_COMMIT));
	leave(ctx);

	/* Once they are gone, the image can be restored again */
	ctx = open_device(device);
	restore_into(ctx, NULL);
	finish(ctx, false);
}

/* Another user_handle would show in the next image */
static void refill_other(struct ibv_context *ctx, const char *what)
{
	struct rxe_mig_rec *rec, *copy;

	for_each_rec(0, rec) {
		if (rec->type != case_type)
			continue;
		copy = copy_of(rec);
		copy->user_handle ^= 0xff;
		expect(EBUSY, refill(ctx, copy), what);
		free(copy);
	}
	if (!expectations)
		bad("nothing was tried");
}

static void c_refill_live(void)
{
	struct ibv_context *ctx;

	make_image(s_all_events);
	ctx = open_device(device);
	restore_into(ctx, NULL);
	go_live(ctx);
	refill_other(ctx, "REFILL of a live object");
	dump(ctx, 1);
	compare(0, 1, true);
}

static void c_refill_ordinary(void)
{
	o.ctx = open_device(device);
	s_all_events();
	dump(o.ctx, 0);
	check0(context_cmd(o.ctx, IBV_RESTORE_CANCEL));
	refill_other(o.ctx, "REFILL of an object not made by CREATE");
	dump(o.ctx, 1);
	compare(0, 1, true);
}

static void c_parents_of_another_type(void)
{
	struct ibv_context *ctx;
	struct rxe_mig_rec *rec;
	struct rxe_mig_qp_rec *qp;
	struct rxe_mig_mr *mr;

	make_image(s_all_events);
	ctx = open_device(device);
	create_types(ctx, FROM(CONTEXT) & ~FROM(QP));
	/* The next handle, so that there are no placeholders */
	rec = find(0, RXE_MIG_REC_QP);
	qp = copy_of(rec);
	mr = copy_of(find(0, RXE_MIG_REC_MR));
	mr->rec.handle = rec->handle;
	mr->rkey += 0x100;
	mr->pd = find(0, RXE_MIG_REC_CQ)->handle;
	refused(ctx, EINVAL, create, mr, "the MR's PD is a CQ");
	qp->send_cq = qp->pd;
	refused(ctx, EINVAL, create, qp, "the QP's CQ is a PD");
	memcpy(qp, rec, sizeof(*qp));
	qp->srq = qp->pd;
	refused(ctx, EINVAL, create, qp, "the QP's SRQ is a PD");
	check0(create(ctx, rec));
}

/* Nothing of a record's parents has been created */
static void c_no_parents(void)
{
	struct ibv_restore_args args = { .fd = -1 };
	struct ibv_context *ctx, *right;
	struct rxe_mig_rec *copy;

	make_image(s_all_events);
	ctx = open_device(device);
	copy = copy_of(find(0, case_type));
	/* No placeholders, which would be parents */
	copy->handle = 0;
	if (case_type == RXE_MIG_REC_CQ) {
		struct sig before = sig_of(ctx);

		expect(EINVAL, restore_args(ctx, copy, IBV_RESTORE_CREATE,
					    &args), "no channel");
		same_sig(before, sig_of(ctx), "no channel");
	} else {
		refused(ctx, ENOENT, create, copy, type_names[case_type]);
	}
	right = open_device(device);
	restore_into(right, NULL);
	finish(right, false);
}

/* Windows come after regions and QPs */
static void c_window_first(void)
{
	struct ibv_context *ctx;
	struct rxe_mig_rec *mw;

	make_image(s_all_events);
	ctx = open_device(device);
	mw = find(0, RXE_MIG_REC_MW);
	create_types(ctx, ONLY(CHANNEL) | ONLY(PD) | ONLY(CQ) | ONLY(MW));
	refused(ctx, ENOENT, refill, mw, "before the MR");
	create_types(ctx, ONLY(MR));
	refused(ctx, ENOENT, refill, mw, "before the QP");
	create_types(ctx, ONLY(SRQ) | ONLY(QP));
	expect(0, refill(ctx, mw), "after both");
}

/* Without the CONTEXT record no handle is too high, but this is none */
static void c_no_handle(void)
{
	struct ibv_context *ctx;
	struct rxe_mig_rec *pd;

	make_image(s_all);
	ctx = open_device(device);
	pd = copy_of(find(0, RXE_MIG_REC_PD));
	pd->handle = RXE_MIG_NONE;
	refused(ctx, EINVAL, create, pd, "a PD without a handle");
	free(pd);
	ibv_close_device(ctx);
}

const struct test order_tests[] = {
	{ "EINVAL: no handle", c_no_handle },
	{ "EBUSY: CREATE of the same %s", NULL, h_created_twice, FROM(PD) },
	{ "EBUSY: the handle of the %s is taken", NULL, h_handle_in_use,
	  FROM(MR) },
	{ "EBUSY: number of the %s is in use", c_number_in_use,
	  .types = FROM(MR) & ~ONLY(CQ) },
	{ "EBUSY: second restore", c_second_restore },
	{ "ENOENT: REFILL of no %s", NULL, h_refill_first, FROM(PD) },
	{ "EBUSY: REFILL of the same %s", NULL, h_refilled_twice, FROM(CQ) },
	{ "EBUSY: REFILL of a live %s", c_refill_live, .types = FROM(CQ) },
	{ "REFILL of an ordinary %s", c_refill_ordinary, .types = FROM(CQ) },
	{ "no parents: %s", c_no_parents, .types = FROM(MR) },
	{ "parents of another type", c_parents_of_another_type },
	{ "wrong order: window before its region and QP", c_window_first },
	{}
};
