// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Events that were not read: files and records of them. They are stored all or
 * not at all, and only before RESUME.
 */
#include "suite.h"

static void c_wrong_event_file(void)
{
	struct ibv_context *ctx, *other;
	struct rxe_mig_rec *channel, *async;
	struct ibv_restore_args args = { .fd = -1 };
	struct sig before;

	make_image(s_all_events);
	ctx = open_device(device);
	other = open_device(device);
	restore_into(ctx, NULL);
	channel = find(0, RXE_MIG_REC_CHANNEL);
	async = find(0, RXE_MIG_REC_ASYNC);
	before = sig_of(ctx);
	args.fd = 999;
	expect(EBADF, restore_args(ctx, channel, IBV_RESTORE_REFILL, &args),
	       "an fd that is not open");
	args.fd = other->async_fd;
	expect(ENOENT, restore_args(ctx, async, IBV_RESTORE_REFILL, &args),
	       "the event file of another context");
	args.fd = event_fd[0][0];
	expect(EINVAL, restore_args(ctx, channel, IBV_RESTORE_REFILL, &args),
	       "an asynchronous event file for a channel");
	args.fd = event_fd[1][0];
	expect(EINVAL, restore_args(ctx, async, IBV_RESTORE_REFILL, &args),
	       "a channel for an asynchronous event file");
	same_sig(before, sig_of(ctx), "wrong event files");
	finish(ctx, false);
}

/* Events before the objects that they are about */
static void c_events_first(void)
{
	struct ibv_context *ctx;

	make_image(s_all_events);
	ctx = open_device(device);
	create_types(ctx, FROM(CONTEXT) & ~FROM(CQ));
	refused(ctx, ENOENT, refill, find(0, RXE_MIG_REC_CHANNEL), "CHANNEL");
	refused(ctx, ENOENT, refill, find(0, RXE_MIG_REC_ASYNC), "ASYNC");
	create_types(ctx, FROM(CQ));
	refill_objects(ctx);
	refill_events(ctx);
	finish(ctx, false);
}

/* ---- completion events ---- */

#define NOTHING 0x1234		/* nobody's handle */

/* REFILL of a channel with two events, or one if the first is NONE */
static void refuse_comp(struct ibv_context *ctx, int err, uint32_t channel,
			uint32_t first, uint32_t second, const char *what)
{
	uint64_t data[8] = {};
	struct rxe_mig_channel *c = (void *)data;

	c->rec.type = RXE_MIG_REC_CHANNEL;
	c->rec.handle = channel;
	c->rec.len = sizeof(*c) + 8;
	if (first != RXE_MIG_NONE)
		c->cq_handle[c->num_events++] = first;
	c->cq_handle[c->num_events++] = second;
	refused(ctx, err, refill, c, what);
}

static void c_half_events(void)
{
	struct ibv_context *ctx;

	make_image(s_all);
	ctx = open_device(device);
	restore_into(ctx, NULL);
	refuse_comp(ctx, ENOENT, 0, find(0, RXE_MIG_REC_CQ)->handle, NOTHING,
		    "an event of no CQ");
	finish(ctx, true);
}

/* A CQ has its events in its own channel */
static void c_foreign_event(void)
{
	struct ibv_context *ctx;

	make_image(s_channels);
	ctx = open_device(device);
	restore_into(ctx, NULL);
	refuse_comp(ctx, EINVAL, 0, RXE_MIG_NONE,
		    find(0, RXE_MIG_REC_CQ)->handle,
		    "an event of another channel");
	finish(ctx, true);
}

static void c_half_foreign(void)
{
	struct rxe_mig_cq *own, *other;
	struct ibv_context *ctx;
	struct rxe_mig_rec *rec;

	make_image(s_channels);
	ctx = open_device(device);
	restore_into(ctx, NULL);
	own = other = (void *)find(0, RXE_MIG_REC_CQ);
	for_each_rec(0, rec)
		if (rec->type == RXE_MIG_REC_CQ)
			other = (void *)rec;
	check(own->channel != other->channel, "one channel only");
	refuse_comp(ctx, EINVAL, own->channel, own->rec.handle,
		    other->rec.handle, "one of two of another channel");
	finish(ctx, true);
}

/* ---- asynchronous events ---- */

static struct rxe_mig_async_event event_of(uint32_t event_type,
					   uint32_t obj_type)
{
	struct rxe_mig_async_event event = {
		.event_type = event_type,
		.obj_type = obj_type,
		.obj_handle = RXE_MIG_NONE,
	};

	if (obj_type && obj_type <= RXE_MIG_REC_MW)
		event.obj_handle = find(0, obj_type)->handle;
	return event;
}

static void refuse_async(struct ibv_context *ctx, int err,
			 const struct rxe_mig_async_event *events, int num,
			 const char *what)
{
	uint64_t data[16] = {};
	struct rxe_mig_async *a = (void *)data;

	a->rec.type = RXE_MIG_REC_ASYNC;
	a->rec.len = sizeof(*a) + num * sizeof(*events);
	a->num_events = num;
	memcpy(a->events, events, num * sizeof(*events));
	refused(ctx, err, refill, a, what);
}

static void c_half_async(void)
{
	struct rxe_mig_async_event events[2];
	struct ibv_context *ctx;

	make_image(s_all);
	ctx = open_device(device);
	restore_into(ctx, NULL);
	events[0] = event_of(IBV_EVENT_SRQ_LIMIT_REACHED, RXE_MIG_REC_SRQ);
	events[1] = events[0];
	events[1].obj_handle = NOTHING;
	refuse_async(ctx, ENOENT, events, 2, "one of two of no SRQ");
	finish(ctx, true);
}

static void c_half_unknown(void)
{
	struct rxe_mig_async_event events[2];
	struct ibv_context *ctx;

	make_image(s_all);
	ctx = open_device(device);
	restore_into(ctx, NULL);
	events[0] = event_of(IBV_EVENT_SRQ_LIMIT_REACHED, RXE_MIG_REC_SRQ);
	events[1] = event_of(999, RXE_MIG_REC_SRQ);
	refuse_async(ctx, EINVAL, events, 2, "one of two of no known type");
	events[1] = event_of(IBV_EVENT_SQ_DRAINED, RXE_MIG_REC_SRQ);
	refuse_async(ctx, EINVAL, events, 2, "one of two of another object");
	finish(ctx, true);
}

/* Restore validates every field as untrusted input */
static void c_unknown_event(void)
{
	static const struct {
		uint32_t event_type;
		uint32_t obj_type;
		const char *what;
	} wrong[] = {
		{ 999, RXE_MIG_REC_SRQ, "an event of no known type" },
		{ IBV_EVENT_SRQ_LIMIT_REACHED, RXE_MIG_REC_MR,
		  "an event of an MR" },
		{ IBV_EVENT_SRQ_LIMIT_REACHED, RXE_MIG_REC_QP,
		  "a limit event of a QP" },
		{ IBV_EVENT_SQ_DRAINED, RXE_MIG_REC_CQ,
		  "a drained event of a CQ" },
		{ IBV_EVENT_CQ_ERR, RXE_MIG_REC_SRQ,
		  "an overrun event of an SRQ" },
		{ IBV_EVENT_PORT_ACTIVE, RXE_MIG_REC_QP,
		  "a port event of a QP" },
		{ IBV_EVENT_SQ_DRAINED, 0, "a drained event of the port" },
		{ IBV_EVENT_SRQ_LIMIT_REACHED, 99,
		  "an event of no known object" },
	};
	struct rxe_mig_async_event event;
	struct ibv_context *ctx;
	unsigned int i;

	make_image(s_all);
	ctx = open_device(device);
	restore_into(ctx, NULL);
	for (i = 0; i != sizeof(wrong) / sizeof(*wrong); i++) {
		event = event_of(wrong[i].event_type, wrong[i].obj_type);
		refuse_async(ctx, EINVAL, &event, 1, wrong[i].what);
	}
	finish(ctx, true);
}

/* ---- a live object gets no events from an image ---- */

static void (*events_setup(void))(void)
{
	return case_type == RXE_MIG_REC_CHANNEL ? s_channel_events :
						  s_srq_event;
}

static void refuse_late(struct ibv_context *ctx, const char *what)
{
	/* Both have the number of events at this place */
	struct rxe_mig_channel *rec = (void *)find(0, case_type);

	check(rec->num_events, "no events");
	refused(ctx, EBUSY, refill, rec, what);
	dump(ctx, 1);
	compare(0, 1, true);
}

static void c_refill_live(void)
{
	struct ibv_context *ctx;

	make_image(events_setup());
	ctx = open_device(device);
	restore_into(ctx, NULL);
	go_live(ctx);
	refuse_late(ctx, "events after RESUME");
}

static void c_refill_ordinary(void)
{
	o.ctx = open_device(device);
	events_setup()();
	dump(o.ctx, 0);
	check0(context_cmd(o.ctx, IBV_RESTORE_CANCEL));
	*fd_of(find(0, case_type)) = case_type == RXE_MIG_REC_CHANNEL ?
				     o.channel->fd : o.ctx->async_fd;
	refuse_late(o.ctx, "events of objects not made by CREATE");
}

const struct test event_tests[] = {
	{ "wrong event files", c_wrong_event_file },
	{ "wrong order: events before objects", c_events_first },
	{ "no effect: completion events, one of no CQ", c_half_events },
	{ "no effect: completion events, one of another channel",
	  c_half_foreign },
	{ "EINVAL: completion event of another channel", c_foreign_event },
	{ "no effect: asynchronous events, one of no SRQ", c_half_async },
	{ "no effect: asynchronous events, one of an unknown kind",
	  c_half_unknown },
	{ "EINVAL: asynchronous event of an unknown kind", c_unknown_event },
	{ "EBUSY: REFILL of a live %s with events", c_refill_live,
	  .types = ONLY(ASYNC) | ONLY(CHANNEL) },
	{ "EBUSY: REFILL of an ordinary %s with events", c_refill_ordinary,
	  .types = ONLY(ASYNC) | ONLY(CHANNEL) },
	{}
};
