/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
int criu_get_image_dir(void);
