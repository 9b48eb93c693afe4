// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/* Counters, log, the final JSON object. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "chk.h"

#define DETAILS_MAX	40	/* lines; the counters go on */

typedef unsigned long long ull;

const char * const op_name[] = {
	[OP_SEND] = "send",
	[OP_SEND_IMM] = "send_imm",
	[OP_SEND_INV] = "send_inv",
	[OP_WRITE] = "write",
	[OP_WRITE_IMM] = "write_imm",
	[OP_WRITE_MW] = "write_mw",
	[OP_READ] = "read",
	[OP_CMP_SWP] = "cmp_swp",
	[OP_FETCH_ADD] = "fetch_add",
	[OP_FLUSH] = "flush",
	[OP_ATOMIC_WRITE] = "atomic_write",
};

const char * const fault_name[] = {
	[LOST] = "lost",
	[DUPLICATED] = "duplicated",
	[REORDERED] = "reordered",
	[CORRUPTED] = "corrupted",
	[ERRORS] = "errors",
};

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static const char *side(void)
{
	return chk.o.server ? "server" : "client";
}

/* Opened for each line: no file has to be open while the process moves. */
static void append(const char *path, const char *line)
{
	FILE *f = fopen(path, "a");

	if (!f)
		return;
	fputs(line, f);
	fclose(f);
}

void logmsg(const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int n;

	n = snprintf(line, sizeof(line), "%s: ", side());
	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n] = '\n';
	line[n + 1] = 0;
	if (chk.o.log)
		append(chk.o.log, line);
	else
		fputs(line, stderr);
}

void fault(enum fault f, uint64_t count, const struct conn *c, const char *fmt,
	   ...)
{
	static unsigned int lines;
	char text[384];
	va_list ap;

	chk.t.faults[f] += count;
	if (lines++ >= DETAILS_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (c)
		logmsg("%s: connection %u: %s", fault_name[f], c->idx, text);
	else
		logmsg("%s: %s", fault_name[f], text);
}

/* What was taken for lost came after all. */
void unfault(enum fault f, uint64_t count)
{
	chk.t.faults[f] -= count;
}

static uint64_t sum(const uint64_t *v)
{
	uint64_t s = 0;
	int i;

	for (i = 0; i < OP_NR; i++)
		s += v[i];
	return s;
}

void progress_line(uint64_t active_ns)
{
	const uint64_t *f = chk.t.faults;

	logmsg("t=%llu posted=%llu completed=%llu verified=%llu bytes=%llu "
	       "connections=%llu lost=%llu duplicated=%llu reordered=%llu "
	       "corrupted=%llu errors=%llu gap_ms=%llu cycles=%llu",
	       (ull)(active_ns / 1000000000), (ull)sum(chk.t.posted),
	       (ull)sum(chk.t.completed), (ull)sum(chk.t.verified),
	       (ull)chk.t.bytes, (ull)chk.t.connections, (ull)f[LOST],
	       (ull)f[DUPLICATED], (ull)f[REORDERED], (ull)f[CORRUPTED],
	       (ull)f[ERRORS], (ull)(chk.t.longest_gap_ns / 1000000),
	       (ull)chk.t.cycles);
}

bool faults_any(const struct totals *t)
{
	int i;

	for (i = 0; i < FAULT_NR; i++)
		if (t->faults[i])
			return true;
	return false;
}

static void compare(const char *what, const uint64_t *mine,
		    const uint64_t *theirs)
{
	int i;

	for (i = 0; i < OP_NR; i++)
		if (mine[i] != theirs[i])
			fault(ERRORS, 1, NULL, "totals: %s %s: %llu and %llu",
			      what, op_name[i], (ull)mine[i], (ull)theirs[i]);
}

/* Only says something new if no detector fired on either side. */
void totals_compare(void)
{
	if (!chk.peer_valid) {
		fault(ERRORS, 1, NULL, "the peer's totals did not arrive");
		return;
	}
	if (faults_any(&chk.t) || faults_any(&chk.peer))
		return;
	compare("posted here, completed here", chk.t.posted, chk.t.completed);
	compare("posted here, verified there", chk.t.posted,
		chk.peer.verified);
	compare("verified here, posted there", chk.t.verified,
		chk.peer.posted);
}

static int json_ops(char *s, size_t size, const char *name, const uint64_t *v)
{
	const char *sep = "";
	int i, n;

	n = snprintf(s, size, "\"%s\":{", name);
	for (i = 0; i < OP_NR; i++) {
		if (!op_in(i, chk.o.p.types))
			continue;
		n += snprintf(s + n, size - n, "%s\"%s\":%llu", sep,
			      op_name[i], (ull)v[i]);
		sep = ",";
	}
	n += snprintf(s + n, size - n, "},");
	return n;
}

static int json_totals(char *s, size_t size, const struct totals *t)
{
	int i, n;

	n = json_ops(s, size, "ops", t->completed);
	n += json_ops(s + n, size - n, "verified", t->verified);
	n += snprintf(s + n, size - n, "\"bytes\":%llu,", (ull)t->bytes);
	for (i = 0; i < FAULT_NR; i++)
		n += snprintf(s + n, size - n, "\"%s\":%llu,", fault_name[i],
			      (ull)t->faults[i]);
	n += snprintf(s + n, size - n,
		      "\"connections\":%llu,\"moves\":%llu,"
		      "\"longest_gap_ms\":%llu", (ull)t->connections,
		      (ull)t->moves, (ull)(t->longest_gap_ns / 1000000));
	if (t->cycles)
		n += snprintf(s + n, size - n, ",\"cycles\":%llu,"
			      "\"undone\":%llu,\"cycle_ms\":%llu,"
			      "\"longest_cycle_ms\":%llu",
			      (ull)t->cycles, (ull)t->undone,
			      (ull)(t->cycle_ns / t->cycles / 1000000),
			      (ull)(t->longest_cycle_ns / 1000000));
	return n;
}

/* Returns whether nothing at all was wrong, here and at the peer. */
bool report(void)
{
	bool ok = !faults_any(&chk.t) && chk.peer_valid &&
		  !faults_any(&chk.peer);
	bool child = chk.o.loopback && !chk.o.server;
	static char line[4096];
	char path[4096];
	size_t size = sizeof(line);
	int n;

	n = snprintf(line, size, "{\"role\":\"%s\",\"ok\":%s,\"seed\":%llu,"
		     "\"qps\":%u,", side(), ok ? "true" : "false",
		     (ull)chk.o.p.seed, chk.o.p.qps);
	n += json_totals(line + n, size - n, &chk.t);
	if (chk.peer_valid) {
		n += snprintf(line + n, size - n, ",\"peer\":{");
		n += json_totals(line + n, size - n, &chk.peer);
		n += snprintf(line + n, size - n, "}");
	}
	snprintf(line + n, size - n, "}\n");
	if (chk.o.output) {
		snprintf(path, sizeof(path), "%s%s", chk.o.output,
			 child ? ".client" : "");
		append(path, line);
	}
	/* in loopback mode the last line of the output is the server's */
	fputs(line, child ? stderr : stdout);
	fflush(stdout);
	return ok;
}
