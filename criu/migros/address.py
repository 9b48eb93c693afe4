"""IP addresses that move along with a container."""

import ipaddress
import json
import socket
import struct
import subprocess

from journal import Failure

ALL_NODES = "ff02::1"
ICMP6_NEIGHBOR_ADVERTISEMENT = 136
NA_OVERRIDE = 0x20000000


def ip(*words):
    """What the command prints"""
    done = subprocess.run(["ip", *words], check=False, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        raise Failure(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _addresses(devices=True):
    """(device, interface address) of all interfaces, those of containers' devices too"""
    for link in json.loads(ip("-json", "-details", "address")):
        if not devices and link.get("linkinfo", {}).get("info_kind") == "macvlan":
            continue
        for entry in link["addr_info"]:
            yield link["ifname"], ipaddress.ip_interface(
                f"{entry['local']}/{entry['prefixlen']}")


def interface(text):
    """Of ADDRESS/PREFIX"""
    try:
        return ipaddress.ip_interface(text)
    except ValueError:
        raise Failure(f"address {text}: not an IP address", 2) from None


def find(text):
    """ADDRESS/PREFIX and device of an address of this host"""
    try:
        wanted = ipaddress.ip_address(text)
    except ValueError:
        raise Failure(f"address {text}: not an IP address", 2) from None
    for name, address in _addresses():
        if address.ip == wanted:
            return str(address), name
    raise Failure(f"address {text}: this host does not have it; see 'ip address'")


def device(text):
    """The device here that has other addresses of the same network"""
    wanted = ipaddress.ip_interface(text)
    for name, address in _addresses(devices=False):
        if address.network == wanted.network:
            return name
    raise Failure(f"address {text}: no device of this host is in its network; give "
                  "one of them an address of it")


def holder(text):
    """The device here that has this address, None without one"""
    wanted = ipaddress.ip_interface(text)
    return next((name for name, address in _addresses() if address.ip == wanted.ip), None)


def within(networks):
    """Devices that have an address of one of these networks"""
    return {name for name, address in _addresses() if address.network in networks}


def of(name):
    """Addresses of a device"""
    return [address.ip for other, address in _addresses() if other == name]


def towards(text, by=None):
    """The device by which this host sends to an address, or does if it shall be that one; None
    without a route"""
    try:
        return json.loads(ip("-json", "route", "get", text,
                             *(["oif", by] if by else [])))[0]["dev"]
    except Failure:
        return None


def here(text):
    """Whether this host has an address"""
    return holder(text) is not None


def leave(text):
    """Remove an address, wherever it is."""
    wanted = ipaddress.ip_interface(text)
    for name, address in list(_addresses()):
        if address.ip == wanted.ip:
            if wanted.version == 4:
                # Else the kernel removes those of the same network with it, if it is
                # the first of them.
                with open(f"/proc/sys/net/ipv4/conf/{name}/promote_secondaries", "w",
                          encoding="ascii") as file:
                    file.write("1\n")
            ip("address", "del", str(address), "dev", name)


def arrive(text, name=None):
    """Add an address, to a device or to that with others of its network, and announce
    it, as switches and partners know the old place."""
    wanted = ipaddress.ip_interface(text)
    name = name or device(text)
    if not here(text):
        ip("address", "add", text, "dev", name,
            *(["nodad"] if wanted.version == 6 else []))
    (_announce4 if wanted.version == 4 else _announce6)(wanted.ip, name)


def _announce4(address, name):
    """A gratuitous ARP request (RFC 5227, section 3)"""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as line:
        line.bind((name, 0))
        mac = line.getsockname()[4]
        line.send(b"\xff" * 6 + mac + struct.pack("!HHHBBH", 0x806, 1, 0x800, 6, 4, 1)
                  + mac + address.packed + bytes(6) + address.packed)


def _announce6(address, name):
    """An unsolicited neighbour advertisement (RFC 4861, section 7.2.6)"""
    with open(f"/sys/class/net/{name}/address", encoding="ascii") as file:
        mac = bytes.fromhex(file.read().strip().replace(":", ""))
    # The kernel fills in the checksum.
    packet = struct.pack("!BBHI", ICMP6_NEIGHBOR_ADVERTISEMENT, 0, 0, NA_OVERRIDE) \
        + address.packed + b"\2\1" + mac
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as line:
        line.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        line.bind((str(address), 0))
        line.sendto(packet, (ALL_NODES, 0, 0, socket.if_nametoindex(name)))
