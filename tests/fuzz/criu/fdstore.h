/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
int fdstore_add(int fd);
int fdstore_get(int id);
