// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * decoder: what criu's plugin reads of its images, for libFuzzer. The first byte
 * of an input says which image the rest is: 0 the snapshot of a context, 1 the
 * entry of all, 2 that of the files.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "criu-plugin.h"
#include "rdma_plugin.h"

FILE *fuzz_log;
static int dir = -1;
static volatile uint64_t sink;

int criu_get_image_dir(void)
{
	return dir;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static char path[] = "/dev/shm/decoder.XXXXXX";

	(void)argc;
	(void)argv;
	fuzz_log = fopen("/dev/null", "w");
	if (!mkdtemp(path))
		abort();
	dir = open(path, O_DIRECTORY);
	if (!fuzz_log || dir < 0)
		abort();
	return 0;
}

static void use(const void *data, size_t len)
{
	const uint8_t *bytes = data;

	while (len--)
		sink += *bytes++;
}

/* Else no mutation would get past it */
static void fix_crc(struct rdma_snapshot *snap)
{
	struct rxe_mig_hdr *hdr = snap->data;

	if (snap->len >= sizeof(*hdr) && hdr->hdr_len <= snap->len)
		hdr->crc = crc32_z(0, snap->data + hdr->hdr_len, snap->len - hdr->hdr_len);
}

/* All that restore reads of a snapshot that was found good */
static void snapshot(const uint8_t *data, size_t len)
{
	struct rdma_snapshot snap = { .data = malloc(len ?: 1), .len = len };
	const struct rxe_mig_rec *rec;

	memcpy(snap.data, data, len);
	fix_crc(&snap);
	if (!rdma_snapshot_check(&snap, "fuzz")) {
		const struct rxe_mig_context *context =
			(const void *)rdma_snapshot_next(&snap, NULL);

		use(context->gids, context->num_gids * sizeof(context->gids[0]));
		for_each_record(rec, &snap) {
			const struct rxe_mig_ring *rings[2];
			int i, n = rdma_record_rings(rec, rings);

			use(rec, rec->len);
			for (i = 0; i != n; i++)
				use(rings[i], sizeof(*rings[i]));
			sink += rdma_record_number(rec);
		}
	}
	free(snap.data);
}

static void put(const char *name, const uint8_t *data, size_t len)
{
	int fd = openat(dir, name, O_CREAT | O_TRUNC | O_WRONLY, 0600);

	if (fd < 0 || write(fd, data, len) != (ssize_t)len)
		abort();
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	RdmaFileEntry *file;
	RdmaEntry *entry;

	if (!len)
		return 0;
	switch (*data) {
	case 0:
		snapshot(data + 1, len - 1);
		break;
	case 1:
		put(RDMA_IMG, data + 1, len - 1);
		entry = rdma_image_read_entry();
		if (entry)
			rdma_entry__free_unpacked(entry, NULL);
		break;
	case 2:
		put(RDMA_FILES_IMG, data + 1, len - 1);
		file = rdma_image_find_file(1);
		if (file)
			rdma_file_entry__free_unpacked(file, NULL);
		break;
	}
	return 0;
}
