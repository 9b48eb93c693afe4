// SPDX-License-Identifier: GPL-2.0
/*
 * libibverbs, loaded at run time: a machine without it, or with one that
 * cannot migrate, must be able to checkpoint everything else.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rdma_plugin.h"

struct rdma_verbs verbs;

/*
 * A libibverbs outside of the system's directories still looks for its
 * providers in the place it was configured for. Tell it about those beside it.
 */
static void find_provider(void)
{
	char path[PATH_MAX], *slash;
	Dl_info info;

	if (getenv("RDMAV_DRIVERS") || getenv("IBV_DRIVERS"))
		return;
	if (!dladdr((void *)verbs.dump_context, &info) || !realpath(info.dli_fname, path))
		return;
	if (!strncmp(path, "/usr/", 5) || !strncmp(path, "/lib", 4))
		return;

	slash = strrchr(path, '/');
	snprintf(slash, sizeof(path) - (slash - path), "/libibverbs");
	if (access(path, F_OK))
		return;
	strncat(path, "/librxe", sizeof(path) - strlen(path) - 1);
	pr_debug("Using the provider %s\n", path);
	setenv("RDMAV_DRIVERS", path, 1);
}

int rdma_verbs_load(void)
{
	static const struct {
		void **function;
		const char *name, *version;
	} symbols[] = {
		{ (void **)&verbs.get_device_list, "ibv_get_device_list", "IBVERBS_1.1" },
		{ (void **)&verbs.open_device, "ibv_open_device", "IBVERBS_1.1" },
		{ (void **)&verbs.close_device, "ibv_close_device", "IBVERBS_1.1" },
		{ (void **)&verbs.query_gid_table, "_ibv_query_gid_table", "IBVERBS_1.11" },
		{ (void **)&verbs.import_device, "ibv_import_device", "IBVERBS_1.10" },
		{ (void **)&verbs.dump_context, "ibv_dump_context", RDMA_VERBS_VERSION },
		{ (void **)&verbs.restore_object, "ibv_restore_object", RDMA_VERBS_VERSION },
	};
	static bool loaded;
	void *lib;
	size_t i;

	if (loaded)
		return 0;

	lib = dlopen("libibverbs.so.1", RTLD_NOW);
	if (!lib) {
		pr_err("The process uses RDMA, which needs libibverbs here too: %s\n", dlerror());
		return -1;
	}

	for (i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
		*symbols[i].function = dlvsym(lib, symbols[i].name, symbols[i].version);
		if (!*symbols[i].function) {
			pr_err("libibverbs cannot migrate RDMA (no %s@%s): install the one that came with this plugin, or point LD_LIBRARY_PATH to it\n",
			       symbols[i].name, symbols[i].version);
			/* The library cannot be unloaded for good: its providers stay. */
			return -1;
		}
	}

	find_provider();
	loaded = true;
	return 0;
}

/* Import a context; FD stays the caller's. */
struct ibv_context *rdma_verbs_import(int fd)
{
	struct ibv_context *ctx;
	int own;

	own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (own < 0)
		return NULL;

	ctx = verbs.import_device(own);
	if (!ctx) {
		int err = errno;

		close(own);
		errno = err;
		return NULL;
	}

	/* It has made an event file, which would look like one of the process. */
	if (ctx->async_fd >= 0)
		close(ctx->async_fd);
	ctx->async_fd = -1;
	return ctx;
}

/* A command on the whole context. */
int rdma_verbs_command(struct ibv_context *ctx, int cmd, struct rdma_restore_args *args)
{
	return verbs.restore_object(ctx, NULL, RXE_MIG_REC_CONTEXT, cmd, args, args ? sizeof(*args) : 0);
}

const char *rdma_type_name(uint32_t type)
{
	static const char *const names[] = {
		[RXE_MIG_REC_CONTEXT] = "context",
		[RXE_MIG_REC_ASYNC] = "asynchronous events",
		[RXE_MIG_REC_CHANNEL] = "completion channel",
		[RXE_MIG_REC_PD] = "PD",
		[RXE_MIG_REC_MR] = "MR",
		[RXE_MIG_REC_CQ] = "CQ",
		[RXE_MIG_REC_SRQ] = "SRQ",
		[RXE_MIG_REC_AH] = "AH",
		[RXE_MIG_REC_QP] = "QP",
		[RXE_MIG_REC_MW] = "MW",
	};

	if (type >= sizeof(names) / sizeof(names[0]) || !names[type])
		return "object";
	return names[type];
}

/* "QP 0x12 (handle 7): attached to a multicast group; <what to do>" */
const char *rdma_refusal_text(const struct rdma_dump_refusal *refusal)
{
	static const char *const advice[] = {
		[RXE_MIG_UNKNOWN_OBJECT] = "close it before the checkpoint",
		[RXE_MIG_MCAST] = "leave the group before the checkpoint",
		[RXE_MIG_ODP] = "register the memory without on-demand paging",
		[RXE_MIG_STALE_MR] = "deregister memory before unmapping it",
		[RXE_MIG_NO_OWNER] = "its memory cannot be found any more; deregister it",
		[RXE_MIG_KERNEL_QP] = "only user-space QPs can be moved",
		[RXE_MIG_NO_GID] = "give this host the address first, or allow new addresses",
		[RXE_MIG_MTU] = "raise the MTU of the network interface",
		[RXE_MIG_NOT_STOPPED] = "the image was restored already",
		[RXE_MIG_BUSY] = "wait for the other checkpoint to end",
	};
	static char text[256];
	const char *what = NULL;
	int len;

	if (refusal->type)
		len = snprintf(text, sizeof(text), "%s %#x (handle %u): ", rdma_type_name(refusal->type),
			       refusal->value, refusal->handle);
	else
		len = snprintf(text, sizeof(text), "context: ");

	/* The kernel may know better. */
	if (refusal->reason < sizeof(advice) / sizeof(advice[0]) &&
	    !memchr(refusal->text, ';', sizeof(refusal->text)))
		what = advice[refusal->reason];
	snprintf(text + len, sizeof(text) - len, "%.*s%s%s",
		 (int)strnlen(refusal->text, sizeof(refusal->text)), refusal->text, what ? "; " : "", what ?: "");
	return text;
}
