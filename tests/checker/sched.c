// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/* What is operation n?  Type, length and contents follow from the seed. */
#include <string.h>
#include "chk.h"

#define MSG_MAGIC	0x4d49474fU

uint64_t mix64(uint64_t x)
{
	/* finalizer of splitmix64 */
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

void sched_init(struct sched *s, uint32_t conn, uint8_t dir)
{
	int t;

	memset(s, 0, sizeof(*s));
	s->conn = conn;
	s->dir = dir;
	s->key = mix64(chk.o.p.seed ^ mix64((uint64_t)conn << 8 | dir));
	for (t = 0; t < OP_NR; t++)
		if (op_in(t, chk.o.p.types))
			s->type[s->nr++] = t;
	s->round = UINT64_MAX;
}

/* Every round has each type once, so the round counts within a type. */
static void sched_round(struct sched *s, uint64_t round)
{
	uint64_t rnd = mix64(s->key ^ mix64(round));
	int i, j;

	if (s->round == round)
		return;
	memcpy(s->perm, s->type, s->nr);
	for (i = s->nr - 1; i > 0; i--) {
		uint8_t tmp = s->perm[i];

		j = rnd % (i + 1);
		rnd = mix64(rnd);
		s->perm[i] = s->perm[j];
		s->perm[j] = tmp;
	}
	s->round = round;
}

static uint32_t sched_len(uint64_t rnd)
{
	const struct params *p = &chk.o.p;
	uint32_t len, r = rnd >> 8;

	switch (rnd % 8) {
	case 0:
		len = r % 5;			/* 0 and what needs padding */
		break;
	case 1:
		len = r % 256;
		break;
	case 2:					/* around one packet */
		len = p->mtu - 1 + r % 3;
		break;
	case 3:					/* around several packets */
		len = p->mtu * (2 + r % 7) - 1 + (r >> 8) % 3;
		break;
	case 4:
		len = p->max_msg;
		break;
	default:
		len = r % (p->max_msg + 1);
	}
	if (len > p->max_msg)
		len = p->max_msg;
	return len < p->min_msg ? p->min_msg : len;
}

void sched_op(struct sched *s, uint64_t n, struct op *op)
{
	op->n = n;
	op->round = n / s->nr;
	sched_round(s, op->round);
	op->type = s->perm[n % s->nr];
	op->rnd = mix64(s->key + n * 0x2545f4914f6cdd1dULL);
	op->len = sched_len(op->rnd);
	op->nsge = 1 + (op->rnd >> 48) % 4;
	op->inl = (op->rnd >> 52) & 1;
	switch (op->type) {
	case OP_CMP_SWP:
	case OP_FETCH_ADD:
	case OP_ATOMIC_WRITE:
		op->len = 8;
		op->nsge = 1;
		break;
	default:
		break;
	}
}

/* How many of the first n operations are of this type? */
uint64_t sched_count(struct sched *s, uint8_t type, uint64_t n)
{
	uint64_t count = n / s->nr;
	unsigned int i;

	if (!op_in(type, chk.o.p.types))
		return 0;
	sched_round(s, n / s->nr);
	for (i = 0; i < n % s->nr; i++)
		count += s->perm[i] == type;
	return count;
}

/* Contents of the CMP_SWP cell after so many operations on it */
uint64_t sched_swap_value(const struct sched *s, uint64_t round)
{
	return mix64(s->key ^ mix64(round ^ 0xca5ca5ca5ca5ca5cULL));
}

/*
 * SEND_INV of round r ends the window's generation r; a write of that round
 * through the window uses generation r or r + 1, depending on the order.
 */
uint64_t sched_mw_gen(struct sched *s, const struct op *op)
{
	return sched_count(s, OP_SEND_INV, op->n);
}

static uint32_t msg_crc(const void *buf, uint32_t len)
{
	uint32_t crc;

	crc = crc32c(0, buf, offsetof(struct msg_hdr, crc));
	return crc32c(crc, (const uint8_t *)buf + sizeof(struct msg_hdr),
		      len - sizeof(struct msg_hdr));
}

void msg_seal(void *buf, const struct sched *s, uint64_t seq, uint8_t type,
	      uint32_t len)
{
	struct msg_hdr h = {
		.magic = MSG_MAGIC,
		.conn = s->conn,
		.seq = seq,
		.len = len,
		.dir = s->dir,
		.type = type,
		.nonce = s->key,
	};

	memcpy(buf, &h, sizeof(h));
	h.crc = msg_crc(buf, len);
	memcpy(buf, &h, sizeof(h));
}

static void pattern(uint8_t *buf, const struct sched *s, const struct op *op)
{
	uint64_t x = mix64(s->key ^ op->rnd ^ op->type);
	uint32_t i;

	for (i = 0; i + 8 <= op->len; i += 8) {
		memcpy(buf + i, &x, 8);
		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
	}
	memcpy(buf + i, &x, op->len - i);
	/* a short message must not look like an untouched buffer */
	if (op->len && buf[0] == POISON)
		buf[0] ^= 0xff;
}

void msg_build(void *buf, const struct sched *s, const struct op *op)
{
	pattern(buf, s, op);
	if (op->len >= sizeof(struct msg_hdr))
		msg_seal(buf, s, op->n, op->type, op->len);
}

bool msg_identify(const void *buf, uint32_t len, const struct sched *s,
		  struct msg_hdr *h)
{
	if (len < sizeof(*h))
		return false;
	memcpy(h, buf, sizeof(*h));
	return h->magic == MSG_MAGIC && h->conn == s->conn &&
	       h->dir == s->dir && h->nonce == (uint32_t)s->key &&
	       h->len <= len && h->len >= sizeof(*h) &&
	       h->crc == msg_crc(buf, h->len);
}

/* Messages without room for a header are compared with what they should be. */
bool msg_check(const void *buf, const struct sched *s, const struct op *op)
{
	uint8_t want[sizeof(struct msg_hdr)];
	struct msg_hdr h;

	if (op->len < sizeof(h)) {
		pattern(want, s, op);
		return !memcmp(buf, want, op->len);
	}
	return msg_identify(buf, op->len, s, &h) && h.len == op->len &&
	       h.seq == op->n && h.type == op->type;
}

void poison(void *buf, size_t len)
{
	memset(buf, POISON, len);
}

bool poisoned(const void *buf, size_t len)
{
	const uint8_t *p = buf;

	return !len || (p[0] == POISON && !memcmp(p, p + 1, len - 1));
}
