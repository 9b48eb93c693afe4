/* SPDX-License-Identifier: GPL-2.0 */
#ifndef __RDMA_PLUGIN_H__
#define __RDMA_PLUGIN_H__

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <infiniband/verbs.h>

#include "criu-log.h"
#include "xmalloc.h"

#include "rdma.pb-c.h"
#include "rdma_verbs_abi.h"
#include "rxe_mig_uapi.h"

#ifdef LOG_PREFIX
#undef LOG_PREFIX
#endif
#define LOG_PREFIX "rdma_plugin: "

#define RDMA_IMG	 "rdma.img"
#define RDMA_FILES_IMG	 "rdma-files.img"
#define RDMA_STATE_IMG	 "rdma-state.img"
#define RDMA_CONTEXT_IMG "rdma-context-%u.img"
/* A literal: rdma_plugin.c shows it in the file, too */
#define RDMA_IMG_VERSION 1

/* verbs.c: libibverbs, loaded when the first RDMA file is met */
struct rdma_verbs {
	struct ibv_device **(*get_device_list)(int *num);
	struct ibv_context *(*open_device)(struct ibv_device *device);
	int (*close_device)(struct ibv_context *context);
	ssize_t (*query_gid_table)(struct ibv_context *context, struct ibv_gid_entry *entries, size_t max_entries,
				   uint32_t flags, size_t entry_size);
	struct ibv_context *(*import_device)(int cmd_fd);
	int (*dump_context)(struct ibv_context *context, int *count, void *dump, size_t length);
	int (*restore_object)(struct ibv_context *context, void **object, int type, int cmd, void *args,
			      size_t length);
};

extern struct rdma_verbs verbs;
extern int rdma_verbs_load(void);
extern struct ibv_context *rdma_verbs_import(int fd);
extern int rdma_verbs_command(struct ibv_context *ctx, int cmd, struct rdma_restore_args *args);
extern const char *rdma_type_name(uint32_t type);
extern const char *rdma_refusal_text(const struct rdma_dump_refusal *refusal);

/* snapshot.c: reading snapshots, which may have been tampered with */
struct rdma_snapshot {
	void *data;
	uint64_t len;
};

extern int rdma_snapshot_check(const struct rdma_snapshot *snap, const char *what);
extern const struct rxe_mig_rec *rdma_snapshot_next(const struct rdma_snapshot *snap, const struct rxe_mig_rec *rec);
extern int rdma_record_rings(const struct rxe_mig_rec *rec, const struct rxe_mig_ring *rings[2]);
extern uint32_t rdma_record_number(const struct rxe_mig_rec *rec);

#define for_each_record(rec, snap) \
	for ((rec) = rdma_snapshot_next(snap, NULL); (rec); (rec) = rdma_snapshot_next(snap, rec))

/* image.c */

/* Who is the live copy */
enum rdma_state {
	RDMA_STATE_STOPPED,  /* the processes, unless they were killed right then */
	RDMA_STATE_COMPLETE, /* the images: may be restored once */
	RDMA_STATE_RESUMED,  /* what they have been restored to */
};

extern int rdma_image_set_state(enum rdma_state state);
extern int rdma_image_check_state(void);
extern int rdma_image_write(const char *name, const void *data, size_t len);
extern int rdma_image_map(const char *name, struct rdma_snapshot *snap);
extern int rdma_image_write_entry(const RdmaEntry *entry);
extern RdmaEntry *rdma_image_read_entry(void);
extern int rdma_image_add_file(const RdmaFileEntry *file);
extern RdmaFileEntry *rdma_image_find_file(uint32_t id);

/* device.c: device files, devices and their addresses */
enum rdma_class {
	RDMA_CLASS_NONE,
	RDMA_CLASS_UVERBS,
	RDMA_CLASS_CM,
	RDMA_CLASS_EVENT,
};

struct rdma_options {
	char device[IBV_SYSFS_NAME_MAX]; /* for any context without an own line */
	struct {
		char from[IBV_SYSFS_NAME_MAX];
		char to[IBV_SYSFS_NAME_MAX];
	} map[32];
	unsigned int nr_map;
	bool new_address;
	unsigned int gid_timeout; /* seconds */
};

extern struct rdma_options rdma_opts;
extern int rdma_options_read(void);
extern enum rdma_class rdma_class(const struct stat *st);
extern enum rdma_class rdma_class_fd(int fd);
extern int rdma_device_name(dev_t rdev, char *name, size_t len);
extern struct ibv_device *rdma_device_choose(const char *name, const struct rdma_snapshot *snap);
extern int rdma_device_rdev(struct ibv_device *device, dev_t *rdev);
extern int rdma_device_node(struct ibv_device *device, dev_t rdev);

/* cm.c */
extern int rdma_cm_check(pid_t pid, int fd, const char *comm);

/* dump.c */
extern int rdma_dump_refuse_iterative(pid_t pid);
extern int rdma_dump_tree(void);
extern int rdma_dump_file(int fd, uint32_t id);
extern int rdma_dump_vma(const struct stat *st);
extern void rdma_dump_finish(int ret);

/* restore.c: in the tasks */
struct rdma_shared_context;

struct rdma_context {
	RdmaContextEntry *entry;
	struct rdma_snapshot snap;
	struct ibv_device *device;
	dev_t rdev;
	struct rdma_shared_context *shared;
	/* resume.c, in the main process */
	struct ibv_context *ctx;
};

extern RdmaEntry *rdma_entry;
extern struct rdma_context *rdma_contexts;
extern size_t rdma_nr_contexts;

extern int rdma_restore_init(void);
extern int rdma_restore_file(uint32_t id);
extern int rdma_restore_vma(const char *path, uint64_t start, uint64_t pgoff, uint64_t *new_pgoff, int *plugin_fd);

extern int rdma_restore_record(struct rdma_context *c, struct ibv_context *ctx, const struct rxe_mig_rec *rec, int cmd,
			       int *fd, pid_t pid);
extern int rdma_restored_fd(struct rdma_context *c);

/* resume.c: in the main process, after the tasks have their memory */
extern int rdma_resume_task(pid_t pid);
extern int rdma_resume(void);
extern void rdma_resume_contexts(void);
extern void rdma_close_contexts(void);
extern void rdma_restore_finish(int ret);

/* keeper.c: in case CRIU is killed at the end of a restore */
extern int rdma_keeper_start(void);
extern void rdma_keeper_going(bool now);
extern bool rdma_keeper_end(void);

#endif /* __RDMA_PLUGIN_H__ */
