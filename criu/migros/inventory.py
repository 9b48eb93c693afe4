"""What a container has that its destination must be able to take, and whether it can leave.
Nothing is stopped."""

import os
import resource
from pathlib import Path

import capability
import objects
import partners
import rdma
import sockets
import thishost
from findings import MIND, NO, Finding, Mind, examine
from journal import Failure

# capabilities(7)
CAP_IPC_LOCK = 14


def _of_host(pid, name):
    """Whether it is in this namespace of the host; None if it has ended"""
    try:
        return os.readlink(f"/proc/{pid}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}")
    except FileNotFoundError:
        return None


def _here(apart, pid):
    """A restored task has no capability in another user namespace. What is in a network
    namespace is made anew by whom it is from, or by nobody; RDMA is not in it."""
    if _of_host(pid, "user") is False:
        raise Failure("it has a user namespace of its own, in which RDMA cannot be restored; "
                      "start it in that of the host")
    if not apart and _of_host(pid, "net") is False:
        raise Failure("it has a network namespace of its own, which only podman makes anew at "
                      "another host; start it in that of the host")
    return "its namespaces can be left"


def _memlock(pid):
    """The driver restores a region within the limit that its process has then."""
    try:
        text = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
        limit = resource.prlimit(pid, resource.RLIMIT_MEMLOCK)[0]
    except (FileNotFoundError, ProcessLookupError):
        return "it has ended"
    lines = dict(line.split(":", 1) for line in text.splitlines())
    pinned = int(lines.get("VmPin", "0").split()[0]) << 10
    if limit != resource.RLIM_INFINITY and pinned > limit and \
            not int(lines["CapEff"], 16) >> CAP_IPC_LOCK & 1:
        raise Failure(f"it has {pinned} bytes registered, and may lock {limit} by now: "
                      f"'prlimit --pid {pid} --memlock={pinned}'")
    return f"{pinned} bytes are registered"


def _objects(contexts):
    try:
        lib = objects.library()
    except Mind as error:
        return [Finding("RDMA objects", MIND, str(error))]
    return [examine(str(each), objects.look, lib, each) for each in contexts]


def look(pids, told=False, apart=False):
    """Findings: each thing of these processes, and of their partners; told: whether those have
    to be told of another address; apart: whether their network is made anew"""
    found = [each for pid in pids for each in (examine(f"process {pid}", _here, apart, pid),
                                               examine(f"process {pid}", _memlock, pid))
             if each.state == NO]
    for entry in rdma.resources("cm_id"):
        if entry.get("pid") in pids:
            found.append(Finding(f"rdma_cm id of process {entry['pid']}", NO,
                                 "it cannot be restored; have the program connect without "
                                 "rdma_cm (perftest: no -R)"))
    if apart and told:
        # What translates it goes with the address of this host.
        found += [Finding(f"TCP connection with {each}", NO,
                          "it comes through an address of this host, and would be cut; let that "
                          "move along (--keep-ip)") for each in sockets.connected(pids)]
    contexts = objects.contexts(pids)
    if not contexts:
        found.append(Finding("RDMA", NO, "the processes use none; move them without migros"))
    try:
        found += _objects(contexts)
        found += capability.findings(contexts, pids, told)
    finally:
        for each in contexts:
            os.close(each.handle)
    return found


def _profile(pid):
    """Its AppArmor profile, without the mode"""
    try:
        text = Path(f"/proc/{pid}/attr/apparmor/current").read_text("utf-8").strip()
    except OSError:
        return ""
    return text.rsplit(" (", 1)[0]


def take(kind, pids):
    """What a destination is asked for"""
    qps = [entry for entry in rdma.resources("qp") if entry.get("pid") in pids]
    regions = [entry for entry in rdma.resources("mr") if entry.get("pid") in pids]
    others = sorted({rdma.partner(entry) for entry in qps} - {None})

    def numbers(kind):
        return [entry["lqpn"] for entry in qps if entry["type"] == kind]

    return {"qps": [entry["lqpn"] for entry in qps], "uc": numbers("UC"), "ud": numbers("UD"),
            "addresses": sorted({rdma.own(entry) for entry in qps} - {None}),
            # Those of another network namespace come along with it.
            "sockets": sockets.bound(pids) if pids and _of_host(pids[0], "net") is not False
                       else [],
            "regions": [rdma.region(entry) for entry in regions if "rkey" in entry],
            "mtu": max((entry.get("drv_mig_mtu", 0) for entry in qps), default=0),
            "partners": others, "refusing": partners.refusing(others),
            "profile": _profile(pids[0]) if pids else "", "facts": thishost.facts(kind)}
