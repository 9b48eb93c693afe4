/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
/*
 * Tracepoints of migration, in /sys/kernel/tracing/events/rdma_rxe_mig.  None is
 * where packets of applications pass, and none shows a nonce: whoever has that
 * can take over a connection.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM rdma_rxe_mig

#if !defined(RXE_MIG_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define RXE_MIG_TRACE_H

#include <linux/tracepoint.h>

#include "rxe_mig.h"

TRACE_DEFINE_ENUM(RXE_MIG_RUNNING);
TRACE_DEFINE_ENUM(RXE_MIG_STOPPED);
TRACE_DEFINE_ENUM(RXE_MIG_PAUSED);
TRACE_DEFINE_ENUM(RXE_MIG_RESUMING);

#define rxe_mig_show_state(state)				\
	__print_symbolic(state,					\
			 { RXE_MIG_RUNNING, "running" },	\
			 { RXE_MIG_STOPPED, "stopped" },	\
			 { RXE_MIG_PAUSED, "paused" },		\
			 { RXE_MIG_RESUMING, "resuming" })

#define rxe_mig_show_opcode(opcode)				\
	__print_symbolic(opcode,				\
			 { MIGROS_OP_PAUSE, "PAUSE" },		\
			 { MIGROS_OP_PROBE, "PROBE" },		\
			 { MIGROS_OP_RUNNING, "RUNNING" },	\
			 { MIGROS_OP_RESUME, "RESUME" },	\
			 { MIGROS_OP_RESUME_ACK, "RESUME_ACK" },\
			 { MIGROS_OP_MOVED, "MOVED" })

/* A QP changes its state, or begins the same one anew. */
TRACE_EVENT(rxe_mig_state,
	TP_PROTO(const struct rxe_mig_qp *mig, enum rxe_mig_state to),
	TP_ARGS(mig, to),
	TP_STRUCT__entry(
		__string(dev, dev_name(&mig->qp->ibqp.device->dev))
		__field(u32, qpn)
		__field(u32, partner)
		__field(u32, from)
		__field(u32, to)
		__field(u32, epoch)
		__field(u32, peer_epoch)
	),
	TP_fast_assign(
		__assign_str(dev);
		__entry->qpn = mig->qp->ibqp.qp_num;
		__entry->partner = mig->qp->attr.dest_qp_num;
		__entry->from = mig->state;
		__entry->to = to;
		__entry->epoch = mig->proto.epoch;
		__entry->peer_epoch = mig->proto.peer_epoch;
	),
	TP_printk("dev=%s qpn=%u partner=%u %s -> %s epoch=%u peer_epoch=%u",
		  __get_str(dev), __entry->qpn, __entry->partner,
		  rxe_mig_show_state(__entry->from),
		  rxe_mig_show_state(__entry->to), __entry->epoch,
		  __entry->peer_epoch)
);

DECLARE_EVENT_CLASS(rxe_mig_packet,
	TP_PROTO(const struct rxe_dev *rxe, const union ib_gid *sgid,
		 const union ib_gid *dgid, u8 opcode, u32 qpn,
		 const struct migros_eth *eth),
	TP_ARGS(rxe, sgid, dgid, opcode, qpn, eth),
	TP_STRUCT__entry(
		__string(dev, dev_name(&rxe->ib_dev.dev))
		__array(u8, sgid, 16)
		__array(u8, dgid, 16)
		__field(u8, opcode)
		__field(u8, flags)
		__field(u32, qpn)
		__field(u32, src_qpn)
		__field(u32, epoch)
		__field(u32, sq_psn)
		__field(u32, rq_psn)
	),
	TP_fast_assign(
		__assign_str(dev);
		memcpy(__entry->sgid, sgid->raw, sizeof(__entry->sgid));
		memcpy(__entry->dgid, dgid->raw, sizeof(__entry->dgid));
		__entry->opcode = opcode;
		__entry->flags = eth->flags;
		__entry->qpn = qpn;
		__entry->src_qpn = be32_to_cpu(eth->src_qpn);
		__entry->epoch = be32_to_cpu(eth->epoch);
		__entry->sq_psn = be32_to_cpu(eth->sq_psn);
		__entry->rq_psn = be32_to_cpu(eth->rq_psn);
	),
	TP_printk("dev=%s %pI6c -> %pI6c %s qpn=%u src_qpn=%u flags=%#x epoch=%u sq_psn=%u rq_psn=%u",
		  __get_str(dev), __entry->sgid, __entry->dgid,
		  rxe_mig_show_opcode(__entry->opcode), __entry->qpn,
		  __entry->src_qpn, __entry->flags, __entry->epoch,
		  __entry->sq_psn, __entry->rq_psn)
);

/* A packet of the protocol goes out. */
DEFINE_EVENT(rxe_mig_packet, rxe_mig_sent,
	TP_PROTO(const struct rxe_dev *rxe, const union ib_gid *sgid,
		 const union ib_gid *dgid, u8 opcode, u32 qpn,
		 const struct migros_eth *eth),
	TP_ARGS(rxe, sgid, dgid, opcode, qpn, eth)
);

/* One that is well-formed is worked on. */
DEFINE_EVENT(rxe_mig_packet, rxe_mig_rcvd,
	TP_PROTO(const struct rxe_dev *rxe, const union ib_gid *sgid,
		 const union ib_gid *dgid, u8 opcode, u32 qpn,
		 const struct migros_eth *eth),
	TP_ARGS(rxe, sgid, dgid, opcode, qpn, eth)
);

/* A context is through with a phase: its number is that of "rdma resource". */
TRACE_EVENT(rxe_mig_context,
	TP_PROTO(const struct ib_ucontext *uc, const char *phase),
	TP_ARGS(uc, phase),
	TP_STRUCT__entry(
		__string(dev, dev_name(&uc->device->dev))
		__string(phase, phase)
		__field(u32, ctxn)
	),
	TP_fast_assign(
		__assign_str(dev);
		__assign_str(phase);
		__entry->ctxn = uc->res.id;
	),
	TP_printk("dev=%s ctxn=%u %s", __get_str(dev), __entry->ctxn,
		  __get_str(phase))
);

#endif /* RXE_MIG_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE rxe_mig_trace
#include <trace/define_trace.h>
