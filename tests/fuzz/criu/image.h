/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
int add_inventory_plugin(const char *name);
