/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
/*
 * MigrOS wire format: the one place that defines it.  The driver includes
 * this file; the dissector, the conformance peer and the protocol document
 * take their numbers from it.  No logic here.
 *
 * A migration packet is   [IP][UDP 4791][BTH][MIGETH][ICRC]   and is sent in
 * both directions between the two QPs of an RC connection.  docs/protocol.md
 * defines when; the clause numbers below refer to it.
 */
#ifndef RXE_MIG_WIRE_H
#define RXE_MIG_WIRE_H

#include <linux/types.h>

/*
 * BTH opcodes [WIRE-1].  0xe0-0xff is the manufacturer range: a receiver that
 * does not know the extension drops them without an answer.
 */
#define MIGROS_OP_PAUSE		0xe0	/* "I am Stopped" */
#define MIGROS_OP_PROBE		0xe1	/* "here is my challenge; are you Stopped?" */
#define MIGROS_OP_RUNNING	0xe2	/* "I am not Stopped" */
#define MIGROS_OP_RESUME	0xe3	/* "I am back, this is my address" */
#define MIGROS_OP_RESUME_ACK	0xe4	/* "I have your address" */
#define MIGROS_OP_MOVED		0xe5	/* "the QP you look for is at MIGETH.gid" */
#define MIGROS_OP_FIRST		MIGROS_OP_PAUSE
#define MIGROS_OP_LAST		MIGROS_OP_MOVED

/*
 * AETH syndrome of NAK_STOPPED [WIRE-2]: a NAK code no standard defines.
 * Its AETH MSN field holds the low 24 bits of the receiver's challenge.
 */
#define MIGROS_SYN_NAK_STOPPED	0x65
#define MIGROS_TOKEN_MASK	0x00ffffff

#define MIGROS_VERSION		1

/* MIGETH.flags */
#define MIGROS_F_PAUSED		0x01	/* PROBE: the sender is Paused */
#define MIGROS_F_TOMBSTONE	0x02	/* PAUSE: sent for a QP that is gone */
#define MIGROS_F_SELF		0x04	/* RESUME: to the QP's own old address */

/* Migration extended transport header, follows the BTH [WIRE-3] */
struct migros_eth {
	__u8	version;	/* MIGROS_VERSION; others are dropped */
	__u8	flags;
	__be16	reserved;	/* zero, ignored on receipt */
	__be32	src_qpn;	/* QP the packet speaks for, 24 bits */
	__be32	epoch;		/* stops that QP has seen [EPOCH-1] */
	__be32	sq_psn;		/* first unacknowledged PSN of its send queue */
	__be32	rq_psn;		/* next PSN it expects */
	__be32	reserved2;
	__be64	nonce;		/* secret or challenge, per opcode [AUTH-1] */
	__be64	echo;		/* receiver's nonce, or 0 [AUTH-2] */
	__u8	gid[16];	/* MOVED: where the QP is now; else sender's GID */
};

#define MIGROS_ETH_BYTES	56

/*
 * Timers, in milliseconds [TIME-1].  Intervals double from MIN to MAX; the
 * limits are module parameters with these defaults, 0 means no limit.
 */
#define MIGROS_RETRY_MIN_MS	20	/* PAUSE and RESUME retransmission */
#define MIGROS_RETRY_MAX_MS	1000
#define MIGROS_PROBE_MIN_MS	200	/* PROBE by a Paused QP */
#define MIGROS_PROBE_MAX_MS	2000
#define MIGROS_ANNOUNCE_MS	2000	/* a Stopped QP repeats PAUSE this long */
#define MIGROS_CAP_WAIT_MS	140	/* no RNR NAK before [CAP-2] */
#define MIGROS_PAUSE_LIMIT_MS	300000	/* Paused, then retry-exceeded */
#define MIGROS_RESUME_LIMIT_MS	60000	/* RESUME unanswered, then plain RTS */
#define MIGROS_LEASE_GRACE_MS	5000	/* from the end of a lease to CANCEL */
#define MIGROS_TOMBSTONE_MS	300000	/* life of a tombstone */

#endif /* RXE_MIG_WIRE_H */
