// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/* The tracepoints of rxe_mig_trace.h are defined once, here. */
#define CREATE_TRACE_POINTS
#include "rxe_mig_trace.h"
