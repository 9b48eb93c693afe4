// SPDX-License-Identifier: GPL-2.0
/*
 * Device files, devices and their addresses, and the administrator's wishes
 * about them. A device's name and minor number differ from host to host: the
 * destination is the device that has the addresses the connections use.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "rdma_plugin.h"

#ifndef RDMA_CONF
#define RDMA_CONF "/etc/criu/rdma.conf"
#endif

#define RDMA_DEV_DIR	    "/dev/infiniband"
#define ANON_INODE_FS_MAGIC 0x09041934

struct rdma_options rdma_opts = { .gid_timeout = 5 };

static int option_name(char *to, const char *from, size_t len, const char *where)
{
	if (!len || len >= IBV_SYSFS_NAME_MAX) {
		pr_err("%s: bad device name '%.*s'\n", where, (int)len, from);
		return -1;
	}
	memcpy(to, from, len);
	to[len] = 0;
	return 0;
}

static int option_map(const char *from, size_t from_len, const char *to, size_t to_len, const char *where)
{
	unsigned int i = rdma_opts.nr_map;

	if (from_len == 1 && *from == '*')
		return option_name(rdma_opts.device, to, to_len, where);
	if (i == sizeof(rdma_opts.map) / sizeof(rdma_opts.map[0])) {
		pr_err("%s: too many devices\n", where);
		return -1;
	}
	if (option_name(rdma_opts.map[i].from, from, from_len, where) ||
	    option_name(rdma_opts.map[i].to, to, to_len, where))
		return -1;
	rdma_opts.nr_map++;
	return 0;
}

static int option_bool(const char *value, bool *to, const char *where)
{
	if (!strcmp(value, "yes") || !strcmp(value, "1"))
		*to = true;
	else if (!strcmp(value, "no") || !strcmp(value, "0"))
		*to = false;
	else {
		pr_err("%s: '%s' is neither yes nor no\n", where, value);
		return -1;
	}
	return 0;
}

static int option_seconds(const char *value, const char *where)
{
	char *end;
	unsigned long n = strtoul(value, &end, 10);

	if (!isdigit(*value) || *end || n > 3600) {
		pr_err("%s: '%s' is not a number of seconds\n", where, value);
		return -1;
	}
	rdma_opts.gid_timeout = n;
	return 0;
}

static int read_conf(const char *path)
{
	char line[256], where[PATH_MAX], *word[4], *save;
	int nr, number = 0, ret = 0;
	FILE *f;

	f = fopen(path, "re");
	if (!f) {
		if (errno == ENOENT)
			return 0;
		pr_perror("Can't open %s", path);
		return -1;
	}

	while (!ret && fgets(line, sizeof(line), f)) {
		snprintf(where, sizeof(where), "%s:%d", path, ++number);
		line[strcspn(line, "#\n")] = 0;
		nr = 0;
		for (char *w = strtok_r(line, " \t", &save); w && nr < 4; w = strtok_r(NULL, " \t", &save))
			word[nr++] = w;
		if (!nr)
			continue;
		if (nr == 3 && !strcmp(word[0], "device"))
			ret = option_map(word[1], strlen(word[1]), word[2], strlen(word[2]), where);
		else if (nr == 2 && !strcmp(word[0], "new-address"))
			ret = option_bool(word[1], &rdma_opts.new_address, where);
		else if (nr == 2 && !strcmp(word[0], "gid-timeout"))
			ret = option_seconds(word[1], where);
		else {
			pr_err("%s: expected 'device FROM TO', 'new-address yes|no' or 'gid-timeout SECONDS'\n", where);
			ret = -1;
		}
	}
	fclose(f);
	return ret;
}

/* CRIU_RDMA_DEVICE=TO or FROM=TO[,FROM=TO]... */
static int read_env_devices(const char *env)
{
	while (*env) {
		size_t len = strcspn(env, ","), from = strcspn(env, "=,");

		if (from < len) {
			if (option_map(env, from, env + from + 1, len - from - 1, "CRIU_RDMA_DEVICE"))
				return -1;
		} else if (option_map("*", 1, env, len, "CRIU_RDMA_DEVICE")) {
			return -1;
		}
		env += len + !!env[len];
	}
	return 0;
}

/* The file, then the environment, which is stronger. */
int rdma_options_read(void)
{
	const char *env;

	/* The environment's devices come first, and the first one that fits is taken. */
	env = getenv("CRIU_RDMA_DEVICE");
	if (env && read_env_devices(env))
		return -1;
	if (env && rdma_opts.device[0]) {
		unsigned int nr_map = rdma_opts.nr_map;
		char keep[IBV_SYSFS_NAME_MAX];

		/* It has one for any device: the file's are not asked. */
		memcpy(keep, rdma_opts.device, sizeof(keep));
		if (read_conf(getenv("CRIU_RDMA_CONF") ?: RDMA_CONF))
			return -1;
		memcpy(rdma_opts.device, keep, sizeof(keep));
		rdma_opts.nr_map = nr_map;
	} else if (read_conf(getenv("CRIU_RDMA_CONF") ?: RDMA_CONF)) {
		return -1;
	}

	env = getenv("CRIU_RDMA_NEW_ADDRESS");
	if (env && option_bool(env, &rdma_opts.new_address, "CRIU_RDMA_NEW_ADDRESS"))
		return -1;
	env = getenv("CRIU_RDMA_GID_TIMEOUT");
	if (env && option_seconds(env, "CRIU_RDMA_GID_TIMEOUT"))
		return -1;
	return 0;
}

static int read_link(const char *path, char *target, size_t len)
{
	ssize_t n = readlink(path, target, len - 1);

	if (n < 0)
		return -1;
	target[n] = 0;
	return 0;
}

enum rdma_class rdma_class(const struct stat *st)
{
	static dev_t seen[16];
	static enum rdma_class seen_class[16];
	static unsigned int nr_seen;
	enum rdma_class class = RDMA_CLASS_NONE;
	char path[64], target[PATH_MAX], *name;
	unsigned int i;

	if (!S_ISCHR(st->st_mode))
		return class;
	for (i = 0; i < nr_seen; i++)
		if (seen[i] == st->st_rdev)
			return seen_class[i];

	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u", major(st->st_rdev), minor(st->st_rdev));
	if (!read_link(path, target, sizeof(target))) {
		name = strrchr(target, '/');
		if (strstr(target, "/infiniband_verbs/"))
			class = RDMA_CLASS_UVERBS;
		else if (name && !strcmp(name, "/rdma_cm"))
			class = RDMA_CLASS_CM;
	}

	if (nr_seen < sizeof(seen) / sizeof(seen[0])) {
		seen[nr_seen] = st->st_rdev;
		seen_class[nr_seen++] = class;
	}
	return class;
}

/* The same for an open file, event files included. */
enum rdma_class rdma_class_fd(int fd)
{
	char path[64], target[64];
	struct statfs fs;
	struct stat st;

	if (fstat(fd, &st))
		return RDMA_CLASS_NONE;
	if (S_ISCHR(st.st_mode))
		return rdma_class(&st);
	if (fstatfs(fd, &fs) || fs.f_type != ANON_INODE_FS_MAGIC)
		return RDMA_CLASS_NONE;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (read_link(path, target, sizeof(target)) || strcmp(target, "anon_inode:[infinibandevent]"))
		return RDMA_CLASS_NONE;
	return RDMA_CLASS_EVENT;
}

/* The name of the RDMA device behind a uverbs file, for messages and images. */
int rdma_device_name(dev_t rdev, char *name, size_t len)
{
	char path[64];
	FILE *f;
	int ret = -1;

	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/ibdev", major(rdev), minor(rdev));
	f = fopen(path, "re");
	if (f && fgets(name, len, f)) {
		name[strcspn(name, "\n")] = 0;
		ret = 0;
	}
	if (f)
		fclose(f);
	if (ret)
		snprintf(name, len, "%u:%u", major(rdev), minor(rdev));
	return ret;
}

struct gids {
	unsigned int nr;
	uint8_t (*gid)[16];
};

/* The addresses that a device of this host has at the moment. */
struct here {
	struct ibv_device *device;
	struct ibv_context *ctx;
	struct ibv_gid_entry *table;
	ssize_t nr;
};

#define MAX_GIDS 1024

static int add_gid(struct gids *gids, const uint8_t gid[16])
{
	static const uint8_t none[16];
	unsigned int i;
	void *more;

	if (!memcmp(gid, none, 16))
		return 0;
	for (i = 0; i < gids->nr; i++)
		if (!memcmp(gids->gid[i], gid, 16))
			return 0;
	more = xrealloc(gids->gid, (gids->nr + 1) * 16);
	if (!more)
		return -1;
	gids->gid = more;
	memcpy(gids->gid[gids->nr++], gid, 16);
	return 0;
}

/* The addresses that the context's connections use. */
static int used_gids(const struct rdma_snapshot *snap, struct gids *gids)
{
	const struct rxe_mig_rec *rec;

	for_each_record(rec, snap) {
		const struct rxe_mig_av *av = NULL;

		if (rec->type == RXE_MIG_REC_QP)
			av = &((const struct rxe_mig_qp_rec *)rec)->pri_av;
		else if (rec->type == RXE_MIG_REC_AH)
			av = &((const struct rxe_mig_ah *)rec)->av;
		if (av && av->network_type && add_gid(gids, av->sgid))
			return -1;
	}
	return 0;
}

static const char *gid_text(const uint8_t gid[16])
{
	static char text[INET6_ADDRSTRLEN];
	struct in6_addr addr;

	memcpy(&addr, gid, 16);
	if (IN6_IS_ADDR_V4MAPPED(&addr))
		inet_ntop(AF_INET, gid + 12, text, sizeof(text));
	else
		inet_ntop(AF_INET6, gid, text, sizeof(text));
	return text;
}

static struct ibv_device *find_device(struct ibv_device **list, const char *name)
{
	for (; *list; list++)
		if (!strcmp((*list)->name, name))
			return *list;
	return NULL;
}

static bool has_gid(const struct here *h, const uint8_t gid[16])
{
	ssize_t i;

	for (i = 0; i < h->nr; i++)
		if (!memcmp(h->table[i].gid.raw, gid, 16))
			return true;
	return false;
}

static void close_devices(struct here *here)
{
	struct here *h;

	for (h = here; h && h->device; h++) {
		if (h->ctx)
			verbs.close_device(h->ctx);
		xfree(h->table);
	}
	xfree(here);
}

/* Ends with a NULL device. One that does not open has no address. */
static struct here *open_devices(struct ibv_device **list)
{
	struct here *here;
	size_t nr = 0, i;

	while (list[nr])
		nr++;
	here = xzalloc((nr + 1) * sizeof(*here));
	for (i = 0; here && i < nr; i++) {
		here[i].device = list[i];
		here[i].ctx = verbs.open_device(list[i]);
		here[i].table = xmalloc(MAX_GIDS * sizeof(*here[i].table));
		if (!here[i].table) {
			close_devices(here);
			return NULL;
		}
	}
	return here;
}

static void read_gids(struct here *h)
{
	for (; h->device; h++)
		h->nr = !h->ctx ? 0 : verbs.query_gid_table(h->ctx, h->table, MAX_GIDS, 0, sizeof(*h->table));
}

/* The device with all the addresses; the number of such devices. */
static int match_gids(const struct here *h, const struct gids *gids, struct ibv_device **found)
{
	unsigned int i;
	int nr = 0;

	for (; h->device; h++) {
		for (i = 0; i < gids->nr; i++)
			if (!has_gid(h, gids->gid[i]))
				break;
		if (i == gids->nr && !nr++)
			*found = h->device;
	}
	return nr;
}

/*
 * The device for a context that was dumped from device NAME. The list it is
 * from is not freed: the restored tasks will use it.
 */
struct ibv_device *rdma_device_choose(const char *name, const struct rdma_snapshot *snap)
{
	static struct ibv_device **list;
	struct timespec step = { .tv_nsec = 50 * 1000 * 1000 };
	struct ibv_device *device = NULL;
	const char *wanted = NULL;
	struct here *here = NULL;
	struct gids gids = {};
	unsigned int i, tries;
	int nr;

	if (!list)
		list = verbs.get_device_list(NULL);
	if (!list || !*list) {
		pr_err("No RDMA device here for the context of %s: add one (rdma link add NAME type rxe netdev IF)\n",
		       name);
		return NULL;
	}

	for (i = 0; i < rdma_opts.nr_map && !wanted; i++)
		if (!strcmp(rdma_opts.map[i].from, name))
			wanted = rdma_opts.map[i].to;
	if (!wanted && rdma_opts.device[0])
		wanted = rdma_opts.device;
	if (wanted) {
		device = find_device(list, wanted);
		if (!device)
			pr_err("There is no RDMA device %s, which was chosen for the context of %s\n", wanted, name);
		return device;
	}

	if (used_gids(snap, &gids))
		goto out;
	here = open_devices(list);
	if (!here)
		goto out;
	read_gids(here);

	/* A connection is not bound to an address yet, or may get a new one. */
	if (!gids.nr || rdma_opts.new_address) {
		if ((gids.nr && match_gids(here, &gids, &device) == 1) || !list[1]) {
			device = device ?: list[0];
			goto out;
		}
		device = find_device(list, name);
		if (device)
			pr_warn("Nothing tells which device is for the context of %s: taking the one of that name\n",
				name);
		else
			pr_err("Nothing tells which device is for the context of %s: name it (device %s TO in %s)\n",
			       name, name, RDMA_CONF);
		goto out;
	}

	/* An address that was just added takes a moment to become a GID. */
	for (tries = rdma_opts.gid_timeout * 20;; tries--) {
		read_gids(here);
		nr = match_gids(here, &gids, &device);
		if (nr || !tries)
			break;
		nanosleep(&step, NULL);
	}
	if (nr > 1) {
		struct ibv_device *same = find_device(list, name);

		pr_warn("%d devices have the addresses of the context of %s: taking %s\n", nr, name,
			(same ?: device)->name);
		device = same ?: device;
	} else if (!nr) {
		for (i = 0; i < gids.nr; i++) {
			struct gids one = { 1, &gids.gid[i] };

			if (!match_gids(here, &one, &device))
				pr_err("No RDMA device here has the address %s of the context of %s: move the address first, or allow another one (new-address yes in %s)\n",
				       gid_text(gids.gid[i]), name, RDMA_CONF);
		}
		device = NULL;
		if (gids.nr > 1)
			pr_err("No RDMA device here has all %u addresses of the context of %s\n", gids.nr, name);
	}
out:
	close_devices(here);
	xfree(gids.gid);
	return device;
}

/* The number of the device's file. */
int rdma_device_rdev(struct ibv_device *device, dev_t *rdev)
{
	char path[PATH_MAX];
	unsigned int ma, mi;
	int nr = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/class/infiniband_verbs/%s/dev", device->dev_name);
	f = fopen(path, "re");
	if (f) {
		nr = fscanf(f, "%u:%u", &ma, &mi);
		fclose(f);
	}
	if (nr != 2) {
		pr_err("Can't read %s\n", path);
		return -1;
	}
	*rdev = makedev(ma, mi);
	return 0;
}

/*
 * Make sure that the device's file is where libibverbs expects it: the mount
 * namespace that is being restored has the device files of the old host.
 */
int rdma_device_node(struct ibv_device *device, dev_t rdev)
{
	unsigned int ma = major(rdev), mi = minor(rdev);
	char path[PATH_MAX];
	struct stat st;

	snprintf(path, sizeof(path), RDMA_DEV_DIR "/%s", device->dev_name);
	if (!stat(path, &st)) {
		if (S_ISCHR(st.st_mode) && st.st_rdev == rdev)
			return 0;
		pr_err("%s is not %u:%u, which is %s on this host: remove it from the container's /dev\n", path, ma, mi,
		       device->name);
		return -1;
	}

	if ((mkdir(RDMA_DEV_DIR, 0755) && errno != EEXIST) || mknod(path, S_IFCHR | 0666, rdev) ||
	    chmod(path, 0666)) {
		pr_perror("The restored processes have no %s (%u:%u), which is %s on this host, and it can't be made; add it to the container's devices",
			  path, ma, mi, device->name);
		return -1;
	}
	pr_warn("Made %s (%u:%u) for the restored processes: it is %s on this host\n", path, ma, mi, device->name);
	return 0;
}
