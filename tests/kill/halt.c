// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Halts criu at a point of a dump or restore, so that somebody can be killed there:
 * preloaded into criu. /tmp/halt has the point: before-CALL or after-CALL, and
 * ":N" for the Nth of such calls of all processes (1). There /tmp/halted
 * appears, with the process id, and it goes on as soon as /tmp/halt is gone.
 *
 * Calls: check, dump, cancel, commit, refill, resume-check, resume, adopt (methods of
 * the driver), create (any object), doom (a task will die with criu), spare (no
 * longer), fsync, kill (SIGKILL, but not of criu's own helpers).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ptrace.h>
#include <time.h>
#include <unistd.h>
#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/rdma_user_ioctl_cmds.h>

#include "../../drivers/infiniband/sw/rxe/rxe_mig_uapi.h"

#define POINT	"/tmp/halt"
#define COUNT	"/tmp/halt.count"
#define HALTED	"/tmp/halted"

/* Count this call; whether it is the Nth */
static bool its_turn(int n)
{
	int fd = open(COUNT, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	char seen = 0;

	if (fd < 0)
		return false;
	flock(fd, LOCK_EX);
	if (pread(fd, &seen, 1, 0) < 0)
		seen = 0;
	seen++;
	if (pwrite(fd, &seen, 1, 0) != 1)
		seen = 0;
	close(fd);
	return seen == n;
}

static void reach(const char *when, const char *call)
{
	struct timespec pause = { .tv_nsec = 20000000 };
	char want[64] = "", name[64], *n;
	ssize_t len;
	int fd;

	fd = open(POINT, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	len = read(fd, want, sizeof(want) - 1);
	close(fd);
	want[len > 0 ? len : 0] = 0;
	want[strcspn(want, "\n")] = 0;
	n = strchr(want, ':');
	if (n)
		*n++ = 0;
	snprintf(name, sizeof(name), "%s-%s", when, call);
	if (strcmp(want, name) || !its_turn(n ? atoi(n) : 1))
		return;

	fd = open(HALTED ".new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	dprintf(fd, "%d\n", getpid());
	close(fd);
	rename(HALTED ".new", HALTED);
	while (!access(POINT, F_OK))
		nanosleep(&pause, NULL);
}

/* What an ioctl of uverbs does, NULL: nothing of interest */
static const char *method(const struct ib_uverbs_ioctl_hdr *hdr)
{
	unsigned int i;
	uint32_t flags = 0;

	if (hdr->object_id != UVERBS_OBJECT_DEVICE)
		return NULL;
	for (i = 0; i < hdr->num_attrs; i++)
		if (hdr->attrs[i].attr_id == RXE_MIG_ATTR_DUMP_FLAGS &&
		    hdr->attrs[i].len <= sizeof(hdr->attrs[i].data))
			flags = hdr->attrs[i].data;

	switch (hdr->method_id) {
	case UVERBS_METHOD_INVOKE_WRITE:
		return "create";
	case RXE_MIG_METHOD_DUMP:
		return flags & RXE_MIG_DUMP_CHECK ? "check" : "dump";
	case RXE_MIG_METHOD_CANCEL:
		return "cancel";
	case RXE_MIG_METHOD_COMMIT:
		return "commit";
	case RXE_MIG_METHOD_REFILL:
		return "refill";
	case RXE_MIG_METHOD_RESUME:
		return flags & RXE_MIG_RESUME_CHECK ? "resume-check" : "resume";
	case RXE_MIG_METHOD_ADOPT:
		return "adopt";
	}
	return NULL;
}

int ioctl(int fd, unsigned long request, ...)
{
	static int (*next)(int fd, unsigned long request, ...);
	const char *call = NULL;
	va_list args;
	void *arg;
	int ret;

	if (!next)
		next = dlsym(RTLD_NEXT, "ioctl");
	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);

	if (request == RDMA_VERBS_IOCTL)
		call = method(arg);
	if (call)
		reach("before", call);
	ret = next(fd, request, arg);
	if (call)
		reach("after", call);
	return ret;
}

long ptrace(enum __ptrace_request request, ...)
{
	static long (*next)(enum __ptrace_request request, ...);
	const char *call = NULL;
	void *addr, *data;
	va_list args;
	long ret;
	pid_t pid;

	if (!next)
		next = dlsym(RTLD_NEXT, "ptrace");
	va_start(args, request);
	pid = va_arg(args, pid_t);
	addr = va_arg(args, void *);
	data = va_arg(args, void *);
	va_end(args);

	if (request == PTRACE_SETOPTIONS) {
		if ((uintptr_t)data == PTRACE_O_EXITKILL)
			call = "doom";
		else if ((uintptr_t)data == PTRACE_O_TRACESYSGOOD)
			call = "spare";
	}
	if (call)
		reach("before", call);
	ret = next(request, pid, addr, data);
	if (call)
		reach("after", call);
	return ret;
}

int fsync(int fd)
{
	static int (*next)(int fd);
	int ret;

	if (!next)
		next = dlsym(RTLD_NEXT, "fsync");
	reach("before", "fsync");
	ret = next(fd);
	reach("after", "fsync");
	return ret;
}

/* criu has helpers, too, which it kills */
static bool child(pid_t pid)
{
	char path[32], text[256] = "", *at;
	int fd, parent = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (read(fd, text, sizeof(text) - 1) > 0) {
		at = strrchr(text, ')');
		if (at)
			sscanf(at, ") %*c %d", &parent);
	}
	close(fd);
	return parent == getpid();
}

int kill(pid_t pid, int number)
{
	static int (*next)(pid_t pid, int number);
	bool counts = number == SIGKILL && !child(pid);
	int ret;

	if (!next)
		next = dlsym(RTLD_NEXT, "kill");
	if (counts)
		reach("before", "kill");
	ret = next(pid, number);
	if (counts)
		reach("after", "kill");
	return ret;
}
