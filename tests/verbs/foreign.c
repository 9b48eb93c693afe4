// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * foreign: who may not migrate tries to, with a context of its own and with the file of
 * another process, which that one even hands out.
 *
 * foreign --victim SOCKET   send from one QP to another for ever; whoever connects gets
 *                           the uverbs file, and how many operations there were
 * foreign IMAGE SOCKET      try all that there is; IMAGE has records to restore. The
 *                           kernel must answer EPERM, and the victim must go on.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>
#include <infiniband/verbs.h>

#include "../../drivers/infiniband/sw/rxe/rxe_mig_uapi.h"

#define LEN 65536

static const char *device = "rxe0";
static int failures, tries;

#define check(cond, what)                                                      \
	do {                                                                   \
		if (!(cond)) {                                                 \
			printf("line %d: %s: %s\n", __LINE__, what,            \
			       strerror(errno));                               \
			exit(1);                                               \
		}                                                              \
	} while (0)

static struct ibv_context *open_device(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_context *ctx = NULL;
	int i;

	check(list, "device list");
	for (i = 0; list[i]; i++)
		if (!strcmp(ibv_get_device_name(list[i]), device))
			ctx = ibv_open_device(list[i]);
	ibv_free_device_list(list);
	check(ctx, "open");
	return ctx;
}

/* ---- what goes from the victim to the others ---- */

struct greeting {
	uint64_t done;
	int32_t pid;
};

union control {
	struct cmsghdr align;
	char space[CMSG_SPACE(sizeof(int))];
};

static void give(int to, int fd, uint64_t done)
{
	struct greeting greeting = { .done = done, .pid = getpid() };
	struct iovec iov = { &greeting, sizeof(greeting) };
	union control control = {};
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	check(sendmsg(to, &msg, MSG_NOSIGNAL) == sizeof(greeting), "sendmsg");
}

static int unix_socket(const char *path, struct sockaddr_un *to)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	check(fd >= 0, "socket");
	memset(to, 0, sizeof(*to));
	to->sun_family = AF_UNIX;
	snprintf(to->sun_path, sizeof(to->sun_path), "%s", path);
	return fd;
}

/* A victim that hangs answers nobody. */
static struct greeting ask(const char *path, int *file)
{
	struct greeting greeting;
	struct iovec iov = { &greeting, sizeof(greeting) };
	union control control;
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	struct timeval limit = { .tv_sec = 20 };
	struct cmsghdr *cmsg;
	struct sockaddr_un to;
	int fd = unix_socket(path, &to);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	check(!connect(fd, (void *)&to, sizeof(to)), path);
	check(recvmsg(fd, &msg, 0) == sizeof(greeting), "the victim hangs");
	cmsg = CMSG_FIRSTHDR(&msg);
	check(cmsg, "no file");
	memcpy(file, CMSG_DATA(cmsg), sizeof(*file));
	close(fd);
	return greeting;
}

/* ---- victim ---- */

static struct ibv_qp *make_qp(struct ibv_pd *pd, struct ibv_cq *cq)
{
	struct ibv_qp_init_attr init = {
		.qp_type = IBV_QPT_RC, .send_cq = cq, .recv_cq = cq,
		.cap = { .max_send_wr = 1, .max_recv_wr = 1,
			 .max_send_sge = 1, .max_recv_sge = 1 },
	};
	struct ibv_qp *qp = ibv_create_qp(pd, &init);

	check(qp, "create_qp");
	return qp;
}

static void connect_qp(struct ibv_qp *qp, uint32_t to)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT, .port_num = 1,
		.qp_access_flags = IBV_ACCESS_REMOTE_WRITE,
		.path_mtu = IBV_MTU_1024, .dest_qp_num = to,
		.max_dest_rd_atomic = 1, .min_rnr_timer = 12,
		.timeout = 14, .retry_cnt = 7, .rnr_retry = 7,
		.max_rd_atomic = 1,
		.ah_attr = { .is_global = 1, .port_num = 1,
			     .grh = { .sgid_index = 1, .hop_limit = 64 } },
	};

	check(!ibv_query_gid(qp->context, 1, 1, &attr.ah_attr.grh.dgid), "gid");
	check(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX |
			     IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), "INIT");
	attr.qp_state = IBV_QPS_RTR;
	check(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV |
			     IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
			     IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
			     IBV_QP_MIN_RNR_TIMER), "RTR");
	attr.qp_state = IBV_QPS_RTS;
	check(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT |
			     IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
			     IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC), "RTS");
}

static void write_once(struct ibv_qp *qp, struct ibv_mr *mr)
{
	struct ibv_sge sge = { (uintptr_t)mr->addr, LEN, mr->lkey };
	struct ibv_send_wr *bad, wr = {
		.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE,
		.send_flags = IBV_SEND_SIGNALED,
		.wr.rdma = { (uintptr_t)mr->addr, mr->rkey },
	};
	struct ibv_wc wc;
	int num;

	check(!ibv_post_send(qp, &wr, &bad), "post_send");
	do {
		num = ibv_poll_cq(qp->send_cq, 1, &wc);
		check(num >= 0, "poll_cq");
	} while (!num);
	check(!wc.status, ibv_wc_status_str(wc.status));
}

static void be_victim(const char *path)
{
	struct ibv_context *ctx = open_device();
	struct ibv_pd *pd = ibv_alloc_pd(ctx);
	struct ibv_cq *cq = ibv_create_cq(ctx, 2, NULL, NULL, 0);
	void *memory = aligned_alloc(4096, LEN);
	struct ibv_qp *a, *b;
	struct sockaddr_un to;
	int fd, client;
	struct ibv_mr *mr;
	uint64_t done = 0;

	check(pd && cq && memory, "objects");
	mr = ibv_reg_mr(pd, memory, LEN, IBV_ACCESS_LOCAL_WRITE |
			IBV_ACCESS_REMOTE_WRITE);
	check(mr, "reg_mr");
	a = make_qp(pd, cq);
	b = make_qp(pd, cq);
	connect_qp(a, b->qp_num);
	connect_qp(b, a->qp_num);

	unlink(path);
	fd = unix_socket(path, &to);
	check(!bind(fd, (void *)&to, sizeof(to)) && !chmod(path, 0666) &&
	      !listen(fd, 4) && !fcntl(fd, F_SETFL, O_NONBLOCK), path);
	for (;;) {
		write_once(a, mr);
		done++;
		client = accept(fd, NULL, NULL);
		if (client < 0)
			continue;
		give(client, ctx->cmd_fd, done);
		close(client);
	}
}

/* ---- attempts ---- */

/* WANT 0: with any error */
static void refused(int got, int want, const char *whose, const char *what)
{
	tries++;
	if (want ? got == want : got != 0)
		return;
	failures++;
	printf("%s context: %s: %s, not %s\n", whose, what,
	       got ? strerror(got) : "success",
	       want ? strerror(want) : "an error");
}

static const char *const commands[] = {
	[IBV_RESTORE_RESUME] = "RESUME", [IBV_RESTORE_CANCEL] = "CANCEL",
	[IBV_RESTORE_COMMIT] = "COMMIT", [IBV_RESTORE_IDENTIFY] = "IDENTIFY",
	[IBV_RESTORE_ADOPT] = "ADOPT",
};

static void try_commands(struct ibv_context *ctx, const char *whose, pid_t pid)
{
	static uint8_t image[1 << 20];
	struct ibv_restore_args args;
	int cmd, count = 0;

	refused(ibv_dump_context(ctx, NULL, NULL, 0), EPERM, whose, "check");
	refused(ibv_dump_context(ctx, &count, image, sizeof(image)), EPERM,
		whose, "dump");
	for (cmd = IBV_RESTORE_RESUME; cmd <= IBV_RESTORE_ADOPT; cmd++) {
		args = (struct ibv_restore_args) {
			.comp_mask = IBV_RESTORE_ARGS_PID, .pid = pid,
			.fd = ctx->cmd_fd,
		};
		refused(ibv_restore_object(ctx, NULL, IBV_RESTORE_TYPE_CONTEXT,
					   cmd, &args, sizeof(args)), EPERM,
			whose, commands[cmd]);
	}
}

/* Those that need nothing that must exist, or only a PD */
static void try_records(struct ibv_context *ctx, const char *whose, pid_t pid,
			uint8_t *image, size_t len)
{
	struct ibv_restore_args args;
	struct rxe_mig_rec *rec;
	char what[64];
	uint8_t *at;

	at = image + ((struct rxe_mig_hdr *)image)->hdr_len;
	for (; at < image + len; at += rec->len) {
		rec = (void *)at;
		args = (struct ibv_restore_args) {
			.record = rec, .record_len = rec->len, .fd = -1,
		};
		if (rec->type == RXE_MIG_REC_MR) {
			args.comp_mask = IBV_RESTORE_ARGS_PID;
			args.pid = pid;
		}
		snprintf(what, sizeof(what), "CREATE of type %u", rec->type);
		if (rec->type == RXE_MIG_REC_CQ)
			((struct rxe_mig_cq *)rec)->channel = RXE_MIG_NONE;
		/* An ordinary PD, of an own context */
		if (rec->type == RXE_MIG_REC_PD && *whose == 'o')
			check(!ibv_restore_object(ctx, NULL, rec->type,
						  IBV_RESTORE_CREATE, &args,
						  sizeof(args)), what);
		if (rec->type == RXE_MIG_REC_CQ ||
		    (*whose == 'o' && (rec->type == RXE_MIG_REC_MR ||
				       rec->type == RXE_MIG_REC_SRQ ||
				       rec->type == RXE_MIG_REC_MW)))
			refused(ibv_restore_object(ctx, NULL, rec->type,
						   IBV_RESTORE_CREATE, &args,
						   sizeof(args)),
				/* Handles of the victim's are taken */
				*whose == 'o' ? EPERM : 0, whose, what);
		if (rec->type < RXE_MIG_REC_PD)
			continue;
		snprintf(what, sizeof(what), "REFILL of type %u", rec->type);
		args.comp_mask = 0;
		/* There may be no such object, or a live one */
		refused(ibv_restore_object(ctx, NULL, rec->type,
					   IBV_RESTORE_REFILL, &args,
					   sizeof(args)),
			*whose == 'o' && rec->type == RXE_MIG_REC_PD ? EPERM : 0,
			whose, what);
	}
}

/* The file, and memory, of a process that one may not trace */
static void try_process(pid_t pid, int fd)
{
	int process = syscall(SYS_pidfd_open, pid, 0);

	/* In another PID namespace it has no number. */
	if (process < 0)
		return;
	refused(syscall(SYS_pidfd_getfd, process, fd, 0) < 0 ? errno : 0,
		EPERM, "foreign", "pidfd_getfd");
	close(process);
}

static uint8_t *read_image(const char *path, size_t *len)
{
	static uint8_t image[1 << 20];
	FILE *file = fopen(path, "r");

	check(file, path);
	*len = fread(image, 1, sizeof(image), file);
	fclose(file);
	check(*len == ((struct rxe_mig_hdr *)image)->total_len, path);
	return image;
}

int main(int argc, char **argv)
{
	struct ibv_context *own, *foreign;
	struct greeting before, after;
	uint8_t *image;
	int file, other;
	size_t len;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc != 3) {
		fprintf(stderr, "usage: foreign --victim SOCKET | IMAGE SOCKET\n");
		return 2;
	}
	if (!strcmp(argv[1], "--victim"))
		be_victim(argv[2]);

	image = read_image(argv[1], &len);
	before = ask(argv[2], &file);
	foreign = ibv_import_device(file);
	check(foreign, "import");
	own = open_device();
	try_commands(own, "own", getpid());
	try_commands(foreign, "foreign", before.pid);
	try_records(own, "own", before.pid, image, len);
	try_records(foreign, "foreign", before.pid, image, len);
	try_process(before.pid, file);

	ask(argv[2], &other);
	sleep(1);
	after = ask(argv[2], &other);
	if (after.done < before.done + 10) {
		failures++;
		printf("the victim has done %lu operations, then %lu\n",
		       before.done, after.done);
	}
	printf("%d attempts, not refused: %d\n", tries, failures);
	return failures || tries < 30;
}
