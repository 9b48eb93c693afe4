// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Fields, lengths and the order of records are changed, and their number.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mutate.h"

static uint64_t state;

void mutate_seed(uint64_t seed)
{
	state = seed * 2 + 1;
}

uint64_t mutate_draw(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

uint64_t mutate_below(uint64_t limit)
{
	return limit ? mutate_draw() % limit : 0;
}

static void *allocate(void *old, size_t len)
{
	void *new = realloc(old, len);

	if (!new) {
		perror("realloc");
		exit(2);
	}
	return new;
}

/* The records of a snapshot that is whole: one at least, that of the context */
unsigned int mutate_split(const uint8_t *image, size_t len,
			  struct record *records)
{
	const struct rxe_mig_hdr *hdr = (void *)image;
	const uint8_t *at = image + hdr->hdr_len;
	unsigned int n = 0;

	do {
		records[n].len = ((const struct rxe_mig_rec *)at)->len;
		records[n].data = allocate(NULL, records[n].len);
		memcpy(records[n].data, at, records[n].len);
		at += records[n++].len;
	} while (at < image + len && n != MAX_RECORDS);
	return n;
}

void mutate_free(struct record *records, unsigned int n)
{
	while (n--)
		free(records[n].data);
}

/*
 * The records behind the header of an image, with the right lengths: how long it is, 0
 * if not even the first has room
 */
size_t mutate_join(uint8_t *image, size_t max, const struct record *records,
		   unsigned int n)
{
	struct rxe_mig_hdr *hdr = (void *)image;
	size_t at = hdr->hdr_len;
	unsigned int i;

	for (i = 0; i != n && at + records[i].len <= max; i++) {
		memcpy(image + at, records[i].data, records[i].len);
		at += records[i].len;
	}
	hdr->count = i;
	hdr->total_len = at;
	return i ? at : 0;
}

static uint64_t interesting(void)
{
	static const uint64_t values[] = {
		0, 1, 2, 3, 4, 7, 8, 16, 31, 32, 63, 64, 127, 128, 255, 256,
		4095, 4096, 65535, 65536, 0x7fffff, 0x800000, 0xffffff,
		0x7fffffff, 0x80000000, 0xffffffff, 0x7fffffffffffffff,
		0x8000000000000000, 0xffffffffffffffff,
	};

	switch (mutate_below(3)) {
	case 0:
		return values[mutate_below(sizeof(values) / sizeof(*values))];
	case 1:
		return 1ull << mutate_below(64);
	}
	return mutate_draw();
}

/* One field of a record, a number more often than not */
static void mutate_field(struct record *r)
{
	static const unsigned int sizes[] = { 1, 2, 4, 4, 4, 4, 8, 8 };
	unsigned int size = sizes[mutate_below(8)];
	uint64_t value = interesting(), old = 0;
	size_t fixed, at;

	/* The fixed part first: the contents of rings are long. */
	fixed = mutate_below(4) ? 512 : r->len;
	if (fixed > r->len)
		fixed = r->len;
	/* Types other than their own are for mutate_order(). */
	at = (sizeof(uint32_t) + mutate_below(fixed - sizeof(uint32_t))) & -size;
	if (at + size > r->len)
		return;
	if (!mutate_below(3)) {
		memcpy(&old, r->data + at, size);
		value = old + (mutate_below(2) ? 1 : -1);
	}
	memcpy(r->data + at, &value, size);
}

static void mutate_length(struct record *r)
{
	struct rxe_mig_rec *rec;
	size_t len = mutate_below(2) ? mutate_below(r->len + 64) : (r->len & -8) - 8;

	if (len < sizeof(*rec))
		len = sizeof(*rec);
	r->data = allocate(r->data, len);
	if (len > r->len)
		memset(r->data + r->len, 0xa5, len - r->len);
	r->len = len;
	rec = (void *)r->data;
	if (mutate_below(4))
		rec->len = len;
}

static unsigned int mutate_order(struct record *records, unsigned int n)
{
	unsigned int a = mutate_below(n), b = mutate_below(n);
	struct record swap = records[a];

	switch (mutate_below(4)) {
	case 0:
		records[a] = records[b];
		records[b] = swap;
		break;
	case 1:
		if (n == 1)
			break;
		free(records[a].data);
		memmove(&records[a], &records[a + 1],
			(n - a - 1) * sizeof(*records));
		return n - 1;
	case 2:
		if (n == MAX_RECORDS)
			break;
		records[n].len = records[a].len;
		records[n].data = allocate(NULL, records[a].len);
		memcpy(records[n].data, records[a].data, records[a].len);
		return n + 1;
	default:
		((struct rxe_mig_rec *)records[a].data)->type = mutate_below(12);
	}
	return n;
}

unsigned int mutate_records(struct record *records, unsigned int n)
{
	unsigned int i, count = 1 + mutate_below(6);

	for (i = 0; i != count; i++) {
		struct record *r = &records[mutate_below(n)];

		switch (mutate_below(10)) {
		case 0:
			mutate_length(r);
			break;
		case 1:
			n = mutate_order(records, n);
			break;
		default:
			mutate_field(r);
		}
	}
	return n;
}
