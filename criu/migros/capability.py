"""Whether the partners of RC connections know migrations. A driver learns that when it moves
one; to know it before, it can be told to ask them. Applications do not notice."""

import ctypes
import errno
import fcntl
import struct
import time

import rdma
from findings import Mind, examine
from journal import Failure

# struct ib_uverbs_ioctl_hdr and ib_uverbs_attr, and what rxe_mig_uapi.h has for DUMP
RDMA_VERBS_IOCTL = 0xc0181b01
HEADER = struct.Struct("=HHHHQII")
ATTRIBUTE = struct.Struct("=HHHHQ")
MANDATORY = 1
OBJECT_DEVICE = 0
DRIVER_RXE = 14
METHOD_DUMP = 0x1001
DUMP_FLAGS, DUMP_LEN, DUMP_COUNT = 0x1000, 0x1001, 0x1002
CHECK_AND_ASK = 0x1 | 0x2

PATIENCE = 1.0


def ask(handle):
    """Have each RC QP of a context ask, once, if it does not know yet; OSError if the driver
    cannot."""
    length, count = ctypes.c_uint64(0), ctypes.c_uint32(0)
    attributes = [ATTRIBUTE.pack(name, size, MANDATORY, 0, value) for name, size, value in (
        (DUMP_FLAGS, 4, CHECK_AND_ASK), (DUMP_LEN, 8, ctypes.addressof(length)),
        (DUMP_COUNT, 4, ctypes.addressof(count)))]
    size = HEADER.size + len(attributes) * ATTRIBUTE.size
    fcntl.ioctl(handle, RDMA_VERBS_IOCTL,
                HEADER.pack(size, OBJECT_DEVICE, METHOD_DUMP, len(attributes), 0, DRIVER_RXE, 0) +
                b"".join(attributes))


def knows(entry):
    """What a QP knows of its partner: None if that was never asked, or cannot be"""
    return bool(entry["drv_mig_peer_capable"]) if "drv_mig_peer_capable" in entry else None


def _connections(pids):
    """{address of a partner: entries of the QPs}"""
    found = {}
    for entry in rdma.resources("qp"):
        if entry.get("pid") in pids and entry["type"] == "RC" and rdma.partner(entry) and \
                entry.get("state") in ("RTR", "RTS", "SQD"):
            found.setdefault(rdma.partner(entry), []).append(entry)
    return found


def _asked(contexts, pids):
    """The connections, once all partners have answered, or did not for a while"""
    deadline = time.monotonic() + PATIENCE
    while True:
        for each in contexts:
            ask(each.handle)
        time.sleep(0.05)
        found = _connections(pids)
        if time.monotonic() > deadline or \
                all(knows(entry) for entries in found.values() for entry in entries):
            return found


def _say(entries, told):
    silent = sum(not knows(entry) for entry in entries)
    if not silent:
        return f"it knows migrations ({len(entries)} connections)"
    text = f"{silent} of {len(entries)} connections have not heard that it knows migrations"
    if told:
        raise Failure(f"{text}, and it would not learn the new address: have its host load the "
                      "driver of migros, or let the address move along (--keep-ip)")
    raise Mind(f"{text}: if it does not, its own retries have to last until the container is "
               "back; see docs/limits.md")


def findings(contexts, pids, told):
    """Of each partner; contexts: open files of the processes (objects.py); told: whether
    partners have to be told of another address"""
    try:
        found = _asked(contexts, pids)
    except OSError as error:
        return [examine("partners", _unknown, error)]
    return [examine(f"partner {address}", _say, entries, told)
            for address, entries in sorted(found.items())]


def _unknown(error):
    reason = "the driver that is loaded is older than migros" if error.errno == errno.EINVAL \
        else error.strerror
    raise Mind(f"whether they know migrations cannot be asked: {reason}")
