// SPDX-License-Identifier: GPL-2.0
/*
 * Restore, the part in the tasks: the first one that asks for a file or a
 * mapping of a context makes the context with all objects that do not need a
 * task's memory. Its QPs are born stopped. The files are kept in CRIU's
 * fdstore, where every task gets them from.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/lock.h"
#include "fdstore.h"
#include "image.h"
#include "pstree.h"
#include "rdma_plugin.h"

#define CM_PATH "/dev/infiniband/rdma_cm"

/* In memory that all tasks share; the ids are of CRIU's fdstore. */
struct rdma_shared_context {
	mutex_t lock;
	bool created;
	int uverbs;
	int async;
	uint32_t nr_channels;
	struct {
		uint32_t handle;
		int id;
	} channels[];
};

RdmaEntry *rdma_entry;
struct rdma_context *rdma_contexts;
size_t rdma_nr_contexts;

static const char *context_name(const struct rdma_context *c)
{
	static char name[128];

	snprintf(name, sizeof(name), "context %u (%s, now %s)", c->entry->id, c->entry->device, c->device->name);
	return name;
}

static int init_context(struct rdma_context *c, RdmaContextEntry *entry)
{
	const struct rxe_mig_rec *rec;
	size_t channels = 0;
	char name[64];
	int ret;

	c->entry = entry;
	snprintf(name, sizeof(name), RDMA_CONTEXT_IMG, entry->id);
	ret = rdma_image_map(name, &c->snap);
	if (ret > 0)
		pr_err("The image %s is missing: copy all files of the images directory\n", name);
	if (ret || rdma_snapshot_check(&c->snap, name))
		return -1;

	for_each_record(rec, &c->snap)
		channels += rec->type == RXE_MIG_REC_CHANNEL;
	c->shared = mmap(NULL, sizeof(*c->shared) + channels * sizeof(c->shared->channels[0]), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (c->shared == MAP_FAILED) {
		pr_perror("Can't get shared memory");
		return -1;
	}
	mutex_init(&c->shared->lock);

	c->device = rdma_device_choose(entry->device, &c->snap);
	if (!c->device || rdma_device_rdev(c->device, &c->rdev))
		return -1;
	pr_info("Restoring context %u of %s on %s\n", entry->id, entry->device, c->device->name);
	return 0;
}

/* In the main process, in the host's namespaces, before there are tasks. */
int rdma_restore_init(void)
{
	size_t i;

	rdma_entry = rdma_image_read_entry();
	if (!rdma_entry)
		return -1;
	if (!rdma_entry->n_contexts)
		return 0;
	if (rdma_image_check_state() || rdma_options_read() || rdma_verbs_load())
		return -1;

	rdma_contexts = xzalloc(rdma_entry->n_contexts * sizeof(*rdma_contexts));
	if (!rdma_contexts)
		return -1;
	for (i = 0; i < rdma_entry->n_contexts; i++)
		if (init_context(&rdma_contexts[i], rdma_entry->contexts[i]))
			return -1;
	rdma_nr_contexts = i;
	return 0;
}

/* CREATE or REFILL for one record. FD: see ibv_restore_object(3). */
int rdma_restore_record(struct rdma_context *c, struct ibv_context *ctx, const struct rxe_mig_rec *rec, int cmd,
			int *fd, pid_t pid)
{
	struct rdma_restore_args args = {
		.record = rec,
		.record_len = rec->len,
		.fd = fd ? *fd : -1,
		.pid = pid,
	};
	const char *advice = "";
	int err;

	if (pid)
		args.comp_mask |= RDMA_RESTORE_ARGS_PID;

	err = verbs.restore_object(ctx, NULL, rec->type, cmd, &args, sizeof(args));
	if (!err) {
		if (fd)
			*fd = args.fd;
		return 0;
	}

	if (err == EBUSY && cmd == RDMA_RESTORE_CREATE)
		advice = "; its number is in use on this device: restore on another one, or add one for this container";
	else if (err == EPERM)
		advice = "; run criu as root of the host";
	else if (err == EOPNOTSUPP)
		advice = "; load the migration-capable rdma_rxe";
	pr_err("%s: can't %s %s %#x (handle %u): %s%s\n", context_name(c),
	       cmd == RDMA_RESTORE_CREATE ? "create" : "fill", rdma_type_name(rec->type), rdma_record_number(rec),
	       rec->handle, strerror(err), advice);
	return -1;
}

static bool needs_memory(const struct rxe_mig_rec *rec)
{
	return rec->type == RXE_MIG_REC_MR || rec->type == RXE_MIG_REC_MW;
}

static bool is_event_file(const struct rxe_mig_rec *rec)
{
	return rec->type == RXE_MIG_REC_ASYNC || rec->type == RXE_MIG_REC_CHANNEL;
}

static int find_channel(const struct rdma_shared_context *s, uint32_t handle)
{
	uint32_t i;

	for (i = 0; i < s->nr_channels; i++)
		if (s->channels[i].handle == handle)
			return i;
	return -1;
}

static int channel_fd(const struct rdma_shared_context *s, const int *channel_fds, uint32_t handle)
{
	int i = find_channel(s, handle);

	return i < 0 ? -1 : channel_fds[i];
}

static int create_objects(struct rdma_context *c, struct ibv_context *ctx, int *async_fd, int *channel_fds)
{
	struct rdma_shared_context *s = c->shared;
	const struct rxe_mig_rec *rec;

	for_each_record(rec, &c->snap) {
		int fd = -1;

		if (needs_memory(rec))
			continue;
		if (rec->type == RXE_MIG_REC_CQ) {
			uint32_t channel = ((const struct rxe_mig_cq *)rec)->channel;

			if (channel != RXE_MIG_NONE)
				fd = channel_fd(s, channel_fds, channel);
			if (fd < 0 && channel != RXE_MIG_NONE) {
				pr_err("%s: CQ %u is of channel %u, which does not exist: the snapshot is damaged\n",
				       context_name(c), rec->handle, channel);
				return -1;
			}
		}
		if (rdma_restore_record(c, ctx, rec, RDMA_RESTORE_CREATE, &fd, 0))
			return -1;
		if (rec->type == RXE_MIG_REC_ASYNC) {
			*async_fd = fd;
		} else if (rec->type == RXE_MIG_REC_CHANNEL) {
			s->channels[s->nr_channels].handle = rec->handle;
			channel_fds[s->nr_channels++] = fd;
		}
	}

	for_each_record(rec, &c->snap)
		if (!needs_memory(rec) && !is_event_file(rec) &&
		    rdma_restore_record(c, ctx, rec, RDMA_RESTORE_REFILL, NULL, 0))
			return -1;

	/* Their unread events are about the other objects. */
	for_each_record(rec, &c->snap) {
		int fd;

		/* The number of events is at the same place in both. */
		if (!is_event_file(rec) || !((const struct rxe_mig_channel *)rec)->num_events)
			continue;
		fd = rec->type == RXE_MIG_REC_ASYNC ? *async_fd : channel_fd(s, channel_fds, rec->handle);
		if (rdma_restore_record(c, ctx, rec, RDMA_RESTORE_REFILL, &fd, 0))
			return -1;
	}
	return 0;
}

static int create_context(struct rdma_context *c)
{
	struct rdma_shared_context *s = c->shared;
	const struct rxe_mig_rec *rec;
	struct ibv_context *ctx;
	size_t channels = 0;
	int *channel_fds = NULL, async_fd = -1, ret = -1;
	uint32_t i;

	if (rdma_device_node(c->device, c->rdev))
		return -1;
	ctx = verbs.open_device(c->device);
	if (!ctx) {
		pr_perror("Can't open RDMA device %s (%s)", c->device->name, c->device->dev_name);
		return -1;
	}

	/* Another process may have failed at it before. */
	s->nr_channels = 0;
	for_each_record(rec, &c->snap)
		channels += rec->type == RXE_MIG_REC_CHANNEL;
	channel_fds = xmalloc((channels + 1) * sizeof(*channel_fds));
	if (!channel_fds || create_objects(c, ctx, &async_fd, channel_fds))
		goto out;

	s->uverbs = fdstore_add(ctx->cmd_fd);
	s->async = async_fd < 0 ? -1 : fdstore_add(async_fd);
	if (s->uverbs < 0 || (async_fd >= 0 && s->async < 0))
		goto out;
	for (i = 0; i < s->nr_channels; i++) {
		s->channels[i].id = fdstore_add(channel_fds[i]);
		if (s->channels[i].id < 0)
			goto out;
	}
	pr_info("%s: created\n", context_name(c));
	ret = 0;
out:
	for (i = 0; channel_fds && i < s->nr_channels; i++)
		close(channel_fds[i]);
	if (async_fd >= 0 && async_fd != ctx->async_fd)
		close(async_fd);
	xfree(channel_fds);
	/* The objects stay as long as the fdstore has the file. */
	verbs.close_device(ctx);
	return ret;
}

static int get_context(struct rdma_context *c)
{
	int ret = 0;

	mutex_lock(&c->shared->lock);
	if (!c->shared->created) {
		ret = create_context(c);
		c->shared->created = !ret;
	}
	mutex_unlock(&c->shared->lock);
	return ret;
}

/* The context's file, in the main process too; -1 if nobody has made it. */
int rdma_restored_fd(struct rdma_context *c)
{
	return c->shared->created ? fdstore_get(c->shared->uverbs) : -1;
}

static int restore_flags(int fd, const RdmaFileEntry *file)
{
	const int mask = O_APPEND | O_ASYNC | O_DIRECT | O_NOATIME | O_NONBLOCK;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, (flags & ~mask) | (file->flags & mask))) {
		pr_perror("Can't set the flags of file %#x", file->id);
		return -1;
	}
	return 0;
}

static int restore_context_file(const RdmaFileEntry *file)
{
	struct rdma_context *c;
	int i, id = -1;

	if (!file->has_context || file->context >= rdma_nr_contexts) {
		pr_err("File %#x is of context %u, which is not in the image\n", file->id, file->context);
		return -1;
	}
	c = &rdma_contexts[file->context];
	if (get_context(c))
		return -1;

	switch (file->kind) {
	case RDMA_FILE_KIND__UVERBS:
		id = c->shared->uverbs;
		break;
	case RDMA_FILE_KIND__ASYNC:
		id = c->shared->async;
		break;
	case RDMA_FILE_KIND__CHANNEL:
		i = find_channel(c->shared, file->handle);
		if (i >= 0)
			id = c->shared->channels[i].id;
		break;
	default:
		break;
	}
	if (id < 0) {
		pr_err("File %#x is not in the snapshot of %s\n", file->id, context_name(c));
		return -1;
	}
	return fdstore_get(id);
}

int rdma_restore_file(uint32_t id)
{
	RdmaFileEntry *file;
	int fd;

	if (!rdma_entry)
		return -ENOTSUP;
	file = rdma_image_find_file(id);
	if (!file)
		return errno ? -1 : -ENOTSUP;

	if (file->kind == RDMA_FILE_KIND__CM) {
		fd = open(CM_PATH, (file->flags & O_ACCMODE) | O_CLOEXEC);
		if (fd < 0)
			pr_perror("Can't open %s; load rdma_ucm and add the file to the container's devices", CM_PATH);
	} else {
		fd = restore_context_file(file);
	}
	if (fd >= 0 && restore_flags(fd, file)) {
		close(fd);
		fd = -1;
	}
	rdma_file_entry__free_unpacked(file, NULL);
	return fd < 0 ? -1 : fd;
}

/* 1: map the file that is returned, at the new offset */
int rdma_restore_vma(const char *path, uint64_t start, uint64_t pgoff, uint64_t *new_pgoff, int *plugin_fd)
{
	uint32_t pid = vpid(current);
	size_t i, j;

	for (i = 0; i < rdma_nr_contexts; i++) {
		struct rdma_context *c = &rdma_contexts[i];

		for (j = 0; j < c->entry->n_vmas; j++) {
			const RdmaVmaEntry *vma = c->entry->vmas[j];

			if (vma->pid != pid || vma->start != start || vma->pgoff != pgoff)
				continue;
			if (get_context(c))
				return -1;
			*plugin_fd = rdma_restored_fd(c);
			if (*plugin_fd < 0)
				return -1;
			*new_pgoff = pgoff;
			return 1;
		}
	}

	if (rdma_nr_contexts && strstr(path, "/infiniband/uverbs")) {
		pr_err("The mapping of %s at %#llx in process %u is not in the image\n", path,
		       (unsigned long long)start, pid);
		return -1;
	}
	return -ENOTSUP;
}
