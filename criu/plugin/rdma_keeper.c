// SPDX-License-Identifier: GPL-2.0
/*
 * If CRIU is killed at the end of a restore, somebody has to decide in its place: its
 * keeper, a process that does nothing else than to wait for that. From before the
 * images are marked as used until all contexts have resumed
 *  - either the tasks have died with CRIU: the images are the live copy again,
 *  - or they had been spared: their contexts resume.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pstree.h"
#include "rdma_plugin.h"

/* PF_EXITING of the kernel, in /proc/PID/stat */
#define EXITING 0x4

struct task {
	pid_t pid;
	int pidfd;
};

static pid_t keeper;
/* A first packet is about to be sent, or has been: shared with the keeper */
static volatile bool *going;

static int pidfd(pid_t pid)
{
	return syscall(SYS_pidfd_open, pid, 0);
}

static bool ends(int fd, int limit)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };
	int ret;

	do
		ret = poll(&wait, 1, limit);
	while (ret < 0 && errno == EINTR);
	return ret > 0;
}

/*
 * Killed, if not dead yet. Its death can take long, with much memory, but the kernel
 * has sent SIGKILL before anybody learns of CRIU's death.
 */
static bool dying(const struct task *task)
{
	unsigned long flags, pending;
	char path[32], text[1024], *rest;
	int fd, len;

	snprintf(path, sizeof(path), "/proc/%d/stat", task->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	len = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	if (ends(task->pidfd, 0))
		return true;
	if (len <= 0)
		return false;
	text[len] = 0;
	rest = strrchr(text, ')');
	if (!rest || sscanf(rest, ") %*c %*d %*d %*d %*d %*d %lu %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d"
				  " %*u %*u %*d %*u %*u %*u %*u %*u %*u %lu", &flags, &pending) != 2)
		return false;
	return flags & EXITING || pending & (1UL << (SIGKILL - 1));
}

static void keep(int criu, const struct task *tasks, int nr, int ready)
{
	int i, round, killed;
	sigset_t all;

	/* What ends CRIU, like ^C, is sent to others of its group, too. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	setsid();
	/* Whoever has killed CRIU waits for the end of this one. */
	prctl(PR_SET_NAME, "criu-keeper");
	if (write(ready, "", 1) != 1)
		return;

	if (!ends(criu, -1))
		return;
	/* For an instant a task has taken the signal, and is not exiting yet. */
	for (round = 0; round < 20; round++) {
		for (killed = 0; killed < nr && dying(&tasks[killed]); killed++)
			;
		if (killed == nr)
			break;
		usleep(5000);
	}
	if (killed < nr) {
		pr_err("CRIU has died: the RDMA contexts resume without it\n");
		rdma_resume_contexts();
	} else if (!*going) {
		for (i = 0; i < nr; i++)
			ends(tasks[i].pidfd, -1);
		rdma_close_contexts();
		pr_err("CRIU has died, and all tasks with it: the images can be restored\n");
		rdma_image_set_state(RDMA_STATE_COMPLETE);
	}
}

/* Init of a PID namespace stands for all tasks: they die with it. */
static bool counts(struct pstree_item *item)
{
	return task_alive(item) && (item == root_item || vpid(root_item) != INIT_PID);
}

int rdma_keeper_start(void)
{
	struct pstree_item *item;
	struct task *tasks;
	int criu, nr = 0, i, ready[2], ret = -1;
	char byte;

	for_each_pstree_item(item)
		nr++;
	tasks = xmalloc(nr * sizeof(*tasks));
	if (!tasks)
		return -1;
	nr = 0;
	criu = pidfd(getpid());
	if (criu < 0) {
		pr_perror("Can't get a descriptor of CRIU");
		goto out;
	}
	for_each_pstree_item(item) {
		if (!counts(item))
			continue;
		tasks[nr].pid = item->pid->real;
		tasks[nr].pidfd = pidfd(item->pid->real);
		if (tasks[nr].pidfd < 0) {
			pr_perror("Can't get a descriptor of process %d", item->pid->real);
			goto out;
		}
		nr++;
	}

	going = mmap(NULL, sizeof(*going), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (going == MAP_FAILED) {
		going = NULL;
		pr_perror("Can't get memory to share with the keeper");
		goto out;
	}
	if (pipe2(ready, O_CLOEXEC)) {
		pr_perror("Can't make a pipe");
		goto out;
	}
	keeper = fork();
	if (!keeper) {
		close(ready[0]);
		keep(criu, tasks, nr, ready[1]);
		_exit(0);
	}
	close(ready[1]);
	if (keeper < 0 || read(ready[0], &byte, 1) != 1)
		pr_perror("Can't start the keeper");
	else
		ret = 0;
	close(ready[0]);
out:
	for (i = 0; i < nr; i++)
		close(tasks[i].pidfd);
	if (criu >= 0)
		close(criu);
	xfree(tasks);
	return ret;
}

void rdma_keeper_going(bool now)
{
	*going = now;
}

/* Return: whether a packet may have been sent */
bool rdma_keeper_end(void)
{
	if (keeper > 0) {
		kill(keeper, SIGKILL);
		while (waitpid(keeper, NULL, 0) < 0 && errno == EINTR)
			;
		keeper = 0;
	}
	return going && *going;
}
