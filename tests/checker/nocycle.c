// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/* In place of cycle.c where libibverbs cannot dump and restore. */
#include "chk.h"

const bool cycle_possible;

void cycle(void)
{
	logmsg("cycle: this program was built without it");
}
