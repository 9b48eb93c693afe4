"""What the drivers of this host show by the command rdma (docs/migration.md, "What can be
seen")."""

import ipaddress
import json
import subprocess

from journal import Failure


def run(*words):
    """What the command tells"""
    command = ["rdma", "-j", *words]
    try:
        done = subprocess.run(command, text=True, check=False, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError:
        raise Failure("rdma: it is not in the PATH; install iproute2") from None
    try:
        if done.returncode:
            raise ValueError(done.stderr.strip() or f"exit status {done.returncode}")
        return json.loads(done.stdout or "[]")
    except ValueError as error:
        raise Failure(f"'{' '.join(command)}': {error}") from None


def resources(kind):
    """All "qp", "mr" or "cm_id", with their details"""
    return run("-dd", "resource", "show", kind)


def links():
    """(RDMA device, network device) of this host"""
    return [(each["ifname"], each["netdev"]) for each in run("link", "show")
            if "netdev" in each]


def shared():
    """Whether processes of all network namespaces may use the devices: not as JSON, which
    this command does not know"""
    done = subprocess.run(["rdma", "system", "show"], text=True, check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL)
    return "netns shared" in done.stdout


def region(entry):
    """The number of an MR: its keys are that, and a byte that may be any"""
    return int(entry["rkey"], 16) >> 8 if "rkey" in entry else None


def partner(entry):
    """The address of a QP's partner, None if the driver does not tell"""
    return _address(entry, "drv_mig_partner")


def own(entry):
    """The address of a QP itself, None if it has none or the driver does not tell"""
    return _address(entry, "drv_mig_address")


def _address(entry, name):
    if name not in entry:
        return None
    gid = ipaddress.IPv6Address(entry[name])
    return str(gid.ipv4_mapped or gid)
