// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * The steps of a restore, and what is made of them.
 */
#include "suite.h"

int event_fd[2][16];

int *fd_of(const struct rxe_mig_rec *rec)
{
	if (rec->type != RXE_MIG_REC_ASYNC && rec->type != RXE_MIG_REC_CHANNEL)
		return NULL;
	check(rec->handle < 16, "too many event files");
	return &event_fd[rec->type - RXE_MIG_REC_ASYNC][rec->handle];
}

int restore_args(struct ibv_context *ctx, const void *record, int cmd,
		 struct ibv_restore_args *args)
{
	const struct rxe_mig_rec *rec = record;

	args->record = rec;
	args->record_len = rec->len;
	return ibv_restore_object(ctx, NULL, rec->type, cmd, args,
				  sizeof(*args));
}

/* Calls a command with a record of any length and any place */
int raw(struct ibv_context *ctx, int type, int cmd, const void *rec,
	size_t len)
{
	struct ibv_restore_args args = { .record = rec, .record_len = len,
					 .fd = -1 };

	return ibv_restore_object(ctx, NULL, type, cmd, &args, sizeof(args));
}

int create(struct ibv_context *ctx, const void *record)
{
	struct ibv_restore_args args = { .fd = -1 };
	const struct rxe_mig_rec *rec = record;
	uint32_t channel;
	int ret;

	if (rec->type == RXE_MIG_REC_CQ) {
		channel = ((struct rxe_mig_cq *)rec)->channel;
		if (channel != RXE_MIG_NONE)
			args.fd = event_fd[1][channel % 16];
	}
	ret = restore_args(ctx, rec, IBV_RESTORE_CREATE, &args);
	if (!ret && fd_of(rec))
		*fd_of(rec) = args.fd;
	if (!ret && rec->type >= RXE_MIG_REC_PD && args.handle != rec->handle)
		bad("type %u has handle %u instead of %u", rec->type,
		    args.handle, rec->handle);
	return ret;
}

int refill(struct ibv_context *ctx, const void *record)
{
	struct ibv_restore_args args = { .fd = -1 };
	const struct rxe_mig_rec *rec = record;

	if (fd_of(rec))
		args.fd = *fd_of(rec);
	return restore_args(ctx, rec, IBV_RESTORE_REFILL, &args);
}

int resume(struct ibv_context *ctx, int flags, struct ibv_dump_refusal *why)
{
	struct ibv_restore_args args = {
		.comp_mask = IBV_RESTORE_ARGS_REFUSAL,
		.flags = flags, .refusal = why, .fd = -1,
	};

	return ibv_restore_object(ctx, NULL, IBV_RESTORE_TYPE_CONTEXT,
				  IBV_RESTORE_RESUME, &args, sizeof(args));
}

/* A device is only deleted once all files of its contexts are closed */
void leave(struct ibv_context *ctx)
{
	int *fd;

	for (fd = event_fd[0]; fd != event_fd[2]; fd++) {
		if (*fd > 0)
			close(*fd);
		*fd = 0;
	}
	ibv_close_device(ctx);
}

/* ---- all records ---- */

static void create_hooked(struct ibv_context *ctx, uint32_t types,
			  hook_fn *hook)
{
	struct rxe_mig_rec *rec;
	int ret;

	for_each_rec(0, rec) {
		if (!(types & 1U << rec->type))
			continue;
		if (hook)
			hook(ctx, BEFORE_CREATE, rec);
		ret = create(ctx, rec);
		if (ret)
			die("create type %u handle %u: %s", rec->type,
			    rec->handle, err_name(ret));
		if (hook)
			hook(ctx, AFTER_CREATE, rec);
	}
}

static void refill_hooked(struct ibv_context *ctx, bool events, hook_fn *hook)
{
	struct rxe_mig_rec *rec;
	int ret;

	for_each_rec(0, rec) {
		if (events != !!fd_of(rec))
			continue;
		if (hook)
			hook(ctx, BEFORE_REFILL, rec);
		ret = refill(ctx, rec);
		if (ret)
			die("refill type %u handle %u: %s", rec->type,
			    rec->handle, err_name(ret));
		if (hook)
			hook(ctx, AFTER_REFILL, rec);
	}
}

void create_types(struct ibv_context *ctx, uint32_t types)
{
	create_hooked(ctx, types, NULL);
}

void refill_objects(struct ibv_context *ctx)
{
	refill_hooked(ctx, false, NULL);
}

void refill_events(struct ibv_context *ctx)
{
	refill_hooked(ctx, true, NULL);
}

/* hook() does what must fail, between the steps that must not */
void restore_into(struct ibv_context *ctx, hook_fn *hook)
{
	create_hooked(ctx, FROM(CONTEXT), hook);
	refill_hooked(ctx, false, hook);
	refill_hooked(ctx, true, hook);
}

/* ---- to the end ---- */

/* A dump that is cancelled leaves them stopped, and RESUME still to come */
void dump_restored(struct ibv_context *ctx)
{
	dump(ctx, 1);
	compare(0, 1, false);
	check0(context_cmd(ctx, IBV_RESTORE_CANCEL));
}

void go_live(struct ibv_context *ctx)
{
	struct ibv_dump_refusal why = {};
	int ret = resume(ctx, 0, &why);

	if (ret)
		die("resume: %s %.112s", err_name(ret), why.text);
}

void finish(struct ibv_context *ctx, bool idle)
{
	dump_restored(ctx);
	go_live(ctx);
	dump(ctx, 2);
	if (idle)
		compare(0, 2, true);
	check0(context_cmd(ctx, IBV_RESTORE_COMMIT));
	leave(ctx);
}

void round_trip(void (*setup)(void), bool idle)
{
	struct ibv_context *ctx;

	make_image(setup);
	ctx = open_device(device);
	restore_into(ctx, NULL);
	finish(ctx, idle);
}

/* Restores one of each; fails in between where hook() says so */
void with_hook(hook_fn *hook)
{
	struct ibv_context *ctx;

	make_image(s_all_events);
	ctx = open_device(device);
	restore_into(ctx, hook);
	if (!expectations)
		bad("nothing was tried");
	finish(ctx, false);
}

/* ---- refusals ---- */

/* The call fails like this and leaves no trace */
void refused(struct ibv_context *ctx, int want, step_fn *call,
	     const void *record, const char *what)
{
	struct sig before = sig_of(ctx);

	expect(want, call(ctx, record), what);
	same_sig(before, sig_of(ctx), what);
}

/* This object stands in the way */
void expect_blame(const struct ibv_dump_refusal *why,
		  const struct rxe_mig_rec *rec, uint32_t reason)
{
	const struct rxe_mig_qp_rec *qp = (void *)rec;

	if (why->type != rec->type || why->handle != rec->handle ||
	    why->reason != reason || !why->text[0])
		bad("refusal of type %u, handle %u, reason %u: %.112s",
		    why->type, why->handle, why->reason, why->text);
	if (rec->type == RXE_MIG_REC_QP && why->value != qp->qpn)
		bad("refusal of QP %#x instead of %#x", why->value, qp->qpn);
}
