// SPDX-License-Identifier: GPL-2.0
/*
 * Restore, the part in the main process: all tasks have their memory and wait
 * in the kernel. Register it, and only when every task has had its turn let
 * the connections resume: the first packet may want any of the memory.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "image.h"
#include "pstree.h"
#include "servicefd.h"
#include "rdma_plugin.h"

static int nr_mrs;
static bool marked, resumed, failed;

static int import_context(struct rdma_context *c)
{
	int fd;

	if (c->ctx)
		return 0;
	fd = rdma_restored_fd(c);
	if (fd < 0) {
		pr_err("No process has opened a file of context %u (%s): the images do not belong together\n",
		       c->entry->id, c->entry->device);
		return -1;
	}
	c->ctx = rdma_verbs_import(fd);
	close(fd);
	if (!c->ctx) {
		pr_perror("Can't import the restored context %u (%s)", c->entry->id, c->device->name);
		return -1;
	}
	return 0;
}

/* The process id that a process of the snapshot had for itself. */
static uint32_t virtual_owner(uint32_t real)
{
	size_t i;

	for (i = 0; i < rdma_entry->n_tasks; i++)
		if (rdma_entry->tasks[i]->real == real)
			return rdma_entry->tasks[i]->virt;
	return 0;
}

static int adopt(struct rdma_context *c, pid_t pid)
{
	struct rdma_restore_args args = {
		.comp_mask = RDMA_RESTORE_ARGS_PID,
		.fd = -1,
		.pid = pid,
	};
	int err = rdma_verbs_command(c->ctx, RDMA_RESTORE_ADOPT, &args);

	if (err)
		pr_err("Can't hand the file of context %u (%s) to process %d: %s\n", c->entry->id, c->device->name, pid,
		       strerror(err));
	return err ? -1 : 0;
}

static int one_task(pid_t pid, uint32_t virt)
{
	const struct rxe_mig_rec *rec;
	size_t i;

	for (i = 0; i < rdma_nr_contexts; i++) {
		struct rdma_context *c = &rdma_contexts[i];

		if (import_context(c))
			return -1;
		if (c->entry->n_holders && c->entry->holders[0] == virt && adopt(c, pid))
			return -1;

		for_each_record(rec, &c->snap) {
			const struct rxe_mig_mr *mr = (const void *)rec;

			if (rec->type != RXE_MIG_REC_MR || virtual_owner(mr->owner) != virt)
				continue;
			if (rdma_restore_record(c, c->ctx, rec, RDMA_RESTORE_CREATE, NULL, pid) ||
			    rdma_restore_record(c, c->ctx, rec, RDMA_RESTORE_REFILL, NULL, 0))
				return -1;
			nr_mrs++;
		}
	}
	return 0;
}

static int resume(struct rdma_context *c, uint32_t flags)
{
	struct rdma_dump_refusal refusal = {};
	struct rdma_restore_args args = {
		.comp_mask = RDMA_RESTORE_ARGS_REFUSAL,
		.flags = flags | (rdma_opts.new_address ? RDMA_RESTORE_NEW_ADDR : 0),
		.fd = -1,
		.refusal = &refusal,
	};
	int err = rdma_verbs_command(c->ctx, RDMA_RESTORE_RESUME, &args);

	if (!err)
		return 0;
	if (refusal.reason)
		pr_err("Context %u (%s) can't resume: %s\n", c->entry->id, c->device->name, rdma_refusal_text(&refusal));
	else
		pr_err("Context %u (%s) can't resume: %s\n", c->entry->id, c->device->name, strerror(err));
	return -1;
}

static int all_tasks_done(void)
{
	const struct rxe_mig_rec *rec;
	int expected = 0;
	size_t i;

	for (i = 0; i < rdma_nr_contexts; i++) {
		struct rdma_context *c = &rdma_contexts[i];

		for_each_record(rec, &c->snap) {
			if (rec->type == RXE_MIG_REC_MR)
				expected++;
			if (rec->type != RXE_MIG_REC_MW)
				continue;
			if (rdma_restore_record(c, c->ctx, rec, RDMA_RESTORE_CREATE, NULL, 0) ||
			    rdma_restore_record(c, c->ctx, rec, RDMA_RESTORE_REFILL, NULL, 0))
				return -1;
		}
	}
	if (nr_mrs != expected) {
		pr_err("%d memory regions are of processes that have not been restored\n", expected - nr_mrs);
		return -1;
	}

	/* Up to the first RESUME the image can be restored elsewhere instead. */
	for (i = 0; i < rdma_nr_contexts; i++)
		if (resume(&rdma_contexts[i], RDMA_RESTORE_CHECK))
			return -1;
	if (rdma_keeper_start())
		return -1;
	marked = true;
	return rdma_image_set_state(RDMA_STATE_RESUMED);
}

/* For the keeper: those that have not resumed yet */
void rdma_resume_contexts(void)
{
	size_t i;

	for (i = 0; i < rdma_nr_contexts; i++)
		resume(&rdma_contexts[i], 0);
}

/*
 * Their files are in the fdstore, too, and without --restore-detached CRIU waits for
 * the tasks: a context would outlive the task's closing of it.
 */
void rdma_close_contexts(void)
{
	size_t i;

	if (!rdma_nr_contexts)
		return;
	for (i = 0; i < rdma_nr_contexts; i++) {
		if (rdma_contexts[i].ctx)
			verbs.close_device(rdma_contexts[i].ctx);
		rdma_contexts[i].ctx = NULL;
	}
	close_service_fd(FDSTORE_SK_OFF);
}

static void kill_all(void)
{
	struct pstree_item *item;

	pr_err("Killing the restored processes: they must not run with a part of their RDMA state\n");
	for_each_pstree_item(item)
		if (task_alive(item) && item->pid->real > 0)
			kill(item->pid->real, SIGKILL);
}

int rdma_resume_task(pid_t pid)
{
	struct pstree_item *item, *next;

	if (!rdma_nr_contexts)
		return -ENOTSUP;
	if (failed)
		return -1;

	for_each_pstree_item(item)
		if (item->pid->real == pid)
			break;
	if (!item) {
		pr_err("Process %d is none of the restored ones\n", pid);
		goto fail;
	}
	if (one_task(pid, vpid(item)))
		goto fail;

	for (next = pstree_item_next(item); next; next = pstree_item_next(next))
		if (task_alive(next))
			return 0;
	if (!all_tasks_done())
		return 0;
fail:
	failed = true;
	kill_all();
	return -1;
}

/* The tasks live without CRIU now, and are still in the kernel. */
int rdma_resume(void)
{
	size_t i;

	if (!rdma_nr_contexts)
		return -ENOTSUP;
	if (!marked) {
		pr_err("Not every process has had its turn: the RDMA contexts can't resume\n");
		return -1;
	}

	rdma_keeper_going(true);
	for (i = 0; i < rdma_nr_contexts; i++)
		if (resume(&rdma_contexts[i], 0)) {
			rdma_keeper_going(i > 0);
			return -1;
		}
	resumed = true;
	rdma_keeper_end();
	rdma_close_contexts();
	pr_info("%zu RDMA contexts with %d memory regions resumed\n", rdma_nr_contexts, nr_mrs);
	return 0;
}

void rdma_restore_finish(int ret)
{
	if (rdma_nr_contexts && !ret && !resumed) {
		/* A CRIU without the hooks, or another plugin in the way */
		pr_err("The RDMA contexts have not been resumed\n");
		kill_all();
	}
	/* Tasks that CRIU has killed have not run, and nobody has heard of them. */
	if (!rdma_keeper_end() && marked && ret)
		rdma_image_set_state(RDMA_STATE_COMPLETE);
	rdma_close_contexts();
}
