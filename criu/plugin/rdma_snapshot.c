// SPDX-License-Identifier: GPL-2.0
/*
 * Reading snapshots. What restore reads may have been tampered with: every
 * access is inside the record, and every record inside the snapshot. What the
 * records mean is checked by the kernel.
 */
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "rdma_plugin.h"

#define MIN_LEN(type, name) [RXE_MIG_REC_##type] = sizeof(struct rxe_mig_##name)

static const uint32_t min_len[] = {
	MIN_LEN(CONTEXT, context),
	MIN_LEN(ASYNC, async),
	MIN_LEN(CHANNEL, channel),
	MIN_LEN(PD, pd),
	MIN_LEN(MR, mr),
	MIN_LEN(CQ, cq),
	MIN_LEN(SRQ, srq),
	MIN_LEN(AH, ah),
	MIN_LEN(QP, qp_rec),
	MIN_LEN(MW, mw),
};

static bool is_zero(const void *data, uint64_t len)
{
	const uint8_t *p = data;

	while (len && !*p)
		len--, p++;
	return !len;
}

/* A longer header is one of a later version: zero means "as before" */
static bool header_is_known(const struct rdma_snapshot *snap)
{
	const struct rxe_mig_hdr *hdr = snap->data;

	return hdr->version == RXE_MIG_VERSION && !hdr->features && is_zero(hdr->reserved, sizeof(hdr->reserved)) &&
	       is_zero(hdr + 1, hdr->hdr_len - sizeof(*hdr));
}

int rdma_snapshot_check(const struct rdma_snapshot *snap, const char *what)
{
	const struct rxe_mig_hdr *hdr = snap->data;
	const struct rxe_mig_context *first;
	uint64_t pos;
	uint32_t i;

	if (snap->len < sizeof(*hdr) || hdr->magic != RXE_MIG_MAGIC) {
		pr_err("%s: not a snapshot of an RDMA context\n", what);
		return -1;
	}
	if (hdr->hdr_len < sizeof(*hdr) || hdr->hdr_len > snap->len || hdr->hdr_len % 8)
		goto corrupt;
	if (!header_is_known(snap)) {
		pr_err("%s: version %u with features %#llx is not known here (known: %u); restore it with the release that wrote it\n",
		       what, hdr->version, (unsigned long long)hdr->features, RXE_MIG_VERSION);
		return -1;
	}
	if (hdr->total_len != snap->len ||
	    hdr->crc != crc32_z(0, snap->data + hdr->hdr_len, snap->len - hdr->hdr_len))
		goto corrupt;
	if (hdr->page_size != sysconf(_SC_PAGESIZE)) {
		pr_err("%s: rings are mapped by pages of %u bytes, here they have %ld; restore it on a host like the one it is from\n",
		       what, hdr->page_size, sysconf(_SC_PAGESIZE));
		return -1;
	}

	pos = hdr->hdr_len;
	for (i = 0; i < hdr->count; i++) {
		const struct rxe_mig_rec *rec = snap->data + pos;

		if (snap->len - pos < sizeof(*rec) || rec->len > snap->len - pos || rec->len % 8 ||
		    rec->len < sizeof(*rec))
			goto corrupt;
		if (rec->type && rec->type < sizeof(min_len) / sizeof(min_len[0]) && rec->len < min_len[rec->type])
			goto corrupt;
		if (!i && rec->type != RXE_MIG_REC_CONTEXT)
			goto corrupt;
		pos += rec->len;
	}
	if (pos != snap->len || !hdr->count)
		goto corrupt;

	first = snap->data + hdr->hdr_len;
	if (first->num_gids > (first->rec.len - sizeof(*first)) / sizeof(first->gids[0]))
		goto corrupt;
	return 0;

corrupt:
	pr_err("%s: the snapshot is damaged (cut off?)\n", what);
	return -1;
}

/* The record after REC, the first if that is NULL. */
const struct rxe_mig_rec *rdma_snapshot_next(const struct rdma_snapshot *snap, const struct rxe_mig_rec *rec)
{
	const void *next = snap->data + ((const struct rxe_mig_hdr *)snap->data)->hdr_len;

	if (rec)
		next = (const void *)rec + rec->len;
	return next == snap->data + snap->len ? NULL : next;
}

/* The rings of a record; the number of them. */
int rdma_record_rings(const struct rxe_mig_rec *rec, const struct rxe_mig_ring *rings[2])
{
	int nr = 0;

	switch (rec->type) {
	case RXE_MIG_REC_CQ:
		rings[nr++] = &((const struct rxe_mig_cq *)rec)->ring;
		break;
	case RXE_MIG_REC_SRQ:
		rings[nr++] = &((const struct rxe_mig_srq *)rec)->ring;
		break;
	case RXE_MIG_REC_QP:
		rings[nr++] = &((const struct rxe_mig_qp_rec *)rec)->rq;
		rings[nr++] = &((const struct rxe_mig_qp_rec *)rec)->sq;
		break;
	}
	return nr;
}

/* What people call the object: QP number, key and so on. */
uint32_t rdma_record_number(const struct rxe_mig_rec *rec)
{
	switch (rec->type) {
	case RXE_MIG_REC_MR:
		return ((const struct rxe_mig_mr *)rec)->rkey;
	case RXE_MIG_REC_SRQ:
		return ((const struct rxe_mig_srq *)rec)->srq_num;
	case RXE_MIG_REC_AH:
		return ((const struct rxe_mig_ah *)rec)->ah_num;
	case RXE_MIG_REC_QP:
		return ((const struct rxe_mig_qp_rec *)rec)->qpn;
	case RXE_MIG_REC_MW:
		return ((const struct rxe_mig_mw *)rec)->rkey;
	}
	return rec->handle;
}
