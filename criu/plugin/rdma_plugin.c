// SPDX-License-Identifier: GPL-2.0
/*
 * CRIU plugin for RDMA: the hooks. See README.md.
 */
#include <errno.h>

#include "criu-plugin.h"
#include "image.h"
#include "rdma_plugin.h"

#define AS_TEXT(x) #x
#define MARK(version) "rdma_plugin images " AS_TEXT(version) ";"
/* For those who look into the file: two hosts are compared before anything stops. */
const char rdma_plugin_mark[] __attribute__((used)) = MARK(RDMA_IMG_VERSION);

static int stage;
static bool tree_dumped;

static int rdma_plugin_init(int now)
{
	stage = now;
	if (stage != CR_PLUGIN_STAGE__RESTORE)
		return 0;
	if (!check_and_remove_inventory_plugin(CR_PLUGIN_DESC.name, strlen(CR_PLUGIN_DESC.name)))
		return 0;
	return rdma_restore_init();
}

static void rdma_plugin_exit(int stage, int ret)
{
	if (stage == CR_PLUGIN_STAGE__DUMP)
		rdma_dump_finish(ret);
	else if (stage == CR_PLUGIN_STAGE__RESTORE)
		rdma_restore_finish(ret);
}

CR_PLUGIN_REGISTER("rdma_plugin", rdma_plugin_init, rdma_plugin_exit)

static int rdma_plugin_pause_devices(int pid)
{
	if (stage == CR_PLUGIN_STAGE__PRE_DUMP && rdma_dump_refuse_iterative(pid))
		return -1;
	return -ENOTSUP;
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__PAUSE_DEVICES, rdma_plugin_pause_devices)

/* The first call finds all tasks frozen and does the work for all of them. */
static int rdma_plugin_checkpoint_devices(int pid)
{
	if (!tree_dumped) {
		tree_dumped = true;
		if (rdma_dump_tree())
			return -1;
	}
	return -ENOTSUP;
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__CHECKPOINT_DEVICES, rdma_plugin_checkpoint_devices)

static int rdma_plugin_handle_device_vma(int fd, const struct stat *st)
{
	return rdma_dump_vma(st);
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__HANDLE_DEVICE_VMA, rdma_plugin_handle_device_vma)

static int rdma_plugin_dump_file(int fd, int id)
{
	return rdma_dump_file(fd, id);
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__DUMP_EXT_FILE, rdma_plugin_dump_file)

static int rdma_plugin_restore_file(int id)
{
	return rdma_restore_file(id);
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__RESTORE_EXT_FILE, rdma_plugin_restore_file)

static int rdma_plugin_update_vma_map(const char *path, const uint64_t addr, const uint64_t old_pgoff,
				      uint64_t *new_pgoff, int *plugin_fd)
{
	return rdma_restore_vma(path, addr, old_pgoff, new_pgoff, plugin_fd);
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__UPDATE_VMA_MAP, rdma_plugin_update_vma_map)

static int rdma_plugin_resume_devices_late(int pid)
{
	return rdma_resume_task(pid);
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__RESUME_DEVICES_LATE, rdma_plugin_resume_devices_late)

static int rdma_plugin_restored(void)
{
	return rdma_resume();
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__RESTORED, rdma_plugin_restored)
