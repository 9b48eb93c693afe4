// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * The uverbs ioctl methods of rxe_mig_uapi.h, in the driver namespace of the
 * device object: they need no change to ib_core or ib_uverbs.
 */
#include <linux/mm.h>
#include <rdma/uverbs_ioctl.h>
#include <rdma/uverbs_std_types.h>

#undef UVERBS_MODULE_NAME
#define UVERBS_MODULE_NAME rxe_mig
#include <rdma/uverbs_named_ioctl.h>

#include "rxe_mig.h"

/* one record: a QP with the largest rings rxe allows */
#define RXE_MIG_REC_MAX		BIT_ULL(31)

static int copy_refusal(struct uverbs_attr_bundle *attrs, u16 attr,
			const struct rxe_mig_refusal *why)
{
	if (!why->reason || !uverbs_attr_is_valid(attrs, attr))
		return 0;
	return uverbs_copy_to(attrs, attr, why, sizeof(*why));
}

static int UVERBS_HANDLER(RXE_MIG_METHOD_QUERY)(struct uverbs_attr_bundle *attrs)
{
	struct rxe_mig_query q = {
		.version = RXE_MIG_VERSION,
		.wire_version = MIGROS_VERSION,
	};

	return uverbs_copy_to_struct_or_zero(attrs, RXE_MIG_ATTR_QUERY_OUT, &q,
					     sizeof(q));
}

static int UVERBS_HANDLER(RXE_MIG_METHOD_DUMP)(struct uverbs_attr_bundle *attrs)
{
	struct ib_ucontext *uc = ib_uverbs_get_ucontext_file(attrs->ufile);
	struct rxe_mig_refusal why = {};
	u32 flags, count = 0;
	int fd = -1, err;
	s32 out_fd;
	u64 len = 0;

	if (IS_ERR(uc))
		return PTR_ERR(uc);
	err = uverbs_get_flags32(&flags, attrs, RXE_MIG_ATTR_DUMP_FLAGS,
				 RXE_MIG_DUMP_CHECK | RXE_MIG_DUMP_ASK);
	if (err)
		return err;
	if (!(flags & RXE_MIG_DUMP_CHECK) &&
	    (flags & RXE_MIG_DUMP_ASK ||
	     !uverbs_attr_is_valid(attrs, RXE_MIG_ATTR_DUMP_FD)))
		return -EINVAL;

	err = rxe_mig_dump(uc, flags, &len, &count, &fd, &why);
	if (err) {
		copy_refusal(attrs, RXE_MIG_ATTR_DUMP_REFUSAL, &why);
		return err;
	}

	err = uverbs_copy_to(attrs, RXE_MIG_ATTR_DUMP_LEN, &len, sizeof(len));
	if (!err)
		err = uverbs_copy_to(attrs, RXE_MIG_ATTR_DUMP_COUNT, &count,
				     sizeof(count));
	if (!err && fd >= 0) {
		out_fd = fd;
		err = uverbs_copy_to(attrs, RXE_MIG_ATTR_DUMP_FD, &out_fd,
				     sizeof(out_fd));
	}
	/* The file is installed: if the caller never learns its number the
	 * lease must not keep the context stopped.
	 */
	if (err && fd >= 0)
		rxe_mig_cancel(uc);
	return err;
}

static int UVERBS_HANDLER(RXE_MIG_METHOD_CANCEL)(struct uverbs_attr_bundle *attrs)
{
	struct ib_ucontext *uc = ib_uverbs_get_ucontext_file(attrs->ufile);

	return IS_ERR(uc) ? PTR_ERR(uc) : rxe_mig_cancel(uc);
}

static int UVERBS_HANDLER(RXE_MIG_METHOD_COMMIT)(struct uverbs_attr_bundle *attrs)
{
	struct ib_ucontext *uc = ib_uverbs_get_ucontext_file(attrs->ufile);

	return IS_ERR(uc) ? PTR_ERR(uc) : rxe_mig_commit(uc);
}

static const struct {
	u16 attr;
	u32 type;
} refill_targets[] = {
	{ RXE_MIG_ATTR_REFILL_CQ, RXE_MIG_REC_CQ },
	{ RXE_MIG_ATTR_REFILL_SRQ, RXE_MIG_REC_SRQ },
	{ RXE_MIG_ATTR_REFILL_QP, RXE_MIG_REC_QP },
	{ RXE_MIG_ATTR_REFILL_MR, RXE_MIG_REC_MR },
	{ RXE_MIG_ATTR_REFILL_MW, RXE_MIG_REC_MW },
	{ RXE_MIG_ATTR_REFILL_AH, RXE_MIG_REC_AH },
	{ RXE_MIG_ATTR_REFILL_PD, RXE_MIG_REC_PD },
};

/* the file that a record of events is for must be one of this context */
static int check_event_file(struct uverbs_attr_bundle *attrs,
			    struct ib_ucontext *uc, u32 type)
{
	struct rxe_mig_identity id;
	s32 fd;
	int err;

	if (!uverbs_attr_is_valid(attrs, RXE_MIG_ATTR_REFILL_FD))
		return 0;
	err = uverbs_copy_from(&fd, attrs, RXE_MIG_ATTR_REFILL_FD);
	if (!err)
		err = rxe_mig_identify(uc, fd, &id);
	if (!err && id.kind != type)
		err = -EINVAL;
	return err;
}

static int UVERBS_HANDLER(RXE_MIG_METHOD_REFILL)(struct uverbs_attr_bundle *attrs)
{
	struct ib_ucontext *uc = ib_uverbs_get_ucontext_file(attrs->ufile);
	struct rxe_mig_blob blob;
	struct rxe_mig_rec *rec;
	void *obj = NULL;
	u32 type = 0;
	int err, i;

	if (IS_ERR(uc))
		return PTR_ERR(uc);
	err = uverbs_copy_from(&blob, attrs, RXE_MIG_ATTR_REFILL_REC);
	if (err)
		return err;
	if (blob.len < sizeof(*rec) || blob.len > RXE_MIG_REC_MAX)
		return -EINVAL;
	if (!rxe_mig_capable())
		return -EPERM;

	for (i = 0; i < ARRAY_SIZE(refill_targets); i++) {
		if (!uverbs_attr_is_valid(attrs, refill_targets[i].attr))
			continue;
		if (obj)
			return -EINVAL;
		obj = uverbs_attr_get_obj(attrs, refill_targets[i].attr);
		type = refill_targets[i].type;
	}

	rec = kvmalloc(blob.len, GFP_KERNEL_ACCOUNT);
	if (!rec)
		return -ENOMEM;
	if (copy_from_user(rec, u64_to_user_ptr(blob.addr), blob.len)) {
		err = -EFAULT;
		goto free;
	}
	if (!obj) {
		type = rec->type;
		if (type != RXE_MIG_REC_CONTEXT && type != RXE_MIG_REC_ASYNC &&
		    type != RXE_MIG_REC_CHANNEL) {
			err = -EINVAL;
			goto free;
		}
		err = check_event_file(attrs, uc, type);
		if (err)
			goto free;
	}
	err = rxe_mig_refill(uc, type, obj, rec, blob.len);
free:
	kvfree(rec);
	return err;
}

static int UVERBS_HANDLER(RXE_MIG_METHOD_RESUME)(struct uverbs_attr_bundle *attrs)
{
	struct ib_ucontext *uc = ib_uverbs_get_ucontext_file(attrs->ufile);
	struct rxe_mig_refusal why = {};
	u32 flags;
	int err;

	if (IS_ERR(uc))
		return PTR_ERR(uc);
	err = uverbs_get_flags32(&flags, attrs, RXE_MIG_ATTR_RESUME_FLAGS,
				 RXE_MIG_RESUME_NEW_ADDR |
				 RXE_MIG_RESUME_CHECK);
	if (err)
		return err;
	err = rxe_mig_resume(uc, flags, &why);
	if (err)
		copy_refusal(attrs, RXE_MIG_ATTR_RESUME_REFUSAL, &why);
	return err;
}

static int UVERBS_HANDLER(RXE_MIG_METHOD_IDENTIFY)(struct uverbs_attr_bundle *attrs)
{
	struct ib_ucontext *uc = ib_uverbs_get_ucontext_file(attrs->ufile);
	struct rxe_mig_identity id = {};
	s32 fd;
	int err;

	if (IS_ERR(uc))
		return PTR_ERR(uc);
	if (!rxe_mig_capable())
		return -EPERM;
	err = uverbs_copy_from(&fd, attrs, RXE_MIG_ATTR_IDENTIFY_FD);
	if (!err)
		err = rxe_mig_identify(uc, fd, &id);
	if (!err)
		err = uverbs_copy_to(attrs, RXE_MIG_ATTR_IDENTIFY_OUT, &id,
				     sizeof(id));
	return err;
}

static int UVERBS_HANDLER(RXE_MIG_METHOD_ADOPT)(struct uverbs_attr_bundle *attrs)
{
	struct ib_ucontext *uc = ib_uverbs_get_ucontext_file(attrs->ufile);
	s32 fd, pid;
	int err;

	if (IS_ERR(uc))
		return PTR_ERR(uc);
	err = uverbs_copy_from(&fd, attrs, RXE_MIG_ATTR_ADOPT_FD);
	if (!err)
		err = uverbs_copy_from(&pid, attrs, RXE_MIG_ATTR_ADOPT_PID);
	return err ?: rxe_mig_adopt(uc, fd, pid);
}

DECLARE_UVERBS_NAMED_METHOD(RXE_MIG_METHOD_QUERY,
			    UVERBS_ATTR_PTR_OUT(RXE_MIG_ATTR_QUERY_OUT, UVERBS_ATTR_MIN_SIZE(8),
						UA_MANDATORY));

DECLARE_UVERBS_NAMED_METHOD(RXE_MIG_METHOD_DUMP,
			    UVERBS_ATTR_FLAGS_IN(RXE_MIG_ATTR_DUMP_FLAGS, u32, UA_OPTIONAL),
			    UVERBS_ATTR_PTR_OUT(RXE_MIG_ATTR_DUMP_LEN, UVERBS_ATTR_TYPE(u64),
						UA_MANDATORY),
			    UVERBS_ATTR_PTR_OUT(RXE_MIG_ATTR_DUMP_COUNT, UVERBS_ATTR_TYPE(u32),
						UA_MANDATORY),
			    UVERBS_ATTR_PTR_OUT(RXE_MIG_ATTR_DUMP_FD, UVERBS_ATTR_TYPE(s32),
						UA_OPTIONAL),
			    UVERBS_ATTR_PTR_OUT(RXE_MIG_ATTR_DUMP_REFUSAL,
						UVERBS_ATTR_TYPE(struct rxe_mig_refusal),
						UA_OPTIONAL));

DECLARE_UVERBS_NAMED_METHOD(RXE_MIG_METHOD_CANCEL);
DECLARE_UVERBS_NAMED_METHOD(RXE_MIG_METHOD_COMMIT);

DECLARE_UVERBS_NAMED_METHOD(RXE_MIG_METHOD_REFILL,
			    UVERBS_ATTR_PTR_IN(RXE_MIG_ATTR_REFILL_REC,
					       UVERBS_ATTR_TYPE(struct rxe_mig_blob), UA_MANDATORY),
			    UVERBS_ATTR_IDR(RXE_MIG_ATTR_REFILL_CQ, UVERBS_OBJECT_CQ,
					    UVERBS_ACCESS_READ, UA_OPTIONAL),
			    UVERBS_ATTR_IDR(RXE_MIG_ATTR_REFILL_SRQ, UVERBS_OBJECT_SRQ,
					    UVERBS_ACCESS_READ, UA_OPTIONAL),
			    UVERBS_ATTR_IDR(RXE_MIG_ATTR_REFILL_QP, UVERBS_OBJECT_QP,
					    UVERBS_ACCESS_WRITE, UA_OPTIONAL),
			    UVERBS_ATTR_IDR(RXE_MIG_ATTR_REFILL_MR, UVERBS_OBJECT_MR,
					    UVERBS_ACCESS_READ, UA_OPTIONAL),
			    UVERBS_ATTR_IDR(RXE_MIG_ATTR_REFILL_MW, UVERBS_OBJECT_MW,
					    UVERBS_ACCESS_READ, UA_OPTIONAL),
			    UVERBS_ATTR_IDR(RXE_MIG_ATTR_REFILL_AH, UVERBS_OBJECT_AH,
					    UVERBS_ACCESS_READ, UA_OPTIONAL),
			    UVERBS_ATTR_IDR(RXE_MIG_ATTR_REFILL_PD, UVERBS_OBJECT_PD,
					    UVERBS_ACCESS_READ, UA_OPTIONAL),
			    UVERBS_ATTR_PTR_IN(RXE_MIG_ATTR_REFILL_FD, UVERBS_ATTR_TYPE(s32),
					       UA_OPTIONAL));

DECLARE_UVERBS_NAMED_METHOD(RXE_MIG_METHOD_RESUME,
			    UVERBS_ATTR_FLAGS_IN(RXE_MIG_ATTR_RESUME_FLAGS, u32, UA_OPTIONAL),
			    UVERBS_ATTR_PTR_OUT(RXE_MIG_ATTR_RESUME_REFUSAL,
						UVERBS_ATTR_TYPE(struct rxe_mig_refusal),
						UA_OPTIONAL));

DECLARE_UVERBS_NAMED_METHOD(RXE_MIG_METHOD_IDENTIFY,
			    UVERBS_ATTR_PTR_IN(RXE_MIG_ATTR_IDENTIFY_FD, UVERBS_ATTR_TYPE(s32),
					       UA_MANDATORY),
			    UVERBS_ATTR_PTR_OUT(RXE_MIG_ATTR_IDENTIFY_OUT,
						UVERBS_ATTR_TYPE(struct rxe_mig_identity),
						UA_MANDATORY));

DECLARE_UVERBS_NAMED_METHOD(RXE_MIG_METHOD_ADOPT,
			    UVERBS_ATTR_PTR_IN(RXE_MIG_ATTR_ADOPT_FD, UVERBS_ATTR_TYPE(s32),
					       UA_MANDATORY),
			    UVERBS_ATTR_PTR_IN(RXE_MIG_ATTR_ADOPT_PID, UVERBS_ATTR_TYPE(s32),
					       UA_MANDATORY));

ADD_UVERBS_METHODS(rxe_mig_device_methods,
		   UVERBS_OBJECT_DEVICE,
		   &UVERBS_METHOD(RXE_MIG_METHOD_QUERY),
		   &UVERBS_METHOD(RXE_MIG_METHOD_DUMP),
		   &UVERBS_METHOD(RXE_MIG_METHOD_CANCEL),
		   &UVERBS_METHOD(RXE_MIG_METHOD_COMMIT),
		   &UVERBS_METHOD(RXE_MIG_METHOD_REFILL),
		   &UVERBS_METHOD(RXE_MIG_METHOD_RESUME),
		   &UVERBS_METHOD(RXE_MIG_METHOD_IDENTIFY),
		   &UVERBS_METHOD(RXE_MIG_METHOD_ADOPT));

const struct uapi_definition rxe_mig_defs[] = {
	UAPI_DEF_CHAIN_OBJ_TREE(UVERBS_OBJECT_DEVICE, &rxe_mig_device_methods),
	{},
};
