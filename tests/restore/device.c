// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Other devices, addresses and MTUs.
 */
#include <signal.h>
#include <sys/wait.h>

#include "suite.h"

/* A device of our own, whose address and MTU we may change */
#define DEV9 "rxe9"
#define NETDEV9 "rdtest9"
#define ADDR9 "192.168.99.1"

static void run(const char *command)
{
	if (system(command))
		die("failed: %s", command);
}

void remove_device(void)
{
	int ret = 0;

	if (!access("/sys/class/net/" NETDEV9, F_OK))
		ret = system("rdma link delete " DEV9 " 2>/dev/null;"
			     "ip link delete " NETDEV9 " 2>/dev/null");
	(void)ret;
}

static void add_device(void)
{
	remove_device();
	run("modprobe dummy && ip link add " NETDEV9 " type dummy &&"
	    "ip link set " NETDEV9 " mtu 4500 up &&"
	    "ip addr add " ADDR9 "/32 dev " NETDEV9 " &&"
	    "rdma link add " DEV9 " type rxe netdev " NETDEV9);
	usleep(300000);
}

/* ---- addresses ---- */

static struct rxe_mig_av *av_of(int n, uint32_t type)
{
	struct rxe_mig_rec *rec = find(n, type);

	return type == RXE_MIG_REC_AH ? &((struct rxe_mig_ah *)rec)->av :
					&((struct rxe_mig_qp_rec *)rec)->pri_av;
}

/* Image n has this address, at the index where it is now */
static void check_address(struct ibv_context *ctx, int n, uint32_t type,
			  const void *address)
{
	const struct rxe_mig_av *av = av_of(n, type);
	union ibv_gid gid = {};

	if (memcmp(av->sgid, address, sizeof(av->sgid)))
		bad("%s with another address", type_names[type]);
	check0(ibv_query_gid(ctx, 1, av->sgid_index, &gid));
	if (memcmp(av->sgid, &gid, sizeof(gid)))
		bad("the GID at index %u is not that of the %s", av->sgid_index,
		    type_names[type]);
}

/* The object stands in the way of RESUME, and of CHECK */
static void refuse_address(struct ibv_context *ctx,
			   const struct rxe_mig_rec *rec)
{
	struct sig before = sig_of(ctx);
	int flags;

	for (flags = IBV_RESTORE_CHECK; flags >= 0; flags--) {
		struct ibv_dump_refusal why = {};

		expect(EADDRNOTAVAIL, resume(ctx, flags, &why),
		       flags ? "CHECK" : "RESUME");
		expect_blame(&why, rec, IBV_DUMP_REASON_NO_GID);
	}
	same_sig(before, sig_of(ctx), "RESUME");
}

static void c_other_device(void)
{
	struct ibv_context *ctx;

	add_device();
	make_image(s_connected);
	ctx = open_device(DEV9);
	restore_into(ctx, NULL);
	refuse_address(ctx, find(0, RXE_MIG_REC_QP));
	leave(ctx);

	/* All of it works on the right one */
	ctx = open_device(device);
	restore_into(ctx, NULL);
	finish(ctx, true);
	remove_device();
}

static void c_other_address(void)
{
	struct ibv_context *ctx;

	add_device();
	make_image(s_connected);
	ctx = open_device(DEV9);
	restore_into(ctx, NULL);
	expect(EADDRNOTAVAIL, resume(ctx, 0, NULL), "without NEW_ADDR");
	expect(0, resume(ctx, IBV_RESTORE_NEW_ADDR, NULL), "with NEW_ADDR");
	leave(ctx);
	remove_device();
}

/* The partner, which does not exist, never confirms the new address */
static void c_unconfirmed(void)
{
	const struct rxe_mig_qp_rec *qp;
	struct ibv_context *ctx;

	add_device();
	make_image(s_connected);
	qp = (void *)find(0, RXE_MIG_REC_QP);
	ctx = open_device(DEV9);
	restore_into(ctx, NULL);
	check0(resume(ctx, IBV_RESTORE_NEW_ADDR, NULL));
	refused_dump(ctx, EAGAIN, RXE_MIG_REC_QP, qp->rec.handle,
		     IBV_DUMP_REASON_BUSY, qp->qpn, "not confirmed");
	leave(ctx);
	remove_device();
}

/* Like a QP, an AH only has to have its address at RESUME */
static void c_other_device_ah(void)
{
	struct rxe_mig_rec *ah;
	struct ibv_context *ctx;
	union ibv_gid gid;

	add_device();
	make_image(s_ah4);
	ah = find(0, RXE_MIG_REC_AH);
	ctx = open_device(DEV9);
	restore_into(ctx, NULL);
	refuse_address(ctx, ah);
	dump(ctx, 1);
	compare_rec(ah, find(1, RXE_MIG_REC_AH), false);
	check0(context_cmd(ctx, IBV_RESTORE_CANCEL));
	expect(0, resume(ctx, IBV_RESTORE_NEW_ADDR, NULL), "with NEW_ADDR");
	dump(ctx, 1);
	o.ctx = ctx;
	find_gid(true, &gid);
	check_address(ctx, 1, RXE_MIG_REC_AH, &gid);
	leave(ctx);

	ctx = open_device(device);
	restore_into(ctx, NULL);
	finish(ctx, true);
	remove_device();
}

/* The address is there, but at another index: sgid decides */
static void c_other_index(void)
{
	struct ibv_context *ctx;

	add_device();
	device = DEV9;
	make_image(case_type == RXE_MIG_REC_AH ? s_ah4 : s_connected);
	run("ip addr del " ADDR9 "/32 dev " NETDEV9 " && sleep 0.2 &&"
	    "ip addr add 192.168.99.2/32 dev " NETDEV9 " && sleep 0.2 &&"
	    "ip addr add " ADDR9 "/32 dev " NETDEV9 " && sleep 0.2");
	ctx = open_device(DEV9);
	restore_into(ctx, NULL);
	go_live(ctx);
	dump(ctx, 1);
	check_address(ctx, 1, case_type, av_of(0, case_type)->sgid);
	leave(ctx);
	remove_device();
}

static uint32_t number_of(const struct rxe_mig_rec *rec)
{
	switch (rec->type) {
	case RXE_MIG_REC_MR:
		return ((struct rxe_mig_mr *)rec)->rkey >> 8;
	case RXE_MIG_REC_SRQ:
		return ((struct rxe_mig_srq *)rec)->srq_num;
	case RXE_MIG_REC_AH:
		return ((struct rxe_mig_ah *)rec)->ah_num;
	case RXE_MIG_REC_QP:
		return ((struct rxe_mig_qp_rec *)rec)->qpn;
	case RXE_MIG_REC_MW:
		return ((struct rxe_mig_mw *)rec)->rkey >> 8;
	}
	return 0;
}

static void make_numbered(void)
{
	make_mr(REMOTE);
	make_srq(4);
	make_ah(true);
	make_qp(IBV_QPT_RC, NULL);
	make_mw(IBV_MW_TYPE_1);
}

/*
 * The last number of each kind that its device has given out is free again; image 2
 * has it.
 */
static void s_freed(void)
{
	make_pd();
	make_cq(1, NULL);
	make_numbered();
	make_numbered();
	dump(o.ctx, 2);
	check0(context_cmd(o.ctx, IBV_RESTORE_CANCEL));
	check0(ibv_dealloc_mw(o.mw));
	check0(ibv_destroy_qp(o.qp));
	check0(ibv_destroy_ah(o.ah));
	check0(ibv_destroy_srq(o.srq));
	check0(ibv_dereg_mr(o.mr));
}

static uint32_t highest(int n, uint32_t type)
{
	struct rxe_mig_rec *rec;
	uint32_t most = 0;

	for_each_rec(n, rec)
		if (rec->type == type && number_of(rec) > most)
			most = number_of(rec);
	return most;
}

static bool has_number(int n, const struct rxe_mig_rec *wanted)
{
	struct rxe_mig_rec *rec;

	for_each_rec(n, rec)
		if (rec->type == wanted->type &&
		    number_of(rec) == number_of(wanted))
			return true;
	return false;
}

/* Somebody may still use them: a device that never had them does not give them out. */
static void c_numbers_freed(void)
{
	struct ibv_context *ctx;
	struct rxe_mig_rec *rec;
	int i, fresh = 0;

	add_device();
	make_image(s_freed);
	ctx = open_device(DEV9);
	restore_into(ctx, NULL);
	check0(resume(ctx, IBV_RESTORE_NEW_ADDR, NULL));
	o.ctx = ctx;
	make_pd();
	make_cq(1, NULL);
	for (i = 0; i != 3; i++)
		make_numbered();
	dump(ctx, 1);
	for_each_rec(1, rec) {
		if (!number_of(rec) || has_number(0, rec))
			continue;
		fresh++;
		if (number_of(rec) <= highest(2, rec->type))
			bad("%s %#x after %#x", type_names[rec->type],
			    number_of(rec), highest(2, rec->type));
	}
	if (fresh != 3 * 5)
		bad("%d new numbers", fresh);
	/* Its rings are mapped: the device can go when this process has ended. */
}

/* Adds and removes addresses of the device until it is killed */
static pid_t start_churn(void)
{
	static const char churn[] =
		"for i in $(seq 100); do"
		"	echo addr add 192.168.98.$i/32 dev " NETDEV9 ";"
		"done >/tmp/add; sed 's/ add / del /' /tmp/add >/tmp/del;"
		"while ip -batch /tmp/add && ip -batch /tmp/del; do :; done";
	pid_t pid = fork();

	check(pid >= 0, "fork");
	if (!pid) {
		setpgid(0, 0);
		execl("/bin/sh", "sh", "-c", churn, (char *)NULL);
		_exit(1);
	}
	return pid;
}

/* They are in the image, and not stopped: the GID table may change any time */
static void c_addresses_change(void)
{
	const struct rxe_mig_context *context;
	uint32_t num, least = ~0U, most = 0;
	pid_t pid;
	int i;

	add_device();
	o.ctx = open_device(DEV9);
	make_pd();
	for (i = 0; i != 2000; i++)
		make_mr(0);
	pid = start_churn();
	for (i = 0; i != 50; i++) {
		dump(o.ctx, 0);
		context = (void *)find(0, RXE_MIG_REC_CONTEXT);
		num = context->num_gids;
		if (context->rec.len != sizeof(*context) +
					num * sizeof(context->gids[0]))
			bad("%u GIDs in %llu bytes", num, context->rec.len);
		least = num < least ? num : least;
		most = num > most ? num : most;
		check0(context_cmd(o.ctx, IBV_RESTORE_CANCEL));
	}
	kill(-pid, SIGKILL);
	check(waitpid(pid, NULL, 0) == pid, "wait");
	if (least == most)
		bad("always %u GIDs: nothing was tried", most);
	leave(o.ctx);
	remove_device();
}

/* ---- MTUs ---- */

static void c_small_mtu(void)
{
	struct ibv_dump_refusal why = {};
	struct ibv_context *ctx;

	add_device();
	device = DEV9;
	make_image(s_connected);
	run("ip link set " NETDEV9 " mtu 1500");
	usleep(300000);
	ctx = open_device(DEV9);
	restore_into(ctx, NULL);
	expect(EMSGSIZE, resume(ctx, 0, &why), "RESUME");
	expect_blame(&why, find(0, RXE_MIG_REC_QP), IBV_DUMP_REASON_MTU);
	run("ip link set " NETDEV9 " mtu 4500");
	usleep(300000);
	finish(ctx, true);
	remove_device();
}

const struct test device_tests[] = {
	{ "EADDRNOTAVAIL: another device", c_other_device },
	{ "EADDRNOTAVAIL: but not with NEW_ADDR", c_other_address },
	{ "refused dump: the partner has not confirmed a move", c_unconfirmed },
	{ "AH on another device", c_other_device_ah },
	{ "GID at another index: %s", c_other_index,
	  .types = ONLY(AH) | ONLY(QP) },
	{ "numbers that were freed, on another device", c_numbers_freed },
	{ "dumps, while addresses come and go", c_addresses_change },
	{ "EMSGSIZE: small MTU", c_small_mtu },
	{}
};
