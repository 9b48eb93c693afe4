/* SPDX-License-Identifier: (GPL-2.0 OR Linux-OpenIB) */
/*
 * What libibverbs with IBVERBS_1.15 adds to <infiniband/verbs.h>, under names
 * of our own: the plugin builds with any libibverbs, and finds at run time out
 * whether the one that is installed has it. tests/criu/abi compares the two.
 */
#ifndef __RDMA_VERBS_ABI_H__
#define __RDMA_VERBS_ABI_H__

#include <stddef.h>
#include <stdint.h>

#define RDMA_VERBS_VERSION "IBVERBS_1.15"

/* object types are RXE_MIG_REC_* */
enum rdma_restore_cmd {
	RDMA_RESTORE_CREATE,
	RDMA_RESTORE_REFILL,
	RDMA_RESTORE_RESUME,
	RDMA_RESTORE_CANCEL,
	RDMA_RESTORE_COMMIT,
	RDMA_RESTORE_IDENTIFY,
	RDMA_RESTORE_ADOPT,
};

struct rdma_dump_refusal {
	uint32_t type;
	uint32_t handle;
	uint32_t reason;
	uint32_t value;
	char text[112];
};

struct rdma_restore_ring {
	uint64_t offset;
	uint64_t length;
};

#define RDMA_RESTORE_ARGS_PID	  (1 << 0)
#define RDMA_RESTORE_ARGS_REFUSAL (1 << 1)

#define RDMA_RESTORE_CHECK    (1 << 0)
#define RDMA_RESTORE_NEW_ADDR (1 << 1)

struct rdma_restore_args {
	uint32_t comp_mask;
	uint32_t flags;
	const void *record;
	size_t record_len;
	int32_t fd;
	int32_t pid;
	uint32_t type;
	uint32_t handle;
	struct rdma_restore_ring ring[2];
	struct rdma_dump_refusal *refusal;
	void *parents[5];
};

#endif /* __RDMA_VERBS_ABI_H__ */
