// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../drivers/infiniband/sw/rxe/rxe_mig_uapi.h"
#include "selfmig.h"

#define MAX_FDS 256

/* An fd of the context: its device file, or an event file */
struct fd {
	int fd;
	uint32_t type;
	uint32_t handle;	/* number of the event file */
	int fd_flags;
	int flags;
	int restored;		/* fd of the restored file, or -1 */
};

struct map {
	void *addr;
	size_t len;
	int prot;
	uint64_t offset;
};

struct selfmig {
	struct ibv_context *ctx;
	struct ibv_context *new;
	uint8_t *image;
	uint8_t *end;
	int records;
	struct fd fds[MAX_FDS];
	unsigned int num_fds;
	struct map *maps;
	unsigned int num_maps;
};

static char error[256];

const char *selfmig_error(void)
{
	return error;
}

/* err is a positive errno value */
__attribute__((format(printf, 2, 3)))
static int fail(int err, const char *format, ...)
{
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(error, sizeof(error), format, args);
	va_end(args);
	if (len >= 0 && (size_t)len < sizeof(error))
		snprintf(error + len, sizeof(error) - len, ": %s",
			 strerror(err));
	return -err;
}

static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e3 + ts.tv_nsec / 1e6;
}

static struct rxe_mig_rec *first_rec(struct selfmig *c)
{
	return (void *)(c->image + ((struct rxe_mig_hdr *)c->image)->hdr_len);
}

#define for_each_rec(c, rec)                                                   \
	for (rec = first_rec(c); (uint8_t *)rec < (c)->end;                    \
	     rec = (void *)((uint8_t *)rec + rec->len))

/* The rings in a record; returns their number */
static unsigned int rings_of(struct rxe_mig_rec *rec,
			     struct rxe_mig_ring *rings[2])
{
	switch (rec->type) {
	case RXE_MIG_REC_CQ:
		rings[0] = &((struct rxe_mig_cq *)rec)->ring;
		return 1;
	case RXE_MIG_REC_SRQ:
		rings[0] = &((struct rxe_mig_srq *)rec)->ring;
		return 1;
	case RXE_MIG_REC_QP:
		rings[0] = &((struct rxe_mig_qp_rec *)rec)->sq;
		rings[1] = &((struct rxe_mig_qp_rec *)rec)->rq;
		return 2;
	}
	return 0;
}

static int dump(struct selfmig *c)
{
	struct rxe_mig_hdr hdr = {};
	size_t len = 4096;
	int err;

	for (;;) {
		free(c->image);
		c->image = malloc(len);
		if (!c->image)
			return fail(ENOMEM, "dump of %zu bytes", len);
		err = ibv_dump_context(c->ctx, &c->records, c->image, len);
		if (err != EOPNOTSUPP || c->records == -1)
			memcpy(&hdr, c->image, sizeof(hdr));
		if (err != ENOSPC)
			break;
		len = hdr.total_len;
	}
	if (err == EOPNOTSUPP && c->records != -1)
		return fail(err, "dump refused: %s",
			    ((struct ibv_dump_refusal *)c->image)->text);
	if (err)
		return fail(err, "dump");
	c->end = c->image + hdr.total_len;
	return 0;
}

static int context_cmd(struct ibv_context *ctx, int cmd)
{
	return ibv_restore_object(ctx, NULL, IBV_RESTORE_TYPE_CONTEXT, cmd,
				  NULL, 0);
}

static int find_fds(struct selfmig *c)
{
	struct dirent *entry;
	DIR *dir;
	int err;

	dir = opendir("/proc/self/fd");
	if (!dir)
		return fail(errno, "/proc/self/fd");
	while ((entry = readdir(dir))) {
		struct ibv_restore_args args = { .fd = atoi(entry->d_name) };
		struct fd *fd = &c->fds[c->num_fds];

		if (entry->d_name[0] == '.' || args.fd == dirfd(dir))
			continue;
		err = ibv_restore_object(c->ctx, NULL, IBV_RESTORE_TYPE_CONTEXT,
					 IBV_RESTORE_IDENTIFY, &args,
					 sizeof(args));
		if (err == ENOENT)
			continue;
		if (err || c->num_fds == MAX_FDS) {
			closedir(dir);
			return fail(err ?: EMFILE, "identify fd %d", args.fd);
		}
		fd->fd = args.fd;
		fd->type = args.type;
		fd->handle = args.handle;
		fd->fd_flags = fcntl(fd->fd, F_GETFD);
		fd->flags = fcntl(fd->fd, F_GETFL);
		fd->restored = -1;
		c->num_fds++;
	}
	closedir(dir);
	return 0;
}

static int is_ring(struct selfmig *c, uint64_t offset)
{
	struct rxe_mig_ring *rings[2];
	struct rxe_mig_rec *rec;
	unsigned int i, n;

	for_each_rec(c, rec) {
		n = rings_of(rec, rings);
		for (i = 0; i != n; i++)
			if (rings[i]->mmap_size &&
			    rings[i]->mmap_offset == offset)
				return 1;
	}
	return 0;
}

/* The device's offsets are unique, so it tells the rings of other contexts */
static int find_maps(struct selfmig *c)
{
	unsigned int major, minor;
	unsigned long start, end, inode;
	unsigned long long offset;
	struct stat st;
	char perms[5];
	char line[512];
	FILE *file;

	if (fstat(c->ctx->cmd_fd, &st))
		return fail(errno, "fstat");
	file = fopen("/proc/self/maps", "r");
	if (!file)
		return fail(errno, "/proc/self/maps");
	while (fgets(line, sizeof(line), file)) {
		struct map *map;

		if (sscanf(line, "%lx-%lx %4s %llx %x:%x %lu", &start, &end,
			   perms, &offset, &major, &minor, &inode) != 7 ||
		    inode != st.st_ino || makedev(major, minor) != st.st_dev ||
		    !is_ring(c, offset))
			continue;
		map = realloc(c->maps, (c->num_maps + 1) * sizeof(*map));
		if (!map) {
			fclose(file);
			return fail(ENOMEM, "maps");
		}
		c->maps = map;
		map += c->num_maps++;
		map->addr = (void *)start;
		map->len = end - start;
		map->offset = offset;
		map->prot = (perms[0] == 'r' ? PROT_READ : 0) |
			    (perms[1] == 'w' ? PROT_WRITE : 0);
	}
	fclose(file);
	return 0;
}

/*
 * Nothing of the context remains in this process, so it is destroyed. The
 * numbers of its fds remain taken.
 */
static int destroy(struct selfmig *c)
{
	unsigned int i;
	int null;

	for (i = 0; i != c->num_maps; i++)
		if (munmap(c->maps[i].addr, c->maps[i].len))
			return fail(errno, "munmap");
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		return fail(errno, "/dev/null");
	for (i = 0; i != c->num_fds; i++)
		if (dup3(null, c->fds[i].fd, O_CLOEXEC) < 0)
			return fail(errno, "dup");
	close(null);
	return 0;
}

static int restored_fd(struct selfmig *c, uint32_t type, uint32_t handle)
{
	unsigned int i;

	for (i = 0; i != c->num_fds; i++)
		if (c->fds[i].type == type && c->fds[i].handle == handle)
			return c->fds[i].restored;
	return -1;
}

static int is_event_file(const struct rxe_mig_rec *rec)
{
	return rec->type == RXE_MIG_REC_ASYNC ||
	       rec->type == RXE_MIG_REC_CHANNEL;
}

static int create(struct selfmig *c, struct rxe_mig_rec *rec)
{
	struct ibv_restore_args args = {
		.record = rec,
		.record_len = rec->len,
		.fd = -1,
	};
	unsigned int i, used = 0;
	int err;

	if (rec->type == RXE_MIG_REC_CQ)
		args.fd = restored_fd(c, RXE_MIG_REC_CHANNEL,
				      ((struct rxe_mig_cq *)rec)->channel);
	err = ibv_restore_object(c->new, NULL, rec->type, IBV_RESTORE_CREATE,
				 &args, sizeof(args));
	if (err)
		return fail(err, "create type %u handle %u", rec->type,
			    rec->handle);
	if (!is_event_file(rec))
		return 0;

	for (i = 0; i != c->num_fds; i++)
		if (c->fds[i].type == rec->type &&
		    c->fds[i].handle == rec->handle) {
			c->fds[i].restored = args.fd;
			used = 1;
		}
	/* Only another process has had this file */
	if (!used)
		close(args.fd);
	return 0;
}

static int refill(struct selfmig *c, struct rxe_mig_rec *rec)
{
	struct ibv_restore_args args = {
		.record = rec,
		.record_len = rec->len,
		.fd = -1,
	};
	int err;

	if (is_event_file(rec)) {
		args.fd = restored_fd(c, rec->type, rec->handle);
		if (args.fd < 0)
			return 0;
	}
	err = ibv_restore_object(c->new, NULL, rec->type, IBV_RESTORE_REFILL,
				 &args, sizeof(args));
	if (err)
		return fail(err, "refill type %u handle %u", rec->type,
			    rec->handle);
	return 0;
}

static int create_all(struct selfmig *c)
{
	struct rxe_mig_rec *rec;
	unsigned int i;
	int err;

	c->new = ibv_open_device(c->ctx->device);
	if (!c->new)
		return fail(errno, "open");

	for_each_rec(c, rec) {
		err = create(c, rec);
		if (err)
			return err;
	}
	for_each_rec(c, rec) {
		err = is_event_file(rec) ? 0 : refill(c, rec);
		if (err)
			return err;
	}
	/* Events are about objects */
	for_each_rec(c, rec) {
		err = is_event_file(rec) ? refill(c, rec) : 0;
		if (err)
			return err;
	}

	for (i = 0; i != c->num_maps; i++) {
		struct map *map = &c->maps[i];

		if (mmap(map->addr, map->len, map->prot,
			 MAP_SHARED | MAP_FIXED_NOREPLACE, c->new->cmd_fd,
			 map->offset) != map->addr)
			return fail(errno, "mmap of ring at offset %#llx",
				    (unsigned long long)map->offset);
	}
	return 0;
}

/* Gives the restored files the numbers of the old ones */
static int replace_fds(struct selfmig *c)
{
	unsigned int i;

	for (i = 0; i != c->num_fds; i++) {
		struct fd *fd = &c->fds[i];
		int from = fd->restored;

		if (fd->type == IBV_RESTORE_TYPE_CONTEXT)
			from = c->new->cmd_fd;
		if (from < 0)
			return fail(EBADF, "no record for fd %d", fd->fd);
		if (dup3(from, fd->fd,
			 fd->fd_flags & FD_CLOEXEC ? O_CLOEXEC : 0) < 0)
			return fail(errno, "dup to fd %d", fd->fd);
		if (fcntl(fd->fd, F_SETFL, fd->flags))
			return fail(errno, "flags of fd %d", fd->fd);
	}
	return 0;
}

static int resume(struct selfmig *c, unsigned int flags)
{
	struct ibv_dump_refusal refusal = {};
	struct ibv_restore_args args = {
		.comp_mask = IBV_RESTORE_ARGS_REFUSAL,
		.flags = flags,
		.refusal = &refusal,
	};
	int err;

	err = ibv_restore_object(c->new, NULL, IBV_RESTORE_TYPE_CONTEXT,
				 IBV_RESTORE_RESUME, &args, sizeof(args));
	if (err)
		return fail(err, "resume %s", refusal.text);
	return 0;
}

/* Two fds may be of the same file, so close each restored one once */
static void close_restored(struct selfmig *c)
{
	unsigned int i, j;

	for (i = 0; i != c->num_fds; i++) {
		int fd = c->fds[i].restored;

		if (fd < 0)
			continue;
		close(fd);
		for (j = i; j != c->num_fds; j++)
			if (c->fds[j].restored == fd)
				c->fds[j].restored = -1;
	}
	if (c->new)
		ibv_close_device(c->new);
}

static void release(struct selfmig *c)
{
	close_restored(c);
	free(c->image);
	free(c->maps);
	free(c);
}

int selfmig_stop(struct ibv_context *ctx, struct selfmig **migration)
{
	struct selfmig *c = calloc(1, sizeof(*c));
	int err;

	error[0] = 0;
	if (!c) {
		fail(ENOMEM, "stop");
		return -ENOMEM;
	}
	c->ctx = ctx;
	err = dump(c);
	if (err) {
		release(c);
		return err;
	}
	err = find_fds(c);
	if (!err)
		err = find_maps(c);
	if (err) {
		context_cmd(ctx, IBV_RESTORE_CANCEL);
		release(c);
		return err;
	}
	*migration = c;
	return 0;
}

const void *selfmig_image(const struct selfmig *c, size_t *len)
{
	*len = c->end - c->image;
	return c->image;
}

int selfmig_cancel(struct selfmig *c)
{
	int err = context_cmd(c->ctx, IBV_RESTORE_CANCEL);

	if (err)
		return fail(err, "cancel");
	release(c);
	return 0;
}

int selfmig_leave(struct selfmig *c)
{
	int err = context_cmd(c->ctx, IBV_RESTORE_COMMIT);

	return err ? fail(err, "commit") : destroy(c);
}

int selfmig_restore(struct selfmig *c)
{
	int err = create_all(c);

	return err ? err : replace_fds(c);
}

int selfmig_resume(struct selfmig *c, unsigned int flags)
{
	int err = resume(c, flags);

	if (!err)
		release(c);
	return err;
}

int selfmig_cycle(struct ibv_context *ctx, struct selfmig_info *info)
{
	return selfmig_cycle_if(ctx, info, NULL, NULL);
}

int selfmig_cycle_if(struct ibv_context *ctx, struct selfmig_info *info,
		     int (*look)(const void *image, size_t len, void *arg),
		     void *arg)
{
	struct selfmig_info done;
	double start = now_ms();
	struct selfmig *c;
	int err;

	err = selfmig_stop(ctx, &c);
	if (err)
		return err;
	done.dump_ms = now_ms() - start;
	done.bytes = c->end - c->image;
	done.records = c->records;
	if (look && look(c->image, done.bytes, arg)) {
		err = selfmig_cancel(c);
		return err ?: fail(ECANCELED, "image refused");
	}

	err = selfmig_leave(c);
	if (!err)
		err = selfmig_restore(c);
	if (!err)
		err = selfmig_resume(c, 0);
	if (err) {
		release(c);
		return err;
	}
	done.total_ms = now_ms() - start;
	if (info)
		*info = done;
	return 0;
}

int selfmig_fail(struct ibv_context *ctx)
{
	size_t len = 1 << 30;
	void *nothing = mmap(NULL, len, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int records, err;

	if (nothing == MAP_FAILED)
		return fail(errno, "mmap");
	/* The snapshot is taken, and cannot be read */
	err = ibv_dump_context(ctx, &records, nothing, len);
	munmap(nothing, len);
	return err == EFAULT ? 0 : fail(err, "dump to where nothing can be");
}

/* As criu does it, and is killed */
static void dump_and_die(struct ibv_context *ctx)
{
	size_t len = 1 << 30;
	void *image = mmap(NULL, len, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int fd = dup(ctx->cmd_fd), records;
	struct ibv_context *imported = fd < 0 ? NULL : ibv_import_device(fd);

	if (image == MAP_FAILED || !imported)
		_exit(errno ?: EIO);
	_exit(ibv_dump_context(imported, &records, image, len) ?:
	      (raise(SIGKILL), EINTR));
}

int selfmig_lose(struct ibv_context *ctx)
{
	pid_t child = fork();
	int status;

	if (child < 0)
		return fail(errno, "fork");
	if (!child)
		dump_and_die(ctx);
	if (waitpid(child, &status, 0) != child)
		return fail(errno, "waitpid");
	if (WIFEXITED(status))
		return fail(WEXITSTATUS(status), "dump by another process");
	return 0;
}
