// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/* One planted fault per run, on the first connection: proves the detectors. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "chk.h"

static const struct {
	const char *name;
	const char *expect;	/* the counter that must show it */
} plants[PLANT_NR] = {
	[PLANT_NONE] = { "none", "none" },
	[PLANT_LOST_SEND] = { "lost-send", "lost" },
	[PLANT_DUP_SEND] = { "dup-send", "duplicated" },
	[PLANT_REORDER_SEND] = { "reorder-send", "reordered" },
	[PLANT_CORRUPT_PAYLOAD] = { "corrupt-payload", "corrupted" },
	[PLANT_CORRUPT_IMM] = { "corrupt-imm", "corrupted" },
	[PLANT_SHORT_SEND] = { "short-send", "corrupted" },
	[PLANT_LOST_LAST] = { "lost-last", "lost" },
	[PLANT_LOST_WRITE] = { "lost-write", "lost" },
	[PLANT_DUP_WRITE] = { "dup-write", "duplicated" },
	[PLANT_REORDER_WRITE] = { "reorder-write", "reordered" },
	[PLANT_CORRUPT_WRITE] = { "corrupt-write", "corrupted" },
	[PLANT_STRAY_WRITE] = { "stray-write", "corrupted" },
	[PLANT_LOST_MW_WRITE] = { "lost-mw-write", "lost" },
	[PLANT_LOST_ATOMIC_WRITE] = { "lost-atomic-write", "lost" },
	[PLANT_LOST_ATOMIC] = { "lost-atomic", "lost" },
	[PLANT_DUP_ATOMIC] = { "dup-atomic", "duplicated" },
	[PLANT_LOST_SWAP] = { "lost-swap", "lost" },
	[PLANT_DUP_SWAP] = { "dup-swap", "duplicated" },
	[PLANT_EMPTY_READ] = { "empty-read", "lost" },
	[PLANT_EMPTY_ATOMIC] = { "empty-atomic", "lost" },
	[PLANT_LOST_CREDIT] = { "lost-credit", "lost" },
	[PLANT_DUP_CREDIT] = { "dup-credit", "duplicated" },
	[PLANT_CORRUPT_MEMORY] = { "corrupt-memory", "corrupted" },
	[PLANT_STALE_READ] = { "stale-read", "reordered" },
	[PLANT_CORRUPT_COUNTER] = { "corrupt-counter", "corrupted" },
	[PLANT_CORRUPT_SWAP] = { "corrupt-swap", "corrupted" },
	[PLANT_LOST_WC] = { "lost-completion", "lost" },
	[PLANT_DUP_WC] = { "dup-completion", "duplicated" },
	[PLANT_REORDER_WC] = { "reorder-completion", "reordered" },
	[PLANT_ERROR_WC] = { "error-completion", "errors" },
	[PLANT_LOST_LAST_WC] = { "lost-last-completion", "lost" },
	[PLANT_LOST_RECV_WC] = { "lost-receive", "lost" },
	[PLANT_DUP_RECV_WC] = { "dup-receive", "duplicated" },
	[PLANT_MISCOUNT] = { "miscount", "errors" },
};

static enum plant planted;
static uint64_t at = 40;
static bool done;

int plant_parse(const char *arg)
{
	size_t len = strcspn(arg, "@");
	int i;

	for (i = 1; i < PLANT_NR; i++) {
		if (strlen(plants[i].name) != len ||
		    strncmp(plants[i].name, arg, len))
			continue;
		planted = i;
		if (arg[len] == '@')
			at = strtoull(arg + len + 1, NULL, 0);
		return 0;
	}
	return -1;
}

void plant_list(void)
{
	int i;

	for (i = 1; i < PLANT_NR; i++)
		printf("%s %s\n", plants[i].name, plants[i].expect);
}

bool plant_is(enum plant kind)
{
	return planted == kind && !done && !(chk.o.loopback && chk.o.server);
}

bool plant(enum plant kind, const struct conn *c, uint64_t n)
{
	if (!plant_is(kind) || (c && c->idx) || n < at)
		return false;
	done = true;
	logmsg("planted %s at %llu", plants[kind].name, (unsigned long long)n);
	return true;
}

/* Misreport completions: what a broken queue would do. */
int plant_completions(struct ibv_wc *wc, int nr, bool send)
{
	static uint64_t seen;
	struct conn *c = chk.conn[0];
	int i;

	if (planted < PLANT_LOST_WC || planted > PLANT_DUP_RECV_WC || done)
		return nr;
	if (send != (planted < PLANT_LOST_RECV_WC))
		return nr;
	for (i = 0; i < nr; i++) {
		/* the first connection only; its index is 0 in wr_id */
		if (wc[i].wr_id >> 48)
			continue;
		seen++;
		if (plant(PLANT_LOST_WC, NULL, seen) ||
		    plant(PLANT_LOST_RECV_WC, NULL, seen) ||
		    (tx_stopped(c) && !c->fin_sent &&
		     wc[i].wr_id == c->tx.wr_posted - 1 &&
		     plant(PLANT_LOST_LAST_WC, NULL, UINT64_MAX))) {
			memmove(wc + i, wc + i + 1,
				(nr - i - 1) * sizeof(*wc));
			return nr - 1;
		}
		if (plant(PLANT_DUP_WC, NULL, seen) ||
		    plant(PLANT_DUP_RECV_WC, NULL, seen)) {
			memmove(wc + i + 1, wc + i, (nr - i) * sizeof(*wc));
			return nr + 1;
		}
		if (i + 1 < nr && !(wc[i + 1].wr_id >> 48) &&
		    plant(PLANT_REORDER_WC, NULL, seen)) {
			struct ibv_wc tmp = wc[i];

			wc[i] = wc[i + 1];
			wc[i + 1] = tmp;
			return nr;
		}
		if (plant(PLANT_ERROR_WC, NULL, seen)) {
			wc[i].status = IBV_WC_REM_OP_ERR;
			return nr;
		}
	}
	return nr;
}
