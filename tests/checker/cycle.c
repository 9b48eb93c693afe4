// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/* Migration of the own context in the middle of the traffic. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include "../verbs/selfmig.h"
#include "chk.h"

const bool cycle_possible = true;

static int whole(void)
{
	struct selfmig *m;
	int err = selfmig_stop(chk.dev.ctx, &m);

	if (err)
		return err;
	err = selfmig_leave(m);
	if (err)
		return err;
	usleep(chk.o.cycle_gap * 1000);
	err = selfmig_restore(m);
	return err ?: selfmig_resume(m, 0);
}

static int cancelled(void)
{
	struct selfmig *m;
	int err = selfmig_stop(chk.dev.ctx, &m);

	if (err)
		return err;
	usleep(chk.o.cycle_gap * 1000);
	return selfmig_cancel(m);
}

#define LEASE_SECONDS	6	/* LEASE_GRACE, and some */

/* Whether the next cycle comes to nothing, and what became of it */
static bool undone(int *err)
{
	static uint64_t number;

	if (!chk.o.cycle_faults)
		return false;
	switch (mix64(chk.o.p.seed + (++number << 1 | chk.o.server)) % 12) {
	case 0:
		*err = cancelled();
		return true;
	case 1:
		*err = selfmig_fail(chk.dev.ctx);
		return true;
	case 2:
		*err = selfmig_lose(chk.dev.ctx);
		return true;
	case 3:
		*err = selfmig_lose(chk.dev.ctx);
		sleep(LEASE_SECONDS);
		return true;
	default:
		return false;
	}
}

void cycle(void)
{
	uint64_t start = now_ns(), took;
	bool done;
	int err;

	done = !undone(&err);
	if (done)
		err = whole();
	if (err == -EOPNOTSUPP || err == -EPERM) {
		fault(ERRORS, 1, NULL, "cycle: %s", selfmig_error());
		chk.aborted = true;
		return;
	}
	if (err) {
		/* what is left of the context can only be waited for */
		logmsg("cycle %llu: %s", (unsigned long long)chk.t.cycles,
		       selfmig_error());
		exit(3);
	}
	if (!done) {
		chk.t.undone++;
		return;
	}
	took = now_ns() - start;
	chk.t.cycles++;
	chk.t.cycle_ns += took;
	if (took > chk.t.longest_cycle_ns)
		chk.t.longest_cycle_ns = took;
}
