// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Sending migration packets.
 *
 * These do not go through rxe_xmit_packet(): a tombstone has no QP, a QP
 * below RTS may not send requests, and a QP's cached route points to the
 * partner's old address.  They are few, so each looks up its own route.
 */
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/route.h>
#include <net/ipv6_stubs.h>

#include "rxe_mig.h"
#include "rxe_mig_trace.h"

/* An opcode without extended headers: for the ICRC helpers everything behind
 * the BTH of a migration packet is payload.
 */
#define RXE_MIG_ICRC_OPCODE	IB_OPCODE_RC_SEND_MIDDLE

/* rxe's private idea of paylen: from BTH to ICRC */
#define RXE_MIG_MAX_PAYLEN	(RXE_BTH_BYTES + MIGROS_ETH_BYTES + RXE_ICRC_SIZE)

static bool gid_is_v4(const union ib_gid *gid)
{
	return ipv6_addr_v4mapped((struct in6_addr *)gid->raw);
}

/**
 * rxe_mig_gid_present - is this GID an address of the port?
 * @rxe: device
 * @gid: address
 * @index: if not NULL, receives the GID index
 */
bool rxe_mig_gid_present(struct rxe_dev *rxe, const union ib_gid *gid,
			 int *index)
{
	const struct ib_gid_attr *attr;

	attr = rdma_find_gid_by_port(&rxe->ib_dev, gid,
				     IB_GID_TYPE_ROCE_UDP_ENCAP, RXE_PORT,
				     NULL);
	if (IS_ERR(attr))
		return false;
	if (index)
		*index = attr->index;
	rdma_put_gid_attr(attr);
	return true;
}

static void av_addr_to_gid(const struct rxe_av *av, const void *sockaddr,
			   union ib_gid *gid)
{
	if (av->network_type == RXE_NETWORK_TYPE_IPV4)
		ipv6_addr_set_v4mapped(((struct sockaddr_in *)sockaddr)->sin_addr.s_addr,
				       (struct in6_addr *)gid->raw);
	else
		memcpy(gid->raw, &((struct sockaddr_in6 *)sockaddr)->sin6_addr,
		       sizeof(gid->raw));
}

/**
 * rxe_mig_av_gids - both ends of an address vector
 * @av: the address vector, with an address
 * @sgid: result
 * @dgid: result
 */
void rxe_mig_av_gids(const struct rxe_av *av, union ib_gid *sgid,
		     union ib_gid *dgid)
{
	av_addr_to_gid(av, &av->sgid_addr, sgid);
	av_addr_to_gid(av, &av->dgid_addr, dgid);
}

/**
 * rxe_mig_path_of - the path a connected QP sends on
 * @qp: an RC or UC QP with a primary AV
 * @path: result
 */
void rxe_mig_path_of(struct rxe_qp *qp, struct rxe_mig_path *path)
{
	struct rxe_av *av = &qp->pri_av;

	rxe_mig_av_gids(av, &path->sgid, &path->dgid);
	path->src_port = qp->src_port;
	path->hop_limit = av->grh.hop_limit;
	path->tclass = av->grh.traffic_class;
}

static struct dst_entry *mig_route(struct net_device *ndev,
				   const struct rxe_mig_path *path)
{
	if (gid_is_v4(&path->dgid)) {
		struct flowi4 fl = {
			.flowi4_oif = ndev->ifindex,
			.saddr = *(__be32 *)(path->sgid.raw + 12),
			.daddr = *(__be32 *)(path->dgid.raw + 12),
			.flowi4_proto = IPPROTO_UDP,
		};
		struct rtable *rt = ip_route_output_key(dev_net(ndev), &fl);

		return IS_ERR(rt) ? NULL : &rt->dst;
	}
#if IS_ENABLED(CONFIG_IPV6)
	{
		struct flowi6 fl6 = {
			.flowi6_oif = ndev->ifindex,
			.flowi6_proto = IPPROTO_UDP,
		};
		struct dst_entry *dst;

		memcpy(&fl6.saddr, path->sgid.raw, sizeof(fl6.saddr));
		memcpy(&fl6.daddr, path->dgid.raw, sizeof(fl6.daddr));
		dst = ipv6_stub->ipv6_dst_lookup_flow(dev_net(ndev), NULL,
						      &fl6, NULL);
		if (IS_ERR(dst))
			return NULL;
		if (dst->error) {
			dst_release(dst);
			return NULL;
		}
		return dst;
	}
#else
	return NULL;
#endif
}

/* the netdev of a local address, with a reference */
static struct net_device *mig_netdev(struct rxe_dev *rxe,
				     const union ib_gid *sgid)
{
	const struct ib_gid_attr *attr;
	struct net_device *ndev;

	attr = rdma_find_gid_by_port(&rxe->ib_dev, sgid,
				     IB_GID_TYPE_ROCE_UDP_ENCAP, RXE_PORT,
				     NULL);
	if (IS_ERR(attr))
		return ERR_PTR(-EADDRNOTAVAIL);
	rcu_read_lock();
	ndev = rdma_read_gid_attr_ndev_rcu(attr);
	if (!IS_ERR(ndev))
		dev_hold(ndev);
	rcu_read_unlock();
	rdma_put_gid_attr(attr);
	return ndev;
}

/**
 * rxe_mig_reachable - is there a way from here to there?
 * @rxe: device
 * @path: addresses
 *
 * A QP that finds no route for a packet fails, so look before it is moved.
 */
bool rxe_mig_reachable(struct rxe_dev *rxe, const struct rxe_mig_path *path)
{
	struct net_device *ndev;
	struct dst_entry *dst;

	if (gid_is_v4(&path->sgid) != gid_is_v4(&path->dgid))
		return false;
	if (rxe_mig_gid_present(rxe, &path->dgid, NULL))
		return true;
	ndev = mig_netdev(rxe, &path->sgid);
	if (IS_ERR(ndev))
		return false;
	dst = mig_route(ndev, path);
	dst_release(dst);
	dev_put(ndev);
	return dst;
}

static void push_udp(struct sk_buff *skb, u16 src_port)
{
	struct udphdr *udph = __skb_push(skb, sizeof(*udph));

	skb_reset_transport_header(skb);
	udph->dest = htons(ROCE_V2_UDP_DPORT);
	udph->source = htons(src_port);
	udph->len = htons(skb->len);
	udph->check = 0;
}

static void push_ip(struct sk_buff *skb, const struct rxe_mig_path *path,
		    struct dst_entry *dst)
{
	if (skb->protocol == htons(ETH_P_IP)) {
		struct iphdr *iph = skb_push(skb, sizeof(*iph));

		skb_reset_network_header(skb);
		memset(IPCB(skb), 0, sizeof(*IPCB(skb)));
		iph->version = IPVERSION;
		iph->ihl = sizeof(*iph) >> 2;
		iph->tos = path->tclass;
		iph->tot_len = htons(skb->len);
		iph->frag_off = htons(IP_DF);
		iph->ttl = path->hop_limit;
		iph->protocol = IPPROTO_UDP;
		iph->saddr = *(__be32 *)(path->sgid.raw + 12);
		iph->daddr = *(__be32 *)(path->dgid.raw + 12);
		/* fixed now: the ICRC covers it */
		__ip_select_ident(dev_net(skb->dev), iph, 1);
	} else {
		struct ipv6hdr *ip6h = skb_push(skb, sizeof(*ip6h));

		skb_reset_network_header(skb);
		memset(IP6CB(skb), 0, sizeof(*IP6CB(skb)));
		ip6_flow_hdr(ip6h, path->tclass, 0);
		ip6h->payload_len = htons(skb->len - sizeof(*ip6h));
		ip6h->nexthdr = IPPROTO_UDP;
		ip6h->hop_limit = path->hop_limit;
		memcpy(&ip6h->saddr, path->sgid.raw, sizeof(ip6h->saddr));
		memcpy(&ip6h->daddr, path->dgid.raw, sizeof(ip6h->daddr));
	}
	if (dst)
		skb_dst_set(skb, dst_clone(dst));
}

/* The receive side of the same device: what rxe_udp_encap_recv() would do */
static int mig_loopback(struct rxe_dev *rxe, struct rxe_pkt_info *pkt,
			struct sk_buff *skb)
{
	if (!ib_device_try_get(&rxe->ib_dev)) {
		kfree_skb(skb);
		return -ENODEV;
	}
	pkt->mask = RXE_GRH_MASK | RXE_LOOPBACK_MASK;
	memcpy(SKB_TO_PKT(skb), pkt, sizeof(*pkt));
	skb_pull(skb, skb_transport_offset(skb) + sizeof(struct udphdr));
	local_bh_disable();
	rxe_rcv(skb);
	local_bh_enable();
	return 0;
}

static int mig_xmit(struct rxe_dev *rxe, const struct rxe_mig_path *path,
		    u8 opcode, u8 icrc_opcode, u32 qpn, u32 psn,
		    const void *eth, unsigned int eth_len)
{
	struct rxe_pkt_info pkt = {};
	struct net_device *ndev;
	struct dst_entry *dst = NULL;
	struct sk_buff *skb;
	bool loop;
	int err;

	if (gid_is_v4(&path->sgid) != gid_is_v4(&path->dgid))
		return -EAFNOSUPPORT;
	ndev = mig_netdev(rxe, &path->sgid);
	if (IS_ERR(ndev))
		return PTR_ERR(ndev);

	/* The stack would route this via lo, where rxe does not listen */
	loop = rxe_mig_gid_present(rxe, &path->dgid, NULL);
	if (!loop) {
		dst = mig_route(ndev, path);
		if (!dst) {
			err = -EHOSTUNREACH;
			goto out;
		}
	}

	skb = alloc_skb(LL_RESERVED_SPACE(ndev) + sizeof(struct ipv6hdr) +
			sizeof(struct udphdr) + RXE_MIG_MAX_PAYLEN, GFP_KERNEL);
	if (!skb) {
		err = -ENOMEM;
		goto out;
	}
	skb_reserve(skb, LL_RESERVED_SPACE(ndev) + sizeof(struct ipv6hdr) +
			 sizeof(struct udphdr));
	skb->dev = ndev;
	skb->protocol = gid_is_v4(&path->dgid) ? htons(ETH_P_IP) :
						 htons(ETH_P_IPV6);

	pkt.rxe = rxe;
	pkt.port_num = RXE_PORT;
	pkt.opcode = icrc_opcode;
	pkt.psn = psn;
	pkt.mask = RXE_GRH_MASK;
	pkt.paylen = RXE_BTH_BYTES + eth_len + RXE_ICRC_SIZE;
	pkt.hdr = skb_put_zero(skb, pkt.paylen);
	bth_init(&pkt, opcode, 0, 0, 0, IB_DEFAULT_PKEY_FULL, qpn, 0, psn);
	memcpy(pkt.hdr + RXE_BTH_BYTES, eth, eth_len);

	push_udp(skb, path->src_port);
	push_ip(skb, path, dst);
	rxe_icrc_generate(skb, &pkt);

	if (loop)
		err = mig_loopback(rxe, &pkt, skb);
	else if (skb->protocol == htons(ETH_P_IP))
		err = ip_local_out(dev_net(ndev), NULL, skb);
	else
		err = ip6_local_out(dev_net(ndev), NULL, skb);
	/* NET_XMIT_DROP and the like are the network losing a packet */
	if (err > 0)
		err = 0;
out:
	dst_release(dst);
	dev_put(ndev);
	return err;
}

/**
 * rxe_mig_may_send - does the rate allow one more packet? [ACC-3]
 * @rate: of a QP or tombstone, whose lock the caller holds
 * @opcode: MIGROS_OP_*
 */
bool rxe_mig_may_send(struct rxe_mig_rate *rate, u8 opcode)
{
	unsigned int i = opcode - MIGROS_OP_FIRST;

	if (!rate->count[i] ||
	    time_after_eq(jiffies, rate->from[i] +
				   msecs_to_jiffies(MIGROS_RETRY_MIN_MS))) {
		rate->from[i] = jiffies;
		rate->count[i] = 0;
	}
	if (rate->count[i] == RXE_MIG_BURST)
		return false;
	rate->count[i]++;
	return true;
}

/**
 * rxe_mig_send - send one migration packet [WIRE-3]
 * @rxe: device
 * @path: from where to where
 * @opcode: MIGROS_OP_*
 * @qpn: destination QP
 * @psn: BTH PSN
 * @eth: header behind the BTH
 *
 * Return: 0, or a negative errno when it could not be sent at all.  Callers
 * treat both as "may have been lost".
 */
int rxe_mig_send(struct rxe_dev *rxe, const struct rxe_mig_path *path,
		 u8 opcode, u32 qpn, u32 psn, const struct migros_eth *eth)
{
	BUILD_BUG_ON(sizeof(*eth) != MIGROS_ETH_BYTES);

	rxe_mig_count(rxe, RXE_MIG_CNT_SENT_PKTS);
	if (opcode == MIGROS_OP_RESUME)
		rxe_mig_count(rxe, RXE_MIG_CNT_SENT_RESUME);
	trace_rxe_mig_sent(rxe, &path->sgid, &path->dgid, opcode, qpn, eth);
	return mig_xmit(rxe, path, opcode, RXE_MIG_ICRC_OPCODE, qpn, psn, eth,
			sizeof(*eth));
}

/**
 * rxe_mig_send_nak - send an acknowledge packet with a given syndrome
 * @rxe: device
 * @path: from where to where
 * @syndrome: AETH syndrome
 * @msn: AETH MSN field
 * @qpn: destination QP
 * @psn: PSN of the request it answers [WIRE-2]
 */
int rxe_mig_send_nak(struct rxe_dev *rxe, const struct rxe_mig_path *path,
		     u8 syndrome, u32 msn, u32 qpn, u32 psn)
{
	__be32 aeth = cpu_to_be32((u32)syndrome << 24 | (msn & 0xffffff));

	if (syndrome == MIGROS_SYN_NAK_STOPPED)
		rxe_mig_count(rxe, RXE_MIG_CNT_SENT_NAK_STOPPED);
	return mig_xmit(rxe, path, IB_OPCODE_RC_ACKNOWLEDGE,
			IB_OPCODE_RC_ACKNOWLEDGE, qpn, psn, &aeth,
			sizeof(aeth));
}

static void skb_gids(struct sk_buff *skb, struct rxe_mig_pkt *p)
{
	if (skb->protocol == htons(ETH_P_IP)) {
		ipv6_addr_set_v4mapped(ip_hdr(skb)->saddr,
				       (struct in6_addr *)p->saddr.raw);
		ipv6_addr_set_v4mapped(ip_hdr(skb)->daddr,
				       (struct in6_addr *)p->daddr.raw);
	} else {
		memcpy(p->saddr.raw, &ipv6_hdr(skb)->saddr, 16);
		memcpy(p->daddr.raw, &ipv6_hdr(skb)->daddr, 16);
	}
}

/* Hand a packet to the worker; drops it when too many wait already */
static void mig_queue(struct rxe_dev *rxe, struct rxe_pkt_info *pkt,
		      struct sk_buff *skb, bool has_eth)
{
	struct rxe_mig_dev *dev = rxe->mig;
	struct rxe_mig_pkt *p;
	unsigned long flags;
	bool queued = false;

	p = kzalloc(sizeof(*p), GFP_ATOMIC);
	if (!p)
		goto drop;
	skb_gids(skb, p);
	p->opcode = bth_opcode(pkt);
	p->qpn = bth_qpn(pkt);
	p->psn = bth_psn(pkt);
	if (has_eth)
		memcpy(&p->eth, pkt->hdr + RXE_BTH_BYTES, sizeof(p->eth));

	spin_lock_irqsave(&dev->rx_lock, flags);
	if (dev->rx_count < RXE_MIG_RX_MAX) {
		dev->rx_count++;
		list_add_tail(&p->entry, &dev->rx_list);
		queued = true;
	}
	spin_unlock_irqrestore(&dev->rx_lock, flags);

	if (queued) {
		queue_work(dev->wq, &dev->rx_work);
		return;
	}
	kfree(p);
drop:
	rxe_mig_count(rxe, RXE_MIG_CNT_DROPPED);
}

static bool mig_icrc_ok(struct rxe_pkt_info *pkt, struct sk_buff *skb,
			u8 opcode)
{
	u8 saved = pkt->opcode;
	bool ok;

	pkt->opcode = opcode;
	ok = !rxe_icrc_check(skb, pkt);
	pkt->opcode = saved;
	return ok;
}

/* a packet with an opcode of ours [ACC-1] */
static void rcv_op(struct rxe_pkt_info *pkt, struct sk_buff *skb)
{
	const struct migros_eth *eth = (void *)(pkt->hdr + RXE_BTH_BYTES);

	if (pkt->paylen != RXE_MIG_MAX_PAYLEN || skb->len < pkt->paylen ||
	    bth_tver(pkt) != BTH_TVER || bth_pad(pkt) ||
	    !pkey_match(bth_pkey(pkt), IB_DEFAULT_PKEY_FULL) ||
	    eth->version != MIGROS_VERSION ||
	    be32_to_cpu(eth->src_qpn) <= 1 || bth_qpn(pkt) <= 1 ||
	    !mig_icrc_ok(pkt, skb, RXE_MIG_ICRC_OPCODE)) {
		rxe_mig_count(pkt->rxe, RXE_MIG_CNT_DROPPED);
		return;
	}

	rxe_mig_count(pkt->rxe, RXE_MIG_CNT_RCVD_PKTS);
	if (pkt->opcode == MIGROS_OP_RESUME)
		rxe_mig_count(pkt->rxe, RXE_MIG_CNT_RCVD_RESUME);
	mig_queue(pkt->rxe, pkt, skb, true);
}

/* an RC request whose QP left a tombstone [TOMB-2, STOP-6] */
static void rcv_request(struct rxe_pkt_info *pkt, struct sk_buff *skb)
{
	struct rxe_mig_dev *dev = pkt->rxe->mig;
	struct rxe_qp *qp;

	pkt->mask |= rxe_opcode[pkt->opcode].mask;
	if (!(pkt->mask & RXE_REQ_MASK) ||
	    (pkt->opcode & 0xe0) != IB_OPCODE_RC ||
	    bth_tver(pkt) != BTH_TVER ||
	    !pkey_match(bth_pkey(pkt), IB_DEFAULT_PKEY_FULL) ||
	    pkt->paylen < header_size(pkt) + bth_pad(pkt) + RXE_ICRC_SIZE)
		return;
	if (!rxe_mig_tomb_exists(dev, bth_qpn(pkt)))
		return;
	qp = rxe_pool_get_index(&pkt->rxe->qp_pool, bth_qpn(pkt));
	if (qp) {
		rxe_put(qp);
		return;
	}
	if (!mig_icrc_ok(pkt, skb, pkt->opcode))
		return;

	mig_queue(pkt->rxe, pkt, skb, false);
}

/**
 * rxe_mig_rcv_dropped - look at a packet that rxe_rcv() is about to drop
 * @skb: the packet, still owned by the caller
 *
 * It may be for us because rxe does not know its opcode, or because its QP
 * has left.  It can have been dropped at any point of rxe_rcv(), so all that
 * must hold is checked here.  Softirq.
 *
 * One call there, and not marked cold, so that the machine code for packets
 * that are not dropped stays what it is (docs/hotpath.md).
 */
void rxe_mig_rcv_dropped(struct sk_buff *skb)
{
	struct rxe_pkt_info *pkt = SKB_TO_PKT(skb);
	union ib_gid dgid;

	if (pkt->qp || skb->len < RXE_BTH_BYTES)
		return;
	pkt->opcode = bth_opcode(pkt);
	if (rxe_opcode[pkt->opcode].length ? xa_empty(&pkt->rxe->mig->tombs) :
	    pkt->opcode < MIGROS_OP_FIRST || pkt->opcode > MIGROS_OP_LAST)
		return;

	if (skb->protocol == htons(ETH_P_IP))
		ipv6_addr_set_v4mapped(ip_hdr(skb)->daddr,
				       (struct in6_addr *)dgid.raw);
	else
		memcpy(&dgid, &ipv6_hdr(skb)->daddr, sizeof(dgid));
	if (!rxe_mig_gid_present(pkt->rxe, &dgid, NULL))
		return;

	if (rxe_opcode[pkt->opcode].length)
		rcv_request(pkt, skb);
	else
		rcv_op(pkt, skb);
}
