// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * The time stamp counter, which counts instructions in a bed with --count, and
 * the calls of the kernel that libibverbs makes.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <x86intrin.h>

#include "objects.h"

struct meter dumps, restores[RXE_MIG_REC_MW + 1][8];

static uint64_t ioctls, others;

/* In place of those of the C library */
int ioctl(int fd, unsigned long request, ...);

int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	ioctls++;
	return syscall(SYS_ioctl, fd, request, arg);
}

ssize_t read(int fd, void *buf, size_t len)
{
	others++;
	return syscall(SYS_read, fd, buf, len);
}

ssize_t write(int fd, const void *buf, size_t len)
{
	others++;
	return syscall(SYS_write, fd, buf, len);
}

void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	others++;
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, offset);
}

void meter_start(struct meter *m)
{
	m->ioctls -= ioctls;
	m->others -= others;
	m->ticks -= __rdtsc();
}

void meter_stop(struct meter *m)
{
	m->ticks += __rdtsc();
	m->ioctls += ioctls;
	m->others += others;
	m->times++;
}

void meter_print(const char *name, const struct meter *m)
{
	printf("%s %llu %llu %llu %llu\n", name, (unsigned long long)m->ticks,
	       (unsigned long long)m->times, (unsigned long long)m->ioctls,
	       (unsigned long long)m->others);
}

/* The counter has to count nanoseconds, of which an instruction takes one */
void meter_check_clock(void)
{
	struct timespec begin, end;
	uint64_t ticks;
	double ns;

	check0(clock_gettime(CLOCK_MONOTONIC_RAW, &begin));
	ticks = __rdtsc();
	usleep(200000);
	ticks = __rdtsc() - ticks;
	check0(clock_gettime(CLOCK_MONOTONIC_RAW, &end));
	ns = (end.tv_sec - begin.tv_sec) * 1e9 + end.tv_nsec - begin.tv_nsec;
	if (ticks < 0.98 * ns || ticks > 1.02 * ns)
		die("%llu ticks in %.0f ns: use a bed with --count",
		    (unsigned long long)ticks, ns);
}

int __real_ibv_dump_context(struct ibv_context *ctx, int *count, void *buf,
			    size_t len);
int __wrap_ibv_dump_context(struct ibv_context *ctx, int *count, void *buf,
			    size_t len);

int __wrap_ibv_dump_context(struct ibv_context *ctx, int *count, void *buf,
			    size_t len)
{
	int ret;

	meter_start(&dumps);
	ret = __real_ibv_dump_context(ctx, count, buf, len);
	meter_stop(&dumps);
	return ret;
}

int __real_ibv_restore_object(struct ibv_context *ctx, void **object, int type,
			      int cmd, void *args, size_t len);
int __wrap_ibv_restore_object(struct ibv_context *ctx, void **object, int type,
			      int cmd, void *args, size_t len);

int __wrap_ibv_restore_object(struct ibv_context *ctx, void **object, int type,
			      int cmd, void *args, size_t len)
{
	struct meter *m = &restores[type][cmd & 7];
	int ret;

	meter_start(m);
	ret = __real_ibv_restore_object(ctx, object, type, cmd, args, len);
	meter_stop(m);
	return ret;
}
