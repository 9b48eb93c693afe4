/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
/* What the plugin takes from criu, for decoder.c and plugin.c */
#ifndef CRIU_LOG_H
#define CRIU_LOG_H

#include <stdio.h>

/* Formatted, so that a string that does not end is found. */
extern FILE *fuzz_log;
#define pr_err(...) fprintf(fuzz_log, __VA_ARGS__)
#define pr_perror(...) fprintf(fuzz_log, __VA_ARGS__)
#define pr_warn(...) fprintf(fuzz_log, __VA_ARGS__)
#define pr_info(...) fprintf(fuzz_log, __VA_ARGS__)
#define pr_debug(...) fprintf(fuzz_log, __VA_ARGS__)

#endif
