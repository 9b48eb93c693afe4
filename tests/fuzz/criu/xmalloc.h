/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
#include <stdlib.h>

#define xmalloc malloc
#define xzalloc(size) calloc(1, size)
#define xrealloc realloc
#define xfree free
