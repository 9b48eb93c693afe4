/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
/*
 * Faults for scripts/analyser, to see that it finds them. Where it has to say
 * something, there is a comment.
 */
#include <infiniband/verbs.h>
#include <stdlib.h>
#include <string.h>

int planted_pointer(struct ibv_qp *qp)
{
	if (!qp)
		return qp->qp_num;	/* found */
	return 0;
}

int planted_leak(size_t len)
{
	char *copy = malloc(len);

	return copy ? 1 : 0;	/* found */
}

void planted_free(char *buf)
{
	free(buf);
	free(buf);	/* found */
}

int planted_value(int some)
{
	int value;

	if (some > 3)
		value = some;
	return value;	/* found */
}
