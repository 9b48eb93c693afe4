// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * plugin SECONDS SEED SNAPSHOT CORPUS: dump and restore by criu's plugin, with the sanitizers.
 * plugin --image DIRECTORY: restore images that a release has written.
 *
 * The plugin's code is that of criu/plugin but for the hooks; criu, libibverbs and what
 * the kernel says of mappings are made up here. One process, this one, has a context whose
 * snapshot is the file. It is dumped into the directory "images"; what was written must
 * restore, each record once, and is then restored again and again, mutated, from the
 * directory "mutated": whatever that contains, the plugin may refuse it and nothing else.
 * Every eighth time a mutated snapshot is dumped. Each time is a process of its own.
 *
 * CORPUS has numbers, each of which makes one time what it is; these are done first.
 * Those that have reached code that none before had are written to the file "found".
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "cr_options.h"
#include "criu-plugin.h"
#include "fdstore.h"
#include "image.h"
#include "mutate.h"
#include "pstree.h"
#include "rdma_plugin.h"
#include "servicefd.h"

#define MAX_FILES	64
/* The device's file: one that nobody else has open */
#define UVERBS		"/dev/full"

FILE *fuzz_log;

/* What the kernel has: a snapshot, and where its rings are mapped */
static uint8_t *base;
static size_t base_len;
static struct ring {
	void *start;
	uint64_t pgoff;
} rings[MAX_FILES];
static unsigned int num_rings;
/* The files of the process; the first is the context's. */
static int files[MAX_FILES];
static unsigned int num_files;
/* Does something fail of itself, now and then? */
static bool faults;
static unsigned int created, refilled, went_live;
static volatile uint64_t sink;

/* How often each edge was passed, by clang; was it ever, of all processes, and how many */
static uint8_t *passed, *passed_end;
static struct {
	unsigned int edges;
	uint8_t seen[];
} *all;

static void __attribute__((noreturn)) give_up(void)
{
	perror("plugin");
	exit(2);
}

static void *the(void *some)
{
	if (!some)
		give_up();
	return some;
}

void __sanitizer_cov_8bit_counters_init(char *start, char *end);

void __sanitizer_cov_8bit_counters_init(char *start, char *end)
{
	passed = (void *)start;
	passed_end = (void *)end;
}

static void note_edges(void)
{
	uint8_t *edge;

	for (edge = passed; edge != passed_end; edge++)
		if (*edge && !all->seen[edge - passed]) {
			all->seen[edge - passed] = 1;
			all->edges++;
		}
}

/* ---- criu ---- */

static struct pid pid;
static struct pstree_item item = { .pid = &pid };
struct pstree_item *current = &item;
struct cr_options opts;
static int dir, mutated;	/* of images */
static int stored[MAX_FILES];
static int num_stored;

int criu_get_image_dir(void)
{
	return dir;
}

int add_inventory_plugin(const char *name)
{
	return 0;
}

int close_service_fd(int which)
{
	return 0;
}

int fdstore_add(int fd)
{
	if (num_stored == MAX_FILES)
		return -1;
	stored[num_stored] = dup(fd);
	return stored[num_stored] < 0 ? -1 : num_stored++;
}

int fdstore_get(int id)
{
	return id < 0 || id >= num_stored ? -1 : dup(stored[id]);
}

/* ---- the keeper: nobody dies ---- */

static bool going;

int rdma_keeper_start(void)
{
	return 0;
}

void rdma_keeper_going(bool now)
{
	going = now;
}

bool rdma_keeper_end(void)
{
	return going;
}

/* ---- libibverbs ---- */

static bool fault(void)
{
	return faults && !mutate_below(512);
}

static int some_error(void)
{
	static const int errors[] = { EBUSY, EPERM, EOPNOTSUPP, EINVAL, ENOMEM };

	return errors[mutate_below(sizeof(errors) / sizeof(*errors))];
}

static void use(const void *data, size_t len)
{
	const uint8_t *bytes = data;

	while (len--)
		sink += *bytes++;
}

static struct ibv_device **fake_list(int *num)
{
	static struct ibv_device device = { .name = "rxe0", .dev_name = "uverbs0" };
	static struct ibv_device second = { .name = "rxe1", .dev_name = "uverbs0" };
	static struct ibv_device *list[3];

	list[0] = fault() ? NULL : &device;
	list[1] = faults && mutate_below(2) ? &second : NULL;
	return list;
}

static struct ibv_context *make_context(int fd)
{
	struct ibv_context *ctx = the(calloc(1, sizeof(*ctx)));

	ctx->cmd_fd = fd;
	ctx->async_fd = eventfd(0, 0);
	return ctx;
}

static struct ibv_context *fake_open(struct ibv_device *device)
{
	return fault() ? NULL : make_context(open(UVERBS, O_RDWR));
}

static struct ibv_context *fake_import(int fd)
{
	return fault() ? NULL : make_context(fd);
}

static int fake_close(struct ibv_context *ctx)
{
	close(ctx->cmd_fd);
	if (ctx->async_fd >= 0)
		close(ctx->async_fd);
	free(ctx);
	return 0;
}

static const struct rxe_mig_rec *next_record(const struct rxe_mig_rec *rec)
{
	const struct rxe_mig_hdr *hdr = (void *)base;
	const uint8_t *at = rec ? (void *)rec + rec->len : base + hdr->hdr_len;

	return at < base + base_len ? (const void *)at : NULL;
}

/* The device has all addresses that the snapshot uses. */
static ssize_t fake_gids(struct ibv_context *ctx, struct ibv_gid_entry *entries,
			 size_t max, uint32_t flags, size_t size)
{
	const struct rxe_mig_rec *rec;
	ssize_t n = 0;

	for (rec = next_record(NULL); rec && n != (ssize_t)max; rec = next_record(rec)) {
		const uint8_t *gid = NULL;

		if (rec->type == RXE_MIG_REC_QP)
			gid = ((const struct rxe_mig_qp_rec *)rec)->pri_av.sgid;
		else if (rec->type == RXE_MIG_REC_AH)
			gid = ((const struct rxe_mig_ah *)rec)->av.sgid;
		if (gid)
			memcpy(entries[n++].gid.raw, gid, 16);
	}
	return fault() ? -1 : n;
}

/* Its text need not end. */
static void refuse(struct rdma_dump_refusal *refusal)
{
	memset(refusal, 'x', sizeof(*refusal));
	refusal->type = mutate_below(12);
	refusal->reason = mutate_below(12);
	if (mutate_below(2))
		strcpy(refusal->text, "it is busy");
}

static int fake_dump(struct ibv_context *ctx, int *count, void *buf, size_t len)
{
	const struct rxe_mig_hdr *hdr = (void *)base;

	if (fault()) {
		*count = mutate_below(2) ? -1 : 0;
		if (len >= sizeof(struct rdma_dump_refusal))
			refuse(buf);
		return some_error();
	}
	*count = hdr->count;
	memcpy(buf, base, len < base_len ? len : base_len);
	return len < base_len ? ENOSPC : 0;
}

static int fake_restore(struct ibv_context *ctx, void **object, int type, int cmd,
			void *data, size_t len)
{
	struct rdma_restore_args *args = data;

	if (fault()) {
		if (args && args->refusal)
			refuse(args->refusal);
		return some_error();
	}
	switch (cmd) {
	case RDMA_RESTORE_CREATE:
	case RDMA_RESTORE_REFILL:
		use(args->record, args->record_len);
		if (cmd == RDMA_RESTORE_REFILL) {
			refilled++;
			break;
		}
		created++;
		if (type == RXE_MIG_REC_CHANNEL || type == RXE_MIG_REC_ASYNC)
			args->fd = eventfd(0, 0);
		break;
	case RDMA_RESTORE_RESUME:
		went_live += !(args->flags & RDMA_RESTORE_CHECK);
		break;
	case RDMA_RESTORE_IDENTIFY:
		/* The second file of the process is that of events. */
		args->type = args->fd == files[1] ? RXE_MIG_REC_ASYNC : RXE_MIG_REC_CHANNEL;
		args->handle = 0;
		break;
	}
	return 0;
}

/* ---- the C library (criu/fake.h) ---- */

/* The disk is not waited for. */
int fake_fsync(int fd)
{
	return 0;
}

void *fake_dlopen(const char *name, int flags)
{
	return fault() ? NULL : (void *)1;
}

void *fake_dlvsym(void *lib, const char *name, const char *version)
{
	static const struct {
		const char *name;
		void *function;
	} symbols[] = {
		{ "ibv_get_device_list", fake_list },
		{ "ibv_open_device", fake_open },
		{ "ibv_close_device", fake_close },
		{ "_ibv_query_gid_table", fake_gids },
		{ "ibv_import_device", fake_import },
		{ "ibv_dump_context", fake_dump },
		{ "ibv_restore_object", fake_restore },
	};
	unsigned int i;

	for (i = 0; i != sizeof(symbols) / sizeof(*symbols); i++)
		if (!strcmp(symbols[i].name, name))
			return symbols[i].function;
	return NULL;
}

/* The restored process is this one. */
int fake_kill(pid_t pid, int sig)
{
	return 0;
}

/* Files of events */
ssize_t fake_readlink(const char *path, char *target, size_t len)
{
	static const char ours[] = "anon_inode:[eventfd]";
	ssize_t n = (readlink)(path, target, len);

	if (n == strlen(ours) && !memcmp(target, ours, n) && len > 2 * n)
		return sprintf(target, "anon_inode:[infinibandevent]");
	return n;
}

/* Mappings of the device, which are of a plain file here; and its file */
int fake_stat(const char *path, struct stat *st)
{
	const char *range = strstr(path, "/map_files/");
	unsigned int i;

	if (!range)
		return (stat)(strstr(path, "/infiniband/") ? UVERBS : path, st);
	for (i = 0; i != num_rings; i++)
		if (strtoull(range + 11, NULL, 16) == (uintptr_t)rings[i].start)
			return (stat)(UVERBS, st);
	errno = ENOENT;
	return -1;
}

/* Memory whose bounds are looked after */
void *fake_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	if (fd >= 0)
		return (mmap)(addr, len, prot, flags, fd, offset);
	return (len < 1 << 24 ? calloc(1, len) : NULL) ?: MAP_FAILED;
}

int fake_munmap(void *addr, size_t len)
{
	free(addr);
	return 0;
}

/* ---- the snapshot ---- */

static void fix_crc(uint8_t *image, size_t len)
{
	struct rxe_mig_hdr *hdr = (void *)image;

	hdr->crc = crc32_z(0, image + hdr->hdr_len, len - hdr->hdr_len);
}

static void load(const char *name)
{
	struct rxe_mig_rec *rec;
	FILE *file = the(fopen(name, "rb"));

	base = the(malloc(1 << 20));
	base_len = fread(base, 1, 1 << 20, file);
	fclose(file);
	/* Its memory was of a process that is long gone. */
	for (rec = (void *)next_record(NULL); rec; rec = (void *)next_record(rec))
		if (rec->type == RXE_MIG_REC_MR)
			((struct rxe_mig_mr *)rec)->owner = pid.real;
	fix_crc(base, base_len);
}

static void mutate_snapshot(void)
{
	struct record records[MAX_RECORDS];
	unsigned int n = mutate_split(base, base_len, records);
	size_t at, i;

	n = mutate_records(records, n);
	/* A length that would take from the next record, or the last one further */
	if (!mutate_below(4)) {
		i = mutate_below(4) ? mutate_below(n) : n - 1;
		((struct rxe_mig_rec *)records[i].data)->len += 8 * mutate_below(1024) - 512;
	}
	base_len = mutate_join(base, 1 << 20, records, n);
	mutate_free(records, n);
	if (!mutate_below(8))
		((struct rxe_mig_hdr *)base)->count += mutate_below(2) ? 1 : -1;
	if (!mutate_below(8))
		for (i = 1 + mutate_below(4); i; i--)
			base[mutate_below(sizeof(struct rxe_mig_hdr))] ^= 1 << mutate_below(8);
	if (mutate_below(8)) {
		/* hdr_len may be anything now. */
		at = ((struct rxe_mig_hdr *)base)->hdr_len;
		if (at <= base_len)
			fix_crc(base, base_len);
	}
}

/* ---- the process that is dumped ---- */

static void add_ring(const struct rxe_mig_ring *ring, int fd)
{
	if (!ring->mmap_size || num_rings == MAX_FILES)
		return;
	rings[num_rings].pgoff = ring->mmap_offset;
	rings[num_rings].start = (mmap)(NULL, ring->mmap_size, PROT_READ, MAP_SHARED,
					fd, ring->mmap_offset);
	if (rings[num_rings++].start == MAP_FAILED)
		give_up();
}

static void make_process(void)
{
	const struct rxe_mig_ring *of[2];
	const struct rxe_mig_rec *rec;
	int i, file = memfd_create("rings", MFD_CLOEXEC);

	files[num_files++] = open(UVERBS, O_RDWR);
	files[num_files++] = eventfd(0, 0);
	for (rec = next_record(NULL); rec; rec = next_record(rec)) {
		if (rec->type == RXE_MIG_REC_CHANNEL)
			files[num_files++] = eventfd(0, 0);
		for (i = rdma_record_rings(rec, of); i--;)
			add_ring(of[i], file);
	}
}

static int dump(void)
{
	unsigned int i;
	struct stat st;
	int ret = rdma_dump_tree();

	if (fstat(files[0], &st))
		give_up();
	if (!ret)
		ret = rdma_dump_vma(&st);
	for (i = 0; !ret && i != num_files; i++)
		ret = rdma_dump_file(files[i], i + 1);
	rdma_dump_finish(ret);
	return ret;
}

/* ---- restore, as criu does it ---- */

static int restore(void)
{
	unsigned int i;
	int fd, ret = rdma_restore_init();

	for (i = 0; !ret && i != num_files; i++) {
		fd = rdma_restore_file(i + 1);
		if (fd >= 0)
			close(fd);
		else
			ret = fd;
	}
	for (i = 0; !ret && i != num_rings; i++) {
		uint64_t pgoff;

		ret = rdma_restore_vma("/dev/infiniband/uverbs0", (uintptr_t)rings[i].start,
				       rings[i].pgoff, &pgoff, &fd) != 1;
		if (!ret)
			close(fd);
	}
	if (!ret)
		ret = rdma_resume_task(pid.real);
	if (!ret)
		ret = rdma_resume();
	rdma_restore_finish(ret);
	return ret || !went_live;
}

/* ---- the other images ---- */

static void mutate_number(uint32_t *number)
{
	if (!mutate_below(64))
		*number = mutate_below(3) ? mutate_below(8) : mutate_draw();
}

static void mutate_bytes(const char *name)
{
	int fd = openat(dir, name, O_RDWR);
	struct stat st;
	uint8_t byte;
	size_t len, i;

	if (fd < 0 || fstat(fd, &st))
		give_up();
	len = st.st_size;
	for (i = mutate_below(4); len && i; i--) {
		size_t at = mutate_below(len);

		if (pread(fd, &byte, 1, at) != 1)
			give_up();
		byte ^= 1 << mutate_below(8);
		if (pwrite(fd, &byte, 1, at) != 1)
			give_up();
	}
	if (!mutate_below(4) && ftruncate(fd, mutate_below(len + 16)))
		give_up();
	close(fd);
}

static void mutate_context(RdmaContextEntry *context)
{
	size_t i;

	mutate_number(&context->id);
	for (i = 0; i != context->n_holders; i++)
		mutate_number(&context->holders[i]);
	for (i = 0; i != context->n_vmas; i++) {
		mutate_number(&context->vmas[i]->pid);
		if (!mutate_below(64))
			context->vmas[i]->pgoff = mutate_draw();
	}
	if (!mutate_below(64))
		context->n_vmas = 0;
}

/* Read from the one directory, written into the other */
static void mutate_entries(void)
{
	RdmaFileEntry *entries[MAX_FILES];
	RdmaEntry *entry = the(rdma_image_read_entry());
	RdmaContextEntry *contexts[3];
	unsigned int i, n = num_files;

	for (i = 0; i != n; i++)
		entries[i] = the(rdma_image_find_file(i + 1));
	for (i = 0; i != entry->n_tasks; i++) {
		mutate_number(&entry->tasks[i]->real);
		mutate_number(&entry->tasks[i]->virt);
	}
	dir = mutated;
	mutate_context(entry->contexts[0]);
	/* More of them, of the same images or of none */
	for (i = 0; i != 3; i++)
		contexts[i] = entry->contexts[0];
	entry->contexts = contexts;
	if (!mutate_below(16))
		entry->n_contexts = mutate_below(4);
	mutate_number(&entry->version);
	if (rdma_image_write_entry(entry))
		give_up();
	for (i = 0; i != n; i++) {
		if (!mutate_below(64))
			entries[i]->kind = 1 + mutate_below(4);
		mutate_number(&entries[i]->id);
		mutate_number(&entries[i]->context);
		mutate_number(&entries[i]->handle);
		mutate_number(&entries[i]->flags);
		if (mutate_below(64) && rdma_image_add_file(entries[i]))
			give_up();
	}
}

static int restore_mutated(void)
{
	char name[32];

	mutate_entries();
	if (mutate_below(2))
		mutate_snapshot();
	snprintf(name, sizeof(name), RDMA_CONTEXT_IMG, 0);
	if (rdma_image_write(name, base, base_len) ||
	    rdma_image_set_state(RDMA_STATE_COMPLETE))
		give_up();
	switch (mutate_below(32)) {
	case 0:
		mutate_bytes(RDMA_IMG);
		break;
	case 1:
		mutate_bytes(RDMA_FILES_IMG);
		break;
	case 2:
		mutate_bytes(RDMA_STATE_IMG);
		break;
	}
	return restore();
}

static int dump_mutated(void)
{
	dir = mutated;
	mutate_snapshot();
	return dump();
}

/* ---- */

/* In a process of its own: it has begun anew each time. Exits if that fails. */
static int run(int (*what)(void), uint64_t seed)
{
	int status;
	pid_t child = fork();

	if (!child) {
		mutate_seed(seed);
		status = what() ? 3 : 0;
		note_edges();
		_exit(status);
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		give_up();
	if (WIFEXITED(status) && (!WEXITSTATUS(status) || WEXITSTATUS(status) == 3))
		return WEXITSTATUS(status);
	printf("not ok - status %#x, seed %llu, time %llu\n", status,
	       (unsigned long long)seed >> 32, (unsigned long long)seed & 0xffffffff);
	exit(1);
}

/* Each record is created once, and all but files without events are filled. */
static int restore_all(void)
{
	const struct rxe_mig_hdr *hdr = (void *)base;
	int ret = restore();

	if (!ret && created == hdr->count && refilled <= created && went_live == 1)
		return 0;
	fprintf(stderr, "restored: %u of %u records, %u filled, %u contexts went live\n",
		created, hdr->count, refilled, went_live);
	return 1;
}

/* Nothing fails of itself. */
static void good(int (*what)(void), const char *name)
{
	if (!run(what, 0))
		return;
	printf("not ok - %s as it is was refused\n", name);
	exit(1);
}

/* The process is the one that is in images, and has the files and mappings that they have. */
static int restore_stored(const char *name)
{
	RdmaContextEntry *context;
	RdmaFileEntry *file;
	RdmaEntry *entry;
	char path[256];

	dir = open(name, O_DIRECTORY);
	if (dir < 0)
		give_up();
	entry = the(rdma_image_read_entry());
	context = entry->contexts[0];
	pid.real = pid.virt = entry->tasks[0]->virt;
	snprintf(path, sizeof(path), "%s/" RDMA_CONTEXT_IMG, name, context->id);
	load(path);
	while (num_files != MAX_FILES && (file = rdma_image_find_file(num_files + 1))) {
		files[num_files++] = -1;
		rdma_file_entry__free_unpacked(file, NULL);
	}
	for (; num_rings != context->n_vmas && num_rings != MAX_FILES; num_rings++) {
		rings[num_rings].start = (void *)(uintptr_t)context->vmas[num_rings]->start;
		rings[num_rings].pgoff = context->vmas[num_rings]->pgoff;
	}
	rdma_entry__free_unpacked(entry, NULL);
	good(restore_all, name);
	printf("ok - %s\n", name);
	return 0;
}

static int directory(const char *name)
{
	int fd;

	mkdir(name, 0700);
	fd = open(name, O_DIRECTORY);
	if (fd < 0)
		give_up();
	return fd;
}

static unsigned long times[2][2];

/* The lower half counts the times of a seed. */
static bool one(uint64_t number)
{
	unsigned int edges = all->edges;
	bool dumps = number % 8 == 0;

	times[dumps][!!run(dumps ? dump_mutated : restore_mutated, number)]++;
	return all->edges != edges;
}

int main(int argc, char **argv)
{
	unsigned int before;
	time_t start, last;
	char line[256];
	FILE *corpus, *found;
	uint64_t i, seed;

	if (argc != 5 && (argc != 3 || strcmp(argv[1], "--image"))) {
		fprintf(stderr, "usage: plugin SECONDS SEED SNAPSHOT CORPUS | --image DIRECTORY\n");
		return 2;
	}
	all = (mmap)(NULL, sizeof(*all) + (passed_end - passed), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (all == MAP_FAILED)
		give_up();
	fuzz_log = the(fopen("log", "w"));
	setlinebuf(fuzz_log);
	setenv("CRIU_RDMA_GID_TIMEOUT", "0", 1);
	if (argc == 3)
		return restore_stored(argv[2]);
	dir = directory("images");
	mutated = directory("mutated");
	pid.real = pid.virt = getpid();
	load(argv[3]);
	make_process();
	good(dump, "a snapshot");
	good(restore_all, "a dump");
	faults = true;
	corpus = the(fopen(argv[4], "r"));
	found = the(fopen("found", "w"));
	setlinebuf(found);
	while (fgets(line, sizeof(line), corpus)) {
		if (*line != '#' && one(strtoull(line, NULL, 16)))
			fputs(line, found);
	}
	fclose(corpus);
	before = all->edges;
	seed = strtoull(argv[2], NULL, 0) << 32;
	start = last = time(NULL);
	for (i = 1; time(NULL) < start + atoi(argv[1]); i++)
		if (one(seed | i)) {
			last = time(NULL);
			fprintf(found, "%llx\n", (unsigned long long)(seed | i));
		}
	fclose(found);
	printf("# %u edges with the corpus, then %u, the last after %lld s\n",
	       before, all->edges, (long long)(last - start));
	printf("ok - %lu restored and %lu refused, %lu dumped and %lu refused, seed %s\n",
	       times[0][0], times[0][1], times[1][0], times[1][1], argv[2]);
	return 0;
}
