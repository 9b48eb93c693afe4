// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Dumps and their images, and what must not change by a call that fails.
 */
#include <sys/wait.h>

#include "suite.h"

struct rxe_mig_hdr *hdr_of(int n)
{
	return (void *)area[n];
}

struct rxe_mig_rec *first_of(int n)
{
	return (void *)(area[n] + hdr_of(n)->hdr_len);
}

static uint32_t crc32(const uint8_t *p, size_t len)
{
	static uint32_t table[256];
	uint32_t crc = ~0U, i, j;

	if (!table[1])
		for (i = 0; i != 256; i++) {
			table[i] = i;
			for (j = 0; j != 8; j++)
				table[i] = table[i] >> 1 ^
					   (table[i] & 1 ? 0xedb88320 : 0);
		}
	for (; len; len--, p++)
		crc = crc >> 8 ^ table[(crc ^ *p) & 0xff];
	return ~crc;
}

/* What holds of images of all versions */
void check_records(int n, int count)
{
	struct rxe_mig_hdr *hdr = hdr_of(n);
	uint32_t type = 0, num = 0;
	struct rxe_mig_rec *rec;

	if (hdr->crc != crc32(area[n] + hdr->hdr_len,
			      hdr->total_len - hdr->hdr_len))
		bad("wrong crc");
	for_each_rec(n, rec) {
		if (rec->len % 8 || rec->len < sizeof(*rec))
			die("record %u has length %llu", num, rec->len);
		if (rec->type < type || rec->type > RXE_MIG_REC_MW)
			bad("record of type %u after one of %u", rec->type,
			    type);
		type = rec->type;
		num++;
	}
	if (num != hdr->count || num != (uint32_t)count)
		bad("%u records, %u in the header, %d returned", num,
		    hdr->count, count);
}

void check_image(int n, int count)
{
	struct rxe_mig_hdr *hdr = hdr_of(n);

	if (hdr->magic != RXE_MIG_MAGIC || hdr->version != RXE_MIG_VERSION ||
	    hdr->hdr_len != sizeof(*hdr) || hdr->features || hdr->reserved[0] ||
	    hdr->reserved[1] || hdr->reserved[2] ||
	    hdr->page_size != sysconf(_SC_PAGESIZE))
		bad("wrong header");
	check_records(n, count);
}

int dump_error(struct ibv_context *ctx, int n)
{
	int count = 0;
	int ret = ibv_dump_context(ctx, &count, area[n], AREA_LEN);

	if (!ret)
		check_image(n, count);
	return ret;
}

void dump(struct ibv_context *ctx, int n)
{
	int ret = dump_error(ctx, n);

	if (ret)
		die("dump: %s %.112s", err_name(ret), ret == EOPNOTSUPP ?
		    ((struct ibv_dump_refusal *)area[n])->text : "");
}

struct rxe_mig_rec *find(int n, uint32_t type)
{
	struct rxe_mig_rec *rec;

	for_each_rec(n, rec)
		if (rec->type == type)
			return rec;
	die("no record of type %u", type);
}

/* A copy that may be changed, with room behind it */
void *copy_of(const struct rxe_mig_rec *rec)
{
	void *copy = calloc(1, rec->len + 64);

	check(copy, "memory");
	memcpy(copy, rec, rec->len);
	return copy;
}

int context_cmd(struct ibv_context *ctx, int cmd)
{
	return ibv_restore_object(ctx, NULL, IBV_RESTORE_TYPE_CONTEXT, cmd,
				  NULL, 0);
}

/* Objects made by setup() are dumped into image 0; nothing else is left */
void make_image(void (*setup)(void))
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	check(pid >= 0, "fork");
	if (!pid) {
		alarm(CASE_LIMIT);
		failures = 0;
		o.ctx = open_device(device);
		setup();
		dump(o.ctx, 0);
		check0(context_cmd(o.ctx, IBV_RESTORE_COMMIT));
		_exit(!!failures);
	}
	check(waitpid(pid, &status, 0) == pid, "wait");
	if (status)
		die("the objects could not be dumped");
}

/* ---- what must not change ---- */

struct sig sig_of(struct ibv_context *ctx)
{
	struct rxe_mig_hdr hdr = {};
	struct sig sig = {};
	FILE *pipe;
	int ret;

	if (ctx) {
		ret = ibv_dump_context(ctx, &sig.count, &hdr, sizeof(hdr));
		if (ret != ENOSPC)
			die("check of the context: %s", err_name(ret));
		sig.len = hdr.total_len;
	}
	pipe = popen("rdma resource show", "r");
	check(pipe, "rdma");
	ret = fread(sig.resources, 1, sizeof(sig.resources) - 1, pipe);
	check(!pclose(pipe) && ret > 0, "rdma resource show");
	return sig;
}

void same_sig(struct sig a, struct sig b, const char *what)
{
	if (a.count != b.count || a.len != b.len)
		bad("%s: %d records of %llu bytes before, %d of %llu after",
		    what, a.count, (unsigned long long)a.len, b.count,
		    (unsigned long long)b.len);
	if (strcmp(a.resources, b.resources))
		bad("%s: objects before:\n# %.200s\n# and after:\n# %.200s",
		    what, a.resources, b.resources);
}
