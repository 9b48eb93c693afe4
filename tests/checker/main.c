// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/* Set-up, the loop, the end. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include "chk.h"

#define POLL_BATCH	16
#define QPN_HASH	8192	/* power of two, above CONN_MAX */
#define SEC		1000000000ULL
#define MSEC		1000000ULL
#define TICK		SEC	/* longest step of running time */
#define END_SECONDS	20	/* to exchange totals after a failure, or for the
				 * acknowledgment of the last message
				 */

struct checker chk;

static volatile sig_atomic_t sig_moved, sig_stop;

static void on_signal(int sig)
{
	if (sig == SIGUSR1)
		sig_moved++;
	else
		sig_stop = 1;
}

/* With a shared receive queue only the QP number tells the connection. */
static struct conn *conn_by_qpn(uint32_t qpn)
{
	static uint32_t hint[QPN_HASH];
	uint32_t *h = &hint[qpn % QPN_HASH];
	unsigned int i;

	if (*h < chk.nr_conns && chk.conn[*h] && chk.conn[*h]->qp &&
	    chk.conn[*h]->qp->qp_num == qpn)
		return chk.conn[*h];
	for (i = 0; i < chk.nr_conns; i++) {
		if (!chk.conn[i] || !chk.conn[i]->qp ||
		    chk.conn[i]->qp->qp_num != qpn)
			continue;
		*h = i;
		return chk.conn[i];
	}
	return NULL;
}

static void completion(struct group *g, const struct ibv_wc *wc, bool send,
		       uint64_t now)
{
	struct conn *c = conn_by_qpn(wc->qp_num);

	if (!c) {
		fault(CORRUPTED, 1, NULL, "completion for no connection: "
		      "QP %#x, WR %#llx", wc->qp_num,
		      (unsigned long long)wc->wr_id);
		return;
	}
	/* a queue of its own gives the connection, too; both must agree */
	if (!(wc->wr_id >> 63) && wc->wr_id >> 48 != c->idx)
		fault(CORRUPTED, 1, c, "WR %#llx completed on QP %#x",
		      (unsigned long long)wc->wr_id, wc->qp_num);
	if (c->running && c->last_ns && now > c->last_ns &&
	    now - c->last_ns > chk.t.longest_gap_ns)
		chk.t.longest_gap_ns = now - c->last_ns;
	c->last_ns = now;
	if (c->dead) {
		/* the cause may come after what it flushed */
		if (wc->status != IBV_WC_SUCCESS &&
		    wc->status != IBV_WC_WR_FLUSH_ERR)
			logmsg("connection %u: %s", c->idx,
			       ibv_wc_status_str(wc->status));
		return;
	}
	if (send)
		tx_complete(c, wc);
	else
		rx_complete(c, wc->wr_id >> 63 ? &g->pool : &c->rx.pool, wc);
}

static bool poll_cq(struct group *g, struct ibv_cq *cq, bool send)
{
	struct ibv_wc wc[POLL_BATCH + 1];	/* one for a planted fault */
	int i, nr = ibv_poll_cq(cq, POLL_BATCH, wc);
	uint64_t now;

	if (nr < 0) {
		fault(ERRORS, 1, NULL, "poll CQ");
		chk.aborted = true;
		return false;
	}
	if (!nr)
		return false;
	chk.progress += nr;
	now = now_ns();
	nr = plant_completions(wc, nr, send);
	for (i = 0; i < nr; i++)
		completion(g, &wc[i], send, now);
	return true;
}

/* Ends of a connection: all posted, all verified, both know. */
static bool conn_step(struct conn *c)
{
	if (c->dead || !c->running)
		return false;
	if (!c->fin_sent && tx_drained(c))
		ctl_fin(c);
	if (c->fin_sent && c->peer_fin && !c->bye_sent &&
	    c->rx.next >= c->peer_final && !tx_outstanding(c))
		ctl_bye(c);
	if (!c->bye_sent || !c->peer_bye || c->closed)
		return false;
	rx_final(c);
	c->closed = true;
	c->running = false;
	if (c->extra) {
		chk.extra_busy--;
		conn_destroy(c);
	}
	return true;
}

static bool work(void)
{
	bool did = ctl_work();
	unsigned int i;

	for (i = 0; i < chk.nr_groups; i++) {
		struct group *g = chk.group[i];

		if (!g || !g->scq || !g->rcq)
			continue;
		did |= poll_cq(g, g->scq, true);
		did |= poll_cq(g, g->rcq, false);
		if (g->srq)
			did |= rx_release(&g->pool, NULL, g->srq, g->idx);
	}
	for (i = 0; i < chk.nr_conns; i++) {
		struct conn *c = chk.conn[i];

		if (!c || c->dead)
			continue;
		if (!c->group->srq)
			did |= rx_release(&c->rx.pool, c->qp, NULL, c->idx);
		did |= tx_work(c);
		did |= conn_step(c);
	}
	return did;
}

static void cq_events(void)
{
	struct ibv_cq *cq;
	void *ctx;

	while (!ibv_get_cq_event(chk.dev.channel, &cq, &ctx)) {
		struct group *g = ctx;

		if (g)
			g->events[cq == g->rcq]++;
		else
			ctl_notify();
		if (ibv_req_notify_cq(cq, 0))
			fault(ERRORS, 1, NULL, "request notification");
	}
}

static void async_events(void)
{
	struct ibv_async_event e;

	while (!ibv_get_async_event(chk.dev.ctx, &e)) {
		logmsg("event: %s", ibv_event_type_str(e.event_type));
		switch (e.event_type) {
		case IBV_EVENT_CQ_ERR:
		case IBV_EVENT_QP_FATAL:
		case IBV_EVENT_QP_REQ_ERR:
		case IBV_EVENT_QP_ACCESS_ERR:
		case IBV_EVENT_SRQ_ERR:
		case IBV_EVENT_DEVICE_FATAL:
			fault(ERRORS, 1, NULL, "%s",
			      ibv_event_type_str(e.event_type));
			break;
		default:
			break;
		}
		ibv_ack_async_event(&e);
	}
}

static void idle(unsigned int turns)
{
	struct pollfd fd = { .events = POLLIN };

	if (chk.o.events) {
		fd.fd = chk.dev.channel->fd;
		/* receives held back for --rnr have no event */
		if (poll(&fd, 1, chk.o.rnr ? 5 : 1000) > 0)
			cq_events();
	} else if (turns < 20) {
		sched_yield();
	} else {
		poll(NULL, 0, 1);
	}
}

static void moved(void)
{
	if (chk.stopping || chk.aborted || ctl_end_sent()) {
		logmsg("moved: the run is ending, no new connection");
		return;
	}
	logmsg("moved: creating objects and a connection");
	ctl_moved();
}

static void stop(void)
{
	if (chk.stopping)
		return;
	logmsg("stopping");
	chk.stopping = true;
	ctl_stop();
}

static void control_file(uint64_t active)
{
	char word[32] = "";
	FILE *f;

	f = fopen(chk.o.control, "r");
	if (!f)
		return;
	while (fscanf(f, "%31s", word) == 1) {
		if (!strcmp(word, "moved"))
			moved();
		else if (!strcmp(word, "cycle"))
			cycle();
		else if (!strcmp(word, "stop"))
			stop();
		else if (!strcmp(word, "report"))
			progress_line(active);
		else
			logmsg("control: unknown command \"%s\"", word);
	}
	fclose(f);
	/* an empty file is still being written */
	if (*word)
		unlink(chk.o.control);
}

/* Nothing came for too long.  Decide what that means, and end. */
static void stalled(void)
{
	static unsigned int turns;
	bool gave_up = false;
	unsigned int i;

	for (i = 0; i < chk.nr_conns; i++) {
		struct conn *c = chk.conn[i];
		uint64_t next;

		if (!c || c->dead || c->closed)
			continue;
		logmsg("stalled: connection %u: posted %llu, credit %llu, "
		       "%llu WRs not completed, verified %llu%s%s%s%s", c->idx,
		       (unsigned long long)c->tx.next,
		       (unsigned long long)c->tx.credit,
		       (unsigned long long)tx_outstanding(c),
		       (unsigned long long)c->rx.next,
		       c->fin_sent ? ", fin sent" : "",
		       c->peer_fin ? ", fin received" : "",
		       c->bye_sent ? ", bye sent" : "",
		       c->peer_bye ? ", bye received" : "");
		if (tx_outstanding(c)) {
			fault(LOST, tx_outstanding(c), c,
			      "completions of send WRs");
			c->tx.wr.next = c->tx.wr_posted;
			gave_up = true;
		}
		next = c->rx.next;
		rx_give_up(c);
		gave_up |= c->rx.next != next;
	}
	/* the peer may be the one that knows what is missing: once more */
	if (!gave_up && ++turns > 1) {
		fault(ERRORS, 1, NULL, "stalled");
		chk.aborted = true;
	}
	stop();
}

/* Both ends go on until both have done their cycles. */
static void cycles(uint64_t active)
{
	static uint64_t due;
	static bool told;

	if (chk.stopping || chk.aborted)
		return;
	if (chk.t.cycles < chk.o.p.cycles) {
		if (!due)
			due = active + chk.o.cycle_interval * MSEC;
		if (active < due)
			return;
		cycle();
		due = active + chk.o.cycle_interval * MSEC;
	} else if (!told) {
		told = true;
		ctl_cycled();
	} else if (!chk.peer_cycles) {
		stop();
	}
}

static bool all_closed(void)
{
	unsigned int i;

	if (chk.extra_busy)
		return false;
	for (i = 0; i < chk.nr_conns; i++)
		if (chk.conn[i] && !chk.conn[i]->closed && !chk.conn[i]->dead)
			return false;
	return true;
}

/*
 * Time is counted in steps of a second at most, so that neither being frozen
 * nor another host's clock ends the run or lets it stall.
 */
static uint64_t run(void)
{
	uint64_t last = now_ns(), active = 0, progress_at = 0, housekeeping = 0;
	uint64_t last_progress = 0, last_change = 0, ended = 0;
	unsigned int idle_turns = 0;

	while (!ctl_finished()) {
		uint64_t now;

		if (work())
			idle_turns = 0;
		else
			idle(idle_turns++);

		now = now_ns();
		if (now > last)
			active += now - last < TICK ? now - last : TICK;
		last = now;

		if (sig_moved) {
			sig_moved--;
			moved();
		}
		if (sig_stop || (chk.o.seconds &&
				 active >= chk.o.seconds * SEC))
			stop();
		if (chk.progress != last_progress) {
			last_progress = chk.progress;
			last_change = active;
		} else if (active - last_change > chk.o.stall * SEC &&
			   !chk.aborted) {
			last_change = active;
			stalled();
		}
		if (chk.o.p.cycles)
			cycles(active);
		if (active >= housekeeping) {
			housekeeping = active + SEC / 4;
			async_events();
			if (chk.o.control)
				control_file(active);
		}
		if (active >= progress_at) {
			progress_at = active + chk.o.interval * SEC;
			progress_line(active);
		}
		if (!ctl_end_sent() && (chk.aborted || all_closed())) {
			ended = active;
			ctl_end();
		}
		if (!chk.aborted && !ctl_exchanged())
			ended = active;
		if (ctl_end_sent() && active - ended > END_SECONDS * SEC)
			break;
	}
	return active;
}

static int agree(void)
{
	struct params mine = chk.o.p, theirs;
	uint32_t types, mtu;

	if (rdv_exchange("params", &mine, &theirs, sizeof(mine)))
		return -1;
	types = mine.types & theirs.types;
	mtu = mine.mtu < theirs.mtu ? mine.mtu : theirs.mtu;
	if (!chk.o.server)
		chk.o.p = theirs;
	chk.o.p.cycles = mine.cycles;
	chk.peer_cycles = theirs.cycles;
	chk.o.p.types = types;
	chk.o.p.mtu = mtu;
	if (chk.o.depth > chk.o.p.window)
		chk.o.depth = chk.o.p.window;
	return 0;
}

/* Connections with and without SRQ are in different groups. */
static int create_all(void)
{
	static struct group *with[64], *without[64];
	unsigned int n = chk.o.groups, per = chk.o.p.qps / n + 1, i;

	for (i = 0; i < chk.o.p.qps; i++) {
		bool srq = chk.o.srq == SRQ_ALL ||
			   (chk.o.srq == SRQ_HALF && i & 1);
		struct group **g = srq ? &with[i / 2 % n] :
					 &without[i / 2 % n];

		if (!*g)
			*g = group_create(per, srq);
		if (!*g || !conn_create(i, *g, false))
			return -1;
	}
	chk.next_extra = chk.o.p.qps + !chk.o.server;
	return 0;
}

static int connect_all(void)
{
	unsigned int n = chk.o.p.qps + 1, i;
	struct conn_info *mine, *theirs;
	uint32_t ready = 1;
	int err = -1;

	mine = calloc(n, sizeof(*mine));
	theirs = calloc(n, sizeof(*theirs));
	if (!mine || !theirs || ctl_create(&mine[0]))
		goto out;
	for (i = 1; i < n; i++)
		mine[i] = chk.conn[i - 1]->self;
	if (rdv_exchange("connections", mine, theirs, n * sizeof(*mine)) ||
	    ctl_connect(&mine[0], &theirs[0]))
		goto out;
	for (i = 1; i < n; i++) {
		chk.conn[i - 1]->peer = theirs[i];
		if (conn_start(chk.conn[i - 1]))
			goto out;
	}
	err = rdv_exchange("ready", &ready, &ready, sizeof(ready));
	for (i = 1; i < n && !err; i++)
		chk.conn[i - 1]->running = true;
out:
	free(mine);
	free(theirs);
	return err;
}

static void destroy_all(void)
{
	unsigned int i;

	for (i = 0; i < chk.nr_conns; i++)
		if (chk.conn[i])
			conn_destroy(chk.conn[i]);
	for (i = 0; i < chk.nr_groups; i++)
		if (chk.group[i])
			group_destroy(chk.group[i]);
	ctl_destroy();
	dev_close();
}

static int checker(int fd)
{
	uint64_t active;
	bool ok;

	if (dev_open() || rdv_open(fd) || agree())
		return 2;
	if (create_all() || connect_all())
		return 2;
	rdv_close();
	active = run();
	/* before the totals: errors of destruction count */
	destroy_all();
	totals_compare();
	progress_line(active);
	ok = report();
	return ok ? 0 : 1;
}

/* The client is the child; the result is that of both. */
static int loopback(void)
{
	int sv[2], ret, status = -1;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv)) {
		perror("socketpair");
		return 2;
	}
	pid = fork();
	if (pid < 0) {
		perror("fork");
		return 2;
	}
	chk.o.server = pid != 0;
	close(sv[pid ? 1 : 0]);
	if (!pid)
		exit(checker(sv[1]));
	ret = checker(sv[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!ret && (!WIFEXITED(status) || WEXITSTATUS(status)))
		ret = 1;
	return ret;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_signal };

	opts_parse(argc, argv);
	crc32c_init();
	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	return chk.o.loopback ? loopback() : checker(-1);
}
