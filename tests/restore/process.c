// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Other processes, also dead ones, and capabilities.
 */
#define _GNU_SOURCE
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <rdma/ib_user_verbs.h>

#include "suite.h"

static pid_t start_process(bool keep_fd)
{
	pid_t pid = fork();

	check(pid >= 0, "fork");
	if (!pid) {
		if (!keep_fd)
			close_range(3, ~0U, 0);
		for (;;)
			pause();
	}
	return pid;
}

static void end_process(pid_t pid)
{
	kill(pid, SIGKILL);
	check(waitpid(pid, NULL, 0) == pid, "wait");
}

static void c_dead_process(void)
{
	struct ibv_restore_args args = { .comp_mask = IBV_RESTORE_ARGS_PID,
					 .fd = -1 };
	struct ibv_context *ctx;
	struct rxe_mig_rec *mr;
	struct sig before;
	pid_t pid, alive;

	make_image(s_mr_remote);
	ctx = open_device(device);
	mr = find(0, RXE_MIG_REC_MR);
	check0(create(ctx, find(0, RXE_MIG_REC_PD)));
	before = sig_of(ctx);
	pid = start_process(true);
	end_process(pid);
	args.pid = pid;
	expect(ESRCH, restore_args(ctx, mr, IBV_RESTORE_CREATE, &args),
	       "MR of a process that is gone");
	args.pid = -1;
	expect(ESRCH, restore_args(ctx, mr, IBV_RESTORE_CREATE, &args),
	       "MR of process -1");
	alive = start_process(false);
	usleep(200000);
	args.pid = alive;
	expect(EPERM, restore_args(ctx, mr, IBV_RESTORE_CREATE, &args),
	       "MR of a process without the device's fd");
	end_process(alive);
	same_sig(before, sig_of(ctx), "wrong processes");
	alive = start_process(true);
	args.pid = alive;
	expect(0, restore_args(ctx, mr, IBV_RESTORE_CREATE, &args),
	       "MR of a process with it");
	end_process(alive);
}

static void c_zombie(void)
{
	struct ibv_restore_args args = { .comp_mask = IBV_RESTORE_ARGS_PID,
					 .fd = -1 };
	struct ibv_context *ctx;
	siginfo_t info;

	make_image(s_mr_remote);
	ctx = open_device(device);
	check0(create(ctx, find(0, RXE_MIG_REC_PD)));
	args.pid = start_process(true);
	kill(args.pid, SIGKILL);
	check(!waitid(P_PID, args.pid, &info, WEXITED | WNOWAIT), "wait");
	expect(ESRCH, restore_args(ctx, find(0, RXE_MIG_REC_MR),
	       IBV_RESTORE_CREATE, &args), "MR of a zombie");
	expect(0, create(ctx, find(0, RXE_MIG_REC_MR)), "of this process");
}

/* ---- a pid that belongs to another process by now ---- */

/* Forks until the child has this pid; it does not return there but runs child() */
static void fork_as(pid_t pid, void (*child)(void))
{
	char text[16];
	FILE *file;
	pid_t got;
	int i;

	fflush(stdout);
	for (i = 0; i != 200; i++) {
		file = fopen("/proc/sys/kernel/ns_last_pid", "w");
		check(file, "ns_last_pid");
		snprintf(text, sizeof(text), "%d", pid - 1);
		check(fputs(text, file) > 0 && !fclose(file), "ns_last_pid");
		got = fork();
		check(got >= 0, "fork");
		if (!got && getpid() == pid) {
			child();
			for (;;)
				pause();
		}
		if (!got)
			_exit(0);
		if (got == pid)
			return;
		check(waitpid(got, NULL, 0) == got, "wait");
	}
	die("pid %d is not free", pid);
}

static void without_fd(void) { close_range(3, ~0U, 0); }

/* The same device and the same number, but a file of its own */
static void with_own_fd(void)
{
	struct ibv_context *ctx;

	close_range(3, ~0U, 0);
	ctx = open_device(device);
	check(ibv_alloc_pd(ctx), "alloc_pd");
}

static long pinned_kb(pid_t pid)
{
	char path[64], line[128];
	long kb = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	file = fopen(path, "r");
	check(file, path);
	while (fgets(line, sizeof(line), file))
		sscanf(line, "VmPin: %ld", &kb);
	fclose(file);
	return kb;
}

/* The restorer still believes that it is the task that it has made. */
static void c_pid_reused(void)
{
	struct ibv_restore_args args = { .comp_mask = IBV_RESTORE_ARGS_PID,
					 .fd = -1 };
	struct rxe_mig_rec *mr;
	struct ibv_context *ctx;
	struct sig before;

	make_image(s_mr_remote);
	ctx = open_device(device);
	mr = find(0, RXE_MIG_REC_MR);
	check0(create(ctx, find(0, RXE_MIG_REC_PD)));
	args.pid = start_process(true);
	end_process(args.pid);
	fork_as(args.pid, (void (*)(void))this_test->arg);
	usleep(500000);
	before = sig_of(ctx);
	expect(EPERM, restore_args(ctx, mr, IBV_RESTORE_CREATE, &args), "MR");
	expect(EPERM, ibv_restore_object(ctx, NULL, IBV_RESTORE_TYPE_CONTEXT,
	       IBV_RESTORE_ADOPT, &args, sizeof(args)), "ADOPT");
	same_sig(before, sig_of(ctx), "with a reused pid");
	if (pinned_kb(args.pid))
		bad("%ld kB of it are pinned", pinned_kb(args.pid));
	end_process(args.pid);

	/* What would have been seen */
	args.pid = start_process(true);
	expect(0, restore_args(ctx, mr, IBV_RESTORE_CREATE, &args),
	       "MR of the right one");
	if (pinned_kb(args.pid) != 8)
		bad("%ld kB of the right one are pinned", pinned_kb(args.pid));
	end_process(args.pid);
}

static void c_dead_owner(void)
{
	uint32_t *mr = (void *)(BUF + 8192);	/* handle and key */
	int status;
	pid_t pid;

	o.ctx = open_device(device);
	s_all();
	pid = fork();
	if (!pid) {
		make_mr(REMOTE);
		mr[0] = o.mr->handle;
		mr[1] = o.mr->lkey;
		_exit(0);
	}
	check(waitpid(pid, &status, 0) == pid && !status, "child");
	refused_dump(o.ctx, EOPNOTSUPP, RXE_MIG_REC_MR, mr[0],
		     IBV_DUMP_REASON_NO_OWNER, mr[1], "has exited");
	still_works();
	/* The MR is still there */
	check0(ibv_destroy_qp(o.qp));
	check0(ibv_destroy_qp(o.ud));
	check0(ibv_destroy_ah(o.ah));
	check0(ibv_destroy_srq(o.srq));
	check0(ibv_dereg_mr(o.mr));
	expect(EBUSY, ibv_dealloc_pd(o.pd), "dealloc_pd");
}

static void c_adopt(void)
{
	struct ibv_context *ctx = open_device(device);
	struct ibv_context *other = open_device(device);
	struct ibv_restore_args args = { .comp_mask = IBV_RESTORE_ARGS_PID,
					 .fd = -1 };
	struct sig before = sig_of(ctx);
	pid_t pid = start_process(true);

#define ADOPT() ibv_restore_object(ctx, NULL, IBV_RESTORE_TYPE_CONTEXT,        \
				   IBV_RESTORE_ADOPT, &args, sizeof(args))
	args.pid = pid;
	args.fd = 999;
	expect(EBADF, ADOPT(), "an fd that is not open");
	args.fd = other->cmd_fd;
	expect(ENOENT, ADOPT(), "the fd of another context");
	args.fd = ctx->async_fd;
	expect(ENOENT, ADOPT(), "an event file");
	args.fd = -1;
	expect(0, ADOPT(), "by a child");
	end_process(pid);
	expect(ESRCH, ADOPT(), "by a process that is gone");
	pid = args.pid = start_process(false);
	usleep(200000);
	expect(EPERM, ADOPT(), "by a process without the fd");
	end_process(pid);
	same_sig(before, sig_of(ctx), "ADOPT");
}

/* ---- credentials of write() ---- */

/* A command as a program writes it that has the file as its standard output: 0, or
 * an errno value
 */
static int write_command(int fd)
{
	struct ib_uverbs_query_device_resp answer;
	struct {
		struct ib_uverbs_cmd_hdr hdr;
		struct ib_uverbs_query_device query;
	} c = {
		.hdr = { .command = IB_USER_VERBS_CMD_QUERY_DEVICE,
			 .in_words = sizeof(c) / 4,
			 .out_words = sizeof(answer) / 4 },
		.query = { .response = (uintptr_t)&answer },
	};

	return write(fd, &c, sizeof(c)) == sizeof(c) ? 0 : errno;
}

struct writer {
	pid_t pid;
	int line;
};

/* How else a process differs from others: as root, and as the user that it becomes */
struct difference {
	int (*before)(void);
	int (*after)(void);
};

static int without_root(void)
{
	return prctl(PR_SET_SECUREBITS, SECBIT_NOROOT);
}

static int unable(void)
{
	return prctl(PR_CAPBSET_DROP, CAP_NET_RAW);
}

/* In one of its own, without the capabilities that it gets there */
static int in_user_namespace(void)
{
	struct __user_cap_header_struct hdr = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct none[2] = {};

	return unshare(CLONE_NEWUSER) || syscall(SYS_capset, &hdr, none);
}

/* A process of this user, with the rights of another or the same, and with this group,
 * which writes when it is told to
 */
static struct writer start_other(int fd, uid_t uid, uid_t euid, gid_t group,
				 struct difference other)
{
	struct writer w;
	int line[2], err;
	char word;

	check(!socketpair(AF_UNIX, SOCK_STREAM, 0, line), "socketpair");
	w.pid = fork();
	check(w.pid >= 0, "fork");
	w.line = line[0];
	if (w.pid) {
		close(line[1]);
		return w;
	}
	close(line[0]);
	if ((other.before && other.before()) || setgroups(1, &group) ||
	    setresgid(uid, uid, uid) || setresuid(uid, euid, euid) ||
	    (other.after && other.after()))
		_exit(1);
	while (read(line[1], &word, 1) == 1) {
		err = write_command(fd);
		if (write(line[1], &err, sizeof(err)) != sizeof(err))
			break;
	}
	_exit(0);
}

static struct writer start_writer(int fd, uid_t uid, uid_t euid, gid_t group)
{
	return start_other(fd, uid, euid, group, (struct difference){});
}

static int let_write(struct writer w)
{
	int err = -1;

	if (write(w.line, "w", 1) != 1 ||
	    read(w.line, &err, sizeof(err)) != sizeof(err))
		return -1;
	return err;
}

static void end_writer(struct writer w)
{
	close(w.line);
	end_process(w.pid);
}

/* Who is tricked into writing to the file of a restored process, or gets it from
 * one, does so with the rights of that process, or not at all.
 */
static void c_deputy(void)
{
	struct ibv_context *ctx = open_device(device);
	struct ibv_restore_args args = { .comp_mask = IBV_RESTORE_ARGS_PID,
					 .fd = -1 };
	struct writer user = start_writer(ctx->cmd_fd, 1000, 1000, 100);
	struct writer twin = start_writer(ctx->cmd_fd, 1000, 1000, 100);
	struct writer other = start_writer(ctx->cmd_fd, 1001, 1001, 100);
	struct writer raised = start_writer(ctx->cmd_fd, 1000, 1001, 100);
	struct writer member = start_writer(ctx->cmd_fd, 1000, 1000, 0);
	struct writer bits = start_other(ctx->cmd_fd, 1000, 1000, 100,
					 (struct difference){ without_root });
	struct writer bounded = start_other(ctx->cmd_fd, 1000, 1000, 100,
					    (struct difference){ unable });
	struct writer apart = start_other(ctx->cmd_fd, 1000, 1000, 100,
					  (struct difference){ NULL, in_user_namespace });

	expect(0, write_command(ctx->cmd_fd), "who opened it");
	expect(EACCES, let_write(user), "who did not");
	args.pid = user.pid;
	expect(0, ADOPT(), "ADOPT");
	expect(0, let_write(user), "whose it is");
	expect(0, let_write(twin), "its equal");
	expect(EACCES, write_command(ctx->cmd_fd), "root");
	expect(EACCES, let_write(other), "another user");
	expect(EACCES, let_write(raised), "that user with another's rights");
	expect(EACCES, let_write(member), "that user in another group");
	expect(EACCES, let_write(bits), "with other securebits");
	expect(EACCES, let_write(bounded), "with another bounding set");
	expect(EACCES, let_write(apart), "in another user namespace");
	end_writer(user);
	expect(0, let_write(twin), "its equal, when it is gone");
	expect(EACCES, write_command(ctx->cmd_fd), "root, when it is gone");
	end_writer(twin);
	end_writer(other);
	end_writer(raised);
	end_writer(member);
	end_writer(bits);
	end_writer(bounded);
	end_writer(apart);
}

/* ---- a setuid program that is tricked ---- */

#define DEPUTY "/usr/local/bin/restore-deputy"
#define DOORBELL_LEN (sizeof(struct ib_uverbs_cmd_hdr) +                       \
		      sizeof(struct ib_uverbs_post_send))

/* What librxe writes to have a QP send */
static void doorbell(struct ibv_qp *qp, void *command)
{
	struct ib_uverbs_cmd_hdr hdr = {
		.command = IB_USER_VERBS_CMD_POST_SEND,
		.in_words = DOORBELL_LEN / 4,
		.out_words = sizeof(struct ib_uverbs_post_send_resp) / 4,
	};
	struct ib_uverbs_post_send post = {
		.response = (uintptr_t)BUF,
		.qp_handle = qp->handle,
		.wqe_size = sizeof(struct ib_uverbs_send_wr),
	};

	memcpy(command, &hdr, sizeof(hdr));
	memcpy(command + sizeof(hdr), &post, sizeof(post));
}

/* A copy of cat for everybody, with these permissions and file capabilities */
static void make_deputy(mode_t mode, uint32_t caps)
{
	struct vfs_cap_data data = {
		.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE,
		.data[0].permitted = caps,
	};

	check(!system("cp /bin/cat " DEPUTY), "cp");
	check(!chown(DEPUTY, 0, 0) && !chmod(DEPUTY, mode), DEPUTY);
	if (caps)
		check(!setxattr(DEPUTY, "security.capability", &data,
				sizeof(data), 0), "setxattr");
}

/*
 * A user runs the program, which gets a doorbell at its standard input and has the
 * file as its standard output. It says how that ended; where the answer goes is not
 * in its memory, so "Bad address" is that it was let in.
 */
static void expect_deputy(struct ibv_context *ctx, struct ibv_qp *qp,
			  const char *want, const char *what)
{
	char command[DOORBELL_LEN], said[256] = {};
	int in[2], err[2];
	pid_t pid;

	doorbell(qp, command);
	check(!pipe(in) && !pipe(err), "pipe");
	fflush(stdout);
	pid = fork();
	check(pid >= 0, "fork");
	if (!pid) {
		gid_t group = 100;

		if (setgroups(1, &group) || setresgid(1000, 1000, 1000) ||
		    setresuid(1000, 1000, 1000))
			_exit(9);
		dup2(in[0], 0);
		dup2(ctx->cmd_fd, 1);
		dup2(err[1], 2);
		close_range(3, ~0U, 0);
		execl(DEPUTY, DEPUTY, (char *)NULL);
		_exit(8);
	}
	close(in[0]);
	close(err[1]);
	check(write(in[1], command, sizeof(command)) == sizeof(command),
	      "write");
	close(in[1]);
	for (;;) {
		size_t len = strlen(said);
		ssize_t got = read(err[0], said + len, sizeof(said) - 1 - len);

		if (got <= 0)
			break;
	}
	close(err[0]);
	check(waitpid(pid, NULL, 0) == pid, "wait");
	expectations++;
	if (!strstr(said, want))
		bad("%s: it says \"%s\", not \"%s\"", what, said, want);
}

static void c_deputy_doorbell(void)
{
	struct ibv_restore_args args = { .comp_mask = IBV_RESTORE_ARGS_PID,
					 .fd = -1 };
	char command[DOORBELL_LEN];
	struct ibv_context *ctx;
	struct writer user;

	o.ctx = ctx = open_device(device);
	make_pd();
	make_cq(10, NULL);
	make_qp(IBV_QPT_RC, NULL);
	to_state(o.qp, IBV_QPS_RTS, false);
	user = start_writer(ctx->cmd_fd, 1000, 1000, 100);

	doorbell(o.qp, command);
	expect(sizeof(command), write(ctx->cmd_fd, command, sizeof(command)),
	       "who opened it");
	make_deputy(0755, 0);
	/* Stock: exec has given it other credentials */
	expect_deputy(ctx, o.qp, "Permission denied", "before ADOPT");
	args.pid = user.pid;
	check0(ADOPT());
	end_writer(user);
	expect_deputy(ctx, o.qp, "Bad address", "a program of the user");
	make_deputy(04755, 0);
	expect_deputy(ctx, o.qp, "Permission denied", "setuid");
	make_deputy(02755, 0);
	expect_deputy(ctx, o.qp, "Permission denied", "setgid");
	make_deputy(0755, 1 << CAP_NET_RAW);
	expect_deputy(ctx, o.qp, "Permission denied", "with a capability");
	check(!unlink(DEPUTY), "unlink");
}

/* ---- capabilities ---- */

static void set_caps(const char *what, int cap1, int cap2)
{
	struct __user_cap_header_struct hdr = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2] = {};
	int i;

	check(!syscall(SYS_capget, &hdr, data), "capget");
	for (i = 0; i != 2; i++)
		data[i].effective = 0;
	if (cap1 >= 0)
		data[cap1 / 32].effective |= 1U << cap1 % 32;
	if (cap2 >= 0)
		data[cap2 / 32].effective |= 1U << cap2 % 32;
	if (cap1 == -2)
		for (i = 0; i != 2; i++)
			data[i].effective = data[i].permitted;
	check(!syscall(SYS_capset, &hdr, data), what);
}

static void no_caps(void) { set_caps("no capabilities", -1, -1); }

static void all_caps(void) { set_caps("all capabilities", -2, -1); }

static int as_nobody(struct ibv_context *ctx, const void *record,
		     step_fn *call)
{
	int ret;

	no_caps();
	ret = call(ctx, record);
	all_caps();
	return ret;
}

static int create_nobody(struct ibv_context *ctx, const void *record)
{
	return as_nobody(ctx, record, create);
}

static int refill_nobody(struct ibv_context *ctx, const void *record)
{
	return as_nobody(ctx, record, refill);
}

/* Ordinary objects, until REFILL */
static void c_create_nobody(void)
{
	struct ibv_context *ctx;
	struct rxe_mig_rec *rec;

	make_image(s_all_events);
	ctx = open_device(device);
	for_each_rec(0, rec)
		if (rec->type == case_type)
			expect(0, create_nobody(ctx, rec),
			       type_names[case_type]);
		else
			check0(create(ctx, rec));
	refill_objects(ctx);
	refill_events(ctx);
	finish(ctx, false);
}

static void h_create_nobody(struct ibv_context *ctx, enum phase phase,
			    const struct rxe_mig_rec *rec)
{
	if (phase == BEFORE_CREATE && rec->type == case_type)
		refused(ctx, EPERM, create_nobody, rec, "CREATE");
}

static void h_refill_nobody(struct ibv_context *ctx, enum phase phase,
			    const struct rxe_mig_rec *rec)
{
	if (phase == BEFORE_REFILL && rec->type == case_type)
		refused(ctx, EPERM, refill_nobody, rec, "REFILL");
}

static void c_commands_nobody(void)
{
	struct ibv_restore_args args = { .comp_mask = IBV_RESTORE_ARGS_PID,
					 .pid = getpid(), .fd = -1 };
	struct ibv_context *ctx;
	int cmd;

	make_image(s_all);
	ctx = open_device(device);
	restore_into(ctx, NULL);
	no_caps();
	expect(EPERM, resume(ctx, 0, NULL), "RESUME");
	expect(EPERM, resume(ctx, IBV_RESTORE_CHECK, NULL), "RESUME, CHECK");
	expect(EPERM, ibv_dump_context(ctx, NULL, NULL, 0), "dump, check");
	expect(EPERM, dump_error(ctx, 1), "dump");
	all_caps();
	dump_restored(ctx);
	go_live(ctx);
	dump(ctx, 1);
	no_caps();
	for (cmd = IBV_RESTORE_CANCEL; cmd <= IBV_RESTORE_ADOPT; cmd++) {
		args.fd = ctx->cmd_fd;
		expect(EPERM, ibv_restore_object(ctx, NULL,
		       IBV_RESTORE_TYPE_CONTEXT, cmd, &args, sizeof(args)),
		       cmd == IBV_RESTORE_CANCEL ? "CANCEL" :
		       cmd == IBV_RESTORE_COMMIT ? "COMMIT" :
		       cmd == IBV_RESTORE_IDENTIFY ? "IDENTIFY" : "ADOPT");
	}
	all_caps();
	check0(context_cmd(ctx, IBV_RESTORE_CANCEL));
}

static void c_caps_enough(void)
{
	static const int caps[] = { CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN };
	unsigned int i;

	for (i = 0; i != 2; i++) {
		struct ibv_context *ctx;

		make_image(s_all_events);
		ctx = open_device(device);
		/* Memory is still pinned within the limits */
		set_caps("capability", caps[i], CAP_IPC_LOCK);
		restore_into(ctx, NULL);
		finish(ctx, false);
		all_caps();
	}
}

static void c_caps_other_memory(void)
{
	struct ibv_restore_args args = { .comp_mask = IBV_RESTORE_ARGS_PID,
					 .fd = -1 };
	struct ibv_context *ctx;
	struct sig before;

	make_image(s_mr_remote);
	ctx = open_device(device);
	check0(create(ctx, find(0, RXE_MIG_REC_PD)));
	args.pid = start_process(true);
	before = sig_of(ctx);
	set_caps("capability", CAP_CHECKPOINT_RESTORE, CAP_IPC_LOCK);
	expect(EPERM, restore_args(ctx, find(0, RXE_MIG_REC_MR),
	       IBV_RESTORE_CREATE, &args), "MR without CAP_SYS_PTRACE");
	expect(EPERM, ibv_restore_object(ctx, NULL, IBV_RESTORE_TYPE_CONTEXT,
	       IBV_RESTORE_ADOPT, &args, sizeof(args)),
	       "ADOPT without CAP_SYS_PTRACE");
	all_caps();
	same_sig(before, sig_of(ctx), "without CAP_SYS_PTRACE");
	expect(0, restore_args(ctx, find(0, RXE_MIG_REC_MR),
	       IBV_RESTORE_CREATE, &args), "with it");
	end_process(args.pid);
}

#define ANYBODYS (ONLY(CONTEXT) | ONLY(ASYNC) | ONLY(CHANNEL) | ONLY(PD))

const struct test process_tests[] = {
	{ "ESRCH: MR of a dead process", c_dead_process },
	{ "ESRCH: MR of a zombie", c_zombie },
	{ "EPERM: reused pid", c_pid_reused, .arg = without_fd },
	{ "EPERM: reused pid of another user of RDMA", c_pid_reused,
	  .arg = with_own_fd },
	{ "EOPNOTSUPP: dump of a dead process's MR", c_dead_owner },
	{ "errors of ADOPT", c_adopt },
	{ "EACCES: write() by others", c_deputy },
	{ "EACCES: doorbell by setuid programs", c_deputy_doorbell },
	{ "no capability: CREATE of a %s", c_create_nobody,
	  .types = ANYBODYS },
	{ "EPERM: CREATE of a %s", NULL, h_create_nobody,
	  FROM(CONTEXT) & ~ANYBODYS },
	{ "EPERM: REFILL of a %s", NULL, h_refill_nobody, FROM(CONTEXT) },
	{ "EPERM: commands", c_commands_nobody },
	{ "either of two capabilities is enough", c_caps_enough },
	{ "EPERM: other processes without CAP_SYS_PTRACE",
	  c_caps_other_memory },
	{}
};
