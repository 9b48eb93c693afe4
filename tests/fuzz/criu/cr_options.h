/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
#include <stdbool.h>

enum { TASK_DEAD, TASK_ALIVE, TASK_STOPPED };

struct cr_options {
	bool lazy_pages, track_mem, stream;
	char *img_parent;
	int final_state;
};

extern struct cr_options opts;
