// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * restore [NAME]         run the cases whose names contain NAME; prints TAP
 * restore --list [NAME]  print their names
 * restore --make FILE    store the image that "restore --image" restores
 * restore --image FILE   restore an image stored by any release
 * restore --refused      the driver cannot migrate: all is refused
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "suite.h"

static const struct test *const groups[] = {
	trip_tests, record_tests, order_tests, lease_tests, event_tests,
	call_tests, process_tests, memory_tests, refuse_tests, cgroup_tests,
	device_tests, version_tests, many_tests, few_tests,
};

uint8_t *area[3];
const char *device = "rxe0";
int failures;
int expectations;
const struct test *this_test;
uint32_t case_type;

const char *const type_names[] = {
	[RXE_MIG_REC_CONTEXT] = "CONTEXT", [RXE_MIG_REC_ASYNC] = "ASYNC",
	[RXE_MIG_REC_CHANNEL] = "CHANNEL", [RXE_MIG_REC_PD] = "PD",
	[RXE_MIG_REC_MR] = "MR", [RXE_MIG_REC_CQ] = "CQ",
	[RXE_MIG_REC_SRQ] = "SRQ", [RXE_MIG_REC_AH] = "AH",
	[RXE_MIG_REC_QP] = "QP", [RXE_MIG_REC_MW] = "MW",
};

static const char *filter;
static bool only_list;
static int number;
static bool failed;

/* ---- results ---- */

void bad(const char *format, ...)
{
	va_list args;

	failures++;
	printf("# ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
}

const char *err_name(int err)
{
	return err ? strerrorname_np(err) ?: "?" : "success";
}

void expect_at(const char *file, int line, int want, int got, const char *what)
{
	expectations++;
	if (got != want)
		bad("%s:%d: %s: %s instead of %s", file, line, what,
		    err_name(got), err_name(want));
}

static void report(const char *name, int status)
{
	if (!WIFEXITED(status))
		printf("# ended by signal %d\n", WTERMSIG(status));
	printf("%sok %d - %s\n", status ? "not " : "", ++number, name);
	fflush(stdout);
	failed |= !!status;
}

/* ---- cases ---- */

static void run_case(const char *name, const struct test *test)
{
	int status;
	pid_t pid;

	if (filter && !strstr(name, filter))
		return;
	if (only_list) {
		puts(name);
		return;
	}
	fflush(stdout);
	pid = fork();
	if (!pid) {
		alarm(CASE_LIMIT);
		this_test = test;
		if (test->fn)
			test->fn();
		else
			with_hook(test->hook);
		fflush(stdout);
		_exit(!!failures);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		exit(2);
	report(name, status);
}

static void run_group(const struct test *test)
{
	uint32_t type;
	char name[128];

	for (; test->name; test++) {
		case_type = 0;
		if (!test->types)
			run_case(test->name, test);
		for (type = 1; type <= RXE_MIG_REC_MW; type++) {
			if (!(test->types & 1U << type))
				continue;
			case_type = type;
			snprintf(name, sizeof(name), test->name,
				 type_names[type]);
			run_case(name, test);
		}
	}
}

static int run_all(void)
{
	unsigned int i;

	for (i = 0; i != sizeof(groups) / sizeof(*groups); i++)
		run_group(groups[i]);
	/* That of a case that was ended by a signal */
	if (!only_list) {
		remove_device();
		printf("1..%d\n", number);
	}
	return failed;
}

static int run_image(const char *path)
{
	static const struct test test = { .fn = c_stored_image };
	const char *slash = strrchr(path, '/');
	char name[128];

	image_name = path;
	snprintf(name, sizeof(name), "versions: %s", slash ? slash + 1 : path);
	run_case(name, &test);
	printf("1..%d\n", number);
	return failed;
}

static void *shared(void *addr, size_t len)
{
	void *p = mmap(addr, len, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE |
		       (addr ? MAP_FIXED_NOREPLACE : 0), -1, 0);

	check(p != MAP_FAILED, "memory");
	return p;
}

int main(int argc, char **argv)
{
	const char *option = argc > 1 ? argv[1] : "";
	const char *value = argc > 2 ? argv[2] : NULL;
	struct ibv_context *ctx;
	unsigned int i;

	if (!strcmp(option, "--list")) {
		filter = value;
		only_list = true;
		return run_all();
	}
	for (i = 0; i != 3; i++)
		area[i] = shared(NULL, AREA_LEN);
	memset(shared(BUF, BUF_LEN), 0x5a, BUF_LEN);

	if (!strcmp(option, "--make") && value)
		return store_image(value);
	if (!strcmp(option, "--image") && value)
		return run_image(value);
	ctx = open_device(device);
	if (!strcmp(option, "--refused")) {
		refused_all(ctx);
		return !!failures;
	}
	if (ibv_dump_context(ctx, NULL, NULL, 0) == EOPNOTSUPP) {
		printf("no migration on this device\n");
		return 77;
	}
	ibv_close_device(ctx);
	filter = argc > 1 ? option : NULL;
	return run_all();
}
