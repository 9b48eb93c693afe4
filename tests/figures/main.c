// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * objects [-b BYTES] [-d DEPTH] [-n] [-H DIR ...] TYPE COUNT
 *
 * COUNT objects of a TYPE (pd mr cq srq ah qp mw) are made, dumped, destroyed and
 * restored in this process. QPs are connected with those of another process and
 * work afterwards. A line of each step has ticks, times, ioctls and other calls.
 *
 * -n       only dump; type "busy": the record of a QP amid a message into an SRQ
 * -H DIR   somebody else migrates it, when DIR/ready is there: a process of its own
 *          session, DIR/pid. DIR/go ends it, DIR/done says that all QPs have worked.
 * -f BYTES with -H: each QP has SENDs of so many bytes under way, -s COUNT (1), which find no
 *          receive before DIR/go is there
 * -P BYTES with -H: no RDMA, but as many bytes of memory more
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "../verbs/selfmig.h"
#include "objects.h"

#define USAGE "usage: objects [-b BYTES] [-d DEPTH] [-n] [-H DIR [-f BYTES [-s COUNT] | -P BYTES]] TYPE COUNT"

struct options options = { .depth = 64, .bytes = 4096, .sends = 1 };
struct shared *shared;

static size_t shared_len(void)
{
	return sizeof(*shared) + 2 * sizeof(uint32_t) * options.count;
}

static bool of_qps(void)
{
	return !strcmp(options.type, "qp");
}

static void print_restores(void)
{
	static const char *const types[] = {
		[RXE_MIG_REC_CONTEXT] = "context", [RXE_MIG_REC_ASYNC] = "async",
		[RXE_MIG_REC_CHANNEL] = "channel", [RXE_MIG_REC_PD] = "pd",
		[RXE_MIG_REC_MR] = "mr", [RXE_MIG_REC_CQ] = "cq",
		[RXE_MIG_REC_SRQ] = "srq", [RXE_MIG_REC_AH] = "ah",
		[RXE_MIG_REC_QP] = "qp", [RXE_MIG_REC_MW] = "mw",
	};
	char name[32];
	int type;

	for (type = RXE_MIG_REC_CONTEXT; type <= RXE_MIG_REC_MW; type++) {
		snprintf(name, sizeof(name), "create-%s", types[type]);
		if (restores[type][IBV_RESTORE_CREATE].times)
			meter_print(name, &restores[type][IBV_RESTORE_CREATE]);
		snprintf(name, sizeof(name), "refill-%s", types[type]);
		if (restores[type][IBV_RESTORE_REFILL].times)
			meter_print(name, &restores[type][IBV_RESTORE_REFILL]);
	}
	meter_print("resume", &restores[RXE_MIG_REC_CONTEXT][IBV_RESTORE_RESUME]);
}

/* Bytes of a record, apart from rings */
static size_t without_rings(const struct rxe_mig_rec *rec)
{
	const struct rxe_mig_qp_rec *qp = (void *)rec;

	switch (rec->type) {
	case RXE_MIG_REC_CQ:
		return rec->len - ((struct rxe_mig_cq *)rec)->ring.data_len;
	case RXE_MIG_REC_SRQ:
		return rec->len - ((struct rxe_mig_srq *)rec)->ring.data_len;
	case RXE_MIG_REC_QP:
		return rec->len - qp->sq.data_len - qp->rq.data_len;
	}
	return rec->len;
}

/* Of all records, or of one of a QP that is receiving */
static size_t metadata(const void *image, bool busy)
{
	const struct rxe_mig_hdr *hdr = image;
	const struct rxe_mig_rec *rec = image + hdr->hdr_len;
	size_t sum = 0;
	uint32_t i;

	for (i = 0; i != hdr->count; i++, rec = (void *)rec + rec->len)
		if (!busy)
			sum += without_rings(rec);
		else if (rec->type == RXE_MIG_REC_QP &&
			 ((struct rxe_mig_qp_rec *)rec)->recv_wqe_len)
			return without_rings(rec);
	return sum;
}

static void only_dump(struct side *s)
{
	bool busy = !strcmp(options.type, "busy");
	struct selfmig *m;
	size_t bytes, len;
	int i;

	for (i = 0; i != 1000; i++) {
		if (busy)
			make_busy(s);
		if (selfmig_stop(s->ctx, &m))
			die("%s", selfmig_error());
		bytes = metadata(selfmig_image(m, &len), busy);
		if (selfmig_cancel(m))
			die("%s", selfmig_error());
		if (bytes || !busy) {
			printf("metadata %zu\n", bytes);
			return;
		}
		receive_busy(s);
	}
	die("no message was stopped on its way");
}

static void migrate(struct side *s)
{
	struct meter leave = {}, restore = {};
	struct selfmig *m;
	const void *image;
	size_t len;

	if (selfmig_stop(s->ctx, &m))
		die("%s", selfmig_error());
	image = selfmig_image(m, &len);
	printf("image %zu %u\n", len, ((const struct rxe_mig_hdr *)image)->count);
	printf("metadata %zu\n", metadata(image, false));
	meter_start(&leave);
	if (selfmig_leave(m))
		die("%s", selfmig_error());
	meter_stop(&leave);
	meter_start(&restore);
	if (selfmig_restore(m) || selfmig_resume(m, 0))
		die("%s", selfmig_error());
	meter_stop(&restore);
	meter_print("dump", &dumps);
	meter_print("leave", &leave);
	meter_print("restore", &restore);
	print_restores();
}

static void touch(const char *name)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", options.hold, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	check(fd >= 0, path);
	dprintf(fd, "%d\n", getpid());
	close(fd);
}

static bool there(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", options.hold, name);
	return !access(path, F_OK);
}

static void hold(void)
{
	touch("ready");
	while (!there("go"))
		usleep(10000);
}

/* Nothing that another process has, but for the connections */
static void alone(void)
{
	int null = open("/dev/null", O_RDWR), fd;

	check(setsid() > 0 && !chdir("/") && null >= 0, "session");
	for (fd = 0; fd != 3; fd++)
		check(dup2(null, fd) == fd, "dup2");
	close(null);
}

static void migrant(void)
{
	struct meter made = {};
	struct side s = {};
	void *plain;

	if (options.hold)
		alone();
	make_memory(&s);
	if (options.plain) {
		plain = mmap(NULL, options.rings, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		check(plain != MAP_FAILED, "memory");
		memset(plain, 1, options.rings);
		hold();
		touch("done");
		return;
	}
	make_base(&s);
	if (of_qps())
		make_qps(&s, 0, &made);
	else
		make_objects(&s, &made);
	if (options.only_dump) {
		only_dump(&s);
	} else if (options.hold) {
		munmap(shared, shared_len());
		if (options.flight)
			send_all(&s);
		hold();
	} else {
		meter_check_clock();
		meter_print("made", &made);
		printf("rings %zu\n", ring_bytes());
		migrate(&s);
	}
	if (of_qps()) {
		if (!options.flight)
			send_all(&s);
		sent_all(&s);
	}
	if (options.hold)
		touch("done");
}

/* Its QPs get a message each, when the migration is over */
static void partner(void)
{
	struct meter made = {};
	struct side s = {};

	make_memory(&s);
	make_base(&s);
	make_qps(&s, 1, &made);
	if (options.flight) {
		while (!there("go"))
			usleep(10000);
		post_receives(&s);
	}
	receive_all(&s);
}

/* Both processes end well */
static int both(void)
{
	int status;
	pid_t first;

	fflush(stdout);
	first = fork();
	check(first >= 0, "fork");
	if (!first) {
		migrant();
		fflush(stdout);
		_exit(0);
	}
	/* Its number is free for a restored one as soon as it has gone */
	if (options.hold) {
		signal(SIGCHLD, SIG_IGN);
		partner();
		return 0;
	}
	if (!fork()) {
		if (of_qps())
			partner();
		_exit(0);
	}
	while (wait(&status) > 0)
		if (status) {
			shared->failed = 1;
			return 1;
		}
	return 0;
}

int main(int argc, char **argv)
{
	int opt;

	while ((opt = getopt(argc, argv, "b:d:f:ns:H:P:")) != -1) {
		switch (opt) {
		case 'b':
			options.bytes = strtoul(optarg, NULL, 0);
			break;
		case 'd':
			options.depth = atoi(optarg);
			break;
		case 'f':
			options.flight = strtoul(optarg, NULL, 0);
			break;
		case 's':
			options.sends = atoi(optarg);
			break;
		case 'n':
			options.only_dump = true;
			break;
		case 'H':
			options.hold = optarg;
			break;
		case 'P':
			options.plain = true;
			options.rings = strtoul(optarg, NULL, 0);
			break;
		default:
			die(USAGE);
		}
	}
	if (argc - optind != 2 ||
	    ((options.plain || options.flight) && !options.hold))
		die(USAGE);
	snprintf(options.type, sizeof(options.type), "%s", argv[optind]);
	options.count = atoi(argv[optind + 1]);
	shared = mmap(NULL, shared_len(), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(shared != MAP_FAILED, "memory");
	if (options.plain) {
		migrant();
		return 0;
	}
	return both();
}
