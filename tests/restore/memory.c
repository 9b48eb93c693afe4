// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * MRs whose memory was mapped otherwise since. Nobody's image holds the pages that
 * they have pinned, so they are refused, and nothing is stopped.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "suite.h"

#define LEN (4 * 4096)

struct change {
	void (*act)(uint8_t *mem);
	int flags;		/* of the mapping */
	unsigned int access;
};

static void *map(void *addr, int flags)
{
	void *p = mmap(addr, LEN, PROT_READ | PROT_WRITE,
		       MAP_ANONYMOUS | flags, -1, 0);

	check(p != MAP_FAILED, "mmap");
	memset(p, 0x33, LEN);
	return p;
}

static void remap(void *from, void *to)
{
	check(mremap(from, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to,
	      "mremap");
}

static void advise(void *mem, size_t len, int advice)
{
	check(!madvise(mem, len, advice), "madvise");
}

static void protect(void *mem, size_t len, int prot)
{
	check(!mprotect(mem, len, prot), "mprotect");
}

/* ---- other pages, or none ---- */

static void unmaps(uint8_t *mem)
{
	check(!munmap(mem, LEN), "munmap");
}

static void unmaps_last(uint8_t *mem)
{
	check(!munmap(mem + LEN - 4096, 4096), "munmap");
}

static void maps_over(uint8_t *mem)
{
	map(mem, MAP_PRIVATE | MAP_FIXED);
}

static void moves(uint8_t *mem)
{
	remap(mem, map(NULL, MAP_PRIVATE));
}

static void moved_over(uint8_t *mem)
{
	remap(map(NULL, MAP_PRIVATE), mem);
}

static void discards(uint8_t *mem)
{
	advise(mem, LEN, MADV_DONTNEED);
}

static void discards_and_uses(uint8_t *mem)
{
	advise(mem, LEN, MADV_DONTNEED);
	memset(mem, 0x33, LEN);
}

static void discards_one(uint8_t *mem)
{
	advise(mem + 2 * 4096, 4096, MADV_DONTNEED);
}

static void punches(uint8_t *mem)
{
	advise(mem, LEN, MADV_REMOVE);
	memset(mem, 0x33, LEN);
}

/* ---- the same pages, which could not be registered so ---- */

static void read_only(uint8_t *mem)
{
	protect(mem, LEN, PROT_READ);
}

static void no_access(uint8_t *mem)
{
	protect(mem + 4096, 4096, PROT_NONE);
}

/* ---- the same pages ---- */

static void moves_and_back(uint8_t *mem)
{
	uint8_t *other = map(NULL, MAP_PRIVATE);

	remap(mem, other);
	remap(other, mem);
}

static void protects_and_back(uint8_t *mem)
{
	protect(mem, LEN, PROT_NONE);
	protect(mem, LEN, PROT_READ | PROT_WRITE);
}

static struct ibv_mr *make_changed(void)
{
	const struct change *change = this_test->arg;
	uint8_t *mem = map(NULL, change->flags);
	struct ibv_mr *mr;

	o.ctx = open_device(device);
	/* With another MR, to which nothing happens */
	s_all();
	check((mr = ibv_reg_mr(o.pd, mem, LEN, change->access)), "reg_mr");
	dump(o.ctx, 0);
	check0(context_cmd(o.ctx, IBV_RESTORE_CANCEL));
	change->act(mem);
	return mr;
}

static void c_stale(void)
{
	struct ibv_mr *mr = make_changed();

	refused_dump(o.ctx, EOPNOTSUPP, RXE_MIG_REC_MR, mr->handle,
		     IBV_DUMP_REASON_STALE_MR, mr->lkey, "no longer mapped");
	still_works();
	check0(ibv_dereg_mr(mr));
	expect(0, dump_error(o.ctx, 1), "dump without it");
}

static void c_not_stale(void)
{
	make_changed();
	dump(o.ctx, 1);
	compare(0, 1, true);
}

#define CASE_OF(fn_, name_, act_, flags_, access_)                             \
	{ name_, fn_, .arg = &(const struct change){ act_, flags_, access_ } }
#define STALE(name, act, flags)                                                \
	CASE_OF(c_stale, "stale MR: " name, act, flags, REMOTE)
#define GOOD(name, act, flags)                                                 \
	CASE_OF(c_not_stale, "no stale MR: " name, act, flags, REMOTE)

const struct test memory_tests[] = {
	STALE("munmap", unmaps, MAP_PRIVATE),
	STALE("munmap, shared", unmaps, MAP_SHARED),
	STALE("munmap of the last page", unmaps_last, MAP_PRIVATE),
	STALE("mmap over it", maps_over, MAP_PRIVATE),
	STALE("mremap", moves, MAP_PRIVATE),
	STALE("mremap, shared", moves, MAP_SHARED),
	STALE("mremap of something else", moved_over, MAP_PRIVATE),
	STALE("MADV_DONTNEED", discards, MAP_PRIVATE),
	STALE("MADV_DONTNEED, then used", discards_and_uses, MAP_PRIVATE),
	STALE("MADV_DONTNEED of one page", discards_one, MAP_PRIVATE),
	STALE("MADV_REMOVE, shared", punches, MAP_SHARED),
	STALE("mprotect, read only", read_only, MAP_PRIVATE),
	STALE("mprotect, one page without access", no_access, MAP_SHARED),
	GOOD("mremap and back", moves_and_back, MAP_PRIVATE),
	GOOD("MADV_DONTNEED, shared", discards, MAP_SHARED),
	GOOD("mprotect and back", protects_and_back, MAP_PRIVATE),
	CASE_OF(c_not_stale, "no stale MR: mprotect, read only, MR too",
		read_only, MAP_PRIVATE, 0),
	{}
};
