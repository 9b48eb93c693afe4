// SPDX-License-Identifier: GPL-2.0
/*
 * Dump. When all tasks are frozen: find every RDMA context of the tree, check
 * them all, stop and snapshot them all, and only then write the first image.
 * The contexts stay imported until the outcome of the dump is known, and with
 * them the kernel's lease: should CRIU die, they resume where they are.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/kcmp.h>

#include "cr_options.h"
#include "image.h"
#include "pstree.h"
#include "rdma_plugin.h"

#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

struct vma {
	pid_t pid, virt;
	char comm[32];
	uint64_t start, end, pgoff;
	dev_t rdev;
};

struct dumped {
	int fd; /* a duplicate of the process's file */
	dev_t rdev;
	char device[64];
	/* of the first process, for messages */
	pid_t pid;
	int process_fd;
	char comm[32];

	uint32_t *holders;
	size_t nr_holders;
	struct ibv_context *ctx;
	struct rdma_snapshot snap;
	bool stopped;
	RdmaVmaEntry **vmas;
	size_t nr_vmas;
};

static struct dumped *dumped;
static size_t nr_dumped;
static struct vma *vmas;
static size_t nr_vmas;
static bool any_cm;

/* Process 17 (ib_send_bw), fd 4, device rxe0 */
#define WHO	"Process %d (%s), fd %d, device %s: "
#define who(d)	(d)->pid, (d)->comm, (d)->process_fd, (d)->device

static void read_comm(pid_t pid, char *comm, size_t len)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	f = fopen(path, "re");
	if (!f || !fgets(comm, len, f))
		snprintf(comm, len, "?");
	comm[strcspn(comm, "\n")] = 0;
	if (f)
		fclose(f);
}

/* The process id inside its own pid namespace, by which restore knows it. */
static pid_t virtual_pid(pid_t pid)
{
	char path[64], line[256];
	pid_t virt = pid;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, "NSpid:", 6)) {
			char *last = strrchr(line, '\t');

			if (last)
				virt = atoi(last + 1);
			break;
		}
	}
	if (f)
		fclose(f);
	return virt;
}

static bool same_file(int a, int b)
{
	pid_t self = getpid();

	return !syscall(SYS_kcmp, self, self, KCMP_FILE, a, b);
}

static struct dumped *find_dumped(int fd)
{
	size_t i;

	for (i = 0; i < nr_dumped; i++)
		if (same_file(dumped[i].fd, fd))
			return &dumped[i];
	return NULL;
}

static int add_context(pid_t pid, pid_t virt, int process_fd, int pidfd, const char *comm, dev_t rdev)
{
	struct dumped *d;
	void *more;
	int fd;

	fd = syscall(SYS_pidfd_getfd, pidfd, process_fd, 0);
	if (fd < 0) {
		pr_perror("Process %d (%s): can't get its fd %d", pid, comm, process_fd);
		return -1;
	}

	d = find_dumped(fd);
	if (d) {
		close(fd);
	} else {
		more = xrealloc(dumped, (nr_dumped + 1) * sizeof(*dumped));
		if (!more) {
			close(fd);
			return -1;
		}
		dumped = more;
		d = &dumped[nr_dumped++];
		memset(d, 0, sizeof(*d));
		d->fd = fd;
		d->rdev = rdev;
		d->pid = pid;
		d->process_fd = process_fd;
		snprintf(d->comm, sizeof(d->comm), "%s", comm);
		rdma_device_name(rdev, d->device, sizeof(d->device));
	}

	if (d->nr_holders && d->holders[d->nr_holders - 1] == (uint32_t)virt)
		return 0;
	more = xrealloc(d->holders, (d->nr_holders + 1) * sizeof(*d->holders));
	if (!more)
		return -1;
	d->holders = more;
	d->holders[d->nr_holders++] = virt;
	return 0;
}

/* The files of one task. With PRE_DUMP only look whether there is a context. */
static int scan_files(pid_t pid, pid_t virt, const char *comm, bool only_look)
{
	int pidfd = -1, ret = 0;
	char path[64];
	struct dirent *de;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	if (!dir) {
		pr_perror("Can't open %s", path);
		return -1;
	}

	while (!ret && (de = readdir(dir))) {
		int at = dirfd(dir);
		struct stat st;

		if (*de->d_name == '.' || at < 0 || fstatat(at, de->d_name, &st, 0))
			continue;
		switch (rdma_class(&st)) {
		case RDMA_CLASS_UVERBS:
			if (only_look) {
				ret = 1;
				break;
			}
			if (pidfd < 0)
				pidfd = syscall(SYS_pidfd_open, pid, 0);
			ret = add_context(pid, virt, atoi(de->d_name), pidfd, comm, st.st_rdev);
			break;
		case RDMA_CLASS_CM:
			any_cm = true;
			if (!only_look)
				ret = rdma_cm_check(pid, atoi(de->d_name), comm);
			break;
		default:
			break;
		}
	}
	closedir(dir);
	if (pidfd >= 0)
		close(pidfd);
	return ret;
}

static bool in_tree(pid_t pid)
{
	struct pstree_item *item;

	for_each_pstree_item(item)
		if (item->pid->real == pid)
			return true;
	return false;
}

/* Which of the contexts is this file of a process the file of? */
static const struct dumped *dumped_at(pid_t pid, int fd, const struct stat *st)
{
	size_t i;

	for (i = 0; i < nr_dumped; i++)
		if (S_ISCHR(st->st_mode) && st->st_rdev == dumped[i].rdev &&
		    !syscall(SYS_kcmp, pid, getpid(), KCMP_FILE, fd, dumped[i].fd))
			return &dumped[i];
	return NULL;
}

/* A process of which nothing is dumped may have a file of the contexts, too. */
static int check_outsider(pid_t pid)
{
	const struct dumped *d;
	char path[64], comm[32];
	struct dirent *de;
	int ret = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	if (!dir)
		return 0; /* it has ended */
	while (!ret && (de = readdir(dir))) {
		int at = dirfd(dir);
		struct stat st;

		if (*de->d_name == '.' || at < 0 || fstatat(at, de->d_name, &st, 0))
			continue;
		d = dumped_at(pid, atoi(de->d_name), &st);
		if (!d)
			continue;
		read_comm(pid, comm, sizeof(comm));
		pr_err(WHO "process %d (%s), which is not among those that are dumped, has the file open, too (its fd %s), and would be left with a context that is dead; close it there, or dump both together\n",
		       who(d), pid, comm, de->d_name);
		ret = -1;
	}
	closedir(dir);
	return ret;
}

static int check_outsiders(void)
{
	struct dirent *de;
	int ret = 0;
	pid_t pid;
	DIR *dir;

	dir = opendir("/proc");
	if (!dir) {
		pr_perror("Can't open /proc");
		return -1;
	}
	while (!ret && (de = readdir(dir))) {
		pid = atoi(de->d_name);
		if (pid > 0 && pid != getpid() && !in_tree(pid))
			ret = check_outsider(pid);
	}
	closedir(dir);
	return ret;
}

/* The mappings of device files in one task. */
static int scan_vmas(pid_t pid, pid_t virt, const char *comm)
{
	unsigned long long start, end, pgoff, ino;
	char path[64], perms[8];
	char *line = NULL;
	size_t size = 0;
	int ret = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = fopen(path, "re");
	if (!f) {
		pr_perror("Can't open %s", path);
		return -1;
	}

	while (!ret && getline(&line, &size, f) > 0) {
		struct stat st;
		void *more;

		if (sscanf(line, "%llx-%llx %7s %llx %*x:%*x %llu", &start, &end, perms, &pgoff, &ino) != 5 || !ino ||
		    perms[3] != 's')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/map_files/%llx-%llx", pid, start, end);
		if (stat(path, &st) || rdma_class(&st) != RDMA_CLASS_UVERBS)
			continue;

		more = xrealloc(vmas, (nr_vmas + 1) * sizeof(*vmas));
		if (!more) {
			ret = -1;
			break;
		}
		vmas = more;
		vmas[nr_vmas] = (struct vma){
			.pid = pid,
			.virt = virt,
			.start = start,
			.end = end,
			.pgoff = pgoff,
			.rdev = st.st_rdev,
		};
		snprintf(vmas[nr_vmas++].comm, sizeof(vmas->comm), "%s", comm);
	}
	free(line);
	fclose(f);
	return ret;
}

static int refuse_options(void)
{
	const char *what = NULL;

	if (opts.lazy_pages)
		what = "--lazy-pages (memory regions are pinned as a whole)";
	else if (opts.track_mem)
		what = "--track-mem (writes by RDMA are not tracked)";
	else if (opts.img_parent)
		what = "--prev-images-dir (writes by RDMA are not tracked)";
	else if (opts.stream)
		what = "--stream (the images of its contexts are files)";
	else if (opts.final_state == TASK_STOPPED)
		what = "--leave-stopped (its connections would have to stay stopped for ever)";
	if (!what)
		return 0;
	pr_err("Process %d (%s) uses RDMA: it can't be dumped with %s; leave the option out\n", dumped->pid,
	       dumped->comm, what);
	return -1;
}

/* At pre-dump, where the tasks run and nothing else of the plugin does. */
int rdma_dump_refuse_iterative(pid_t pid)
{
	char comm[32];
	int ret;

	read_comm(pid, comm, sizeof(comm));
	ret = scan_files(pid, pid, comm, true);
	if (ret <= 0)
		return 0; /* it may be gone */
	pr_err("Process %d (%s) uses RDMA: pre-dump is not possible, as writes by RDMA are not tracked; do a full dump\n",
	       pid, comm);
	return -1;
}

static void print_dump_error(const struct dumped *d, int err, int count, const void *buf)
{
	if (err == EOPNOTSUPP && count == -1)
		pr_err(WHO "the driver of the device can't migrate; load the migration-capable rdma_rxe\n", who(d));
	else if (err == EOPNOTSUPP)
		pr_err(WHO "%s\n", who(d), rdma_refusal_text(buf));
	else if (err == EPERM)
		pr_err(WHO "no permission to dump the context; run criu as root of the host\n", who(d));
	else if (err == EBUSY)
		pr_err(WHO "another dump of the context is under way; wait for it to end\n", who(d));
	else
		pr_err(WHO "can't dump the context: %s\n", who(d), strerror(err));
}

/* Can the context be dumped? Also finds out how long its snapshot is. */
static int check_context(struct dumped *d)
{
	union {
		struct rdma_dump_refusal refusal;
		struct rxe_mig_hdr hdr;
	} buf = {};
	int count = 0, err;

	d->ctx = rdma_verbs_import(d->fd);
	if (!d->ctx) {
		if (errno == EOPNOTSUPP)
			pr_err(WHO "its provider can't import contexts; use the libibverbs and the provider that came with this plugin\n",
			       who(d));
		else
			pr_perror(WHO "can't import the context", who(d));
		return -1;
	}

	err = verbs.dump_context(d->ctx, &count, &buf, sizeof(buf));
	if (err == ENOSPC) {
		d->snap.len = buf.hdr.total_len;
		return 0;
	}
	print_dump_error(d, err ?: EIO, count, &buf);
	return -1;
}

static int stop_context(struct dumped *d)
{
	uint64_t len = d->snap.len;
	int count = 0, err, tries;

	/* The tasks are frozen, but a connection may still get an event. */
	for (tries = 0; tries < 5; tries++) {
		len = (len + 65536 + 4095) & ~4095ULL;
		d->snap.data = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (d->snap.data == MAP_FAILED) {
			d->snap.data = NULL;
			pr_perror(WHO "can't get %llu bytes for the snapshot", who(d), (unsigned long long)len);
			return -1;
		}
		err = verbs.dump_context(d->ctx, &count, d->snap.data, len);
		if (err != ENOSPC)
			break;
		d->snap.len = ((struct rxe_mig_hdr *)d->snap.data)->total_len;
		munmap(d->snap.data, len);
		d->snap.data = NULL;
		len = d->snap.len;
	}
	if (err) {
		print_dump_error(d, err, count, d->snap.data);
		return -1;
	}

	d->stopped = true;
	d->snap.len = ((struct rxe_mig_hdr *)d->snap.data)->total_len;
	if (d->snap.len > len)
		d->snap.len = len;
	return rdma_snapshot_check(&d->snap, d->device);
}

static bool owns_ring(const struct dumped *d, uint64_t pgoff)
{
	const struct rxe_mig_ring *rings[2];
	const struct rxe_mig_rec *rec;

	for_each_record(rec, &d->snap) {
		int nr = rdma_record_rings(rec, rings);

		while (nr--)
			if (rings[nr]->mmap_size && rings[nr]->mmap_offset == pgoff)
				return true;
	}
	return false;
}

/* Whose rings are mapped where. The offsets are unique on a device. */
static int assign_vmas(void)
{
	size_t i, j;

	for (i = 0; i < nr_vmas; i++) {
		struct dumped *d = NULL;
		RdmaVmaEntry *entry;
		void *more;

		for (j = 0; j < nr_dumped; j++)
			if (dumped[j].rdev == vmas[i].rdev && owns_ring(&dumped[j], vmas[i].pgoff)) {
				d = &dumped[j];
				break;
			}
		if (!d) {
			pr_err("Process %d (%s): the device mapping at %#llx is of no queue of the processes that are dumped; unmap it\n",
			       vmas[i].pid, vmas[i].comm, (unsigned long long)vmas[i].start);
			return -1;
		}

		entry = xmalloc(sizeof(*entry));
		more = xrealloc(d->vmas, (d->nr_vmas + 1) * sizeof(*d->vmas));
		if (more)
			d->vmas = more;
		if (!entry || !more) {
			xfree(entry);
			return -1;
		}
		rdma_vma_entry__init(entry);
		entry->pid = vmas[i].virt;
		entry->start = vmas[i].start;
		entry->pgoff = vmas[i].pgoff;
		d->vmas[d->nr_vmas++] = entry;
	}
	return 0;
}

static int check_owners(const struct dumped *d)
{
	const struct rxe_mig_rec *rec;
	struct pstree_item *item;

	for_each_record(rec, &d->snap) {
		const struct rxe_mig_mr *mr = (const void *)rec;

		if (rec->type != RXE_MIG_REC_MR)
			continue;
		for_each_pstree_item(item)
			if (task_alive(item) && item->pid->real == mr->owner)
				break;
		if (!item) {
			pr_err(WHO "MR %#x (handle %u) is memory of process %d, which is not among those that are dumped; dump both together\n",
			       who(d), mr->rkey, rec->handle, mr->owner);
			return -1;
		}
	}
	return 0;
}

static int write_images(void)
{
	RdmaContextEntry *contexts = NULL;
	RdmaEntry entry = RDMA_ENTRY__INIT;
	struct pstree_item *item;
	int ret = -1;
	size_t i;

	entry.version = RDMA_IMG_VERSION;
	for_each_pstree_item(item)
		entry.n_tasks++;
	entry.tasks = xzalloc(entry.n_tasks * sizeof(*entry.tasks));
	entry.contexts = xzalloc((nr_dumped + 1) * sizeof(*entry.contexts));
	contexts = xzalloc((nr_dumped + 1) * sizeof(*contexts));
	if (!entry.tasks || !entry.contexts || !contexts)
		goto out;

	entry.n_tasks = 0;
	for_each_pstree_item(item) {
		RdmaTaskEntry *task;

		if (!task_alive(item))
			continue;
		task = xmalloc(sizeof(*task));
		if (!task)
			goto out;
		rdma_task_entry__init(task);
		task->real = item->pid->real;
		task->virt = virtual_pid(item->pid->real);
		entry.tasks[entry.n_tasks++] = task;
	}

	for (i = 0; i < nr_dumped; i++) {
		RdmaContextEntry *context = &contexts[i];
		char name[64];

		rdma_context_entry__init(context);
		context->id = i;
		context->device = dumped[i].device;
		context->snapshot_len = dumped[i].snap.len;
		context->n_holders = dumped[i].nr_holders;
		context->holders = dumped[i].holders;
		context->n_vmas = dumped[i].nr_vmas;
		context->vmas = dumped[i].vmas;
		entry.contexts[entry.n_contexts++] = context;

		snprintf(name, sizeof(name), RDMA_CONTEXT_IMG, context->id);
		if (rdma_image_write(name, dumped[i].snap.data, dumped[i].snap.len))
			goto out;
	}
	ret = rdma_image_set_state(RDMA_STATE_STOPPED) ?: rdma_image_write_entry(&entry);
out:
	for (i = 0; entry.tasks && i < entry.n_tasks; i++)
		xfree(entry.tasks[i]);
	xfree(entry.tasks);
	xfree(entry.contexts);
	xfree(contexts);
	return ret;
}

static void cancel_all(void)
{
	size_t i;
	int err;

	for (i = 0; i < nr_dumped; i++) {
		struct dumped *d = &dumped[i];

		if (!d->stopped)
			continue;
		d->stopped = false;
		err = rdma_verbs_command(d->ctx, RDMA_RESTORE_CANCEL, NULL);
		if (err)
			pr_err(WHO "can't resume the connections now (%s); the kernel does when criu ends\n", who(d),
			       strerror(err));
		else
			pr_info(WHO "connections resumed in place\n", who(d));
	}
}

/* All tasks are frozen. */
int rdma_dump_tree(void)
{
	struct pstree_item *item;
	char comm[32];
	int bad = 0;
	pid_t virt;
	size_t i;

	for_each_pstree_item(item) {
		if (!task_alive(item))
			continue;
		read_comm(item->pid->real, comm, sizeof(comm));
		virt = virtual_pid(item->pid->real);
		if (scan_files(item->pid->real, virt, comm, false))
			return -1;
	}
	if (!nr_dumped && !any_cm)
		return 0;

	if (nr_dumped) {
		if (refuse_options() || rdma_verbs_load() || check_outsiders())
			return -1;
		for_each_pstree_item(item) {
			if (!task_alive(item))
				continue;
			read_comm(item->pid->real, comm, sizeof(comm));
			if (scan_vmas(item->pid->real, virtual_pid(item->pid->real), comm))
				return -1;
		}
	}

	/* Tell what is wrong with each, not only with the first. */
	for (i = 0; i < nr_dumped; i++)
		bad |= check_context(&dumped[i]);
	if (bad)
		return -1;

	for (i = 0; i < nr_dumped; i++) {
		if (stop_context(&dumped[i]) || check_owners(&dumped[i]))
			goto cancel;
		pr_info(WHO "stopped, %u records in %llu bytes\n", who(&dumped[i]),
			((struct rxe_mig_hdr *)dumped[i].snap.data)->count,
			(unsigned long long)dumped[i].snap.len);
	}
	if (assign_vmas() || write_images() || add_inventory_plugin("rdma_plugin"))
		goto cancel;
	return 0;

cancel:
	cancel_all();
	return -1;
}

int rdma_dump_vma(const struct stat *st)
{
	/* All mappings have been found to belong to a context already. */
	if (!nr_vmas || rdma_class(st) != RDMA_CLASS_UVERBS)
		return -ENOTSUP;
	return 0;
}

int rdma_dump_file(int fd, uint32_t id)
{
	RdmaFileEntry file = RDMA_FILE_ENTRY__INIT;
	struct rdma_restore_args args = {};
	struct dumped *d = NULL;
	int flags, err;
	size_t i;

	switch (rdma_class_fd(fd)) {
	case RDMA_CLASS_UVERBS:
		d = find_dumped(fd);
		file.kind = RDMA_FILE_KIND__UVERBS;
		break;
	case RDMA_CLASS_EVENT:
		for (i = 0; i < nr_dumped; i++) {
			args.fd = fd;
			err = rdma_verbs_command(dumped[i].ctx, RDMA_RESTORE_IDENTIFY, &args);
			if (!err) {
				d = &dumped[i];
				break;
			}
		}
		if (d && args.type == RXE_MIG_REC_ASYNC)
			file.kind = RDMA_FILE_KIND__ASYNC;
		else if (d && args.type == RXE_MIG_REC_CHANNEL)
			file.kind = RDMA_FILE_KIND__CHANNEL;
		else
			d = NULL;
		if (d) {
			file.has_handle = true;
			file.handle = args.handle;
		}
		break;
	case RDMA_CLASS_CM:
		file.kind = RDMA_FILE_KIND__CM;
		break;
	default:
		return -ENOTSUP;
	}

	if (file.kind != RDMA_FILE_KIND__CM) {
		if (!d) {
			pr_err("An RDMA event or device file (id %#x) belongs to no context of the processes that are dumped; close it, or dump the processes with the context too\n",
			       id);
			return -1;
		}
		file.has_context = true;
		file.context = d - dumped;
	}

	flags = fcntl(fd, F_GETFL);
	if (flags < 0) {
		pr_perror("Can't get the flags of file %#x", id);
		return -1;
	}
	file.id = id;
	file.flags = flags;
	return rdma_image_add_file(&file);
}

/*
 * The end of the dump, the tasks are still frozen. RET is 0 if they will not
 * run again, unless the user wants them to: they die with CRIU then, so from here on
 * the images are the live copy. If CRIU does not get here, the kernel resumes the
 * contexts when it is gone.
 */
void rdma_dump_finish(int ret)
{
	size_t i;
	int err;

	if (ret || opts.final_state == TASK_ALIVE)
		cancel_all();
	else if (nr_dumped)
		/* What went wrong is in the log; restore tells what to do. */
		(void)rdma_image_set_state(RDMA_STATE_COMPLETE);

	for (i = 0; i < nr_dumped; i++) {
		struct dumped *d = &dumped[i];

		if (d->stopped) {
			err = rdma_verbs_command(d->ctx, RDMA_RESTORE_COMMIT, NULL);
			if (err)
				pr_err(WHO "can't give up the context: %s\n", who(d), strerror(err));
		}
		if (d->ctx)
			verbs.close_device(d->ctx);
		close(d->fd);
		if (d->snap.data)
			munmap(d->snap.data, d->snap.len);
	}
	nr_dumped = nr_vmas = 0;
}
