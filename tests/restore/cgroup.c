// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * The rdma controller of cgroups: restored objects are charged, limited and uncharged
 * as those that were created.
 */
#include <stdarg.h>
#include <sys/stat.h>

#include "suite.h"

#define ROOT "/sys/fs/cgroup/"
#define GROUP ROOT "restore-test"

struct charge {
	int handles, objects;
};

static void set(const char *file, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void set(const char *file, const char *format, ...)
{
	FILE *f = fopen(file, "w");
	va_list args;

	check(f, file);
	va_start(args, format);
	vfprintf(f, format, args);
	va_end(args);
	check(!fclose(f), file);
}

static void limit(int objects)
{
	if (objects < 0)
		set(GROUP "/rdma.max", "%s hca_object=max\n", device);
	else
		set(GROUP "/rdma.max", "%s hca_object=%d\n", device, objects);
}

static void join(void)
{
	set(ROOT "cgroup.subtree_control", "+rdma");
	check(!mkdir(GROUP, 0755) || errno == EEXIST, GROUP);
	set(GROUP "/cgroup.procs", "0");
	/* Also makes the file show it */
	limit(-1);
}

/* A group with a process in it cannot be removed. */
static void part(void)
{
	limit(-1);
	set(ROOT "cgroup.procs", "0");
	check(!rmdir(GROUP), "rmdir " GROUP);
}

static struct charge charge(void)
{
	FILE *f = fopen(GROUP "/rdma.current", "r");
	struct charge c = { 0, 0 };
	char name[64], line[128];
	int handles, objects;

	check(f, "rdma.current");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%63s hca_handle=%d hca_object=%d", name,
			   &handles, &objects) == 3 && !strcmp(name, device))
			c = (struct charge) { handles, objects };
	fclose(f);
	return c;
}

static void expect_charge(struct charge want, const char *what)
{
	struct charge got;
	int i;

	expectations++;
	/* What is freed may be so a little later */
	for (i = 0; i != 20; i++) {
		got = charge();
		if (got.handles == want.handles && got.objects == want.objects)
			return;
		usleep(100000);
	}
	bad("%s: charged with %d contexts and %d objects, not %d and %d", what,
	    got.handles, got.objects, want.handles, want.objects);
}

static const struct charge nothing;
static struct charge *made;	/* shared with the process that makes objects */

static void s_charged(void)
{
	s_all_events();
	*made = charge();
}

/* Limited to what the objects need */
static void c_charged(void)
{
	struct ibv_context *ctx;

	made = (void *)area[2];
	join();
	make_image(s_charged);
	if (made->handles != 1 || made->objects < 8)
		bad("%d contexts and %d objects", made->handles, made->objects);
	expect_charge(nothing, "gone");
	limit(made->objects);
	ctx = open_device(device);
	restore_into(ctx, NULL);
	expect_charge(*made, "restored");
	go_live(ctx);
	expect_charge(*made, "resumed");
	leave(ctx);
	expect_charge(nothing, "closed");
	part();
}

/* With one less something is refused, and leaves nothing */
static void c_limited(void)
{
	struct charge before;
	struct ibv_context *ctx;
	struct rxe_mig_rec *rec;
	int refusals = 0, ret;
	struct sig sig;

	made = (void *)area[2];
	join();
	make_image(s_charged);
	expect_charge(nothing, "gone");
	limit(made->objects - 1);
	ctx = open_device(device);
	for_each_rec(0, rec) {
		sig = sig_of(ctx);
		before = charge();
		ret = create(ctx, rec);
		if (!ret)
			continue;
		expect(EAGAIN, ret, type_names[rec->type]);
		expect_charge(before, "refused");
		same_sig(sig, sig_of(ctx), "refused by the limit");
		refusals++;
		limit(-1);
		check0(create(ctx, rec));
	}
	if (refusals != 1)
		bad("%d objects were refused", refusals);
	expect_charge(*made, "restored");
	refill_objects(ctx);
	refill_events(ctx);
	finish(ctx, false);
	expect_charge(nothing, "closed");
	part();
}

/* Of five only the last is left; its handle is reached through the others. */
static void s_gap(void)
{
	struct ibv_pd *pd[4];
	int i;

	for (i = 0; i != 4; i++)
		pd[i] = make_pd();
	make_pd();
	for (i = 0; i != 4; i++)
		check0(ibv_dealloc_pd(pd[i]));
	*made = charge();
}

static void c_gap(void)
{
	struct ibv_context *ctx;
	struct rxe_mig_rec *pd;

	made = (void *)area[2];
	join();
	make_image(s_gap);
	pd = find(0, RXE_MIG_REC_PD);
	ctx = open_device(device);
	limit(made->objects);
	expect(EAGAIN, create(ctx, pd), "with the limit of what was there");
	limit(made->objects + 4);
	expect(0, create(ctx, pd), "with one for each free handle below");
	limit(-1);
	leave(ctx);

	ctx = open_device(device);
	restore_into(ctx, NULL);
	go_live(ctx);
	expect_charge(*made, "resumed");
	leave(ctx);
	part();
}

const struct test cgroup_tests[] = {
	{ "rdma cgroup: charged as created objects", c_charged },
	{ "rdma cgroup: limited as created objects", c_limited },
	{ "rdma cgroup: free handles count until RESUME", c_gap },
	{}
};
