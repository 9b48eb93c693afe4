// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * restore SECONDS SEED IMAGE...: restores mutated images of real contexts.
 *
 * Nothing is expected of an image that was mutated but that the kernel stays
 * well: what restore reads is untrusted [SEC-6]. In the end the images as they
 * are must restore. Prints how often each step succeeded and failed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <infiniband/verbs.h>

#include "../../drivers/infiniband/sw/rxe/rxe_mig_uapi.h"

#define MAX_RECORDS	256
#define MAX_IMAGES	64
#define MAX_HANDLES	1024

static struct image {
	const char *name;
	uint8_t *data;
	size_t len;
} images[MAX_IMAGES];

/* A record is a copy, so that its neighbours are not read by mistake. */
struct record {
	uint8_t *data;
	size_t len;
};

static uint64_t state;
static uint64_t good[2], bad[2][134];

static uint64_t draw(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static uint64_t below(uint64_t limit)
{
	return limit ? draw() % limit : 0;
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

static void load(struct image *image, const char *name)
{
	FILE *file = fopen(name, "rb");
	const struct rxe_mig_hdr *hdr;

	if (!file || fseek(file, 0, SEEK_END)) {
		perror(name);
		exit(2);
	}
	image->name = name;
	image->len = ftell(file);
	image->data = allocate(NULL, image->len);
	if (fseek(file, 0, SEEK_SET) ||
	    fread(image->data, 1, image->len, file) != image->len) {
		perror(name);
		exit(2);
	}
	fclose(file);
	hdr = (void *)image->data;
	if (image->len < sizeof(*hdr) || hdr->magic != RXE_MIG_MAGIC ||
	    hdr->total_len != image->len || hdr->hdr_len >= image->len) {
		fprintf(stderr, "%s: not an image\n", name);
		exit(2);
	}
}

/* The memory regions of an image need memory where they had it. */
static void map_memory(const struct image *image)
{
	const struct rxe_mig_hdr *hdr = (void *)image->data;
	const uint8_t *at = image->data + hdr->hdr_len;

	for (; at < image->data + image->len;
	     at += ((const struct rxe_mig_rec *)at)->len) {
		const struct rxe_mig_mr *mr = (void *)at;
		uint64_t page = getpagesize(), start, end;

		if (mr->rec.type != RXE_MIG_REC_MR || !mr->length)
			continue;
		start = mr->start & -page;
		end = (mr->start + mr->length + page - 1) & -page;
		/* It may be there, of another region. */
		for (; start != end; start += page)
			mmap((void *)start, page, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			     -1, 0);
	}
}

/* An image has one record at least, that of the context. */
static unsigned int split(const struct image *image, struct record *records)
{
	const struct rxe_mig_hdr *hdr = (void *)image->data;
	const uint8_t *at = image->data + hdr->hdr_len;
	unsigned int n = 0;

	do {
		records[n].len = ((const struct rxe_mig_rec *)at)->len;
		records[n].data = allocate(NULL, records[n].len);
		memcpy(records[n].data, at, records[n].len);
		at += records[n++].len;
	} while (at < image->data + image->len && n != MAX_RECORDS);
	return n;
}

static uint64_t interesting(void)
{
	static const uint64_t values[] = {
		0, 1, 2, 3, 4, 7, 8, 16, 31, 32, 63, 64, 127, 128, 255, 256,
		4095, 4096, 65535, 65536, 0x7fffff, 0x800000, 0xffffff,
		0x7fffffff, 0x80000000, 0xffffffff, 0x7fffffffffffffff,
		0x8000000000000000, 0xffffffffffffffff,
	};

	switch (below(3)) {
	case 0:
		return values[below(sizeof(values) / sizeof(*values))];
	case 1:
		return 1ull << below(64);
	}
	return draw();
}

/* One field of a record, a number more often than not */
static void mutate_field(struct record *r)
{
	static const unsigned int sizes[] = { 1, 2, 4, 4, 4, 4, 8, 8 };
	unsigned int size = sizes[below(8)];
	uint64_t value = interesting(), old = 0;
	size_t fixed, at;

	/* The fixed part first: the contents of rings are long. */
	fixed = below(4) ? 512 : r->len;
	if (fixed > r->len)
		fixed = r->len;
	/* Types other than their own are for mutate_order(). */
	at = (sizeof(uint32_t) + below(fixed - sizeof(uint32_t))) & -size;
	if (at + size > r->len)
		return;
	if (!below(3)) {
		memcpy(&old, r->data + at, size);
		value = old + (below(2) ? 1 : -1);
	}
	memcpy(r->data + at, &value, size);
}

static void mutate_length(struct record *r)
{
	struct rxe_mig_rec *rec;
	size_t len = below(2) ? below(r->len + 64) : (r->len & -8) - 8;

	if (len < sizeof(*rec))
		len = sizeof(*rec);
	r->data = allocate(r->data, len);
	if (len > r->len)
		memset(r->data + r->len, 0xa5, len - r->len);
	r->len = len;
	rec = (void *)r->data;
	if (below(4))
		rec->len = len;
}

static unsigned int mutate_order(struct record *records, unsigned int n)
{
	unsigned int a = below(n), b = below(n);
	struct record swap = records[a];

	switch (below(4)) {
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
		((struct rxe_mig_rec *)records[a].data)->type = below(12);
	}
	return n;
}

/*
 * To place a handle takes an object for each one below it: a high one is slow, and
 * nothing else is learned from it.
 */
static void low_handles(struct record *r)
{
	struct rxe_mig_context *ctx = (void *)r->data;
	struct rxe_mig_rec *rec = (void *)r->data;

	rec->handle %= MAX_HANDLES;
	if (rec->type == RXE_MIG_REC_CONTEXT && r->len >= sizeof(*ctx) &&
	    ctx->max_handle != RXE_MIG_NONE)
		ctx->max_handle %= MAX_HANDLES;
}

static unsigned int mutate(struct record *records, unsigned int n)
{
	unsigned int i, count = 1 + below(6);

	for (i = 0; i != count; i++) {
		struct record *r = &records[below(n)];

		switch (below(10)) {
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
	for (i = 0; i != n; i++)
		low_handles(&records[i]);
	return n;
}

/* One step; what it made is in args */
static int step(struct ibv_context *ctx, const struct record *r, int cmd,
		struct ibv_restore_args *args)
{
	uint32_t type = ((const struct rxe_mig_rec *)r->data)->type;
	int err;

	args->record = r->data;
	args->record_len = r->len;
	err = ibv_restore_object(ctx, NULL, type, cmd, args, sizeof(*args));
	if (err)
		bad[cmd != IBV_RESTORE_CREATE][err < 133 ? err : 133]++;
	else
		good[cmd != IBV_RESTORE_CREATE]++;
	return err;
}

/* The record of the image that this one was made of, if that can be said */
static const struct rxe_mig_rec *original(const struct image *image,
					  const struct record *r)
{
	const struct rxe_mig_rec *rec = (void *)r->data, *at;
	const struct rxe_mig_hdr *hdr = (void *)image->data;
	const uint8_t *p = image->data + hdr->hdr_len;

	for (; p < image->data + image->len; p += at->len) {
		at = (const void *)p;
		if (at->type == rec->type && at->handle == rec->handle)
			return at;
	}
	return NULL;
}

/*
 * What the kernel refuses is done with the original: else nothing would come to
 * life of an image with one bad field.
 */
static int step_anyhow(struct ibv_context *ctx, const struct image *image,
		       const struct record *r, int cmd,
		       struct ibv_restore_args *args)
{
	const struct rxe_mig_rec *rec;
	int err = step(ctx, r, cmd, args);

	if (!err)
		return 0;
	rec = original(image, r);
	if (rec) {
		args->record = rec;
		args->record_len = rec->len;
		ibv_restore_object(ctx, NULL, rec->type, cmd, args,
				   sizeof(*args));
	}
	return err;
}

static void look_at_ring(struct ibv_context *ctx,
			 const struct ibv_restore_ring *ring)
{
	volatile uint8_t *map;

	if (!ring->length || ring->length > 1 << 24)
		return;
	map = mmap(NULL, ring->length, PROT_READ | PROT_WRITE, MAP_SHARED,
		   ctx->cmd_fd, ring->offset);
	if (map == MAP_FAILED)
		return;
	(void)map[0];
	(void)map[ring->length - 1];
	munmap((void *)map, ring->length);
}

static unsigned long live;		/* contexts */

/* Returns the number of steps that failed */
static unsigned int restore(struct ibv_device *device,
			    const struct image *image,
			    const struct record *records, unsigned int n)
{
	struct ibv_context *ctx = ibv_open_device(device);
	int fds[MAX_RECORDS], channels[MAX_RECORDS];
	unsigned int i, pass, failed = 0, num_channels = 0;

	if (!ctx) {
		perror("ibv_open_device");
		exit(1);
	}
	for (i = 0; i != n; i++) {
		const struct rxe_mig_rec *rec = (void *)records[i].data;
		struct ibv_restore_args args = { .fd = -1 };

		fds[i] = -1;
		if (rec->type == RXE_MIG_REC_CQ && num_channels &&
		    records[i].len >= sizeof(struct rxe_mig_cq) &&
		    ((const struct rxe_mig_cq *)rec)->channel != RXE_MIG_NONE)
			args.fd = channels[below(num_channels)];
		failed += !!step_anyhow(ctx, image, &records[i],
					IBV_RESTORE_CREATE, &args);
		if (rec->type == RXE_MIG_REC_CHANNEL ||
		    rec->type == RXE_MIG_REC_ASYNC)
			fds[i] = args.fd;
		if (rec->type == RXE_MIG_REC_CHANNEL && args.fd >= 0)
			channels[num_channels++] = args.fd;
		look_at_ring(ctx, &args.ring[0]);
		look_at_ring(ctx, &args.ring[1]);
	}
	for (pass = 0; pass != 2; pass++)
		for (i = 0; i != n; i++) {
			const struct rxe_mig_rec *rec = (void *)records[i].data;
			bool events = rec->type == RXE_MIG_REC_CHANNEL ||
				      rec->type == RXE_MIG_REC_ASYNC;
			struct ibv_restore_args args = { .fd = fds[i] };

			if (events == (pass == 1))
				failed += !!step_anyhow(ctx, image, &records[i],
							IBV_RESTORE_REFILL,
							&args);
		}
	/* A QP without an address here stays stopped: that is no failure. */
	live += !ibv_restore_object(ctx, NULL, IBV_RESTORE_TYPE_CONTEXT,
				    IBV_RESTORE_RESUME, NULL, 0);
	for (i = 0; i != n; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	ibv_close_device(ctx);
	return failed;
}

static void report(const char *what, unsigned int which)
{
	unsigned int i;

	printf("# %s: %lu succeeded", what, good[which]);
	for (i = 0; i != 134; i++)
		if (bad[which][i])
			printf(", %lu %s", bad[which][i],
			       i == 133 ? "?" : strerrorname_np(i));
	printf("\n");
}

int main(int argc, char **argv)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	unsigned int i, k, n, num = 0;
	struct record records[MAX_RECORDS];
	unsigned long rounds = 0;
	int status = 0;
	time_t end;

	if (argc < 4 || !list || !list[0]) {
		fprintf(stderr, argc < 4 ? "usage: restore SECONDS SEED IMAGE...\n" :
			"no device\n");
		return 2;
	}
	state = strtoull(argv[2], NULL, 0) * 2 + 1;
	for (i = 3; i != (unsigned int)argc && num != MAX_IMAGES; i++)
		load(&images[num++], argv[i]);
	for (i = 0; i != num; i++)
		map_memory(&images[i]);

	for (end = time(NULL) + atoi(argv[1]); time(NULL) < end; rounds++) {
		k = below(num);
		n = split(&images[k], records);
		n = mutate(records, n);
		restore(list[0], &images[k], records, n);
		for (k = 0; k != n; k++)
			free(records[k].data);
	}
	report("create", 0);
	report("refill", 1);
	printf("# %lu of %lu contexts came to life\n", live, rounds);
	for (i = 0; i != num; i++) {
		n = split(&images[i], records);
		k = restore(list[0], &images[i], records, n);
		if (k) {
			printf("# %s: %u steps of %u records fail\n",
			       images[i].name, k, n);
			status = 1;
		}
		for (k = 0; k != n; k++)
			free(records[k].data);
	}
	printf("%sok - %lu mutated images, seed %s\n", status ? "not " : "",
	       rounds, argv[2]);
	ibv_free_device_list(list);
	return status;
}
