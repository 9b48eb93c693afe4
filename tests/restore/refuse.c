// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * What a dump refuses: the object and the reason are named, nothing is stopped, the
 * program goes on. MRs whose memory is elsewhere are in memory.c and process.c.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/rdma_user_ioctl.h>

#include "suite.h"

/* QPs of its device that were ever stopped. What was read within 10 ms is told again. */
static unsigned long stops(struct ibv_context *ctx)
{
	unsigned long num;
	char path[128];
	FILE *file;

	usleep(20000);
	snprintf(path, sizeof(path),
		 "/sys/class/infiniband/%s/ports/1/hw_counters/mig_stops",
		 ibv_get_device_name(ctx->device));
	file = fopen(path, "r");
	check(file && fscanf(file, "%lu", &num) == 1, path);
	fclose(file);
	return num;
}

/* want.text: a part of it */
static void same_refusal(const struct rxe_mig_refusal *want, const void *got,
			 const char *what)
{
	const struct rxe_mig_refusal *why = got;

	if (why->type != want->type || why->handle != want->handle ||
	    why->reason != want->reason || why->value != want->value ||
	    !strstr(why->text, want->text))
		bad("%s: refusal of type %u, handle %u, reason %u, number %#x: %.112s",
		    what, why->type, why->handle, why->reason, why->value,
		    why->text);
}

/*
 * With EOPNOTSUPP libibverbs passes the refusal on; the driver tells it always. The
 * last way is that of an object that came between the check of libibverbs and its dump.
 */
static void refused_each_way(struct ibv_context *ctx, int err,
			     const struct rxe_mig_refusal *want)
{
	static const char *const ways[] = { "check", "dump", "unchecked dump" };
	unsigned long before = stops(ctx);
	struct sig sig = sig_of(NULL);
	int i, count;

	for (i = 0; i != 3; i++) {
		memset(&dump_refusal, 0, sizeof(dump_refusal));
		memset(area[2], 0, sizeof(dump_refusal));
		skip_check = i == 2;
		expect(err, ibv_dump_context(ctx, &count, i ? area[2] : NULL,
					     AREA_LEN), ways[i]);
		skip_check = false;
		same_refusal(want, &dump_refusal, ways[i]);
		if (i && err == EOPNOTSUPP)
			same_refusal(want, area[2], ways[i]);
	}
	if (stops(ctx) != before)
		bad("QPs were stopped");
	same_sig(sig, sig_of(NULL), "refused dumps");
}

void refused_dump(struct ibv_context *ctx, int err, uint32_t type,
		  uint32_t handle, uint32_t reason, uint32_t value,
		  const char *text)
{
	struct rxe_mig_refusal want = { type, handle, reason, value };

	strncat(want.text, text, sizeof(want.text) - 1);
	refused_each_way(ctx, err, &want);
	expect(EINVAL, context_cmd(ctx, IBV_RESTORE_CANCEL),
	       "CANCEL of what was not stopped");
}

/* A datagram from o.ud, which has a receive, to itself */
void still_works(void)
{
	ud_send(o.ud, IBV_SEND_SIGNALED);
	wait_cq(o.cq, IBV_WC_SUCCESS);
	wait_cq(o.cq, IBV_WC_SUCCESS);
}

static void c_multicast(void)
{
	union ibv_gid group = { .raw = { 0xff, 0x0e, [15] = 0x99 } };

	o.ctx = open_device(device);
	s_all();
	check0(ibv_attach_mcast(o.ud, &group, 0xc000));
	refused_dump(o.ctx, EOPNOTSUPP, RXE_MIG_REC_QP, o.ud->handle,
		     IBV_DUMP_REASON_MCAST, o.ud->qp_num, "multicast group");
	still_works();
	check0(ibv_detach_mcast(o.ud, &group, 0xc000));
	dump(o.ctx, 1);
}

/* Its memory is in nobody's image, as far as the dumper sees */
static void dump_inside(struct ibv_mr *mr)
{
	pid_t pid;

	check(!unshare(CLONE_NEWPID), "unshare");
	pid = fork();
	if (!pid) {
		failures = 0;
		refused_dump(o.ctx, EOPNOTSUPP, RXE_MIG_REC_MR, mr->handle,
			     IBV_DUMP_REASON_NO_OWNER, mr->lkey,
			     "not in the PID namespace");
		fflush(stdout);
	}
	_exit(pid ? waitpid(pid, &failures, 0) != pid || failures : failures);
}

static void c_owner_outside(void)
{
	int status;
	pid_t pid;

	o.ctx = open_device(device);
	s_all();
	fflush(stdout);
	pid = fork();
	if (!pid)
		dump_inside(o.mr);
	check(waitpid(pid, &status, 0) == pid, "wait");
	if (status)
		bad("in a PID namespace of its own");
	still_works();
	dump(o.ctx, 1);
}

/* Another libibverbs has the context, so that it is the driver that refuses */
static void c_second_dump(void)
{
	static const struct rxe_mig_refusal want = {
		.reason = IBV_DUMP_REASON_BUSY, .text = "another dump",
	};
	struct ibv_context *other;

	o.ctx = open_device(device);
	s_all();
	other = ibv_import_device(dup(o.ctx->cmd_fd));
	check(other, "import");
	dump(o.ctx, 0);
	refused_each_way(other, EBUSY, &want);
	check0(context_cmd(o.ctx, IBV_RESTORE_CANCEL));
	still_works();
}

/* ---- what would be refused, but cannot be made ---- */

static int method(struct ibv_context *ctx, uint16_t object, uint16_t number)
{
	struct ib_uverbs_ioctl_hdr hdr = {
		.length = sizeof(hdr), .object_id = object,
		.method_id = number, .driver_id = RDMA_DRIVER_RXE,
	};

	return ioctl(ctx->cmd_fd, RDMA_VERBS_IOCTL, &hdr) ? errno : 0;
}

/* An object that could be made could be destroyed, by one of its methods */
static void c_other_classes(void)
{
	static const uint32_t known =
		1 << UVERBS_OBJECT_DEVICE | 1 << UVERBS_OBJECT_PD |
		1 << UVERBS_OBJECT_COMP_CHANNEL | 1 << UVERBS_OBJECT_CQ |
		1 << UVERBS_OBJECT_QP | 1 << UVERBS_OBJECT_SRQ |
		1 << UVERBS_OBJECT_AH | 1 << UVERBS_OBJECT_MR |
		1 << UVERBS_OBJECT_MW | 1 << UVERBS_OBJECT_ASYNC_EVENT;
	char what[64];
	int class, i;

	o.ctx = open_device(device);
	expect(EINVAL, method(o.ctx, UVERBS_OBJECT_PD,
			      UVERBS_METHOD_PD_DESTROY), "destroy no PD");
	for (class = 0; class != 32; class++)
		for (i = 0; i != 8 && !(known & 1U << class); i++) {
			snprintf(what, sizeof(what), "method %d of class %d", i,
				 class);
			expect(EPROTONOSUPPORT, method(o.ctx, class, i), what);
		}
}

#define IN(name, bytes, value)                                                 \
	{ .attr_id = UVERBS_ATTR_REG_DMABUF_MR_##name, .len = bytes,           \
	  .data = value }

static int reg_dmabuf(struct ibv_pd *pd)
{
	uint32_t key[2];
	struct {
		struct ib_uverbs_ioctl_hdr hdr;
		struct ib_uverbs_attr attrs[9];
	} c = {
		{ .length = sizeof(c), .object_id = UVERBS_OBJECT_MR,
		  .method_id = UVERBS_METHOD_REG_DMABUF_MR, .num_attrs = 9,
		  .driver_id = RDMA_DRIVER_RXE },
		{ IN(HANDLE, 0, 0), IN(PD_HANDLE, 0, pd->handle),
		  IN(OFFSET, 8, 0), IN(LENGTH, 8, 4096), IN(IOVA, 8, 0),
		  IN(FD, 4, 0), IN(ACCESS_FLAGS, 4, 0),
		  IN(RESP_LKEY, 4, (uintptr_t)&key[0]),
		  IN(RESP_RKEY, 4, (uintptr_t)&key[1]) },
	};

	return ioctl(pd->context->cmd_fd, RDMA_VERBS_IOCTL, &c) ? errno : 0;
}

#define OUT(name, place)                                                       \
	{ .attr_id = RXE_MIG_ATTR_DUMP_##name, .len = sizeof(place),           \
	  .flags = UVERBS_ATTR_F_MANDATORY, .data = (uintptr_t)&(place) }

/* DUMP, with the attribute of a snapshot file or without */
static int raw_dump(struct ibv_context *ctx, uint32_t flags, bool with_fd)
{
	uint64_t len;
	uint32_t count;
	int32_t fd = -1;
	struct {
		struct ib_uverbs_ioctl_hdr hdr;
		struct ib_uverbs_attr attrs[4];
	} c = {
		{ .length = sizeof(c) - !with_fd * sizeof(c.attrs[0]),
		  .object_id = UVERBS_OBJECT_DEVICE,
		  .method_id = RXE_MIG_METHOD_DUMP, .num_attrs = 3 + with_fd,
		  .driver_id = RDMA_DRIVER_RXE },
		{ { .attr_id = RXE_MIG_ATTR_DUMP_FLAGS, .len = sizeof(flags),
		    .flags = UVERBS_ATTR_F_MANDATORY, .data = flags },
		  OUT(LEN, len), OUT(COUNT, count), OUT(FD, fd) },
	};

	return ioctl(ctx->cmd_fd, RDMA_VERBS_IOCTL, &c) ? errno : 0;
}

static void c_dump_flags(void)
{
	const uint32_t both = RXE_MIG_DUMP_CHECK | RXE_MIG_DUMP_ASK;
	unsigned long before;

	o.ctx = open_device(device);
	s_all();
	before = stops(o.ctx);
	expect(EINVAL, raw_dump(o.ctx, 0, false), "a dump to no file");
	expect(EINVAL, raw_dump(o.ctx, RXE_MIG_DUMP_ASK, true),
	       "ASK without CHECK");
	expect(EINVAL, raw_dump(o.ctx, both << 1 | both, false),
	       "an unknown flag");
	expect(0, raw_dump(o.ctx, both, false), "CHECK and ASK");
	if (stops(o.ctx) != before)
		bad("a QP was stopped");
	still_works();
}

static void c_other_memory(void)
{
	o.ctx = open_device(device);
	make_pd();
	expect(EPROTONOSUPPORT, method(o.ctx, UVERBS_OBJECT_MR,
				       UVERBS_METHOD_DM_MR_REG),
	       "MR of a device's memory");
	expect(EOPNOTSUPP, reg_dmabuf(o.pd), "MR of a dma-buf");
	expect(EOPNOTSUPP, ibv_reg_mr(o.pd, BUF, 4096, IBV_ACCESS_ON_DEMAND) ?
	       0 : errno, "MR with on-demand paging");
}

const struct test refuse_tests[] = {
	{ "refused dump: QP in a multicast group", c_multicast },
	{ "refused dump: owner outside of the dumper's PID namespace",
	  c_owner_outside },
	{ "refused dump: another one is in progress", c_second_dump },
	{ "refused dump: flags that do not fit", c_dump_flags },
	{ "no object: of a class without records", c_other_classes },
	{ "no object: MR of other memory than a process's", c_other_memory },
	{}
};
