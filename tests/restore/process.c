// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Other processes, also dead ones, and capabilities.
 */
#define _GNU_SOURCE
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
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

static void c_dead_owner(void)
{
	struct ibv_dump_refusal *why = (void *)area[0];
	uint32_t *key = (void *)BUF;
	int status;
	pid_t pid;

	o.ctx = open_device(device);
	make_pd();
	pid = fork();
	if (!pid) {
		*key = make_mr(REMOTE)->lkey;
		_exit(0);
	}
	check(waitpid(pid, &status, 0) == pid && !status, "child");
	memset(why, 0, sizeof(*why));
	expect(EOPNOTSUPP, dump_error(o.ctx, 0), "dump");
	if (why->type != RXE_MIG_REC_MR || why->value != *key ||
	    why->reason != IBV_DUMP_REASON_NO_OWNER || !why->text[0])
		bad("refusal of type %u, key %#x instead of %#x, reason %u",
		    why->type, why->value, *key, why->reason);
	/* Nothing was stopped, and the MR is still there */
	expect(EINVAL, context_cmd(o.ctx, IBV_RESTORE_CANCEL), "CANCEL");
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

/* A process with this user and this group, which writes when it is told to */
static struct writer start_writer(int fd, uid_t uid, gid_t group)
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
	if (setgroups(1, &group) || setresgid(uid, uid, uid) ||
	    setresuid(uid, uid, uid))
		_exit(1);
	while (read(line[1], &word, 1) == 1) {
		err = write_command(fd);
		if (write(line[1], &err, sizeof(err)) != sizeof(err))
			break;
	}
	_exit(0);
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
	struct writer user = start_writer(ctx->cmd_fd, 1000, 100);
	struct writer twin = start_writer(ctx->cmd_fd, 1000, 100);
	struct writer other = start_writer(ctx->cmd_fd, 1001, 100);
	struct writer member = start_writer(ctx->cmd_fd, 1000, 0);

	expect(0, write_command(ctx->cmd_fd), "who opened it");
	expect(EACCES, let_write(user), "who did not");
	args.pid = user.pid;
	expect(0, ADOPT(), "ADOPT");
	expect(0, let_write(user), "whose it is");
	expect(0, let_write(twin), "its equal");
	expect(EACCES, write_command(ctx->cmd_fd), "root");
	expect(EACCES, let_write(other), "another user");
	expect(EACCES, let_write(member), "that user in another group");
	end_writer(user);
	expect(0, let_write(twin), "its equal, when it is gone");
	expect(EACCES, write_command(ctx->cmd_fd), "root, when it is gone");
	end_writer(twin);
	end_writer(other);
	end_writer(member);
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
	{ "EOPNOTSUPP: dump of a dead process's MR", c_dead_owner },
	{ "errors of ADOPT", c_adopt },
	{ "EACCES: write() by others", c_deputy },
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
