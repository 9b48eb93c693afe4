"""RDMA devices of their own for containers: each a macvlan interface with an address, and rxe
on it. Nobody else has their QP numbers and keys, and they move along with a container.

DIR/NAME says what a device is; after a boot "migros device up" makes it again.
"""

import json
import os
import re
import secrets
from collections import namedtuple
from pathlib import Path

import address
import journal
import rdma
from container import replace
from journal import Failure

DIR = Path(os.environ.get("MIGROS_DEVICES", "/etc/migros/devices.d"))
NET = Path("/sys/class/net")
VERBS = Path("/sys/class/infiniband_verbs")
CONF = Path("/proc/sys/net/ipv4/conf")
# Else an interface answers for the addresses of others, or asks in their name, and packets
# for one RDMA device get to another, which drops them. A reply may come from where the
# routes of this host do not lead.
SETTINGS = {"arp_ignore": 1, "arp_announce": 2, "rp_filter": 2}


class Device(namedtuple("Device", "name on mac addresses")):
    """on: the network device; addresses: each with a prefix"""

    def write(self):
        DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
        replace(DIR / self.name, json.dumps(self._asdict(), indent=1) + "\n")


def load(name):
    try:
        return Device(**json.loads((DIR / name).read_text("utf-8")))
    except FileNotFoundError:
        raise Failure(f"device {name}: there is none; see 'migros device list'") from None
    except (ValueError, TypeError):
        raise Failure(f"{DIR / name}: it does not describe a device; 'migros device add' "
                      "wrote it, remove what was changed") from None


def _names():
    return [name for name in sorted(os.listdir(DIR)) if "." not in name] if DIR.exists() else []


def devices():
    return [load(name) for name in _names()]


def _name(name):
    # That of an interface
    if not re.fullmatch("[A-Za-z0-9_][A-Za-z0-9_-]{0,14}", name):
        raise Failure(f"device {name!r}: a name has up to 15 letters, digits, '_' and '-'", 2)


def file(name):
    """The device file, None as long as there is none"""
    for each in VERBS.glob("uverbs*/ibdev"):
        if each.read_text("ascii").strip() == name:
            return f"/dev/infiniband/{each.parent.name}"
    return None


def users(name):
    """Processes that have it open"""
    return sorted({(entry["pid"], entry.get("comm", "?")) for entry in rdma.resources("ctx")
                   if entry["ifname"] == name and "pid" in entry})


def free(name):
    """Refuse a name that something has."""
    if (DIR / name).exists():
        raise Failure(f"device {name}: this host has one; 'migros device del {name}' removes "
                      "it")
    if (NET / name).exists():
        raise Failure(f"device {name}: this host has a network device of the name; take "
                      "another")
    if name in {each for each, _ in rdma.links()}:
        raise Failure(f"device {name}: this host has an RDMA device of the name; take another")


def add(name, addresses, on):
    """A new one; its device file"""
    _name(name)
    for each in addresses:
        if "/" not in each:
            raise Failure(f"address {each}: without a prefix; ADDRESS/PREFIX is meant", 2)
        address.interface(each)
        if address.here(each):
            raise Failure(f"address {each}: this host has it on {address.holder(each)}; take "
                          "another, or remove it there")
    if not (NET / on).exists():
        raise Failure(f"network device {on}: there is none; see 'ip link'")
    free(name)
    mac = ":".join(f"{each:02x}" for each in (2, *secrets.token_bytes(5)))
    made = Device(name, on, mac, [str(address.interface(each)) for each in addresses])
    arrive(made)
    found = file(name)
    if not found:
        raise Failure(f"device {name}: it is there, but has no device file; 'modprobe ib_uverbs'")
    return found


def delete(name):
    _name(name)
    found = load(name)
    for pid, command in users(name):
        raise Failure(f"device {name}: process {pid} ({command}) has it open; end that, or "
                      "move its container away")
    for record in journal.records():
        if not record.ended and name in [each["name"] for each in record.fields.get("made", [])]:
            raise Failure(f"device {name}: migration {record.id} of {record.container} has not "
                          f"ended; 'migros recover {record.id}'")
    leave(found)


def _settle(name):
    """What an interface has to know about its neighbours"""
    for setting, value in SETTINGS.items():
        path = CONF / name / setting
        if int(path.read_text("ascii")) < value:
            path.write_text(f"{value}\n", "ascii")


def _ours(device):
    """Whether the interface of its name is this one"""
    try:
        return (NET / device.name / "address").read_text("ascii").strip() == device.mac
    except FileNotFoundError:
        return False


def make(device):
    """Make it, or what is not there of it."""
    name = device.name
    if not (NET / device.on).exists():
        raise Failure(f"device {name}: its network device {device.on} is not there; 'migros "
                      "device up' when it is")
    if not (NET / name).exists():
        address.ip("link", "add", "link", device.on, "name", name, "address", device.mac,
                   "type", "macvlan", "mode", "bridge")
    elif not _ours(device):
        raise Failure(f"device {name}: there is another network device of the name; remove "
                      "that")
    networks = [address.interface(each).network for each in device.addresses]
    for each in {device.on, name, *address.within(networks)}:
        _settle(each)
    address.ip("link", "set", name, "up")
    for each in device.addresses:
        address.arrive(each, name)
    if name not in {each for each, _ in rdma.links()}:
        rdma.run("link", "add", name, "type", "rxe", "netdev", name)


def unmake(device):
    name = device.name
    if not _ours(device):
        return
    if (name, name) in rdma.links():
        rdma.run("link", "delete", name)
    address.ip("link", "delete", name)


def arrive(device):
    """It belongs to this host from now on, if it has not already."""
    new = not _ours(device)
    try:
        make(device)
        device.write()
    except BaseException:
        if new:
            unmake(device)
        raise


def leave(device):
    unmake(device)
    if (DIR / device.name).exists() and load(device.name).mac == device.mac:
        (DIR / device.name).unlink()
        journal.sync(DIR)


def up():
    """All, as far as possible; what failed"""
    errors = []
    for each in _names():
        try:
            make(load(each))
        except (Failure, OSError) as error:
            errors.append(str(error))
    return errors


def state():
    """All, for people and programs"""
    links = {each for each, _ in rdma.links()}
    return [{**each._asdict(), "file": file(each.name), "up": each.name in links,
             "users": [{"pid": pid, "command": command} for pid, command in users(each.name)]}
            for each in devices()]


def line(each):
    used = ", ".join(f"{user['command']} {user['pid']}" for user in each["users"])
    return (f"{each['name']:15}  {', '.join(each['addresses']):18}  on {each['on']:10}  "
            f"{(each['file'] or '') if each['up'] else 'down':25}  {used}").rstrip()


def moving(addresses):
    """Devices of which an address moves along; addresses: as address.find() tells"""
    found = [load(name) for name in sorted(set(addresses.values())) if (DIR / name).exists()]
    for each in found:
        for other in each.addresses:
            if other not in addresses:
                raise Failure(f"device {each.name}: it moves with all its addresses; "
                              f"'--keep-ip {other.split('/')[0]}', too")
    return [each._asdict() for each in found]
