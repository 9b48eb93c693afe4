// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/* Migration of the own context in the middle of the traffic. */
#include <errno.h>
#include <stdlib.h>
#include "../verbs/selfmig.h"
#include "chk.h"

const bool cycle_possible = true;

void cycle(void)
{
	uint64_t start = now_ns(), took;
	int err = selfmig_cycle(chk.dev.ctx, NULL);

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
	took = now_ns() - start;
	chk.t.cycles++;
	chk.t.cycle_ns += took;
	if (took > chk.t.longest_cycle_ns)
		chk.t.longest_cycle_ns = took;
}
