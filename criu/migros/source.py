"""A migration, as its source drives it.

The container has one owner at any time, and nobody else restores it. It is the source
until "handed" is written in the journal; then the destination, until it answers
"returned". Before criu is told that it may kill the container (state "committing"),
whatever fails lets the container run on here; afterwards there are images of it.
"""

import contextlib
import os
import signal
import sys
import time

import belongings
import check
import fits
import gate
import inventory
import journal
import thishost
from hosts import Lost, Refused
from journal import DOUBT, UNFINISHED, Failure
from runtimes import runtime, that_knows

INTERRUPTED = 130
# Seconds for which a destination that does not answer is asked again, at most; those that it
# has for all of a restore that is not the runtime's
ASKS = 60
BESIDE = 60


class Interrupted(Failure):
    """SIGINT, SIGTERM or SIGHUP before the container was given up"""


def tell(text):
    """Whoever has asked may be gone, with the terminal: that is no reason to stop."""
    with contextlib.suppress(OSError):
        print(f"migros{text}", file=sys.stderr, flush=True)


def say(record, text):
    tell(f" {record.id}: {text}")


class Signals:
    """Until armed is False a signal ends the migration; then it goes on to its end."""

    def __init__(self):
        self.armed = True
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._got)

    def _got(self, number, _):
        if self.armed:
            self.armed = False
            raise Interrupted(f"{signal.Signals(number).name}", INTERRUPTED)


def migrate(options, peer):
    """Move a running container to another host."""
    signals = Signals()
    journal.check_name(options.container)
    kind = runtime(options.runtime) if options.runtime else that_knows(options.container)
    check.refuse(thishost.findings())
    # podman takes an ID, too.
    container = kind.inspect(options.container)["container"]
    with journal.lock(container):
        other = journal.unfinished(container)
        if other:
            raise Failure(f"container {container}: migration {other.id} to "
                          f"{other.peer} has not ended ({other.state}); "
                          f"'migros recover {other.id}'")
        fields = check.fields(kind, options)
        check.refuse([fits.room(fields)])
        check.refuse(inventory.look(kind.processes(fields["cgroups"]), fields["new_ip"],
                                    fields.get("apart", False)))
        try:
            peer.agree()
        except Lost as error:
            # There is nothing yet to be finished.
            raise Failure(str(error)) from None
        record = None
        try:
            record = journal.create(state="begun", role="source", peer=peer.name, **fields)
            say(record, f"{record.container} goes to {peer.name}")
            announce(record, peer)
            # ssh lets ten share a connection.
            peer.prepare(record.id, "receive", "restore",
                         *(f"copy:{number}" for number in range(len(record.copies[:5]))))
            _stop(record, kind, peer, signals, options.timeout)
        except (Failure, OSError) as error:
            signals.armed = False
            if not record:
                raise
            raise roll_back(record, kind, peer, error) from None
        with unfinished(record):
            if not kind.WHOLE:
                carry(record, peer, options.timeout)
            hand_over(record, peer, options.timeout)


@contextlib.contextmanager
def unfinished(record):
    """Whatever fails, the images are the only copy."""
    try:
        yield
    except (Failure, OSError) as error:
        if getattr(error, "status", 1) == 1 and not record.ended:
            raise Failure(f"{error}\nmigros {record.id}: its images are the only copy; "
                          f"'migros recover {record.id}'", UNFINISHED) from None
        raise


def announce(record, peer):
    """Let the destination look whether it can take the container."""
    peer.call("expect", record.id, source=os.uname().nodename,
              **check.wanted(runtime(record.runtime), record.fields))


def send(record, peer):
    """All that the destination needs"""
    runtime(record.runtime).complete(record)
    say(record, "images")
    for number, directory in enumerate(record.copies):
        peer.send(record.id, directory, f"copy:{number}")
    size = peer.send(record.id, record.images)["bytes"]
    if size != sum(path.stat().st_size for path in record.images.iterdir()):
        raise Failure(f"host {peer.name}: it has {size} bytes of other images")


def _stop(record, kind, peer, signals, limit):
    """From a container that runs to images that are its only copy."""
    door = gate.Gate(record.pid)
    child = reason = None
    late = False

    def asked():
        nonlocal late
        answer = door.asked(child, limit)
        late = answer is None
        if late:
            raise Failure(f"container {record.container}: checkpoint: it had not come to its "
                          f"end after {limit:g} s (--timeout); see {record.work}")
        return answer

    try:
        record.set("stopping")
        kind.guard(record)
        say(record, "checkpoint")
        child = kind.checkpoint(record)
        if not asked():
            raise Failure(f"container {record.container}: checkpoint: "
                          + kind.complain(record, "dump.log"))
        if kind.word(record) != "stopped":
            raise Failure(f"container {record.container}: criu's plugin found no RDMA in "
                          "it, and cannot tell when its images are its only copy; move "
                          "it with its runtime alone")
        if kind.WHOLE:
            send(record, peer)
        signals.armed = False
        record.set("committing")
        door.go()
        # criu 4.1.1 reads its file twice for a runtime, and runs what is in it twice.
        while asked():
            door.go()
    except BaseException as error:
        # The next one would leave the door shut.
        signals.armed = False
        door.shut(error)
        if record.state != "committing":
            raise
        # criu may have heard that it may kill.
        reason = error
    finally:
        if child:
            child.wait(0 if late else limit)
        door.open()
    if not given_up(record, kind):
        raise reason or Failure(f"container {record.container}: checkpoint: "
                                + kind.complain(record, "dump.log"))


def _alive(record, kind):
    """Not what a supervisor tries to start in its place"""
    return record.pid in kind.processes(record.cgroups)


def given_up(record, kind):
    """After the end of criu, which was allowed to kill the container: whether the images
    are the only copy, which is in the journal then; or else the container runs."""
    if kind.word(record) == "complete":
        kind.tidy(record)
        record.set("committed")
        return True
    if _alive(record, kind):
        return False
    raise Failure(f"container {record.container}: criu or this host has died when it "
                  "was to be killed, and nothing of it is alive. If it has not come to "
                  "its end by itself: 'migros recover --believe-images "
                  f"{record.id}'", DOUBT)


def roll_back(record, kind, peer, error):
    """The container has not been given up; the failure to report."""
    if record.state == "committed" or getattr(error, "status", 1) == DOUBT:
        return error
    alive = _alive(record, kind)
    if alive:
        kind.discard(record)
    if record.state == "committing" and not alive:
        return Failure(f"{error}\nmigros {record.id}: nothing of {record.container} is "
                       f"alive; 'migros recover {record.id}'", DOUBT)
    try:
        peer.call("return", record.id)
    except Failure:
        # Without "handed" it will never be restored there.
        pass
    left = "runs on here" if alive else "has ended, or this host has died"
    try:
        record.set("rolled-back", reason=str(error))
    except OSError as other:
        left += f"; {record.dir}: {other.strerror}: 'migros recover {record.id}' when it " \
                "can be written"
    return Failure(f"{error}\nmigros {record.id}: {record.container} {left}",
                   INTERRUPTED if isinstance(error, Interrupted) else 1)


def carry(record, peer, limit):
    """The images, of which this host has the only copy: if they cannot be sent, it comes
    back."""
    try:
        send(record, peer)
    except (Failure, OSError) as error:
        try:
            peer.call("return", record.id)
        except Failure:
            # As in roll_back
            pass
        raise come_back(record, error, limit) from None


def hand_over(record, peer, limit):
    """Give the image to the destination, which has a copy of it, and so many seconds for
    its restore."""
    belongings.leave(record)
    if record.state != "handed":
        record.set("handed")
    say(record, "restore")
    deadline = time.monotonic() + min(limit, ASKS)
    while True:
        try:
            peer.call("restore", record.id, wait=limit + BESIDE, timeout=limit)
            break
        except Refused as error:
            state = error.reply.get("state")
            if state in ("returned", "dropped"):
                raise come_back(record, error, limit) from None
            if state == "doubt":
                raise Failure(str(error), DOUBT) from None
            reason = error
        except Lost as error:
            reason = error
        if time.monotonic() > deadline:
            raise Failure(f"{reason}. The container may be running there. When that host "
                          f"answers again: 'migros recover {record.id}'", UNFINISHED)
        time.sleep(0.5)
    done(record)


def done(record):
    # After a boot it may have had them again.
    belongings.leave(record)
    record.set("done")
    try:
        runtime(record.runtime).has_left(record)
    except Failure as error:
        say(record, str(error))
    record.drop_images()
    for path in record.work.iterdir():
        if not path.is_dir():
            path.unlink()
    say(record, f"{record.container} runs at {record.peer}")


def come_back(record, error, limit):
    """The destination cannot restore it, and has said that it never will."""
    record.set("committed", reason=str(error))
    say(record, f"{error}; restore here")
    restore_here(record, limit)
    return Failure(f"{error}\nmigros {record.id}: {record.container} runs here again")


def restore_here(record, limit):
    kind = runtime(record.runtime)
    if not kind.lives(record):
        kind.tidy(record)
        _undoubted(kind, record)
        belongings.arrive(record)
        reason = None
        try:
            kind.restore(record, limit)
        except Failure as error:
            if error.status == DOUBT:
                raise
            reason = str(error)
        if not kind.lives(record):
            reason = reason or kind.complain(record, "restore.log")
            kind.tidy(record)
            _undoubted(kind, record)
            raise Failure(f"container {record.container}: restore: {reason}. Its images "
                          f"are good: 'migros recover --to HOST {record.id}', or "
                          f"'migros recover --back {record.id}' again", UNFINISHED)
    kind.unmoor(record)
    record.set("rolled-back")
    kind.discard(record)


def _undoubted(kind, record):
    if kind.word(record) != "complete":
        raise Failure(
            f"migration {record.id}: a restore has begun to use its images, "
            "and nothing of the container is alive: partners may be ahead of the "
            "images. To restore them nevertheless: 'migros recover "
            f"--believe-images {record.id}'", DOUBT)
