// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * grid -l			be the other side, until killed
 * grid HOST ROW/COLUMN...	run cells; the context of this side is dumped;
 *				-n: not at all, to tell whose fault a failure is
 * grid -L			list rows and columns
 *
 * Every cell has processes of its own, so one that fails harms no other.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../verbs/selfmig.h"
#include "grid.h"

#define PORT	"18517"
#define LIMIT	300	/* seconds for a cell */
#define TRIES	200

const char *device = "rxe0";
int gid_index = 1;
const char *save_image;

static const char *who;
static bool migrate = true;

void die_at(const char *func, int line, const char *format, ...)
{
	va_list args;

	printf("# %s: ", who);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf(" (%s, line %d)\n", func, line);
	exit(1);
}

void swap_addresses(struct side *s)
{
	exchange(s, &s->me, &s->peer, sizeof(s->me));
}

/* ---- states ---- */

static enum ibv_qp_state state_of(struct side *s)
{
	if (s->row->reset)
		return IBV_QPS_RESET;
	return s->row->state;
}

static bool connected(enum ibv_qp_state state)
{
	return state >= IBV_QPS_RTR && state != IBV_QPS_ERR;
}

static void make_ah(struct side *s)
{
	struct ibv_ah_attr attr = {
		.is_global = 1,
		.port_num = 1,
		.grh = { .dgid = s->peer.gid, .sgid_index = gid_index,
			 .hop_limit = 64 },
	};

	check((s->ah = ibv_create_ah(s->pd, &attr)));
}

static void post_receives(struct side *s)
{
	int i;

	for (i = 0; i != RECVS; i++)
		post_recv(s);
}

/* The mover's QP gets into its state; the peer's waits for what may come. */
static void reach_state(struct side *s)
{
	enum ibv_qp_state state = s->mover ? state_of(s) : IBV_QPS_RTS;

	if (s->row->type == IBV_QPT_UD)
		make_ah(s);
	if (state != IBV_QPS_RESET) {
		to_init(s, s->qp);
		post_receives(s);
	}
	if (state == IBV_QPS_RTR || state == IBV_QPS_RTS ||
	    state == IBV_QPS_SQD || state == IBV_QPS_ERR)
		to_rtr(s, s->qp);
	if (state == IBV_QPS_RTS || state == IBV_QPS_SQD ||
	    state == IBV_QPS_ERR)
		to_rts(s, s->qp);
	barrier(s);

	if (s->mw && connected(state_of(s)) &&
	    !(s->mover && (s->row->mw == MW_1_FREE ||
			   s->row->mw == MW_2_FREE)))
		bind_window(s);
	swap_addresses(s);
}

/* In SQD, one more request waits. */
static void enter_sqd(struct side *s)
{
	struct ibv_send_wr wr = { .opcode = IBV_WR_SEND };

	if (s->row->state != IBV_QPS_SQD)
		return;
	if (s->mover) {
		check0(modify_state(s->qp, IBV_QPS_SQD));
		fill(s->mem + AT_OUT + HUGE_LEN / 2, 200, 90);
		s->extra = post(s, &wr, AT_OUT + HUGE_LEN / 2, 200);
		usleep(20000);
	}
	s->extra_due = true;
	barrier(s);
}

static void leave_sqd(struct side *s)
{
	if (s->row->state != IBV_QPS_SQD)
		return;
	if (s->mover) {
		check(!wait_wc(s, s->extra).status);
	} else {
		if (!s->posted)
			post_recv(s);
		wait_recv(s, 200, 90);
	}
	s->extra_due = false;
	barrier(s);
}

static void flushed(struct side *s)
{
	struct ibv_async_event event;
	unsigned int i;

	if (s->srq) {
		/* they stay in the SRQ */
		check0(ibv_get_async_event(s->ctx, &event));
		check(event.event_type == IBV_EVENT_QP_LAST_WQE_REACHED);
		check(event.element.qp == s->qp);
		ibv_ack_async_event(&event);
		return;
	}
	for (i = 0; i != RECVS; i++)
		check(wait_wc(s, 0x1000 + s->done_recv++).status ==
		      IBV_WC_WR_FLUSH_ERR);
	s->posted = 0;
}

/* Whatever it was, there is a connection in the end. */
static void end_in_rts(struct side *s)
{
	enum ibv_qp_state state = state_of(s);

	if (state == IBV_QPS_ERR) {
		if (s->mover) {
			flushed(s);
			check0(modify_state(s->qp, IBV_QPS_RESET));
			to_init(s, s->qp);
		} else {
			/* the other one has got lost: a new one */
			if (s->mw)
				check0(ibv_dealloc_mw(s->mw));
			s->mw = NULL;
			check0(ibv_destroy_qp(s->qp));
			s->qp = make_qp(s, s->row->type, s->cq, NULL);
			s->me.qpn = s->qp->qp_num;
			s->me.window_rkey = s->mr->rkey;
			s->posted = 0;
			s->done_recv = s->next_recv;
			to_init(s, s->qp);
		}
		if (!s->posted)
			post_receives(s);
		swap_addresses(s);
		to_rtr(s, s->qp);
		to_rts(s, s->qp);
		barrier(s);
	} else if (s->mover) {
		if (state == IBV_QPS_RESET) {
			to_init(s, s->qp);
			post_receives(s);
		}
		if (state == IBV_QPS_RESET || state == IBV_QPS_INIT)
			to_rtr(s, s->qp);
		if (!connected(state) || state == IBV_QPS_RTR)
			to_rts(s, s->qp);
	}
	barrier(s);
}

/* ---- the cell ---- */

static void save(const struct image *im, struct side *s)
{
	char path[512];
	FILE *file;

	if (!save_image)
		return;
	snprintf(path, sizeof(path), "%s/%s_%s", save_image, s->row->name,
		 s->col->name);
	file = fopen(path, "w");
	if (!file || fwrite(im->data, im->len, 1, file) != 1 || fclose(file))
		die("%s: %m", path);
}

/* The context is stopped. Does the image show what it has to? */
static int look(const void *data, size_t len, void *arg)
{
	struct side *s = arg;
	struct image im;
	uint64_t again;

	if (image_open(s, &im, data, len))
		die("the image is damaged");
	save(&im, s);
	again = !s->col->prove(s, &im);
	if (again && !s->col->retry)
		die("%s", s->why);
	if (!again)
		s->row->prove(s, &im);
	drop_nothing();
	barrier_id(s, &again);	/* the other end, in cycle() */
	barrier(s);
	return s->why[0] != 0;
}

/* Returns whether it has to be tried again. */
static bool cycle(struct side *s)
{
	uint64_t again = 0;
	int err;

	s->why[0] = 0;
	if (!s->mover) {
		barrier_id(s, &again);
		drop_nothing();
		barrier(s);
		return again;
	}
	if (!migrate) {
		drop_nothing();
		barrier_id(s, &again);
		barrier(s);
		return false;
	}
	err = selfmig_cycle_if(s->ctx, NULL, look, s);
	if (err == -ECANCELED)
		return true;
	if (err == -EOPNOTSUPP) {
		printf("# %s\n", selfmig_error());
		exit(77);
	}
	if (err)
		die("%s", selfmig_error());
	return false;
}

static void run_cell(struct side *s)
{
	unsigned int tries = 0;

	alarm(LIMIT);
	drop_nothing_at_first();
	make_objects(s);
	swap_addresses(s);
	reach_state(s);
	if (s->row->before)
		s->row->before(s);
	barrier(s);
	if (s->mover && s->row->state == IBV_QPS_ERR)
		check0(modify_state(s->qp, IBV_QPS_ERR));
	do {
		if (++tries > TRIES)
			die("%s, %u times", s->why, TRIES);
		s->col->start(s);
		if (tries == 1)
			enter_sqd(s);
	} while (cycle(s));

	/* from here on as if nothing had happened */
	s->to_rts = s->mover && s->row->state == IBV_QPS_SQD;
	if (s->col->finish)
		s->col->finish(s);
	barrier(s);
	leave_sqd(s);
	end_in_rts(s);
	if (s->row->after)
		s->row->after(s);
	swap_addresses(s);
	talk(s, 100);
	if (!no_wc(s, 10))
		die("request %#llx has completed twice",
		    (unsigned long long)s->wc[0].wr_id);
	if (s->ah)
		check0(ibv_destroy_ah(s->ah));
	destroy_objects(s);
	barrier(s);
}

/* ---- processes ---- */

static int dial(const char *host)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct addrinfo *ai;
	int fd, i;

	if (getaddrinfo(host, PORT, &hints, &ai))
		die("no address for %s", host);
	for (i = 0; ; i++) {
		fd = socket(ai->ai_family, SOCK_STREAM, 0);
		if (fd < 0)
			die("socket: %m");
		if (!connect(fd, ai->ai_addr, ai->ai_addrlen))
			break;
		if (i == 100)
			die("connect: %m");
		close(fd);
		usleep(200000);
	}
	freeaddrinfo(ai);
	return fd;
}

static const struct row *row_by_name(const char *name, size_t len)
{
	const struct row *r;

	for (r = rows; r->name; r++)
		if (strlen(r->name) == len && !memcmp(r->name, name, len))
			return r;
	return NULL;
}

static const struct col *col_by_name(const char *name)
{
	const struct col *c;

	for (c = cols; c->name; c++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

static bool parse_cell(struct side *s, const char *cell)
{
	const char *slash = strchr(cell, '/');

	if (!slash)
		return false;
	s->row = row_by_name(cell, slash - cell);
	s->col = col_by_name(slash + 1);
	return s->row && s->col;
}

static int mover(const char *host, const char *cell)
{
	struct side *s = calloc(1, sizeof(*s));
	char name[64] = "";

	who = "mover";
	if (!s || !parse_cell(s, cell))
		die("no cell %s", cell);
	s->mover = true;
	s->socket = dial(host);
	snprintf(name, sizeof(name), "%s", cell);
	if (send(s->socket, name, sizeof(name), MSG_NOSIGNAL) != sizeof(name))
		die("send: %m");
	run_cell(s);
	return 0;
}

static int peer(int fd)
{
	struct side *s = calloc(1, sizeof(*s));
	char name[64];

	who = "peer";
	if (!s || recv(fd, name, sizeof(name), MSG_WAITALL) != sizeof(name))
		die("no name of a cell");
	name[63] = 0;
	if (!parse_cell(s, name))
		die("no cell %s", name);
	s->socket = fd;
	run_cell(s);
	return 0;
}

static int listener(void)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
				  .ai_family = AF_INET6,
				  .ai_flags = AI_PASSIVE };
	struct addrinfo *ai;
	int fd, client, status, on = 1;
	pid_t child;

	who = "listener";
	if (getaddrinfo(NULL, PORT, &hints, &ai))
		die("no address");
	fd = socket(ai->ai_family, SOCK_STREAM, 0);
	if (fd < 0)
		die("socket: %m");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) || listen(fd, 4))
		die("listen: %m");
	for (;;) {
		client = accept(fd, NULL, NULL);
		if (client < 0)
			continue;
		child = fork();
		if (!child) {
			close(fd);
			exit(peer(client));
		}
		close(client);
		if (waitpid(child, &status, 0) == child && status)
			printf("# peer: status %#x\n", status);
	}
}

static int run_cells(const char *host, char **cells)
{
	unsigned int n = 0, bad = 0;
	int status;
	pid_t child;

	for (; *cells; cells++) {
		struct timespec t0, t1;

		clock_gettime(CLOCK_MONOTONIC, &t0);
		child = fork();
		if (!child)
			exit(mover(host, *cells));
		if (child < 0 || waitpid(child, &status, 0) != child)
			return 2;
		clock_gettime(CLOCK_MONOTONIC, &t1);
		n++;
		if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
			printf("ok %u - %s # SKIP cannot be dumped\n", n,
			       *cells);
			continue;
		}
		if (!WIFEXITED(status))
			printf("# signal %d\n", WTERMSIG(status));
		printf("%sok %u - %s\n", status ? "not " : "", n, *cells);
		printf("# %.1f s\n", t1.tv_sec - t0.tv_sec +
		       (t1.tv_nsec - t0.tv_nsec) / 1e9);
		bad += !!status;
	}
	printf("# %u of %u failed\n", bad, n);
	return bad ? 1 : 0;
}

int main(int argc, char **argv)
{
	bool listening = false;
	const struct row *r;
	const struct col *c;
	int opt;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((opt = getopt(argc, argv, "d:g:lLno:")) != -1) {
		switch (opt) {
		case 'd':
			device = optarg;
			break;
		case 'g':
			gid_index = atoi(optarg);
			break;
		case 'l':
			listening = true;
			break;
		case 'L':
			for (r = rows; r->name; r++)
				printf("row %s\n", r->name);
			for (c = cols; c->name; c++)
				printf("column %s\n", c->name);
			return 0;
		case 'n':
			migrate = false;
			break;
		case 'o':
			save_image = optarg;
			break;
		default:
			optind = argc + 1;
		}
	}
	if (listening && optind == argc)
		return listener();
	if (optind + 2 > argc) {
		fprintf(stderr, "usage: grid [-d DEVICE] [-g GID-INDEX] [-n: no migration] [-o DIRECTORY-FOR-IMAGES] -l | -L | HOST ROW/COLUMN...\n");
		return 2;
	}
	return run_cells(argv[optind], &argv[optind + 1]);
}
