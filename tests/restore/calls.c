// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Arguments of ibv_dump_context() and ibv_restore_object(), but records.
 */
#include <fcntl.h>

#include "suite.h"

static void c_wrong_channel(void)
{
	struct ibv_context *ctx, *other;
	struct ibv_restore_args args = { .fd = -1 };
	struct ibv_comp_channel *channel;
	struct rxe_mig_rec *rec;
	struct sig before;
	int null;

	make_image(s_all);
	ctx = open_device(device);
	other = open_device(device);
	check((channel = ibv_create_comp_channel(other)), "channel");
	null = open("/dev/null", O_RDWR);
	create_types(ctx, FROM(CONTEXT) & ~FROM(CQ));
	rec = find(0, RXE_MIG_REC_CQ);
	before = sig_of(ctx);
	args.fd = 999;
	expect(EBADF, restore_args(ctx, rec, IBV_RESTORE_CREATE, &args),
	       "an fd that is not open");
	args.fd = channel->fd;
	expect(EBADF, restore_args(ctx, rec, IBV_RESTORE_CREATE, &args),
	       "the channel of another context");
	args.fd = null;
	expect(EBADF, restore_args(ctx, rec, IBV_RESTORE_CREATE, &args),
	       "a file that is no channel");
	args.fd = ctx->async_fd;
	expect(EBADF, restore_args(ctx, rec, IBV_RESTORE_CREATE, &args),
	       "the asynchronous event file");
	same_sig(before, sig_of(ctx), "wrong channels");
	check0(create(ctx, rec));
}

static void c_unknown(void)
{
	struct {
		struct ibv_restore_args args;
		uint64_t more;
	} big = { .args.fd = -1 };
	struct ibv_restore_args *args = &big.args;
	struct ibv_context *ctx;
	const struct rxe_mig_rec *pd;
	struct sig before;
	int i;

	make_image(s_pd);
	ctx = open_device(device);
	pd = find(0, RXE_MIG_REC_PD);
	before = sig_of(ctx);
	args->record = pd;
	args->record_len = pd->len;
	for (i = -1; i <= 0; i++)
		expect(EOPNOTSUPP, ibv_restore_object(ctx, NULL, i,
		       IBV_RESTORE_CREATE, args, sizeof(*args)), "type");
	expect(EOPNOTSUPP, ibv_restore_object(ctx, NULL, RXE_MIG_REC_MW + 1,
	       IBV_RESTORE_CREATE, args, sizeof(*args)), "next type");
	expect(EOPNOTSUPP, ibv_restore_object(ctx, NULL, RXE_MIG_REC_PD, -1,
	       args, sizeof(*args)), "command -1");
	expect(EOPNOTSUPP, ibv_restore_object(ctx, NULL, RXE_MIG_REC_CONTEXT,
	       IBV_RESTORE_ADOPT + 1, args, sizeof(*args)), "next command");
	for (i = IBV_RESTORE_RESUME; i <= IBV_RESTORE_ADOPT; i++)
		expect(EOPNOTSUPP, ibv_restore_object(ctx, NULL, RXE_MIG_REC_PD,
		       i, args, sizeof(*args)), "command of the context");
	args->comp_mask = 1 << 3;
	expect(EOPNOTSUPP, ibv_restore_object(ctx, NULL, RXE_MIG_REC_PD,
	       IBV_RESTORE_CREATE, args, sizeof(*args)), "comp_mask");
	args->comp_mask = 0;
	args->flags = IBV_RESTORE_CHECK;
	expect(EOPNOTSUPP, ibv_restore_object(ctx, NULL, RXE_MIG_REC_PD,
	       IBV_RESTORE_CREATE, args, sizeof(*args)), "flags of CREATE");
	args->flags = 1 << 2;
	expect(EOPNOTSUPP, ibv_restore_object(ctx, NULL, RXE_MIG_REC_CONTEXT,
	       IBV_RESTORE_RESUME, args, sizeof(*args)), "flags of RESUME");
	args->flags = 0;
	big.more = 1;
	expect(EOPNOTSUPP, ibv_restore_object(ctx, NULL, RXE_MIG_REC_PD,
	       IBV_RESTORE_CREATE, &big, sizeof(big)), "newer member");
	same_sig(before, sig_of(ctx), "unknown things");
	big.more = 0;
	check0(ibv_restore_object(ctx, NULL, RXE_MIG_REC_PD, IBV_RESTORE_CREATE,
				  &big, sizeof(big)));
}

static void c_identify(void)
{
	struct ibv_context *ctx = open_device(device);
	struct ibv_context *other = open_device(device);
	const struct {
		int fd;
		int err;
		const char *what;
	} fds[] = {
		{ -1, EBADF, "-1" },
		{ 999, EBADF, "an fd that is not open" },
		{ open("/dev/null", O_RDWR), ENOENT, "another file" },
		{ other->cmd_fd, ENOENT, "another context" },
		{ other->async_fd, ENOENT, "its event file" },
		{ ctx->cmd_fd, 0, "the context" },
		{ ctx->async_fd, 0, "the event file" },
	};
	unsigned int i;

	for (i = 0; i != sizeof(fds) / sizeof(*fds); i++) {
		struct ibv_restore_args args = { .fd = fds[i].fd };

		expect(fds[i].err, ibv_restore_object(ctx, NULL,
		       IBV_RESTORE_TYPE_CONTEXT, IBV_RESTORE_IDENTIFY, &args,
		       sizeof(args)), fds[i].what);
	}
}

static void c_small_buffer(void)
{
	struct rxe_mig_hdr *hdr = hdr_of(0);
	int count, all, i, sizes[8], n = 0;
	uint64_t len;

	o.ctx = open_device(device);
	s_all_events();
	expect(0, ibv_dump_context(o.ctx, &all, NULL, 0), "check");
	expect(0, ibv_dump_context(o.ctx, NULL, NULL, 0), "check, no count");
	expect(ENOSPC, ibv_dump_context(o.ctx, &count, hdr, 64), "64 bytes");
	len = hdr->total_len;
	sizes[n++] = 0;
	sizes[n++] = 1;
	sizes[n++] = 63;
	sizes[n++] = 64;
	sizes[n++] = sizeof(struct ibv_dump_refusal);
	sizes[n++] = len / 2;
	sizes[n++] = len - 1;
	for (i = 0; i != n; i++) {
		struct sig before = sig_of(o.ctx);
		size_t used = sizes[i] < 64 ? 0 : 64, j;

		memset(area[0], 0xa5, len + 64);
		count = 0;
		expect(ENOSPC, ibv_dump_context(o.ctx, &count, area[0],
						sizes[i]), "small buffer");
		if (count != all)
			bad("count %d instead of %d", count, all);
		if (used && (hdr->total_len != len ||
			     hdr->count != (uint32_t)all ||
			     hdr->magic != RXE_MIG_MAGIC))
			bad("%d bytes: wrong header", sizes[i]);
		for (j = used; j != len + 64; j++)
			if (area[0][j] != 0xa5) {
				bad("%d bytes: byte %zu was written", sizes[i],
				    j);
				break;
			}
		/* Not dumped, so this is an error */
		expect(EINVAL, context_cmd(o.ctx, IBV_RESTORE_CANCEL),
		       "CANCEL after ENOSPC");
		same_sig(before, sig_of(o.ctx), "small buffer");
	}
	memset(area[0] + len, 0xa5, 64);
	expect(0, ibv_dump_context(o.ctx, &count, area[0], len), "just enough");
	check_image(0, count);
	if (area[0][len] != 0xa5)
		bad("bytes behind the buffer were written");
}

const struct test call_tests[] = {
	{ "EBADF: wrong channel of a CQ", c_wrong_channel },
	{ "EOPNOTSUPP: unknown types, commands and members", c_unknown },
	{ "IDENTIFY of other files", c_identify },
	{ "ENOSPC: small buffers", c_small_buffer },
	{}
};
