"""IP addresses that sockets of processes are bound to: criu restores a socket only where its
address is."""

import ipaddress
import os
import re
import struct
from pathlib import Path

TABLES = ("tcp", "tcp6", "udp", "udp6")
# TCP_ESTABLISHED of the kernel
ESTABLISHED = "01"


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


def _entries(pids, tables):
    """Their sockets, as the kernel's tables have them: in words"""
    inodes = _inodes(pids)
    for name in tables if inodes else ():
        try:
            lines = Path(f"/proc/{pids[0]}/net/{name}").read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        yield from (words for words in map(str.split, lines) if words[9] in inodes)


def _of_one_host(pairs):
    """Addresses, without ports, that are not of every host"""
    found = {_address(pair.split(":")[0]) for pair in pairs}
    return sorted(str(each) for each in found if not (
        each.is_unspecified or each.is_loopback or each.is_multicast))


def bound(pids):
    """Addresses that they are bound to"""
    return _of_one_host(words[1] for words in _entries(pids, TABLES))


def connected(pids):
    """Hosts that they have a TCP connection with"""
    return _of_one_host(words[2] for words in _entries(pids, TABLES[:2])
                        if words[3] == ESTABLISHED)
