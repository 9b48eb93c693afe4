// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/* What an image says. */
#include <stdio.h>
#include <string.h>

#include "grid.h"

int image_open(struct side *s, struct image *im, const void *data, size_t len)
{
	const struct rxe_mig_hdr *hdr = data;
	const struct rxe_mig_rec *rec;
	const uint8_t *p;
	unsigned int n = 0;

	im->data = data;
	im->len = len;
	im->qp = NULL;
	if (len < sizeof(*hdr) || hdr->magic != RXE_MIG_MAGIC ||
	    hdr->total_len != len)
		return -1;
	for (p = im->data + hdr->hdr_len; p < im->data + len; p += rec->len) {
		rec = (const void *)p;
		if (rec->len < sizeof(*rec) ||
		    rec->len > (size_t)(im->data + len - p))
			return -1;
		n++;
		if (rec->type == RXE_MIG_REC_QP &&
		    ((const struct rxe_mig_qp_rec *)rec)->qpn == s->qp->qp_num)
			im->qp = (const void *)rec;
	}
	return n == hdr->count && im->qp ? 0 : -1;
}

static const struct rxe_mig_rec *next(const struct image *im,
				      const struct rxe_mig_rec *rec)
{
	const uint8_t *p = rec ? (const uint8_t *)rec + rec->len :
			   im->data + ((const struct rxe_mig_hdr *)im->data)->hdr_len;

	return p < im->data + im->len ? (const void *)p : NULL;
}

/* The record of an object, or the first one of the type */
const void *image_find(const struct image *im, uint32_t type, uint32_t handle)
{
	const struct rxe_mig_rec *rec = NULL;

	while ((rec = next(im, rec)))
		if (rec->type == type &&
		    (handle == RXE_MIG_NONE || rec->handle == handle))
			return rec;
	return NULL;
}

unsigned int image_count(const struct image *im, uint32_t type)
{
	const struct rxe_mig_rec *rec = NULL;
	unsigned int n = 0;

	while ((rec = next(im, rec)))
		n += rec->type == type;
	return n;
}

unsigned int ring_count(const struct rxe_mig_ring *ring)
{
	return (ring->producer - ring->consumer) & ring->index_mask;
}

unsigned int sq_count(const struct image *im)
{
	return ring_count(&im->qp->sq);
}

/* Receives that are posted, to the QP or to its SRQ */
unsigned int rq_count(const struct image *im)
{
	const struct rxe_mig_srq *srq;

	if (im->qp->srq == RXE_MIG_NONE)
		return ring_count(&im->qp->rq);
	srq = image_find(im, RXE_MIG_REC_SRQ, im->qp->srq);
	return srq ? ring_count(&srq->ring) : 0;
}

const struct rxe_mig_res *image_res(const struct image *im, unsigned int i)
{
	const struct rxe_mig_res *res = (const void *)(im->qp + 1);

	return i < im->qp->num_res ? res + i : NULL;
}

/* Send request i, counted from the oldest that is not completed */
const struct rxe_send_wqe *sq_wqe(const struct image *im, unsigned int i)
{
	const struct rxe_mig_ring *sq = &im->qp->sq;
	const uint8_t *p = (const uint8_t *)(im->qp + 1);

	p += im->qp->num_res * sizeof(struct rxe_mig_res);
	p += (im->qp->recv_wqe_len + 7) & ~7U;
	p += (size_t)((sq->consumer + i) & sq->index_mask) << sq->log2_elem_size;
	return (const void *)p;
}
