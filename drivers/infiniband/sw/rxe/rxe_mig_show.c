// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * What can be seen of migration: counters behind those of rxe ("rdma statistic
 * show", hw_counters in sysfs), and the details of a QP ("rdma resource show qp
 * -dd").  Applications ask for neither.
 */
#include <rdma/rdma_netlink.h>
#include <rdma/restrack.h>

#include "rxe_mig.h"

static const char *const counter_names[] = {
	[RXE_MIG_CNT_STOPS]		= "mig_stops",
	[RXE_MIG_CNT_PAUSES]		= "mig_pauses",
	[RXE_MIG_CNT_HELD_MS]		= "mig_held_ms",
	[RXE_MIG_CNT_RESUMES]		= "mig_resumes",
	[RXE_MIG_CNT_GAVE_UP]		= "mig_gave_up",
	[RXE_MIG_CNT_REFUSED]		= "mig_refused",
	[RXE_MIG_CNT_CONTRADICTED]	= "mig_contradicted",
	[RXE_MIG_CNT_DROPPED]		= "mig_dropped",
	[RXE_MIG_CNT_SENT_PKTS]		= "mig_sent_pkts",
	[RXE_MIG_CNT_RCVD_PKTS]		= "mig_rcvd_pkts",
	[RXE_MIG_CNT_SENT_RESUME]	= "mig_sent_resume",
	[RXE_MIG_CNT_RCVD_RESUME]	= "mig_rcvd_resume",
	[RXE_MIG_CNT_SENT_NAK_STOPPED]	= "mig_sent_nak_stopped",
	[RXE_MIG_CNT_RCVD_NAK_STOPPED]	= "mig_rcvd_nak_stopped",
};

static const char *const state_names[] = {
	[RXE_MIG_RUNNING]	= "running",
	[RXE_MIG_STOPPED]	= "stopped",
	[RXE_MIG_PAUSED]	= "paused",
	[RXE_MIG_RESUMING]	= "resuming",
};

/**
 * rxe_mig_counters_init - what the counters of a device are called
 * @dev: its migration state
 */
int rxe_mig_counters_init(struct rxe_mig_dev *dev)
{
	struct rdma_hw_stats *stock;
	struct rdma_stat_desc *descs;
	int i;

	BUILD_BUG_ON(ARRAY_SIZE(counter_names) != RXE_MIG_NUM_COUNTERS);

	stock = rxe_ib_alloc_hw_port_stats(&dev->rxe->ib_dev, RXE_PORT);
	if (!stock)
		return -ENOMEM;
	dev->num_descs = stock->num_counters + RXE_MIG_NUM_COUNTERS;
	descs = kcalloc(dev->num_descs, sizeof(*descs), GFP_KERNEL);
	if (descs) {
		memcpy(descs, stock->descs,
		       stock->num_counters * sizeof(*descs));
		for (i = 0; i < RXE_MIG_NUM_COUNTERS; i++)
			descs[stock->num_counters + i].name = counter_names[i];
	}
	rdma_free_hw_stats_struct(stock);
	dev->descs = descs;
	return descs ? 0 : -ENOMEM;
}

/**
 * rxe_mig_alloc_hw_port_stats - room for rxe's counters and ours
 * @ibdev: device
 * @port: port number
 */
struct rdma_hw_stats *rxe_mig_alloc_hw_port_stats(struct ib_device *ibdev,
						  u32 port)
{
	struct rxe_mig_dev *dev = to_rdev(ibdev)->mig;

	return rdma_alloc_hw_stats_struct(dev->descs, dev->num_descs,
					  RDMA_HW_STATS_DEFAULT_LIFESPAN);
}

/**
 * rxe_mig_get_hw_stats - values of the counters
 * @ibdev: device
 * @stats: where to
 * @port: port number
 * @index: which, or all; all are read
 */
int rxe_mig_get_hw_stats(struct ib_device *ibdev, struct rdma_hw_stats *stats,
			 u32 port, int index)
{
	struct rxe_mig_dev *dev = to_rdev(ibdev)->mig;
	int num, i;

	num = rxe_ib_get_hw_stats(ibdev, stats, port, index);
	if (num < 0)
		return num;
	for (i = 0; i < RXE_MIG_NUM_COUNTERS; i++)
		stats->value[num + i] = atomic64_read(&dev->counters[i]);
	return num + RXE_MIG_NUM_COUNTERS;
}

static int put_gid(struct sk_buff *msg, const char *name,
		   const union ib_gid *gid)
{
	char text[sizeof("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255")];

	snprintf(text, sizeof(text), "%pI6c", gid);
	return rdma_nl_put_driver_string(msg, name, text);
}

/* Where it is, and who its partner, as far as rxe knows */
static int put_path(struct sk_buff *msg, struct rxe_qp *qp)
{
	struct rxe_mig_path path;

	rxe_mig_path_of(qp, &path);
	if (put_gid(msg, "mig_address", &path.sgid) ||
	    put_gid(msg, "mig_partner", &path.dgid) ||
	    rdma_nl_put_driver_u32(msg, "mig_mtu", qp->mtu))
		return -EMSGSIZE;
	return 0;
}

static int put_details(struct sk_buff *msg, struct rxe_mig_qp *mig)
{
	if (rdma_nl_put_driver_string(msg, "mig_state",
				      state_names[mig->state]) ||
	    rdma_nl_put_driver_u32(msg, "mig_epoch", mig->proto.epoch) ||
	    rdma_nl_put_driver_u32(msg, "mig_peer_epoch",
				   mig->proto.peer_epoch) ||
	    rdma_nl_put_driver_u32(msg, "mig_peer_capable",
				   !!(mig->proto.flags &
				      RXE_MIG_PROTO_PEER_CAPABLE)))
		return -EMSGSIZE;
	if (mig->state == RXE_MIG_STOPPED &&
	    rdma_nl_put_driver_u32(msg, "mig_stopped_ms",
				   jiffies_to_msecs(jiffies - mig->stopped_at)))
		return -EMSGSIZE;
	if (mig->held &&
	    rdma_nl_put_driver_u32(msg, "mig_held_ms",
				   jiffies_to_msecs(jiffies - mig->held_at)))
		return -EMSGSIZE;
	return 0;
}

/**
 * rxe_mig_fill_res_qp - details of a QP that has a partner
 * @msg: netlink message
 * @ibqp: the QP; ib_core does not destroy it meanwhile
 */
int rxe_mig_fill_res_qp(struct sk_buff *msg, struct ib_qp *ibqp)
{
	struct rxe_qp *qp = to_rqp(ibqp);
	struct rxe_mig_qp *mig = READ_ONCE(qp->mig);
	struct nlattr *table;
	int err = 0;

	rxe_mig_qp_lock(qp);
	if ((qp_type(qp) != IB_QPT_RC && qp_type(qp) != IB_QPT_UC) ||
	    !qp->pri_av.network_type)
		goto out;
	err = -EMSGSIZE;
	table = nla_nest_start(msg, RDMA_NLDEV_ATTR_DRIVER);
	if (!table)
		goto out;
	err = put_path(msg, qp);
	if (!err && mig)
		err = put_details(msg, mig);
	if (err)
		nla_nest_cancel(msg, table);
	else
		nla_nest_end(msg, table);
out:
	rxe_mig_qp_unlock(qp);
	return err;
}
