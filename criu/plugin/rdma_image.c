// SPDX-License-Identifier: GPL-2.0
/*
 * Images. rdma.img and rdma-files.img: a magic number, then messages with
 * their length before them, as in CRIU's own.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "criu-plugin.h"
#include "rdma_plugin.h"

#define RDMA_MAGIC	 0x52444d41 /* "RDMA" */
#define RDMA_FILES_MAGIC 0x52444d46

static int write_all(int fd, const void *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		data += n;
		len -= n;
	}
	return 0;
}

static int open_image(const char *name, int flags)
{
	int fd = openat(criu_get_image_dir(), name, flags | O_CLOEXEC, 0600);

	int err = errno;

	if (fd >= 0)
		return fd;
	if (err != ENOENT || flags & O_CREAT)
		pr_perror("Can't open the image %s", name);
	return -err;
}

int rdma_image_write(const char *name, const void *data, size_t len)
{
	int fd, ret;

	fd = open_image(name, O_WRONLY | O_CREAT | O_TRUNC);
	if (fd < 0)
		return -1;
	ret = write_all(fd, data, len);
	if (ret)
		pr_perror("Can't write the image %s", name);
	if (close(fd) && !ret) {
		pr_perror("Can't write the image %s", name);
		ret = -1;
	}
	return ret;
}

/* A whole image as private memory, which children inherit; 1: no such image */
int rdma_image_map(const char *name, struct rdma_snapshot *snap)
{
	struct stat st;
	int fd, ret = -1;

	fd = open_image(name, O_RDONLY);
	if (fd < 0)
		return fd == -ENOENT ? 1 : -1;
	if (fstat(fd, &st)) {
		pr_perror("Can't stat the image %s", name);
		goto out;
	}
	snap->len = st.st_size;
	snap->data = NULL;
	if (snap->len) {
		/* A copy, that nobody changes under our feet. */
		uint64_t done = 0;

		snap->data = mmap(NULL, snap->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (snap->data == MAP_FAILED) {
			pr_perror("Can't get %llu bytes for the image %s", (unsigned long long)snap->len, name);
			goto out;
		}
		while (done < snap->len) {
			ssize_t n = read(fd, snap->data + done, snap->len - done);

			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0) {
				pr_perror("Can't read the image %s", name);
				munmap(snap->data, snap->len);
				goto out;
			}
			done += n;
		}
	}
	ret = 0;
out:
	close(fd);
	return ret;
}

/* Of one length: to change the state takes no space on the disk. */
static const char states[][17] = {
	[RDMA_STATE_STOPPED] = "stopped        \n",
	[RDMA_STATE_COMPLETE] = "complete       \n",
	[RDMA_STATE_RESUMED] = "resumed        \n",
};

/* It is on the disk when this returns. */
int rdma_image_set_state(enum rdma_state state)
{
	size_t len = strlen(states[state]);
	int fd, ret;

	fd = open_image(RDMA_STATE_IMG, O_WRONLY | O_CREAT);
	if (fd < 0)
		return -1;
	ret = write_all(fd, states[state], len) || fsync(fd) ? -1 : 0;
	if (ret)
		pr_perror("Can't write the image %s", RDMA_STATE_IMG);
	close(fd);
	return ret;
}

/* May the images be restored? */
int rdma_image_check_state(void)
{
	static const char advice[] = "if no process of them is alive anywhere, write \"complete\" into it";
	struct rdma_snapshot raw;
	enum rdma_state state;
	int ret;

	ret = rdma_image_map(RDMA_STATE_IMG, &raw);
	if (ret) {
		if (ret > 0)
			pr_err("The image %s is missing: copy all files of the images directory\n", RDMA_STATE_IMG);
		return -1;
	}
	for (state = RDMA_STATE_STOPPED; state <= RDMA_STATE_RESUMED; state++) {
		size_t len = strcspn(states[state], " ");
		const char *text = raw.data;

		/* An editor leaves no spaces. */
		if (raw.len > len && !memcmp(text, states[state], len) && (text[len] == ' ' || text[len] == '\n'))
			break;
	}
	if (raw.len)
		munmap(raw.data, raw.len);

	switch (state) {
	case RDMA_STATE_COMPLETE:
		return 0;
	case RDMA_STATE_STOPPED:
		pr_err("The processes of these images ran on after the dump, and their partners with them (%s: stopped; %s)\n",
		       RDMA_STATE_IMG, advice);
		return -1;
	case RDMA_STATE_RESUMED:
		pr_err("These images have been restored before, and their connections live on there (%s: resumed; %s)\n",
		       RDMA_STATE_IMG, advice);
		return -1;
	}
	pr_err("The image %s is damaged\n", RDMA_STATE_IMG);
	return -1;
}

int rdma_image_write_entry(const RdmaEntry *entry)
{
	size_t len = rdma_entry__get_packed_size(entry);
	uint32_t head[2] = { RDMA_MAGIC, len };
	void *data;
	int ret;

	data = xmalloc(sizeof(head) + len);
	if (!data)
		return -1;
	memcpy(data, head, sizeof(head));
	rdma_entry__pack(entry, data + sizeof(head));
	ret = rdma_image_write(RDMA_IMG, data, sizeof(head) + len);
	xfree(data);

	/* Start the other one. */
	head[0] = RDMA_FILES_MAGIC;
	return ret ?: rdma_image_write(RDMA_FILES_IMG, head, sizeof(head[0]));
}

RdmaEntry *rdma_image_read_entry(void)
{
	struct rdma_snapshot raw;
	RdmaEntry *entry = NULL;
	uint32_t head[2];
	int ret;

	ret = rdma_image_map(RDMA_IMG, &raw);
	if (ret) {
		if (ret > 0)
			pr_err("The image %s is missing: copy all files of the images directory\n", RDMA_IMG);
		return NULL;
	}
	if (raw.len >= sizeof(head)) {
		memcpy(head, raw.data, sizeof(head));
		if (head[0] == RDMA_MAGIC && head[1] == raw.len - sizeof(head))
			entry = rdma_entry__unpack(NULL, head[1], raw.data + sizeof(head));
	}
	if (raw.len)
		munmap(raw.data, raw.len);
	if (!entry) {
		pr_err("The image %s is damaged\n", RDMA_IMG);
		return NULL;
	}
	if (entry->version != RDMA_IMG_VERSION) {
		pr_err("The image %s has version %u, known is %u: restore it with the release that wrote it\n", RDMA_IMG,
		       entry->version, RDMA_IMG_VERSION);
		rdma_entry__free_unpacked(entry, NULL);
		return NULL;
	}
	return entry;
}

int rdma_image_add_file(const RdmaFileEntry *file)
{
	uint8_t data[128];
	uint32_t len = rdma_file_entry__get_packed_size(file);
	int fd, ret;

	if (len > sizeof(data) - sizeof(len))
		return -1;
	memcpy(data, &len, sizeof(len));
	rdma_file_entry__pack(file, data + sizeof(len));

	fd = open_image(RDMA_FILES_IMG, O_WRONLY | O_APPEND);
	if (fd < 0)
		return -1;
	ret = write_all(fd, data, sizeof(len) + len);
	if (ret)
		pr_perror("Can't write the image %s", RDMA_FILES_IMG);
	close(fd);
	return ret;
}

/* The entry of a file; NULL with errno 0 if it is none of ours. */
RdmaFileEntry *rdma_image_find_file(uint32_t id)
{
	RdmaFileEntry *file = NULL;
	struct rdma_snapshot raw;
	uint64_t pos = sizeof(uint32_t);
	uint32_t head;
	int ret;

	ret = rdma_image_map(RDMA_FILES_IMG, &raw);
	if (ret) {
		errno = ret > 0 ? 0 : EIO;
		return NULL;
	}
	if (raw.len < pos)
		goto damaged;
	memcpy(&head, raw.data, sizeof(head));
	if (head != RDMA_FILES_MAGIC)
		goto damaged;

	while (pos < raw.len) {
		if (raw.len - pos < sizeof(head))
			goto damaged;
		memcpy(&head, raw.data + pos, sizeof(head));
		pos += sizeof(head);
		if (head > raw.len - pos)
			goto damaged;
		file = rdma_file_entry__unpack(NULL, head, raw.data + pos);
		if (!file)
			goto damaged;
		if (file->id == id)
			break;
		rdma_file_entry__free_unpacked(file, NULL);
		file = NULL;
		pos += head;
	}
	munmap(raw.data, raw.len);
	errno = 0;
	return file;

damaged:
	pr_err("The image %s is damaged\n", RDMA_FILES_IMG);
	if (raw.len)
		munmap(raw.data, raw.len);
	errno = EIO;
	return NULL;
}
