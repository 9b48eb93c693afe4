/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
/* The processes that are dumped and restored: one */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct pid {
	pid_t real, virt;
};

struct pstree_item {
	struct pid *pid;
};

extern struct pstree_item *current;

#define for_each_pstree_item(item) \
	for ((item) = current; (item); (item) = pstree_item_next(item))

static inline struct pstree_item *pstree_item_next(struct pstree_item *item)
{
	return NULL;
}

static inline bool task_alive(const struct pstree_item *item)
{
	return true;
}

static inline pid_t vpid(const struct pstree_item *item)
{
	return item->pid->virt;
}
