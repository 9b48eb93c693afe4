/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
/*
 * Changes of the snapshot of a context that leave most of it as it is.
 */
#ifndef MUTATE_H
#define MUTATE_H

#include <stddef.h>
#include <stdint.h>

#include "../../drivers/infiniband/sw/rxe/rxe_mig_uapi.h"

#define MAX_RECORDS	256

/* A copy, so that its neighbours are not read by mistake */
struct record {
	uint8_t *data;
	size_t len;
};

void mutate_seed(uint64_t seed);
uint64_t mutate_draw(void);
uint64_t mutate_below(uint64_t limit);
unsigned int mutate_split(const uint8_t *image, size_t len,
			  struct record *records);
unsigned int mutate_records(struct record *records, unsigned int n);
size_t mutate_join(uint8_t *image, size_t max, const struct record *records,
		   unsigned int n);
void mutate_free(struct record *records, unsigned int n);

#endif
