"""Can it be moved, and why not? Nothing is stopped, and nothing changes."""

import os

import address
import device
import fits
import inventory
import journal
import supervisor
import thishost
from findings import NO, Finding, examine
from journal import Failure
from process import Process
from runtimes import runtime, that_knows


def wanted(kind, fields):
    """What the destination is asked about a container; fields: of its record"""
    return {key: fields[key] for key in ("container", "runtime", "addresses", "new_ip",
                                         "made", "bytes", "copies", "has", *kind.TOLD)}


def refuse(findings):
    """Before a migration: the first thing that is in its way"""
    for each in findings:
        if each.state == NO:
            raise Failure(f"{each.subject}: {each.text}")


def fields(kind, options):
    """Of the record of a migration"""
    addresses = dict(address.find(each) for each in options.keep_ip)
    found = kind.inspect(options.container)
    return {"runtime": kind.NAME, "addresses": list(addresses),
            "devices": list(addresses.values()), "new_ip": options.new_ip,
            "made": device.moving(addresses),
            "copies": [os.path.realpath(each) for each in options.copy],
            "has": inventory.take(kind, kind.processes(found["cgroups"])), **found}


def _holder(container):
    other = journal.unfinished(container)
    if other:
        raise Failure(f"migration {other.id} to {other.peer} has not ended "
                      f"({other.state}); 'migros recover {other.id}'")
    return "nobody is moving it"


def _there(kind, known, peer):
    """What the other host says"""
    try:
        peer.agree()
        reply = peer.call("examine", "-", **wanted(kind, known))
    except Failure as error:
        name = f"host {peer.name}"
        return [Finding(name, NO, str(error).removeprefix(f"{name}: "))]
    return [Finding(**{**each, "host": peer.name}) for each in reply["findings"]]


def _process(options, connect):
    """Of one without a runtime, and of its descendants"""
    kind = Process(int(options.container))
    found = inventory.look(kind.pids, options.new_ip)
    if options.host:
        found += _there(kind, fields(kind, options), connect(options.host))
    return found


def check(options, connect):
    """All findings, of both hosts"""
    found = thishost.findings()
    name = options.container
    if name is None:
        return found
    if name.isdigit():
        return found + _process(options, connect)
    journal.check_name(name)
    try:
        kind = runtime(options.runtime) if options.runtime else that_knows(name)
        known = fields(kind, options)
    except Failure as error:
        return [*found, Finding(f"container {name}", NO,
                                str(error).removeprefix(f"container {name}: "))]
    found.append(examine(f"container {known['container']}", _holder, known["container"]))
    found.append(examine("supervisor", supervisor.look, known.get("restart", ""), known["pid"]))
    found.append(fits.room(known))
    found += inventory.look(kind.processes(known["cgroups"]), known["new_ip"],
                            known.get("apart", False))
    if options.host:
        found += _there(kind, known, connect(options.host))
    return found
