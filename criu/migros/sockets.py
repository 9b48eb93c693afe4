"""IP addresses that sockets of processes are bound to: criu restores a socket only where its
address is."""

import ipaddress
import os
import re
import struct
from pathlib import Path

TABLES = ("tcp", "tcp6", "udp", "udp6")


def _inodes(pids):
    found = set()
    for pid in pids:
        try:
            for each in os.scandir(f"/proc/{pid}/fd"):
                match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(each.path))
                if match:
                    found.add(match[1])
        except OSError:
            # It has ended, or closed the file.
            pass
    return found


def _address(text):
    """Words in the byte order of the host"""
    words = [int(text[at:at + 8], 16) for at in range(0, len(text), 8)]
    found = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    return getattr(found, "ipv4_mapped", None) or found


def bound(pids):
    """Addresses that are not of every host"""
    inodes, found = _inodes(pids), set()
    for name in TABLES if inodes else ():
        try:
            lines = Path(f"/proc/{pids[0]}/net/{name}").read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for words in map(str.split, lines):
            each = _address(words[1].split(":")[0])
            if words[9] in inodes and not \
                    (each.is_unspecified or each.is_loopback or each.is_multicast):
                found.add(str(each))
    return sorted(found)
