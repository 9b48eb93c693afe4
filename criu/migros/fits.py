"""Whether this host can take a container of another, as far as can be known before that is
stopped."""

import re
from pathlib import Path

import journal
import partners
import places
import rdma
import thishost
from findings import MIND, NO, Finding, Mind, examine
from journal import Failure
from process import Process

# What rxe leaves for headers in the MTU of a network device
HEADERS = 80


def _name(kind, wanted):
    if kind.knows(wanted["container"]) or kind.processes(wanted["cgroups"]):
        raise Failure("this host has one of this name")
    return "the name is free"


def _needs(kind, wanted):
    kind.expected(wanted)
    return "it has what the container needs"


def _enough(has, wanted):
    free, need = has() >> 20, wanted["bytes"] >> 20
    if free < need:
        raise Failure(f"{free} MiB are free, the container has about {need}; make room")
    return f"{free} MiB are free for {need}"


def room(wanted):
    """For images, on either host"""
    return examine(str(journal.DIR), _enough, thishost.room, wanted)


def _kernel(theirs, ours):
    one, other = (tuple(map(int, re.findall("[0-9]+", each["kernel"])[:3]))
                  for each in (theirs, ours))
    if other < one:
        raise Mind(f"{ours['kernel']} here, {theirs['kernel']} there: what a program uses of "
                   "that may be missing here")
    return ours["kernel"]


def _processor(theirs, ours):
    for name, what in (("machine", "architecture"), ("page", "page size")):
        if theirs[name] != ours[name]:
            raise Failure(f"{what} {theirs[name]} there, {ours[name]} here; no image crosses "
                          "that")
    missing = sorted(set(theirs["flags"].split()) - set(ours["flags"].split()))
    if missing:
        raise Mind("it lacks " + " ".join(missing) + ": a program that has found and uses "
                   "it there dies here")
    return "it has all that the source's has"


def _clock(theirs, ours):
    if ours["monotonic"] < theirs["monotonic"]:
        raise Mind(f"CLOCK_MONOTONIC goes back by {theirs['monotonic'] - ours['monotonic']:.0f} "
                   "s, for programs without a time namespace")
    return "CLOCK_MONOTONIC does not go back"


def _versions(theirs, ours, name):
    if theirs[name] != ours[name]:
        raise Mind(f"'{_first(ours[name])}' here, '{_first(theirs[name])}' there")
    return _first(ours[name])


def _format(theirs, ours, name, what, hint=""):
    """All older ones are read here, no newer one."""
    if theirs[name] is None or ours[name] is None:
        raise Mind(f"which version of {name} is written there and read here is not known{hint}")
    if theirs[name] > ours[name]:
        raise Failure(f"{name} are of version {theirs[name]} there, {ours[name]} is the newest "
                      f"that is read here; install the same {what} here as there")
    return f"version {theirs[name]} is read here"


def _first(text):
    return (text.splitlines() or ["none"])[0]


def _taken(device, kind, numbers, wanted):
    """Refuse what another has."""
    for entry in rdma.resources(kind):
        if entry["ifname"] == device and numbers(entry) in wanted:
            raise Failure(f"{kind.upper()} {numbers(entry):#x} is taken by process "
                          f"{entry.get('pid', '?')} ({entry.get('comm', '?')}); end that, "
                          "or let the container have a device of its own")
    return f"{len(wanted)} {kind.upper()}s, their numbers are free"


def _by_runtime(kind, wanted, ours):
    """What only a container has"""
    if kind.NAME == Process.NAME:
        return []
    return [examine(f"container {wanted['container']}", _name, kind, wanted),
            examine(kind.NAME, _needs, kind, wanted),
            examine(kind.NAME, _versions, wanted["has"]["facts"], ours, "runtime")]


def _mtu(net, wanted):
    here = int(Path(f"/sys/class/net/{net}/mtu").read_text("ascii"))
    best = max((each for each in (256, 512, 1024, 2048, 4096) if each <= here - HEADERS),
               default=256)
    if best < wanted:
        raise Failure(f"MTU {here} allows a path MTU of {best}, its connections have {wanted}; "
                      f"'ip link set {net} mtu {wanted + HEADERS}', at least")
    return f"MTU {here}, path MTU {wanted or 'unknown'}"


def _on_device(wanted, has):
    try:
        device, net = places.device(wanted)
    except Mind as error:
        return [Finding("RDMA device", MIND, str(error))]
    except Failure as error:
        return [Finding("RDMA device", NO, str(error))]
    return [examine(f"RDMA device {device}", _taken, device, "qp",
                    lambda entry: entry["lqpn"], set(has["qps"])),
            examine(f"RDMA device {device}", _taken, device, "mr",
                    rdma.region, set(has["regions"])),
            examine(f"network device {net}", _mtu, net, has["mtu"])]


def _profile(has):
    have = thishost.profiles()
    name = has["profile"]
    if name in ("", "unconfined") or have is None or name in have:
        return name or "none"
    raise Mind(f"{name}: it is not loaded here; if the runtime does not load it, the restore "
               "fails")


def findings(kind, wanted):
    """wanted: as the source asks for, in expect and examine (hosts.py)"""
    has = wanted["has"]
    theirs, ours = has["facts"], thishost.facts(kind)
    others = [each for each in has["partners"] if each not in places.moving(wanted)]
    return [
        *_by_runtime(kind, wanted, ours),
        *places.findings(wanted),
        room(wanted),
        examine("memory", _enough, thishost.memory, wanted),
        examine("kernel", _kernel, theirs, ours),
        examine("processor", _processor, theirs, ours),
        examine("clock", _clock, theirs, ours),
        examine("criu", _versions, theirs, ours, "criu"),
        examine("snapshots", _format, theirs, ours, "snapshots", "rdma_rxe and libibverbs",
                "; only a device of rdma_rxe can tell"),
        examine("images", _format, theirs, ours, "images", "criu with its plugin"),
        examine("AppArmor profile", _profile, has),
        *_on_device(wanted, has),
        *partners.findings(others, has, wanted["new_ip"])]
