// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * restore SECONDS SEED STORED IMAGE...: restores mutated images of real contexts; before
 * that those of the file STORED (corpus/images).
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

#include "mutate.h"

#define MAX_IMAGES	64
#define MAX_HANDLES	1024

static struct image {
	const char *name;
	uint8_t *data;
	size_t len;
} images[MAX_IMAGES];

static uint64_t good[2], bad[2][134];

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
			args.fd = channels[mutate_below(num_channels)];
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

/* A word of a stored input: a change of one record, or one that is left out */
static unsigned int change(struct record *records, unsigned int n, const char *word)
{
	unsigned int which, offset, byte;
	int len = 0;

	if (sscanf(word, "%u+%u=%n", &which, &offset, &len) == 2 && len && which < n) {
		for (word += len; sscanf(word, "%2x", &byte) == 1 &&
		     offset < records[which].len; word += 2)
			records[which].data[offset++] = byte;
		if (!*word)
			return n;
	} else if (sscanf(word, "-%u%n", &which, &len) == 1 && !word[len] && which < n) {
		free(records[which].data);
		memmove(&records[which], &records[which + 1],
			(n - which - 1) * sizeof(*records));
		return n - 1;
	}
	fprintf(stderr, "a stored input has the word '%s'\n", word);
	exit(2);
}

static const struct image *image_named(const char *name)
{
	unsigned int i;

	for (i = 0; i != MAX_IMAGES && images[i].name; i++)
		if (!strcmp(strrchr(images[i].name, '/') + 1, name))
			return &images[i];
	fprintf(stderr, "a stored input is of the image '%s'\n", name);
	exit(2);
}

/* How many stored inputs there are */
static unsigned int replay(struct ibv_device *device, const char *name)
{
	struct record records[MAX_RECORDS];
	unsigned int n, count = 0;
	FILE *file = fopen(name, "r");
	const struct image *image;
	char line[1024], *word;

	if (!file) {
		perror(name);
		exit(2);
	}
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "#")] = 0;
		word = strtok(line, " \n");
		if (!word)
			continue;
		image = image_named(word);
		n = mutate_split(image->data, image->len, records);
		while ((word = strtok(NULL, " \n")))
			n = change(records, n, word);
		restore(device, image, records, n);
		mutate_free(records, n);
		count++;
	}
	fclose(file);
	return count;
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

	if (argc < 5 || !list || !list[0]) {
		fprintf(stderr, argc < 5 ? "usage: restore SECONDS SEED STORED IMAGE...\n" :
			"no device\n");
		return 2;
	}
	mutate_seed(strtoull(argv[2], NULL, 0));
	for (i = 4; i != (unsigned int)argc && num != MAX_IMAGES; i++)
		load(&images[num++], argv[i]);
	for (i = 0; i != num; i++)
		map_memory(&images[i]);

	printf("# %u stored inputs\n", replay(list[0], argv[3]));
	live = 0;
	for (end = time(NULL) + atoi(argv[1]); time(NULL) < end; rounds++) {
		k = mutate_below(num);
		n = mutate_split(images[k].data, images[k].len, records);
		n = mutate_records(records, n);
		for (i = 0; i != n; i++)
			low_handles(&records[i]);
		restore(list[0], &images[k], records, n);
		mutate_free(records, n);
	}
	report("create", 0);
	report("refill", 1);
	printf("# %lu of %lu contexts came to life\n", live, rounds);
	for (i = 0; i != num; i++) {
		n = mutate_split(images[i].data, images[i].len, records);
		k = restore(list[0], &images[i], records, n);
		if (k) {
			printf("# %s: %u steps of %u records fail\n",
			       images[i].name, k, n);
			status = 1;
		}
		mutate_free(records, n);
	}
	printf("%sok - %lu mutated images, seed %s\n", status ? "not " : "",
	       rounds, argv[2]);
	ibv_free_device_list(list);
	return status;
}
