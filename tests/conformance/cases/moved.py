"""Section 8: an address that has changed, and who tells it."""

import time

from clauses import clause
from peer import *
from tombstone import f_self, probe, stopped_or_gone


@clause("TOMB-4", "A Resuming QP whose address differs from the one in the snapshot "
        "sends, with every RESUME that it repeats, a RESUME with F_SELF to the old "
        "address, DestQP = its own QPN, `src_qpn` = the same.")
@clause("WIRE-3", "| RESUME with F_SELF | own secret | 0 | own | own | own old address |")
@clause("AUTH-3", "the QP's own old address (F_SELF)")
@clause("STATE-3", "| RETRY timer | | | RESUME, F_SELF | PAUSE (announcement) | |")
def tells_old_address(setting):
    with setting.address() as address:
        link = Link(setting, local=address.text)
        image = link.stop()
        link.introduce()
        link.endpoint.leave()
        address.remove()
        address.take()
        link.endpoint.restore()
        link.drain()
        link.endpoint.resume(new_addr=1)
        came = {0: 0, F_SELF: 0}
        deadline = time.monotonic() + 1.5
        while (packet := link.receive(deadline - time.monotonic(),
                                      mine=False)) is not None:
            check(packet[BTH].opcode == RESUME, f"{describe(packet)} came")
            flags = int(packet[MIGETH].flags)
            came[flags] = came.get(flags, 0) + 1
            if flags:
                link.compare(packet, address.text,
                             {"dqpn": link.their_qpn, "echo": 0})
            else:
                link.compare(packet, setting.own, {"dqpn": link.qpn})
            link.compare(packet, None, {
                "src_qpn": link.their_qpn, "nonce": image["secret"],
                "epoch": image["epoch"], "gid": gid(setting.their)})
        check(came.keys() == {0, F_SELF} and came[0] >= 4 and
              abs(came[0] - came[F_SELF]) <= 1,
              f"RESUMEs with flags: {came}")


@clause("TOMB-4", "A Resuming QP whose address differs from the one in the snapshot")
def tells_only_if_moved(setting):
    link = Link(setting)
    link.stop()
    link.back()
    deadline = time.monotonic() + 1
    while (packet := link.receive(deadline - time.monotonic(),
                                  mine=False)) is not None:
        check(MIGETH not in packet or not packet[MIGETH].flags & F_SELF,
              "RESUME with F_SELF from the same address")


@clause("TOMB-4", "A Stopped QP or tombstone accepts it iff nonce = `secret` and "
        "epoch ≥ `epoch`, and sets `self_forward` := source. No answer.")
def accepts_self(setting):
    for more in (0, 1):
        for link, image in stopped_or_gone(setting):
            f_self(link, image, source=setting.other,
                   epoch=image["epoch"] + more)
            link.silence(0.2)
            probe(link)
            link.expect(MOVED, gid=gid(setting.other), echo=0x55)
            # The newest one counts.
            f_self(link, image, source=setting.own, epoch=image["epoch"] + more)
            probe(link)
            link.expect(MOVED, gid=gid(setting.own), echo=0x55)


@clause("TOMB-4", "accepts it iff nonce = `secret` and epoch ≥ `epoch`")
def refuses_self(setting):
    for link, image in stopped_or_gone(setting):
        for fields in ({"nonce": image["secret"] ^ 1}, {"nonce": 0},
                       {"nonce": image["challenge"]},
                       {"epoch": image["epoch"] - 1},
                       {"src_qpn": link.qpn}, {"flags": 0}):
            f_self(link, image, source=setting.other, **fields)
        link.drain()
        probe(link)
        link.expect(PAUSE, echo=0x55)


@clause("TOMB-4", "A Stopped QP or tombstone accepts it")
def live_one_ignores_self(setting):
    """State table: a Running QP has no answer, and stays where it is."""
    link = Link(setting)
    image = link.stop()
    link.endpoint.cancel()
    link.accept(link.await_(RESUME))
    link.drain()
    f_self(link, image, source=setting.other)
    link.silence(0.2)
    probe(link)
    link.expect(RUNNING, echo=0x55)


@clause("TOMB-5", "With `self_forward`, PROBE and RESUME from any address are "
        "answered MOVED (gid = `self_forward`, echo = their nonce) to the "
        "packet's *source*.")
@clause("PAUSE-9", "with a `self_forward`: answers MOVED")
def moved(setting):
    for link, image in stopped_or_gone(setting):
        f_self(link, image, source=setting.other)
        link.drain()
        for source in (setting.own, setting.other):
            probe(link, nonce=0x66, source=source)
            link.expect(MOVED, to=source, gid=gid(setting.other), echo=0x66,
                        nonce=0, epoch=image["epoch"])
            link.send(RESUME, epoch=5, nonce=0x77, source=source)
            link.expect(MOVED, to=source, gid=gid(setting.other), echo=0x77,
                        nonce=0, epoch=image["epoch"])


@clause("TOMB-5", "With `self_forward`, PROBE and RESUME from any address are "
        "answered MOVED")
def moved_if_paused(setting):
    """Also a PROBE that would not be answered by PAUSE"""
    for link, image in stopped_or_gone(setting):
        f_self(link, image, source=setting.other)
        link.drain()
        probe(link, echo=image["secret"], flags=F_PAUSED)
        link.expect(MOVED, gid=gid(setting.other), echo=0x55)


@clause("RESUME-7", "if it moved, the Stopped QP or tombstone there answers with PAUSE "
        "(the secret) or MOVED.")
def after_unverified(setting):
    """The PROBE that answered its own RESUME, from a partner that is not Paused"""
    for link, image in stopped_or_gone(setting):
        probe(link, echo=image["secret"])
        link.expect(PAUSE, to=setting.own, nonce=image["secret"], echo=0x55)
        f_self(link, image, source=setting.other)
        link.drain()
        probe(link, echo=image["secret"])
        link.expect(MOVED, to=setting.own, gid=gid(setting.other), echo=0x55)


@clause("TOMB-5", "answered MOVED (gid = `self_forward`, echo = their nonce)")
@clause("WIRE-3", "F_TOMBSTONE (0x02) in a PAUSE that the QP itself is gone")
def moved_has_no_flags(setting):
    for link, image in stopped_or_gone(setting):
        f_self(link, image, source=setting.other)
        link.drain()
        probe(link)
        link.expect(MOVED, flags=0)


@clause("TOMB-5", "Without it, a RESUME from the AV is answered by PAUSE and one "
        "from elsewhere dropped.")
def resume_unknown(setting):
    for link, image in stopped_or_gone(setting):
        link.send(RESUME, epoch=5, nonce=0x77, source=setting.other)
        link.silence(0.2)
        link.send(RESUME, epoch=5, nonce=0x77)
        link.expect(PAUSE, to=setting.own, nonce=image["secret"],
                    echo=link.challenge)


@clause("TOMB-5", "MOVED holds no nonce of ours, so it may go to a stranger; PAUSE "
        "may not.")
def probe_of_stranger(setting):
    for link, _ in stopped_or_gone(setting):
        probe(link, source=setting.other)
        link.silence(0.3)


@clause("TOMB-6", "MOVED is accepted iff fresh and its echo matches `challenge`")
@clause("TOMB-6", "Then `forward` := gid, and PROBE (first case) or RESUME (second "
        "case) is sent there at once. It MUST NOT change the AV.")
def forwarded(setting):
    """A Running QP, and a Paused one"""
    link = Link(setting)
    challenge = link.learn()
    link.drain()
    link.send(MOVED, epoch=1, echo=challenge, gid=gid(setting.other))
    link.await_(PROBE, 0.5, to=setting.other, nonce=challenge, flags=0)
    link.drain()
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs, to=setting.own)
    link.ack(link.theirs, msn=1)
    link.completions(1)

    link = Link(setting)
    link.pause()
    link.drain()
    link.send(MOVED, echo=link.its_challenge, gid=gid(setting.other))
    link.await_(PROBE, 0.5, to=setting.other, echo=link.secret, flags=F_PAUSED)
    # Until the pause ends, both are asked.
    link.drain()
    link.await_(PROBE, to=setting.own, flags=F_PAUSED)
    link.await_(PROBE, to=setting.other, flags=F_PAUSED)


@clause("TOMB-6", "or `resume_pending` and its echo matches `secret`.")
@clause("TOMB-6", "Then `forward` := gid, and PROBE (first case) or RESUME (second "
        "case) is sent there at once.")
def forwarded_while_resuming(setting):
    link = Link(setting)
    image = link.stop()
    link.introduce()
    link.back()
    time.sleep(0.4)
    link.drain()
    link.send(MOVED, epoch=1, echo=image["secret"], gid=gid(setting.other))
    packet = link.await_(RESUME, 0.5, to=setting.other, nonce=image["secret"])
    link.silence(0.3, PROBE, to=setting.other)
    # The AV is what it was: the answer from there is not the partner's.
    link.accept(packet, source=setting.other)
    link.await_(RESUME, to=setting.own)
    link.accept(packet)
    link.drain()
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, to=setting.own)


@clause("TOMB-6", "One of the receiver's own addresses counts like any other: both ends "
        "may have been in one container, or come to one host.")
def own_address_counts(setting):
    """Two QPs of one process, connected to each other, come to another address. We are
    the tombstones."""
    with setting.address() as address:
        ends = {"local": address.text, "remote": address.text,
                "mine": setting.psn, "theirs": setting.psn}
        first = Link(setting, **ends)
        second = first.another(**ends, dest=first.their_qpn)
        first.attributes["dest"] = second.their_qpn
        first.endpoint.modify(qp=first.index, anew=1, state="RTS", **first.attributes)
        first.qpn, second.qpn = second.their_qpn, first.their_qpn
        first.stop()
        first.endpoint.leave()
        address.remove()
        address.take()
        first.endpoint.restore()
        first.drain()
        first.endpoint.resume(new_addr=1)
        for link in (first, second):
            packet = link.await_(RESUME, to=address.text, src_qpn=link.their_qpn, flags=0)
            link.send(MOVED, epoch=1, echo=packet[MIGETH].nonce, gid=gid(setting.their),
                      source=address.text)
        first.endpoint.recv(qp=second.index, id=9)
        first.endpoint.post(qp=first.index, op="SEND", id=1)
        found = first.endpoint.poll(ms=4000, count=2)["wc"]
        check(sorted(found.split(",")) == ["1:0", "9:0"],
              f"completions (id:status) {found or 'none'}")


def not_forwarded(link, **fields):
    """This MOVED has no effect."""
    link.drain()
    link.send(MOVED, **{"epoch": 1, "gid": gid(link.setting.other), **fields})
    link.silence(0.3)


@clause("TOMB-6", "MOVED is accepted iff fresh and its echo matches `challenge`")
def stale(setting):
    """Not fresh: the epoch is known, and the partner has resumed since."""
    link = Link(setting)
    not_forwarded(link, epoch=0, echo=link.learn())
    link.pause()
    link.resume()
    not_forwarded(link, epoch=link.epoch, echo=link.its_challenge)
    not_forwarded(link, epoch=link.epoch - 1, echo=link.its_challenge)


@clause("TOMB-6", "MOVED is accepted iff fresh and its echo matches `challenge`, or "
        "`resume_pending` and its echo matches `secret`.")
@clause("AUTH-3", "the `forward` (which somebody who knew the nonce named)")
def wrong_echo(setting):
    link = Link(setting)
    image = link.stop()
    link.endpoint.cancel()
    link.accept(link.await_(RESUME))
    link.drain()
    for echo in (0, image["challenge"] ^ 1,
                 # Its RESUME was answered.
                 image["secret"]):
        not_forwarded(link, echo=echo)


@clause("TOMB-6", "A gid of another family, or that is already the `forward`, is ignored.")
def useless_address(setting):
    link = Link(setting)
    challenge = link.learn()
    other_family = "fd77::2" if setting.family == 4 else "10.77.0.2"
    not_forwarded(link, echo=challenge, gid=gid(other_family))
    link.send(MOVED, epoch=1, echo=challenge, gid=gid(setting.other))
    link.await_(PROBE, to=setting.other)
    not_forwarded(link, echo=challenge)
