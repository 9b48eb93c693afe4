// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Records that are not right, and longer ones.
 */
#include "suite.h"

static void bad_records(struct ibv_context *ctx, int cmd,
			const struct rxe_mig_rec *rec)
{
	struct rxe_mig_rec *copy = copy_of(rec);
	size_t len = rec->len;
	int type = rec->type;

	expect(EINVAL, raw(ctx, type, cmd, NULL, 0), "no record");
	expect(EINVAL, raw(ctx, type, cmd, NULL, len), "NULL");
	expect(EINVAL, raw(ctx, type, cmd, rec, 0), "length 0");
	expect(EINVAL, raw(ctx, type, cmd, rec, sizeof(*rec) - 1),
	       "length below that of a record's header");
	expect(EINVAL, raw(ctx, type, cmd, rec, len - 8), "cut off");
	expect(EINVAL, raw(ctx, type, cmd, rec, len + 8), "args too long");
	memmove((uint8_t *)copy + 4, rec, len);
	expect(EINVAL, raw(ctx, type, cmd, (uint8_t *)copy + 4, len),
	       "not aligned");
	memcpy(copy, rec, len);
	expect(EINVAL, raw(ctx, type == RXE_MIG_REC_PD ? RXE_MIG_REC_CHANNEL :
			   RXE_MIG_REC_PD, cmd, rec, len), "another type");
	copy->type = RXE_MIG_REC_MW + 1;
	expect(EINVAL, raw(ctx, type, cmd, copy, len), "unknown record type");
	copy->type = type;
	copy->len = sizeof(*rec) - 8;
	expect(EINVAL, raw(ctx, type, cmd, copy, copy->len), "too short");
	if (type != RXE_MIG_REC_PD) {
		copy->len = sizeof(*rec);
		expect(EINVAL, raw(ctx, type, cmd, copy, copy->len),
		       "only the header");
	}
	free(copy);
}

static void h_bad_create(struct ibv_context *ctx, enum phase phase,
			 const struct rxe_mig_rec *rec)
{
	struct sig before;

	if (phase != BEFORE_CREATE || rec->type != case_type)
		return;
	before = sig_of(ctx);
	bad_records(ctx, IBV_RESTORE_CREATE, rec);
	same_sig(before, sig_of(ctx), "CREATE of bad records");
}

static void h_bad_refill(struct ibv_context *ctx, enum phase phase,
			 const struct rxe_mig_rec *rec)
{
	struct sig before;

	if (phase != BEFORE_REFILL || rec->type != case_type)
		return;
	before = sig_of(ctx);
	bad_records(ctx, IBV_RESTORE_REFILL, rec);
	same_sig(before, sig_of(ctx), "REFILL of bad records");
}

/* ---- longer records ---- */

static int refill_long(struct ibv_context *ctx, const void *record,
		       size_t surplus, uint8_t value)
{
	struct rxe_mig_rec *copy = copy_of(record);
	int ret;

	memset((uint8_t *)copy + copy->len, value, surplus);
	copy->len += surplus;
	ret = refill(ctx, copy);
	free(copy);
	return ret;
}

/*
 * image-format.md, Versions: a longer structure with a surplus of zero. No
 * hook: this is the object's REFILL, and there is only one.
 */
static void c_longer(void)
{
	struct ibv_context *ctx;
	struct rxe_mig_rec *rec;

	make_image(s_all_events);
	ctx = open_device(device);
	create_types(ctx, FROM(CONTEXT));
	for_each_rec(0, rec) {
		if (fd_of(rec))
			continue;
		if (rec->type == case_type)
			expect(0, refill_long(ctx, rec, 8, 0),
			       "longer by zeros");
		else
			check0(refill(ctx, rec));
	}
	refill_events(ctx);
	finish(ctx, false);
}

static int refill_longer(struct ibv_context *ctx, const void *record)
{
	return refill_long(ctx, record, 8, 1);
}

static void h_longer_nonzero(struct ibv_context *ctx, enum phase phase,
			     const struct rxe_mig_rec *rec)
{
	if (phase == BEFORE_REFILL && rec->type == case_type)
		refused(ctx, EINVAL, refill_longer, rec,
			"longer by what is not zero");
}

/* ---- values of fields that make a record invalid ---- */

struct wrong {
	uint32_t type;
	size_t offset;
	size_t size;
	uint64_t value;
	int err;
};

static void try_wrong(struct ibv_context *ctx, const struct rxe_mig_rec *rec,
		      step_fn *call)
{
	const struct wrong *wrong = this_test->arg;
	uint8_t *copy;

	/* Of the QPs it is the connected one */
	if (rec->type != wrong->type ||
	    (rec->type == RXE_MIG_REC_QP &&
	     ((struct rxe_mig_qp_rec *)rec)->type != IBV_QPT_RC))
		return;
	copy = copy_of(rec);
	memset(copy + wrong->offset, 0, wrong->size);
	memcpy(copy + wrong->offset, &wrong->value,
	       wrong->size < 8 ? wrong->size : 8);
	refused(ctx, wrong->err, call, copy, this_test->name);
	free(copy);
}

static void h_wrong_create(struct ibv_context *ctx, enum phase phase,
			   const struct rxe_mig_rec *rec)
{
	if (phase == BEFORE_CREATE)
		try_wrong(ctx, rec, create);
}

static void h_wrong_refill(struct ibv_context *ctx, enum phase phase,
			   const struct rxe_mig_rec *rec)
{
	if (phase == BEFORE_REFILL)
		try_wrong(ctx, rec, refill);
}

#define CREATE_NAME	": CREATE with "
#define CREATE_HOOK	h_wrong_create
#define REFILL_NAME	": REFILL with "
#define REFILL_HOOK	h_wrong_refill
/* ibv_restore_object(3): the record "contradicts the object" */
#define OBJECT_NAME	": another object, "
#define OBJECT_HOOK	h_wrong_refill
/* image-format.md: reserved space that is not zero is refused */
#define RESERVED_NAME	": reserved space, "
#define RESERVED_HOOK	h_wrong_refill

#define W(kind, rec, st, member, val, error)                                   \
	{ #error kind##_NAME #rec "." #member " = " #val, NULL, kind##_HOOK,   \
	  .arg = &(const struct wrong){ RXE_MIG_REC_##rec,                     \
		offsetof(struct rxe_mig_##st, member),                         \
		sizeof(((struct rxe_mig_##st *)0)->member), val, error } }
#define HUGE_U32 0xfffffff0U

const struct test record_tests[] = {
	{ "EINVAL: CREATE of a bad %s record", NULL, h_bad_create,
	  FROM(CONTEXT) },
	{ "EINVAL: REFILL of a bad %s record", NULL, h_bad_refill,
	  FROM(CONTEXT) },
	/* Only of these it is clear where the surplus begins */
	{ "versions: a longer %s record", c_longer,
	  .types = ONLY(PD) | ONLY(MR) | ONLY(AH) | ONLY(MW) },
	{ "versions: an unknown part of the %s record", NULL, h_longer_nonzero,
	  FROM(CONTEXT) },

	/* Above the highest of the image, which the CONTEXT record tells */
	W(CREATE, PD, pd, rec.handle, 0x80000, EINVAL),
	W(CREATE, MR, mr, rec.handle, 0x80000, EINVAL),
	W(CREATE, MR, mr, pd, 0x1234, ENOENT),
	W(CREATE, MR, mr, access, 0x80000000, EINVAL),
	W(CREATE, MR, mr, rkey, 0, EINVAL),
	W(CREATE, MR, mr, rkey, 0xffffff00, EINVAL),
	W(CREATE, CQ, cq, cqe, 0, EINVAL),
	W(CREATE, CQ, cq, cqe, HUGE_U32, EINVAL),
	W(CREATE, CQ, cq, ring.mmap_offset, 0x1001, EINVAL),
	W(CREATE, CQ, cq, ring.mmap_offset, ~0xfffULL, EINVAL),
	W(CREATE, SRQ, srq, pd, 0x1234, ENOENT),
	W(CREATE, SRQ, srq, srq_num, 1, EINVAL),
	W(CREATE, SRQ, srq, max_wr, 0, EINVAL),
	W(CREATE, SRQ, srq, max_wr, HUGE_U32, EINVAL),
	W(CREATE, SRQ, srq, max_sge, 1000, EINVAL),
	W(CREATE, SRQ, srq, ring.mmap_offset, 0x1001, EINVAL),
	W(CREATE, AH, ah, pd, 0x1234, ENOENT),
	W(CREATE, AH, ah, ah_num, 0, EINVAL),
	W(CREATE, AH, ah, ah_num, HUGE_U32, EINVAL),
	W(CREATE, AH, ah, av.port_num, 9, EINVAL),
	W(CREATE, QP, qp_rec, pd, 0x1234, ENOENT),
	W(CREATE, QP, qp_rec, send_cq, 0x1234, ENOENT),
	W(CREATE, QP, qp_rec, recv_cq, 0x1234, ENOENT),
	W(CREATE, QP, qp_rec, srq, 0x1234, ENOENT),
	W(CREATE, QP, qp_rec, qpn, 0, EINVAL),
	W(CREATE, QP, qp_rec, qpn, HUGE_U32, EINVAL),
	W(CREATE, QP, qp_rec, max_send_wr, HUGE_U32, EINVAL),
	W(CREATE, QP, qp_rec, max_send_sge, 1000, EINVAL),
	W(CREATE, QP, qp_rec, sq.mmap_offset, 0x1001, EINVAL),
	W(CREATE, MW, mw, pd, 0x1234, ENOENT),
	W(CREATE, MW, mw, type, 9, EINVAL),
	W(CREATE, MW, mw, rkey, 0x100, EINVAL),

	W(REFILL, CQ, cq, notify, 8, EINVAL),
	W(REFILL, CQ, cq, ring.log2_elem_size, 3, EINVAL),
	W(REFILL, CQ, cq, ring.index_mask, 1, EINVAL),
	W(REFILL, CQ, cq, ring.producer, HUGE_U32, EINVAL),
	W(REFILL, CQ, cq, ring.consumer, 16, EINVAL),
	W(REFILL, CQ, cq, ring.index, 16, EINVAL),
	W(REFILL, CQ, cq, ring.data_len, 0, EINVAL),
	W(REFILL, CQ, cq, ring.data_len, ~0ULL, EINVAL),
	W(REFILL, SRQ, srq, limit, HUGE_U32, EINVAL),
	W(REFILL, SRQ, srq, error, 2, EINVAL),
	W(REFILL, SRQ, srq, ring.log2_elem_size, 3, EINVAL),
	W(REFILL, SRQ, srq, ring.index_mask, 1, EINVAL),
	W(REFILL, SRQ, srq, ring.producer, HUGE_U32, EINVAL),
	W(REFILL, SRQ, srq, ring.index, HUGE_U32, EINVAL),
	W(REFILL, SRQ, srq, ring.data_len, 0, EINVAL),
	W(REFILL, AH, ah, av.network_type, 7, EINVAL),
	W(REFILL, QP, qp_rec, qpn, 0x99, EINVAL),
	W(REFILL, QP, qp_rec, type, 3, EINVAL),
	W(REFILL, QP, qp_rec, state, 99, EINVAL),
	W(REFILL, QP, qp_rec, path_mtu, 0, EINVAL),
	W(REFILL, QP, qp_rec, path_mtu, 6, EINVAL),
	W(REFILL, QP, qp_rec, path_mig_state, 9, EINVAL),
	W(REFILL, QP, qp_rec, access, 0x80000000, EINVAL),
	W(REFILL, QP, qp_rec, timeout, 32, EINVAL),
	W(REFILL, QP, qp_rec, alt_timeout, 32, EINVAL),
	W(REFILL, QP, qp_rec, retry_cnt, 8, EINVAL),
	W(REFILL, QP, qp_rec, rnr_retry, 8, EINVAL),
	W(REFILL, QP, qp_rec, min_rnr_timer, 32, EINVAL),
	W(REFILL, QP, qp_rec, port_num, 2, EINVAL),
	W(REFILL, QP, qp_rec, sq_draining, 2, EINVAL),
	W(REFILL, QP, qp_rec, max_rd_atomic, HUGE_U32, EINVAL),
	W(REFILL, QP, qp_rec, max_dest_rd_atomic, HUGE_U32, EINVAL),
	W(REFILL, QP, qp_rec, req_rd_atomic, 200, EINVAL),
	W(REFILL, QP, qp_rec, num_res, 0x10000000, EINVAL),
	W(REFILL, QP, qp_rec, rq_psn, 0x1000000, EINVAL),
	W(REFILL, QP, qp_rec, resp_psn, 0x1000000, EINVAL),
	W(REFILL, QP, qp_rec, dest_qpn, 0x1000000, EINVAL),
	W(REFILL, QP, qp_rec, req_opcode, 256, EINVAL),
	W(REFILL, QP, qp_rec, comp_opcode, 5, EINVAL),
	W(REFILL, QP, qp_rec, req_wqe_index, HUGE_U32, EINVAL),
	W(REFILL, QP, qp_rec, resp_drop_msg, 2, EINVAL),
	W(REFILL, QP, qp_rec, resp_status, 99, EINVAL),
	W(REFILL, QP, qp_rec, recv_wqe_len, 8, EINVAL),
	W(REFILL, QP, qp_rec, pri_av.network_type, 7, EINVAL),
	W(REFILL, QP, qp_rec, alt_av.network_type, 7, EINVAL),
	W(REFILL, QP, qp_rec, sq.log2_elem_size, 3, EINVAL),
	W(REFILL, QP, qp_rec, sq.index_mask, 1, EINVAL),
	W(REFILL, QP, qp_rec, sq.producer, HUGE_U32, EINVAL),
	W(REFILL, QP, qp_rec, sq.data_len, 8, EINVAL),
	W(REFILL, QP, qp_rec, rq.data_len, ~0ULL, EINVAL),
	W(REFILL, MW, mw, type, 1, EINVAL),
	W(REFILL, MW, mw, state, 9, EINVAL),
	W(REFILL, MW, mw, access, 0x80000000, EINVAL),
	W(REFILL, MW, mw, rkey, 0x100, EINVAL),
	W(REFILL, MW, mw, mr, 0x1234, ENOENT),
	W(REFILL, MW, mw, qp, 0x1234, ENOENT),
	W(REFILL, MW, mw, addr, 0x1000, EINVAL),
	W(REFILL, MW, mw, length, 1 << 20, EINVAL),
	W(REFILL, CHANNEL, channel, num_events, 1000, EINVAL),
	W(REFILL, CHANNEL, channel, num_events, HUGE_U32, EINVAL),
	W(REFILL, ASYNC, async, num_events, 1000, EINVAL),

	W(OBJECT, MR, mr, rkey, 0x12345678, EINVAL),
	W(OBJECT, MR, mr, length, 1, EINVAL),
	W(OBJECT, MR, mr, pd, 0x1234, EINVAL),
	W(OBJECT, MR, mr, access, 0, EINVAL),
	W(OBJECT, MR, mr, iova, 0x1000, EINVAL),
	W(OBJECT, CQ, cq, cqe, 99, EINVAL),
	W(OBJECT, SRQ, srq, srq_num, 0x30000, EINVAL),
	W(OBJECT, SRQ, srq, pd, 0x1234, EINVAL),
	W(OBJECT, SRQ, srq, max_sge, 3, EINVAL),
	W(OBJECT, AH, ah, ah_num, 0x777, EINVAL),
	W(OBJECT, AH, ah, pd, 0x1234, EINVAL),
	W(OBJECT, QP, qp_rec, pd, 0x1234, EINVAL),
	W(OBJECT, QP, qp_rec, send_cq, 0x1234, EINVAL),
	W(OBJECT, QP, qp_rec, srq, 0x1234, EINVAL),
	W(OBJECT, QP, qp_rec, max_send_sge, 3, EINVAL),
	W(OBJECT, MW, mw, pd, 0x1234, EINVAL),

	W(RESERVED, CONTEXT, context, reserved, 1, EINVAL),
	W(RESERVED, ASYNC, async, reserved, 1, EINVAL),
	W(RESERVED, CHANNEL, channel, reserved, 1, EINVAL),
	W(RESERVED, CQ, cq, reserved, 1, EINVAL),
	W(RESERVED, SRQ, srq, reserved, 1, EINVAL),
	W(RESERVED, AH, ah, reserved, 1, EINVAL),
	W(RESERVED, AH, ah, av.reserved, 1, EINVAL),
	W(RESERVED, AH, ah, av.reserved2, 1, EINVAL),
	W(RESERVED, QP, qp_rec, reserved, 1, EINVAL),
	W(RESERVED, QP, qp_rec, proto.reserved, 1, EINVAL),
	W(RESERVED, QP, qp_rec, pri_av.reserved2, 1, EINVAL),
	W(RESERVED, QP, qp_rec, proto.flags, 0x80000000, EINVAL),
	W(RESERVED, MW, mw, reserved, 1, EINVAL),
	{}
};
