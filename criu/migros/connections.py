"""Connections of this host and what holds them, as the driver shows it
(docs/migration.md, "What can be seen")."""

import json
import subprocess

from journal import Failure

SHOW = ["rdma", "-j", "-dd", "resource", "show", "qp"]


def _all():
    try:
        done = subprocess.run(SHOW, text=True, check=False, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError:
        raise Failure("rdma: it is not in the PATH; install iproute2") from None
    try:
        if done.returncode:
            raise ValueError(done.stderr.strip() or f"exit status {done.returncode}")
        return json.loads(done.stdout or "[]")
    except ValueError as error:
        raise Failure(f"'{' '.join(SHOW)}': {error}") from None


def _seconds(entry):
    """Since when it has been held or Stopped"""
    for name in ("drv_mig_stopped_ms", "drv_mig_held_ms"):
        if name in entry:
            return entry[name] / 1000
    return None


def connections(every):
    """RC QPs that a migration holds now, or every one"""
    found = [{"device": entry["ifname"], "qpn": entry["lqpn"],
              "partner": entry.get("rqpn", 0), "pid": entry.get("pid"),
              "command": entry.get("comm", ""), "state": entry.get("drv_mig_state", "running"),
              "seconds": _seconds(entry), "stops": entry.get("drv_mig_epoch", 0),
              "partner_stops": entry.get("drv_mig_peer_epoch", 0)}
             for entry in _all() if entry["type"] == "RC"]
    return [each for each in found if every or each["state"] != "running"]


def line(each):
    """For people"""
    since = "" if each["seconds"] is None else f"{each['seconds']:.1f} s"
    return (f"{each['device']}  QP {each['qpn']:<8}  partner {each['partner']:<8}  "
            f"{each['state']:8}  {since:>8}  {each['command']} {each['pid'] or ''}").rstrip()
