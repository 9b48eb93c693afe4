"""Finishes or abandons a migration whose command has died."""

import shutil

import journal
import destination
import source
from hosts import Lost, Refused
from journal import UNFINISHED, Failure
from runtimes import runtime


def recover(options, connect):
    """Decide about one migration; what is left."""
    record = journal.load(options.id) if options.id else _only()
    with journal.lock(record.container):
        record = journal.load(record.id)
        if record.ended:
            source.say(record, f"it has ended: {record.state}")
            return
        if options.believe_images:
            _believe(record)
        if record.role == "source":
            _source(record, options, connect)
        else:
            _destination(record, options)


def forget(ident):
    """A migration that has ended leaves no trace, nor do those of its container before."""
    record = journal.load(ident)
    with journal.lock(record.container):
        if not record.ended:
            raise Failure(f"migration {ident}: it has not ended ({record.state}); 'migros "
                          f"recover {ident}'")
        others = [each for each in journal.records()
                  if each.container == record.container]
        for each in others[:]:
            if each.ended and each.history[0][1] <= record.history[0][1]:
                shutil.rmtree(each.dir)
                others.remove(each)
        if not others:
            runtime(record.runtime).unguard(record)


def _only():
    found = [record for record in journal.records() if not record.ended]
    if len(found) != 1:
        raise Failure(f"recover: {len(found) or 'no'} migrations have not ended on this "
                      "host" + ("; give the ID of one: "
                                + " ".join(each.id for each in found) if found else ""),
                      2 if found else 0)
    return found[0]


def _believe(record):
    """The operator says that nothing of it is alive on any host."""
    if record.state not in ("committing", "committed", "granted"):
        raise Failure(f"migration {record.id}: it is {record.state}: this host does not "
                      "own the images")
    kind = runtime(record.runtime)
    if kind.processes(record.cgroups):
        raise Failure(f"container {record.container}: it is alive here")
    kind.believe(record)


def _source(record, options, connect):
    peer = connect(options.to or record.peer)
    kind = runtime(record.runtime)
    with source.unfinished(record):
        if record.state in ("begun", "stopping") or \
                record.state == "committing" and not source.given_up(record, kind):
            failure = source.roll_back(record, kind, peer,
                                       Failure("its command has died"))
            source.say(record, str(failure).rsplit(": ", 1)[1])
            return
        _finish(record, options, connect, peer)


def _finish(record, options, connect, peer):
    kind = runtime(record.runtime)
    if record.state == "committed" and kind.word(record) != "complete":
        # A restore here has begun, and who ordered it has died.
        source.restore_here(record, options.timeout)
        source.say(record, f"{record.container} runs here again")
        return
    if options.back or options.to:
        _take_back(record, connect(record.peer))
        if options.back:
            source.restore_here(record, options.timeout)
            source.say(record, f"{record.container} runs here again")
            return
        record.set("committed", peer=options.to)
        source.announce(record, peer)
        source.send(record, peer)
    elif record.state == "committed" and not kind.WHOLE:
        source.carry(record, peer, options.timeout)
    source.hand_over(record, peer, options.timeout)


def _take_back(record, peer):
    """The destination never restores it. As long as it does not own the images, it need
    not know."""
    try:
        peer.call("return", record.id)
    except Refused as error:
        if error.reply.get("state") == "running":
            source.done(record)
            raise
        if record.state == "handed":
            raise
    except Lost as error:
        if record.state == "committed":
            return
        raise Failure(f"{error}. It may run there, so it cannot be restored elsewhere "
                      "before that host answers", UNFINISHED) from None
    if record.state == "handed":
        record.set("committed")


def _destination(record, options):
    if record.state in ("expected", "received"):
        if not options.source_is_gone:
            raise Failure(f"migration {record.id}: its source decides about it: 'migros "
                          "recover' there. If that host is dead for ever and its disk "
                          "is lost: --source-is-gone")
        if record.state == "expected":
            # It has died with the source, or runs there.
            destination.give_back(record, "dropped", "its images have never come")
            source.say(record, f"{record.reason}; it has ended")
            return
        runtime(record.runtime).believe(record)
        record.set("granted")
    destination.settle(record, options.timeout)
    source.say(record, f"{record.container} runs here")
