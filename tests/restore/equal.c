// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Two images are equal.
 */
#include "suite.h"

#define MASK(member)                                                           \
	memset(&a->member, 0, sizeof(a->member)),                              \
	memset(&b->member, 0, sizeof(b->member))

/*
 * The fields that may differ; image a is that of the dumped context, image b
 * that of the restored one, before RESUME or after (live).
 */
static void mask(struct rxe_mig_rec *ra, struct rxe_mig_rec *rb, bool live)
{
	if (ra->type == RXE_MIG_REC_MR) {
		struct rxe_mig_mr *a = (void *)ra, *b = (void *)rb;

		/* The registering process is another one now */
		if (b->owner != getpid())
			bad("owner %d is not process %d", b->owner, getpid());
		MASK(owner);
	}
	if (ra->type == RXE_MIG_REC_QP) {
		struct rxe_mig_qp_rec *a = (void *)ra, *b = (void *)rb;

		/* A nonce is drawn if there has been none */
		if (!a->proto.challenge)
			MASK(proto.challenge);
		if (!live)
			return;
		/* Each Stop raises the epoch and may draw other nonces */
		if (b->proto.epoch != a->proto.epoch + 1)
			bad("epoch %u after %u", b->proto.epoch,
			    a->proto.epoch);
		MASK(proto.epoch);
		MASK(proto.secret);
		MASK(proto.challenge);
	}
}

void compare_rec(const struct rxe_mig_rec *ra, const struct rxe_mig_rec *rb,
		 bool live)
{
	uint8_t *a, *b;
	size_t i;

	if (ra->type != rb->type || ra->handle != rb->handle ||
	    ra->len != rb->len) {
		bad("type %u handle %u length %llu is now type %u handle %u "
		    "length %llu", ra->type, ra->handle, ra->len, rb->type,
		    rb->handle, rb->len);
		return;
	}
	a = malloc(ra->len);
	b = malloc(rb->len);
	check(a && b, "memory");
	memcpy(a, ra, ra->len);
	memcpy(b, rb, rb->len);
	mask((void *)a, (void *)b, live);
	for (i = 0; i != ra->len; i++)
		if (a[i] != b[i]) {
			bad("type %u handle %u differs%s at offset %zu: %#x, "
			    "was %#x", ra->type, ra->handle,
			    live ? " after RESUME" : "", i, b[i], a[i]);
			break;
		}
	free(a);
	free(b);
}

void compare(int na, int nb, bool live)
{
	struct rxe_mig_rec *a = first_of(na), *b = first_of(nb);
	uint32_t i;

	if (hdr_of(na)->count != hdr_of(nb)->count)
		die("%u records, were %u", hdr_of(nb)->count,
		    hdr_of(na)->count);
	for (i = 0; i != hdr_of(na)->count; i++) {
		compare_rec(a, b, live);
		a = (void *)a + a->len;
		b = (void *)b + b->len;
	}
}
