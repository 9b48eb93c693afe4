// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Drivers and images of other releases.
 */
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/rdma_user_ioctl.h>

#include "suite.h"

static const uint8_t v4_prefix[12] = { [10] = 0xff, [11] = 0xff };

static uint32_t fake_version;	/* what the driver says that it speaks */
static bool fake_old;		/* the driver does not know our methods */

struct rxe_mig_refusal dump_refusal;	/* the driver's, at the last dump */

bool skip_check;

static bool is_check(const struct ib_uverbs_ioctl_hdr *hdr)
{
	int i;

	for (i = 0; i != hdr->num_attrs; i++)
		if (hdr->attrs[i].attr_id == RXE_MIG_ATTR_DUMP_FLAGS)
			return hdr->attrs[i].data & RXE_MIG_DUMP_CHECK;
	return false;
}

static void note_refusal(const struct ib_uverbs_ioctl_hdr *hdr)
{
	int i;

	for (i = 0; i != hdr->num_attrs; i++)
		if (hdr->attrs[i].attr_id == RXE_MIG_ATTR_DUMP_REFUSAL)
			memcpy(&dump_refusal,
			       (void *)(uintptr_t)hdr->attrs[i].data,
			       sizeof(dump_refusal));
}

unsigned int calls;

int ioctl(int fd, unsigned long cmd, ...);

/* libibverbs calls this one instead of libc's */
int ioctl(int fd, unsigned long cmd, ...)
{
	struct ib_uverbs_ioctl_hdr *hdr;
	struct rxe_mig_query *query;
	va_list args;
	bool ours;
	long ret;
	void *p;

	va_start(args, cmd);
	p = va_arg(args, void *);
	va_end(args);
	calls++;
	hdr = p;
	ours = cmd == RDMA_VERBS_IOCTL &&
	       hdr->object_id == UVERBS_OBJECT_DEVICE &&
	       hdr->method_id >> UVERBS_ID_NS_SHIFT;
	if (ours && fake_old) {
		errno = EPROTONOSUPPORT;
		return -1;
	}
	if (ours && skip_check && hdr->method_id == RXE_MIG_METHOD_DUMP &&
	    is_check(hdr))
		return 0;
	ret = syscall(SYS_ioctl, fd, cmd, p);
	if (ours && hdr->method_id == RXE_MIG_METHOD_DUMP)
		note_refusal(hdr);
	if (!ret && ours && fake_version &&
	    hdr->method_id == RXE_MIG_METHOD_QUERY) {
		query = (void *)(uintptr_t)hdr->attrs[0].data;
		query->version = fake_version;
	}
	return ret;
}

/* ---- drivers ---- */

void refused_all(struct ibv_context *ctx)
{
	struct sig before = sig_of(NULL), after;
	struct rxe_mig_rec rec = { .type = RXE_MIG_REC_PD,
				   .len = sizeof(rec) };
	int count = 0, cmd;

	memset(area[1], 0xa5, 4096);
	expect(EOPNOTSUPP, ibv_dump_context(ctx, &count, area[1], AREA_LEN),
	       "dump");
	if (count != -1)
		bad("count is %d instead of -1", count);
	if (area[1][0] != 0xa5)
		bad("the buffer was written");
	count = 0;
	expect(EOPNOTSUPP, ibv_dump_context(ctx, &count, NULL, 0), "check");
	if (count != -1)
		bad("count is %d instead of -1", count);
	for (cmd = IBV_RESTORE_CREATE; cmd <= IBV_RESTORE_ADOPT; cmd++)
		expect(EOPNOTSUPP, raw(ctx, cmd > IBV_RESTORE_REFILL ?
		       RXE_MIG_REC_CONTEXT : RXE_MIG_REC_PD, cmd, &rec,
		       sizeof(rec)), "restore");
	after = sig_of(NULL);
	same_sig(before, after, "unknown driver");
}

static void c_newer_driver(void)
{
	o.ctx = open_device(device);
	s_all();
	/* libibverbs asks until it has once been content */
	fake_version = RXE_MIG_VERSION + 1;
	refused_all(o.ctx);
	fake_version = 0;
	/* Refused before the stop: there is no dump to cancel */
	expect(EINVAL, context_cmd(o.ctx, IBV_RESTORE_CANCEL), "CANCEL");
	dump(o.ctx, 0);
	check0(context_cmd(o.ctx, IBV_RESTORE_CANCEL));
	dump(o.ctx, 1);
	compare(0, 1, true);
}

static void c_stock_driver(void)
{
	o.ctx = open_device(device);
	s_all();
	fake_old = true;
	refused_all(o.ctx);
	fake_old = false;
	expect(EINVAL, context_cmd(o.ctx, IBV_RESTORE_CANCEL), "CANCEL");
}

/* ---- images ---- */

/* Nothing here depends on the host but the AH, see own_place() */
static void s_stored(void)
{
	make_channel();
	make_pd();
	make_mr(REMOTE | IBV_ACCESS_MW_BIND);
	check(ibv_reg_mr_iova(o.pd, BUF + 100, 200, 0x5064, 0), "reg_mr");
	make_cq(3, NULL);
	make_cq(3, o.channel);
	check0(ibv_req_notify_cq(o.cq, 0));
	make_srq(3);
	post_recv(NULL, o.srq, 2);
	make_ah(true);
	make_qp(IBV_QPT_RC, NULL);
	make_qp(IBV_QPT_RC, o.srq);
	to_init(o.qp);
	make_qp(IBV_QPT_UC, NULL);
	to_init(o.qp);
	post_recv(o.qp, NULL, 2);
	make_qp(IBV_QPT_UD, NULL);
	to_init(o.qp);
	make_qp(IBV_QPT_UD, o.srq);
	to_state(o.qp, IBV_QPS_RTS, false);
	make_mw(IBV_MW_TYPE_1);
	make_mw(IBV_MW_TYPE_2);
}

int store_image(const char *name)
{
	FILE *file = fopen(name, "w");

	make_image(s_stored);
	check(file && fwrite(area[0], hdr_of(0)->total_len, 1, file) == 1 &&
	      !fclose(file), name);
	printf("%s: %llu bytes, %u records\n", name, hdr_of(0)->total_len,
	       hdr_of(0)->count);
	return 0;
}

const char *image_name;

static void own_av(struct rxe_mig_av *av)
{
	union ibv_gid gid;

	if (!av->network_type)
		return;
	av->sgid_index = find_gid(!memcmp(av->sgid, v4_prefix, 12), &gid);
	memcpy(av->sgid, &gid, sizeof(gid));
	memcpy(av->dgid, &gid, sizeof(gid));
}

/* criu would have mapped it, unless the program of before had it where we have */
static void map_memory(const struct rxe_mig_mr *mr)
{
	uint64_t page = sysconf(_SC_PAGESIZE);
	uint64_t start = mr->start & -page;

	for (; start < mr->start + mr->length; start += page)
		check(mmap((void *)(uintptr_t)start, page,
			   PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS |
			   MAP_FIXED_NOREPLACE, -1, 0) != MAP_FAILED ||
		      errno == EEXIST, "memory of an MR");
}

/* Addresses and memory are no part of the format: make them ones of this host */
static void own_place(struct ibv_context *ctx)
{
	struct rxe_mig_qp_rec *qp;
	struct rxe_mig_rec *rec;

	o.ctx = ctx;
	for_each_rec(0, rec) {
		if (rec->type == RXE_MIG_REC_AH)
			own_av(&((struct rxe_mig_ah *)rec)->av);
		if (rec->type == RXE_MIG_REC_MR)
			map_memory((void *)rec);
		if (rec->type != RXE_MIG_REC_QP)
			continue;
		qp = (void *)rec;
		own_av(&qp->pri_av);
		own_av(&qp->alt_av);
	}
}

void c_stored_image(void)
{
	struct rxe_mig_context *a, *b;
	struct rxe_mig_rec *ra, *rb;
	struct ibv_context *ctx;
	FILE *file = fopen(image_name, "r");
	uint32_t next[2][5];
	int i;

	check(file && fread(area[0], 1, AREA_LEN, file) > sizeof(*hdr_of(0)),
	      image_name);
	fclose(file);
	check(hdr_of(0)->magic == RXE_MIG_MAGIC, "no image");
	check_records(0, hdr_of(0)->count);
	ctx = open_device(device);
	own_place(ctx);
	restore_into(ctx, NULL);
	dump(ctx, 1);
	a = (void *)find(0, RXE_MIG_REC_CONTEXT);
	b = (void *)find(1, RXE_MIG_REC_CONTEXT);
	memcpy(next[0], &a->next_qpn, sizeof(next[0]));
	memcpy(next[1], &b->next_qpn, sizeof(next[1]));
	for (i = 0; i != 5; i++)
		if (next[1][i] < next[0][i])
			bad("allocation cursor %d: %u, was %u", i, next[1][i],
			    next[0][i]);
	check(hdr_of(0)->count == hdr_of(1)->count, "number of records");
	/* Not the first one: name, addresses and cursors are of another host */
	ra = &a->rec;
	rb = &b->rec;
	for (i = hdr_of(0)->count; --i;) {
		ra = (void *)ra + ra->len;
		rb = (void *)rb + rb->len;
		compare_rec(ra, rb, false);
	}
	check0(context_cmd(ctx, IBV_RESTORE_CANCEL));
	go_live(ctx);
	leave(ctx);
}

const struct test version_tests[] = {
	{ "versions: a newer driver is refused before the stop",
	  c_newer_driver },
	{ "versions: a driver without migration", c_stock_driver },
	{}
};
