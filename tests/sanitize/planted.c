// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/* A fault that the sanitizers have to report: an image longer than its buffer. */
#include <infiniband/verbs.h>
#include <stddef.h>

static char image[64];

int main(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_context *ctx = list && *list ? ibv_open_device(*list) : NULL;
	int count;

	if (!ctx)
		return 2;
	return ibv_dump_context(ctx, &count, image, 65536) ? 3 : 0;
}
