// SPDX-License-Identifier: GPL-2.0
/*
 * rdma_cm event channels. One without ids is restored by opening it again;
 * ids cannot be restored. The file does not tell its ids, but the kernel lists
 * those that are bound to a device, listening ones among them.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/netlink.h>
#include <rdma/rdma_netlink.h>

#include "rdma_plugin.h"

static const struct nlattr *attr_next(const struct nlattr *attr, const void *end)
{
	const void *next = attr ? (const void *)attr + NLA_ALIGN(attr->nla_len) : NULL;

	attr = next;
	if (next + sizeof(*attr) > end || attr->nla_len < sizeof(*attr) || next + attr->nla_len > end)
		return NULL;
	return attr;
}

static const struct nlattr *attr_first(const void *pos, const void *end)
{
	const struct nlattr *attr = pos;

	if (pos + sizeof(*attr) > end || attr->nla_len < sizeof(*attr) || pos + attr->nla_len > end)
		return NULL;
	return attr;
}

#define for_each_attr(attr, pos, end) for (attr = attr_first(pos, end); attr; attr = attr_next(attr, end))

static uint32_t attr_u32(const struct nlattr *attr)
{
	uint32_t v = 0;

	if (attr->nla_len >= NLA_HDRLEN + sizeof(v))
		memcpy(&v, (const void *)attr + NLA_HDRLEN, sizeof(v));
	return v;
}

/* Ask for a list; each(message's attributes) until it does not return 0. */
static int query(int command, int device, int (*each)(const void *pos, const void *end, void *arg), void *arg)
{
	struct {
		struct nlmsghdr hdr;
		struct nlattr attr;
		uint32_t device;
	} request = {
		.hdr = {
			.nlmsg_type = RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, command),
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP | NLM_F_ACK,
			.nlmsg_len = device < 0 ? NLMSG_LENGTH(0) : sizeof(request),
		},
		.attr = { .nla_type = RDMA_NLDEV_ATTR_DEV_INDEX, .nla_len = NLA_HDRLEN + sizeof(uint32_t) },
		.device = device,
	};
	static char buf[65536] __attribute__((aligned(8)));
	int sk, ret = -1;

	sk = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_RDMA);
	if (sk < 0)
		return -1;
	if (send(sk, &request, request.hdr.nlmsg_len, 0) < 0)
		goto out;

	for (;;) {
		ssize_t len = recv(sk, buf, sizeof(buf), 0);
		struct nlmsghdr *hdr;

		if (len < 0) {
			if (errno == EINTR)
				continue;
			goto out;
		}
		for (hdr = (void *)buf; NLMSG_OK(hdr, (size_t)len); hdr = NLMSG_NEXT(hdr, len)) {
			if (hdr->nlmsg_type == NLMSG_DONE) {
				ret = 0;
				goto out;
			}
			if (hdr->nlmsg_type == NLMSG_ERROR) {
				struct nlmsgerr *err = NLMSG_DATA(hdr);

				errno = -err->error;
				ret = err->error ? -1 : 0;
				goto out;
			}
			ret = each(NLMSG_DATA(hdr), (void *)hdr + hdr->nlmsg_len, arg);
			if (ret)
				goto out;
		}
	}
out:
	close(sk);
	return ret;
}

struct devices {
	int nr;
	uint32_t index[64];
};

static int each_device(const void *pos, const void *end, void *arg)
{
	struct devices *devices = arg;
	const struct nlattr *attr;

	for_each_attr(attr, pos, end)
		if ((attr->nla_type & NLA_TYPE_MASK) == RDMA_NLDEV_ATTR_DEV_INDEX &&
		    devices->nr < (int)(sizeof(devices->index) / sizeof(devices->index[0])))
			devices->index[devices->nr++] = attr_u32(attr);
	return 0;
}

static bool is_thread_of(pid_t pid, uint32_t tid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%u", pid, tid);
	return tid && !access(path, F_OK);
}

/* 1 if a cm_id of process *arg is in the message */
static int each_id(const void *pos, const void *end, void *arg)
{
	const struct nlattr *table, *entry, *attr;

	for_each_attr(table, pos, end) {
		if ((table->nla_type & NLA_TYPE_MASK) != RDMA_NLDEV_ATTR_RES_CM_ID)
			continue;
		for_each_attr(entry, (const void *)table + NLA_HDRLEN, (const void *)table + table->nla_len)
			for_each_attr(attr, (const void *)entry + NLA_HDRLEN, (const void *)entry + entry->nla_len)
				if ((attr->nla_type & NLA_TYPE_MASK) == RDMA_NLDEV_ATTR_RES_PID &&
				    is_thread_of(*(pid_t *)arg, attr_u32(attr)))
					return 1;
	}
	return 0;
}

/* Refuse an event channel of a process that has connection ids. */
int rdma_cm_check(pid_t pid, int fd, const char *comm)
{
	struct devices devices = {};
	int i, ret;

	ret = query(RDMA_NLDEV_CMD_GET, -1, each_device, &devices);
	for (i = 0; !ret && i < devices.nr; i++)
		ret = query(RDMA_NLDEV_CMD_RES_CM_ID_GET, devices.index[i], each_id, &pid);
	if (ret < 0) {
		pr_perror("Process %d (%s), fd %d: can't list the rdma_cm ids", pid, comm, fd);
		return -1;
	}
	if (ret) {
		pr_err("Process %d (%s), fd %d: rdma_cm ids can't be restored; have the program connect without rdma_cm (perftest: no -R)\n",
		       pid, comm, fd);
		return -1;
	}
	return 0;
}
