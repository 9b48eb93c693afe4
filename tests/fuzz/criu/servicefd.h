/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
enum { FDSTORE_SK_OFF };

int close_service_fd(int which);
