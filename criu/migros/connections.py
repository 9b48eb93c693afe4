"""Connections of this host and what holds them."""

import capability
import rdma


def _seconds(entry):
    """Since when it has been held or Stopped"""
    for name in ("drv_mig_stopped_ms", "drv_mig_held_ms"):
        if name in entry:
            return entry[name] / 1000
    return None


def connections(every):
    """RC QPs that a migration holds now, or every one"""
    found = [{"device": entry["ifname"], "qpn": entry["lqpn"],
              "partner": entry.get("rqpn", 0), "address": rdma.partner(entry),
              "pid": entry.get("pid"), "command": entry.get("comm", ""),
              "state": entry.get("drv_mig_state", "running"),
              "seconds": _seconds(entry), "stops": entry.get("drv_mig_epoch", 0),
              "partner_stops": entry.get("drv_mig_peer_epoch", 0),
              "partner_capable": capability.knows(entry)}
             for entry in rdma.resources("qp") if entry["type"] == "RC"]
    return [each for each in found if every or each["state"] != "running"]


def line(each):
    """For people"""
    since = "" if each["seconds"] is None else f"{each['seconds']:.1f} s"
    return (f"{each['device']}  QP {each['qpn']:<8}  partner {each['partner']:<8} "
            f"{each['address'] or '?':<15}  {each['state']:8}  {since:>8}  "
            f"{each['command']} {each['pid'] or ''}").rstrip()
