"""What becomes of the addresses that a container uses: each moves along (--keep-ip), or is at
the destination already, or its connections take another there (--new-ip)."""

import ipaddress

import address
import device as own
import rdma
from findings import MIND, NO, Finding, Mind, examine
from journal import Failure


def made(wanted):
    """Devices that move along, as they will be here"""
    return [{**each, "on": address.device(each["addresses"][0])} for each in wanted["made"]]


def _makes(each):
    own.free(each["name"])
    return f"it is made on {address.device(each['addresses'][0])}"


def _moves(each, wanted):
    for one in wanted["made"]:
        if each in one["addresses"] and not address.here(each):
            return f"it comes with the device {one['name']}"
    name = address.device(each)
    if address.here(each):
        raise Failure("this host has it already; remove it, or let it stay where it is")
    return f"it goes to {name}"


def _stays(each, wanted):
    """One that does not move along"""
    name = address.holder(each)
    if each in wanted["has"]["sockets"]:
        if not name:
            raise Failure("a socket of the container is bound to it, and this host does not "
                          f"have it; '--keep-ip {each}' lets it move along")
        return f"this host has it, on {name}"
    if not name and wanted["new_ip"]:
        return "its connections take another"
    if not name:
        raise Failure("connections of the container have it, and this host does not: "
                      f"'--keep-ip {each}' lets it move along, '--new-ip' lets them take "
                      "one of this host")
    if name not in {net for _, net in rdma.links()}:
        raise Failure(f"this host has it on {name}, where no RDMA device is; 'rdma link add "
                      f"NAME type rxe netdev {name}'")
    return f"this host has it, on {name}"


def moving(wanted):
    return {each.split("/")[0] for each in wanted["addresses"]}


def _left(wanted):
    """Those of its connections that it leaves behind"""
    return [each for each in wanted["has"]["addresses"]
            if each not in moving(wanted) and not address.holder(each)]


def _families(wanted, net):
    """A connection does not change from IPv4 to IPv6."""
    have = {each.version for each in address.of(net) if not each.is_link_local}
    for each in _left(wanted):
        version = ipaddress.ip_address(each).version
        if version not in have:
            raise Failure(f"it has no IPv{version} address for connections of {each}; add "
                          f"one, or '--keep-ip {each}'")
    return "it has an address for each connection"


def _others(wanted):
    """QPs that are not RC, and are not told what they can do without"""
    has = wanted["has"]
    if wanted["addresses"] or has["addresses"] and not _left(wanted):
        return
    uc, ud = (", ".join(f"{each:#x}" for each in has[name]) for name in ("uc", "ud"))
    if ud and not wanted["new_ip"]:
        yield Finding(f"UD QPs {ud}", MIND, "if they have address handles, this host must have "
                      "their address; whether it does is not known")
        return
    if uc and wanted["new_ip"]:
        yield Finding(f"UC QPs {uc}", NO, "nobody would tell their partners of a new address; "
                      "use --keep-ip (docs/limits.md)")
    if ud:
        yield Finding(f"UD QPs {ud}", MIND, "receivers see another sender, and whoever sends "
                      "to the old address is not told (docs/limits.md)")


def _beside(partner, wanted):
    """A partner on this host: rxe does not get what takes the loopback."""
    name, net = device(wanted)
    there = address.holder(partner)
    if there == net and not wanted["made"]:
        return f"it has the same device, {name}"
    if wanted["made"] or address.towards(partner, net) != net:
        raise Failure(f"it is on {there} of this host, and the container comes to another device "
                      f"of it, {name}: what one sends to the other takes the loopback; choose "
                      "another host (docs/limits.md)")
    return f"it is on {there} of this host, and policy routing leads there"


def device(wanted):
    """(RDMA device, network device) that it goes to"""
    if len(wanted["made"]) == 1:
        return wanted["made"][0]["name"], made(wanted)[0]["on"]
    nets = {address.device(each) for each in wanted["addresses"]}
    nets |= {address.holder(each) for each in wanted["has"]["addresses"]} - {None}
    if wanted["new_ip"] and not nets:
        # One of this host is reached by its own device.
        nets = {address.holder(each) or address.towards(each)
                for each in wanted["has"]["partners"]} - {None}
    found = [each for each in rdma.links() if not nets or each[1] in nets]
    if not found:
        raise Failure("no RDMA device is on " + (", ".join(sorted(nets)) or "this host")
                      + "; 'rdma link add NAME type rxe netdev DEVICE'")
    if len(found) > 1:
        raise Mind(", ".join(each for each, _ in found) + ": which of them it goes to is "
                   "decided at the restore; they are not looked at")
    return found[0]


def chosen(wanted):
    """The RDMA device that criu has to be told, if addresses do not tell it"""
    if not wanted["new_ip"] or len(rdma.links()) < 2:
        return None
    try:
        return device(wanted)[0]
    except Mind:
        return None


def findings(wanted):
    found = [examine(f"device {each['name']}", _makes, each) for each in wanted["made"]]
    found += [examine(f"address {each}", _moves, each, wanted) for each in wanted["addresses"]]
    used = {*wanted["has"]["addresses"], *wanted["has"]["sockets"]} - moving(wanted)
    found += [examine(f"address {each}", _stays, each, wanted) for each in sorted(used)]
    if wanted["new_ip"]:
        try:
            net = device(wanted)[1]
            found.append(examine(f"network device {net}", _families, wanted, net))
        except (Failure, Mind):
            # fits.py says that.
            pass
    found += [examine(f"partner {each}", _beside, each, wanted)
              for each in wanted["has"]["partners"]
              if each not in moving(wanted) and address.holder(each)]
    return [*found, *_others(wanted)]
