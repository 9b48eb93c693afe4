// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * decoder: what criu's plugin reads of its images, for libFuzzer. The first byte
 * of an input says which image the rest is: 0 the snapshot of a context, 1 the
 * entry of all, 2 that of the files. "decoder --seeds DIRECTORY" writes inputs of
 * the last two to begin with.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "criu-plugin.h"
#include "mutate.h"
#include "rdma_plugin.h"

FILE *fuzz_log;
static int dir = -1;
static volatile uint64_t sink;
static unsigned long good, changed;	/* snapshots */

int criu_get_image_dir(void)
{
	return dir;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max,
			       unsigned int seed);

/* NAME of the images directory as an input of this kind */
static void write_seed(const char *to, char kind, const char *name)
{
	struct rdma_snapshot raw;
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", to, name);
	file = fopen(path, "wb");
	if (!file || rdma_image_map(name, &raw) || fputc(kind, file) == EOF ||
	    fwrite(raw.data, raw.len, 1, file) != 1 || fclose(file))
		abort();
}

/* What a dump of one process with one context writes */
static void write_seeds(const char *to)
{
	RdmaFileEntry file = RDMA_FILE_ENTRY__INIT;
	RdmaContextEntry context = RDMA_CONTEXT_ENTRY__INIT, *contexts = &context;
	RdmaTaskEntry task = RDMA_TASK_ENTRY__INIT, *tasks = &task;
	RdmaVmaEntry vma = RDMA_VMA_ENTRY__INIT, *vmas = &vma;
	RdmaEntry entry = RDMA_ENTRY__INIT;
	uint32_t holder = 7;

	task.real = 1234;
	task.virt = holder;
	vma.pid = holder;
	vma.start = 0x7f0000000000;
	vma.pgoff = 0x1000;
	context.device = "rxe0";
	context.n_holders = 1;
	context.holders = &holder;
	context.n_vmas = 1;
	context.vmas = &vmas;
	entry.version = RDMA_IMG_VERSION;
	entry.n_tasks = 1;
	entry.tasks = &tasks;
	entry.n_contexts = 1;
	entry.contexts = &contexts;
	if (rdma_image_write_entry(&entry))
		abort();
	for (file.id = 3; file.id; file.id--) {
		file.has_context = true;
		file.kind = file.id;
		if (rdma_image_add_file(&file))
			abort();
	}
	write_seed(to, 1, RDMA_IMG);
	write_seed(to, 2, RDMA_FILES_IMG);
	exit(0);
}

static void report(void)
{
	fprintf(stderr, "decoder: %lu snapshots read, %lu changed by records\n",
		good, changed);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static char path[] = "/dev/shm/decoder.XXXXXX";

	fuzz_log = fopen("/dev/null", "w");
	if (!mkdtemp(path))
		abort();
	dir = open(path, O_DIRECTORY);
	if (!fuzz_log || dir < 0)
		abort();
	if (*argc == 3 && !strcmp((*argv)[1], "--seeds"))
		write_seeds((*argv)[2]);
	atexit(report);
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

		good++;
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

/* Can it be taken apart? */
static bool whole(const uint8_t *data, size_t len)
{
	struct rdma_snapshot snap = { .data = (void *)data, .len = len };

	fix_crc(&snap);
	return !rdma_snapshot_check(&snap, "fuzz");
}

/*
 * Half of the snapshots are changed record by record, and have the right lengths
 * afterwards; else hardly one would get past its header.
 */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max,
			       unsigned int seed)
{
	struct record records[MAX_RECORDS];
	uint8_t *snap;
	uint32_t rest;
	unsigned int n;

	if (len > 1 && !*data && seed % 2) {
		/* Records are aligned */
		snap = malloc(max);
		memcpy(snap, data + 1, len - 1);
		if (whole(snap, len - 1)) {
			changed++;
			mutate_seed(seed);
			n = mutate_split(snap, len - 1, records);
			n = mutate_records(records, n);
			len = 1 + (mutate_join(snap, max - 1, records, n) ?: len - 1);
			mutate_free(records, n);
			memcpy(data + 1, snap, len - 1);
			free(snap);
			return len;
		}
		free(snap);
	}
	len = LLVMFuzzerMutate(data, len, max);
	/* The length of what follows magic and length */
	if (len > 9 && *data == 1 && seed % 4) {
		rest = len - 9;
		memcpy(data + 5, &rest, sizeof(rest));
	}
	return len;
}
