"""Can it be moved, and why not? Nothing is stopped, and nothing changes."""

import os

import address
import device
import inventory
import journal
import supervisor
import thishost
from findings import NO, Finding, examine
from journal import Failure
from runtimes import runtime, that_knows


def _tree(pid):
    """A process and its descendants, none if it has ended"""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [pid, *(each for child in file.read().split()
                           for each in _tree(int(child)))]
    except (FileNotFoundError, ProcessLookupError):
        return []


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
    peer.agree()
    reply = peer.call("examine", "-", **wanted(kind, known))
    return [Finding(**{**each, "host": peer.name}) for each in reply["findings"]]


def check(options, connect):
    """All findings, of both hosts"""
    found = thishost.findings()
    name = options.container
    if name is None:
        return found
    if name.isdigit():
        if options.host:
            raise Failure(f"process {name}: migros moves containers; criu moves a process", 2)
        pids = _tree(int(name))
        if not pids:
            raise Failure(f"process {name}: there is none")
        return found + inventory.look(pids)
    journal.check_name(name)
    try:
        kind = runtime(options.runtime) if options.runtime else that_knows(name)
        known = fields(kind, options)
    except Failure as error:
        return [*found, Finding(f"container {name}", NO,
                                str(error).removeprefix(f"container {name}: "))]
    found.append(examine(f"container {known['container']}", _holder, known["container"]))
    found.append(examine("supervisor", supervisor.look, known.get("restart", ""), known["pid"]))
    found += inventory.look(kind.processes(known["cgroups"]))
    if options.host:
        found += _there(kind, known, connect(options.host))
    return found
