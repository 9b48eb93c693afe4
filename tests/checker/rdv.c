// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Rendezvous: both ends say what the other has to know, over TCP or by files
 * in a directory that both see (or that somebody copies).  Closed afterwards.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include "chk.h"

#define RDV_MAGIC	0x4d495231U
#define CONNECT_TRIES	120	/* seconds until the server must be there */

static int rdv_fd = -1;

struct rdv_hdr {
	uint32_t magic;
	uint32_t len;
	char phase[24];
};

static int rdv_listen(const struct addrinfo *ai)
{
	int fd, conn, one = 1;

	fd = socket(ai->ai_family, SOCK_STREAM, 0);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) || listen(fd, 1)) {
		close(fd);
		return -1;
	}
	do {
		conn = accept(fd, NULL, NULL);
	} while (conn < 0 && errno == EINTR);
	close(fd);
	return conn;
}

static int rdv_connect(const struct addrinfo *list)
{
	const struct addrinfo *ai;
	int fd, i;

	for (i = 0; i < CONNECT_TRIES; i++) {
		for (ai = list; ai; ai = ai->ai_next) {
			fd = socket(ai->ai_family, SOCK_STREAM, 0);
			if (fd < 0)
				continue;
			if (!connect(fd, ai->ai_addr, ai->ai_addrlen))
				return fd;
			close(fd);
		}
		sleep(1);
	}
	return -1;
}

int rdv_open(int fd)
{
	struct addrinfo hints = {
		.ai_family = chk.o.server && !chk.o.host ? AF_INET6 : AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = chk.o.server ? AI_PASSIVE : 0,
	};
	struct addrinfo *ai;
	int err;

	rdv_fd = fd;
	if (fd >= 0 || chk.o.rendezvous)
		return 0;
	err = getaddrinfo(chk.o.host, chk.o.tcp_port, &hints, &ai);
	if (err && hints.ai_family == AF_INET6) {
		hints.ai_family = AF_INET;
		err = getaddrinfo(chk.o.host, chk.o.tcp_port, &hints, &ai);
	}
	if (err) {
		fprintf(stderr, "%s: %s\n", chk.o.host ? chk.o.host : "listen",
			gai_strerror(err));
		return -1;
	}
	rdv_fd = chk.o.server ? rdv_listen(ai) : rdv_connect(ai);
	freeaddrinfo(ai);
	if (rdv_fd < 0)
		perror("rendezvous");
	return rdv_fd < 0 ? -1 : 0;
}

static int write_all(int fd, const void *buf, size_t len)
{
	const char *p = buf;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		p += n;
		len -= n;
	}
	return 0;
}

static int read_all(int fd, void *buf, size_t len)
{
	char *p = buf;

	while (len) {
		ssize_t n = read(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0)
			errno = 0;
		if (n <= 0)
			return -1;
		p += n;
		len -= n;
	}
	return 0;
}

static int put(int fd, const char *phase, const void *buf, size_t len)
{
	struct rdv_hdr h = { .magic = RDV_MAGIC, .len = len };

	snprintf(h.phase, sizeof(h.phase), "%s", phase);
	return write_all(fd, &h, sizeof(h)) || write_all(fd, buf, len);
}

static int get(int fd, const char *phase, void *buf, size_t len)
{
	struct rdv_hdr h;

	if (read_all(fd, &h, sizeof(h)))
		return -1;
	if (h.magic != RDV_MAGIC || h.len != len ||
	    strncmp(h.phase, phase, sizeof(h.phase))) {
		fprintf(stderr, "rendezvous: not the same program or options\n");
		errno = EPROTO;
		return -1;
	}
	return read_all(fd, buf, len);
}

static int put_file(const char *phase, const void *buf, size_t len)
{
	const char *name = chk.o.server ? "server" : "client";
	char path[4096], tmp[4200];
	int fd, err;

	snprintf(path, sizeof(path), "%s/%s.%s", chk.o.rendezvous, name, phase);
	snprintf(tmp, sizeof(tmp), "%s.tmp", path);
	if (!access(path, F_OK)) {
		fprintf(stderr, "%s: left from another run\n", path);
		errno = EEXIST;
		return -1;
	}
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0)
		return -1;
	err = put(fd, phase, buf, len) ? errno : 0;
	if (close(fd) && !err)
		err = errno;
	if (!err)
		return rename(tmp, path);
	errno = err;
	return -1;
}

static int get_file(const char *phase, void *buf, size_t len)
{
	const char *name = chk.o.server ? "client" : "server";
	char path[4096];
	int fd, err, why;

	snprintf(path, sizeof(path), "%s/%s.%s", chk.o.rendezvous, name, phase);
	while ((fd = open(path, O_RDONLY)) < 0) {
		if (errno != ENOENT)
			return -1;
		usleep(100000);
	}
	err = get(fd, phase, buf, len);
	why = errno;
	close(fd);
	errno = why;
	return err;
}

int rdv_exchange(const char *phase, const void *mine, void *theirs, size_t len)
{
	int err;

	if (rdv_fd < 0)
		err = put_file(phase, mine, len) ||
		      get_file(phase, theirs, len);
	else if (chk.o.server)
		err = put(rdv_fd, phase, mine, len) ||
		      get(rdv_fd, phase, theirs, len);
	else
		err = get(rdv_fd, phase, theirs, len) ||
		      put(rdv_fd, phase, mine, len);
	if (err)
		fprintf(stderr, "rendezvous, %s: %s\n", phase,
			errno ? strerror(errno) : "peer has gone");
	return err ? -1 : 0;
}

void rdv_close(void)
{
	if (rdv_fd >= 0)
		close(rdv_fd);
	rdv_fd = -1;
}
