/* SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR Linux-OpenIB) */
/*
 * User ABI of the migration methods of rdma_rxe: uverbs ioctl methods in the
 * driver namespace of the device object, the hint that a create command may
 * carry as driver data, and the format of a context snapshot.
 *
 * Fixed-width, little-endian, no pointers, reserved space zero and checked.
 * All of restore's input is untrusted.  docs/image-format.md describes it.
 */
#ifndef RXE_MIG_UAPI_H
#define RXE_MIG_UAPI_H

#include <linux/types.h>
#include <rdma/ib_user_ioctl_cmds.h>

/* methods of UVERBS_OBJECT_DEVICE */
enum rxe_mig_methods {
	RXE_MIG_METHOD_QUERY = (1U << UVERBS_ID_NS_SHIFT),
	RXE_MIG_METHOD_DUMP,
	RXE_MIG_METHOD_CANCEL,
	RXE_MIG_METHOD_COMMIT,
	RXE_MIG_METHOD_REFILL,
	RXE_MIG_METHOD_RESUME,
	RXE_MIG_METHOD_IDENTIFY,
	RXE_MIG_METHOD_ADOPT,
};

/* QUERY: who implements what; needs no capability */
enum rxe_mig_query_attrs {
	RXE_MIG_ATTR_QUERY_OUT = (1U << UVERBS_ID_NS_SHIFT), /* struct rxe_mig_query */
};

/*
 * DUMP: check, and unless RXE_MIG_DUMP_CHECK is set stop every QP of the
 * context and take one consistent snapshot of it.  FD is read with
 * read(2); it is also the lease: when its last reference goes while the
 * context lives, and neither CANCEL nor COMMIT was called, the context resumes in
 * place after mig_lease_grace_ms, or with the next dump.
 * On -EOPNOTSUPP nothing was stopped and REFUSAL says why.
 */
enum rxe_mig_dump_attrs {
	RXE_MIG_ATTR_DUMP_FLAGS = (1U << UVERBS_ID_NS_SHIFT), /* u32, in */
	RXE_MIG_ATTR_DUMP_LEN,		/* u64, out: bytes of the snapshot */
	RXE_MIG_ATTR_DUMP_COUNT,	/* u32, out: records */
	RXE_MIG_ATTR_DUMP_FD,		/* s32, out, absent with CHECK */
	RXE_MIG_ATTR_DUMP_REFUSAL,	/* struct rxe_mig_refusal, out */
};

#define RXE_MIG_DUMP_CHECK	0x1	/* stop nothing, only check and size */
#define RXE_MIG_DUMP_ASK	0x2	/* with CHECK: PROBE partners not known yet */

/*
 * CANCEL: every Stopped QP of the context resumes where it is.  No attributes.
 * COMMIT: give up the lease; the snapshot is the live copy now.  No attributes.
 */

/*
 * REFILL: put the state of one record into the object that a create command
 * with a hint made, once.  Exactly one object attribute, matching the record's
 * type.
 */
enum rxe_mig_refill_attrs {
	RXE_MIG_ATTR_REFILL_REC = (1U << UVERBS_ID_NS_SHIFT), /* struct rxe_mig_blob */
	RXE_MIG_ATTR_REFILL_CQ,
	RXE_MIG_ATTR_REFILL_SRQ,
	RXE_MIG_ATTR_REFILL_QP,
	RXE_MIG_ATTR_REFILL_MR,
	RXE_MIG_ATTR_REFILL_MW,
	RXE_MIG_ATTR_REFILL_AH,
	RXE_MIG_ATTR_REFILL_PD,
	RXE_MIG_ATTR_REFILL_FD,		/* s32, CHANNEL and ASYNC: their fd */
};

struct rxe_mig_blob {
	__aligned_u64 addr;		/* user pointer to the record */
	__aligned_u64 len;
};

/*
 * RESUME: end the restore of this context.  Every restored QP goes live and
 * RC QPs send RESUME.  Every object is checked first (refilled, GID present,
 * MTU); on error none has been activated and REFUSAL names the object.
 */
enum rxe_mig_resume_attrs {
	RXE_MIG_ATTR_RESUME_FLAGS = (1U << UVERBS_ID_NS_SHIFT), /* u32, in */
	RXE_MIG_ATTR_RESUME_REFUSAL,	/* struct rxe_mig_refusal, out */
};

#define RXE_MIG_RESUME_NEW_ADDR	0x1	/* a missing GID may be replaced */
#define RXE_MIG_RESUME_CHECK	0x2	/* check only, activate nothing */

/* IDENTIFY: is FD an event file of this context, and which? */
enum rxe_mig_identify_attrs {
	RXE_MIG_ATTR_IDENTIFY_FD = (1U << UVERBS_ID_NS_SHIFT), /* s32, in */
	RXE_MIG_ATTR_IDENTIFY_OUT,	/* struct rxe_mig_identity, out */
};

/*
 * ADOPT: FD (a uverbs file of the caller, this context) takes the credentials
 * of task PID, which must hold the same file.  Legacy write() commands, the
 * doorbell among them, are then accepted from any task whose credentials
 * equal those in value.
 */
enum rxe_mig_adopt_attrs {
	RXE_MIG_ATTR_ADOPT_FD = (1U << UVERBS_ID_NS_SHIFT), /* s32, in */
	RXE_MIG_ATTR_ADOPT_PID,		/* s32, in, caller's pid namespace */
};

struct rxe_mig_query {
	__u32 version;			/* RXE_MIG_VERSION */
	__u32 wire_version;		/* MIGROS_VERSION */
	__aligned_u64 features;		/* none yet */
	__aligned_u64 reserved[6];
};

struct rxe_mig_identity {
	__u32 kind;			/* RXE_MIG_REC_CHANNEL, _ASYNC or _CONTEXT */
	__u32 id;			/* record handle */
};

struct rxe_mig_refusal {
	__u32 type;			/* RXE_MIG_REC_*, 0 if the context itself */
	__u32 handle;			/* uverbs handle of the object */
	__u32 reason;			/* enum rxe_mig_reason */
	__u32 value;			/* QPN, key or other number of the object */
	char text[112];			/* the same for people, NUL-terminated */
};

enum rxe_mig_reason {
	RXE_MIG_OK,
	RXE_MIG_UNKNOWN_OBJECT,		/* object class we cannot restore */
	RXE_MIG_MCAST,			/* QP attached to a multicast group */
	RXE_MIG_ODP,			/* on-demand paging MR */
	RXE_MIG_STALE_MR,		/* pages are no longer the mapping's */
	RXE_MIG_NO_OWNER,		/* process that registered the MR is gone */
	RXE_MIG_KERNEL_QP,		/* QP not owned by user space */
	RXE_MIG_NO_GID,			/* local GID of the QP or AH absent here */
	RXE_MIG_MTU,			/* port MTU below the QP's path MTU */
	RXE_MIG_NOT_STOPPED,		/* object is not ready for RESUME */
	RXE_MIG_BUSY,			/* a dump holds the context, for ever if committed */
};

/*
 * Driver data of a create command (PD, CQ, SRQ, QP, MR, MW, AH): create the
 * object with these identifiers.  Refused with -EPERM without
 * CAP_CHECKPOINT_RESTORE, -EBUSY when the index is taken on this device.
 */
#define RXE_MIG_HINT_MAGIC	0x544e4948474d5852ULL	/* "RXMGHINT" */

struct rxe_mig_hint {
	__aligned_u64 magic;
	__u32 index;			/* QPN, key >> 8, SRQ number, AH number */
	__u32 key;			/* MR: rkey (= lkey); MW: rkey */
	__aligned_u64 mmap_offset[2];	/* of the rings: CQ/SRQ [0]; QP rq, sq */
	__s32 pid;			/* MR: pin this process's memory, 0 self */
	__u32 reserved[3];
};

/* ---- the snapshot ---- */

#define RXE_MIG_MAGIC		0x31524749
#define RXE_MIG_VERSION		1
#define RXE_MIG_NONE		0xffffffffU	/* no handle */

struct rxe_mig_hdr {
	__u32 magic;
	__u32 version;
	__u32 hdr_len;			/* sizeof(struct rxe_mig_hdr) */
	__u32 count;			/* records that follow */
	__aligned_u64 total_len;	/* header included */
	__u32 page_size;
	__u32 crc;			/* crc32 (IEEE, seed ~0, inverted) of the records */
	__aligned_u64 features;		/* bits a reader must know, 0 in v1 */
	__aligned_u64 reserved[3];
};

/* records appear in this order: parents before children */
enum rxe_mig_rec_type {
	RXE_MIG_REC_CONTEXT = 1,
	RXE_MIG_REC_ASYNC,
	RXE_MIG_REC_CHANNEL,
	RXE_MIG_REC_PD,
	RXE_MIG_REC_MR,
	RXE_MIG_REC_CQ,
	RXE_MIG_REC_SRQ,
	RXE_MIG_REC_AH,
	RXE_MIG_REC_QP,
	RXE_MIG_REC_MW,
};

struct rxe_mig_rec {
	__u32 type;
	__u32 handle;		/* uverbs handle; ordinal for CHANNEL */
	__aligned_u64 len;	/* this header included, multiple of 8 */
	__aligned_u64 user_handle;
};

/* a queue shared with user space; its bytes follow the fixed part */
struct rxe_mig_ring {
	__aligned_u64 mmap_offset;
	__u32 mmap_size;	/* 0: no ring */
	__u32 log2_elem_size;
	__u32 index_mask;
	__u32 producer;		/* as user space sees it */
	__u32 consumer;
	__u32 index;		/* the driver's private index */
	__aligned_u64 data_len;	/* bytes of ring data in this record */
};

struct rxe_mig_gid {
	__u32 index;
	__u32 reserved;
	__u8 gid[16];
};

struct rxe_mig_context {
	struct rxe_mig_rec rec;
	char device[64];
	__be64 node_guid;
	__u32 next_qpn;		/* allocation cursors */
	__u32 next_mr;
	__u32 next_mw;
	__u32 next_srq;
	__u32 next_ah;
	__u32 num_gids;
	__u32 max_handle;	/* highest uverbs handle in use, or NONE */
	__u32 reserved;
	struct rxe_mig_gid gids[];
};

struct rxe_mig_async_event {
	__aligned_u64 element;	/* user_handle or port, as user space reads it */
	__u32 event_type;
	__u32 obj_type;		/* RXE_MIG_REC_*, 0 for port events */
	__u32 obj_handle;
	__u32 reserved;
};

struct rxe_mig_async {		/* the context's asynchronous event file */
	struct rxe_mig_rec rec;
	__u32 num_events;	/* unread, oldest first */
	__u32 reserved;
	struct rxe_mig_async_event events[];
};

struct rxe_mig_channel {
	struct rxe_mig_rec rec;
	__u32 num_events;	/* unread, oldest first: CQ handles */
	__u32 reserved;
	__u32 cq_handle[];	/* padded to 8 bytes */
};

struct rxe_mig_pd {
	struct rxe_mig_rec rec;
};

struct rxe_mig_mr {
	struct rxe_mig_rec rec;
	__u32 pd;
	__u32 rkey;		/* lkey is the same number */
	__aligned_u64 start;
	__aligned_u64 length;
	__aligned_u64 iova;
	__u32 access;
	__s32 owner;		/* tgid in the dumper's pid namespace */
};

struct rxe_mig_cq {
	struct rxe_mig_rec rec;
	__u32 cqe;
	__u32 channel;		/* CHANNEL ordinal or NONE */
	__u32 notify;		/* IB_CQ_SOLICITED, IB_CQ_NEXT_COMP: armed */
	__u32 comp_events_reported;
	__u32 async_events_reported;
	__u32 reserved;
	struct rxe_mig_ring ring;
};

struct rxe_mig_srq {
	struct rxe_mig_rec rec;
	__u32 pd;
	__u32 srq_num;
	__u32 max_wr;
	__u32 max_sge;
	__u32 limit;
	__u32 error;
	__u32 async_events_reported;
	__u32 reserved;
	struct rxe_mig_ring ring;
};

struct rxe_mig_av {
	__u8 network_type;	/* RXE_NETWORK_TYPE_*, 0: no address yet */
	__u8 port_num;
	__u8 sgid_index;
	__u8 hop_limit;
	__u8 traffic_class;
	__u8 reserved[3];
	__u32 flow_label;
	__u32 reserved2;
	__u8 dgid[16];
	__u8 sgid[16];
};

struct rxe_mig_ah {
	struct rxe_mig_rec rec;
	__u32 pd;
	__u32 ah_num;		/* pool index */
	__u32 new_provider;	/* user space was told ah_num */
	__u32 reserved;
	struct rxe_mig_av av;
};

struct rxe_mig_res {		/* one responder resource */
	__u32 type;		/* internal mask value, 0: free */
	__u32 replay;
	__u32 first_psn;
	__u32 last_psn;
	__u32 cur_psn;
	__u32 state;
	__aligned_u64 va_org;	/* READ, FLUSH: va; atomics: original value */
	__aligned_u64 va;
	__u32 rkey;
	__u32 length;
	__u32 resid;
	__u32 flush;		/* type | level << 8 */
};

struct rxe_mig_proto {		/* protocol state of an RC QP */
	__u32 epoch;
	__u32 peer_epoch;
	__aligned_u64 secret;
	__aligned_u64 challenge;
	__aligned_u64 peer_secret;
	__aligned_u64 peer_challenge;
	__u32 flags;		/* RXE_MIG_PROTO_* */
	__u32 reserved;
};

#define RXE_MIG_PROTO_PEER_CAPABLE	0x1
#define RXE_MIG_PROTO_PEER_STOPPED	0x2

struct rxe_mig_qp_rec {
	struct rxe_mig_rec rec;
	__u32 pd;
	__u32 send_cq;
	__u32 recv_cq;
	__u32 srq;		/* or NONE */
	__u32 qpn;
	__u32 type;		/* enum ib_qp_type */
	__u32 sig_all;
	__u32 max_send_wr;
	__u32 max_send_sge;
	__u32 max_inline;
	__u32 max_recv_wr;
	__u32 max_recv_sge;
	/* attributes */
	__u32 state;
	__u32 path_mtu;
	__u32 path_mig_state;
	__u32 qkey;
	__u32 rq_psn;
	__u32 sq_psn;
	__u32 dest_qpn;
	__u32 access;
	__u32 pkey_index;
	__u32 alt_pkey_index;
	__u32 en_sqd_async_notify;
	__u32 sq_draining;
	__u32 max_rd_atomic;
	__u32 max_dest_rd_atomic;
	__u32 min_rnr_timer;
	__u32 port_num;
	__u32 timeout;
	__u32 retry_cnt;
	__u32 rnr_retry;
	__u32 alt_port_num;
	__u32 alt_timeout;
	__u32 src_port;
	struct rxe_mig_av pri_av;
	struct rxe_mig_av alt_av;
	/* requester */
	__u32 req_psn;
	__u32 req_opcode;
	__u32 req_wqe_index;
	__u32 req_rd_atomic;
	__u32 ssn;
	/* completer */
	__u32 comp_psn;
	__u32 comp_opcode;
	/* responder */
	__u32 resp_psn;
	__u32 resp_ack_psn;
	__u32 resp_msn;
	__u32 resp_opcode;
	__u32 resp_drop_msg;
	__u32 resp_status;
	__u32 resp_resid;
	__u32 resp_rkey;
	__u32 resp_length;
	__aligned_u64 resp_va;
	__aligned_u64 resp_offset;
	__u32 res_head;
	__u32 res_tail;
	__u32 num_res;		/* responder resources that follow */
	__u32 recv_wqe_len;	/* receive WQE in progress that follows, or 0 */
	__u32 async_events_reported;
	__u32 reserved;
	struct rxe_mig_proto proto;
	struct rxe_mig_ring sq;
	struct rxe_mig_ring rq;
	/* struct rxe_mig_res[num_res], WQE (padded to 8), sq data, rq data */
};

struct rxe_mig_mw {
	struct rxe_mig_rec rec;
	__u32 pd;
	__u32 rkey;
	__u32 type;		/* enum ib_mw_type */
	__u32 state;
	__u32 access;
	__u32 mr;		/* handle or NONE */
	__u32 qp;		/* handle or NONE */
	__u32 reserved;
	__aligned_u64 addr;
	__aligned_u64 length;
};

#endif /* RXE_MIG_UAPI_H */
