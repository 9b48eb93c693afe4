"""What a host does for a migration that comes to it, as the source asks ("migros
agent"). Every verb can be asked again; journal.py has the states."""

import os
import subprocess
import sys

import belongings
import check
import fits
import journal
import places
import thishost
from hosts import VERSION, Refused, go, request
from journal import DOUBT, Failure
from runtimes import runtime


def hello(_, __):
    return {"version": VERSION}


def _findings(wanted):
    return thishost.findings() + fits.findings(runtime(wanted["runtime"]), wanted)


def expect(ident, wanted):
    """Refuse whatever can be known to fail before anything is stopped."""
    kind = runtime(wanted["runtime"])
    container = wanted["container"]
    with journal.lock(container):
        other = journal.unfinished(container)
        if other and other.source == wanted["source"] and \
                other.state in ("expected", "received"):
            # That host was cut off when its last attempt ended.
            give_back(other, "dropped")
        elif other and (other.id != ident or other.state == "granted"):
            raise Failure(f"container {container}: migration {other.id} has not ended "
                          f"here; 'migros recover {other.id}' there")
        check.refuse(_findings(wanted))
        journal.create(ident, state="expected", role="destination",
                       **{**wanted, "made": places.made(wanted)},
                       rdma=places.chosen(wanted), **kind.expected(wanted))
    return {}


def examine(_, wanted):
    """The same question before a migration, with all answers"""
    return {"findings": [each._asdict() for each in _findings(wanted)]}


def receive(ident, _):
    """The images, as a tar on standard input. They are on the disk afterwards."""
    record = journal.load(ident)
    with journal.lock(record.container):
        record = journal.load(ident)
        if record.state not in ("expected", "received"):
            raise Failure(f"migration {ident}: it is {record.state} and takes no images")
        _empty(record)
        _unpack(record.images)
        record.set("received")
        return {"bytes": sum(path.stat().st_size for path in record.images.iterdir())}


def copy(ident, number):
    """A directory with what the container has written, as a tar on standard input"""
    record = journal.load(ident)
    with journal.lock(record.container):
        record = journal.load(ident)
        if record.state not in ("expected", "received"):
            raise Failure(f"migration {ident}: it is {record.state} and takes no files")
        place = record.copies[number]
        subprocess.run(["rm", "-rf", place], check=False)
        os.makedirs(place, exist_ok=True)
        _unpack(place)
    return {}


def _unpack(place):
    done = subprocess.run(["tar", "-C", place, "-x"], stdin=sys.stdin.buffer,
                          stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise Failure(f"{place}: tar: " + done.stderr.decode(errors="replace").strip())
    journal.sync_tree(place)


def _empty(record):
    subprocess.run(["rm", "-rf", record.images], check=True)
    record.images.mkdir(mode=0o700)


def restore(ident, wanted):
    """The container is ours now: let it run, or give it back."""
    record = journal.load(ident)
    with journal.lock(record.container):
        record = journal.load(ident)
        if record.state == "running":
            # The source may have had the addresses once more, after a reboot.
            belongings.arrive(record)
            return {"state": "running"}
        if record.state not in ("received", "granted"):
            raise Refused(f"migration {ident}: it is {record.state}",
                          {"state": record.state})
        if record.state == "received":
            # Whoever gave it to us has seen that all its processes are dead.
            runtime(record.runtime).believe(record)
            record.set("granted")
        return settle(record, wanted["timeout"])


def settle(record, limit):
    """Finish a restore that is ours (its container is locked); it has so many seconds
    until it uses the images."""
    kind = runtime(record.runtime)
    if not kind.lives(record):
        kind.tidy(record)
        _undoubted(kind, record)
        reason = None
        try:
            belongings.arrive(record)
            kind.guard(record)
            kind.restore(record, limit)
        except (Failure, OSError) as error:
            if getattr(error, "status", 1) == DOUBT:
                raise
            reason = str(error)
        if not kind.lives(record):
            reason = reason or kind.complain(record, "restore.log")
            kind.tidy(record)
            _undoubted(kind, record)
            give_back(record, "returned", reason)
            raise Refused(f"container {record.container}: restore: {reason}",
                          {"state": record.state})
    kind.unmoor(record)
    record.set("running")
    _empty(record)
    kind.discard(record)
    return {"state": "running"}


def _undoubted(kind, record):
    if kind.word(record) != "complete":
        raise Refused(
            f"migration {record.id}: its restore has begun to use its images, and "
            "nothing of the container is alive here: partners may be ahead of the "
            "images. To restore them nevertheless: 'migros recover --believe-images "
            f"{record.id}' there", {"state": "doubt"})


def give_back(record, state, reason=None):
    # They come with the ownership, not before.
    if record.state == "granted":
        belongings.leave(record)
    record.set(state, reason=reason)
    _empty(record)


def take_back(ident, _):
    """Never restore it here; the source has it again."""
    record = journal.load(ident)
    with journal.lock(record.container):
        record = journal.load(ident)
        if record.state in ("returned", "dropped"):
            return {"state": record.state}
        if record.state == "granted":
            kind = runtime(record.runtime)
            if not kind.lives(record):
                kind.tidy(record)
                _undoubted(kind, record)
                give_back(record, "returned")
                return {"state": record.state}
            # It lives, so nothing is restored.
            settle(record, None)
        if record.state == "running":
            raise Refused(f"container {record.container}: it runs there",
                          {"state": "running"})
        give_back(record, "dropped")
        return {"state": record.state}


def status(ident, _):
    return {"state": journal.load(ident).state}


VERBS = {"hello": hello, "examine": examine, "expect": expect, "receive": receive,
         "restore": restore, "return": take_back, "status": status}


def act(verb, ident):
    """The reply to a request"""
    if verb.startswith("copy:"):
        go()
        return copy(ident, int(verb[5:]))
    if verb not in VERBS:
        raise Failure(f"agent: no verb '{verb}'; do both hosts have the same migros?", 2)
    if verb == "receive":
        go()
        return receive(ident, {})
    return VERBS[verb](ident, request())
