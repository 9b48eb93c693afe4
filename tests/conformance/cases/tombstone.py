"""Section 8: what answers for a QP that has left."""

import time

from clauses import clause
from pause import with_limit
from peer import *

LIFE = "/sys/module/rdma_rxe/parameters/mig_tombstone_ms"


def leave(setting, introduced=False, **attributes):
    """A tombstone is there. Returns what the image says, too."""
    link = Link(setting, **attributes)
    image = link.stop()
    if introduced:
        link.introduce()
    link.endpoint.leave()
    link.drain()
    return link, image


def stopped_or_gone(setting):
    """A Stopped QP that knows us, and then the tombstone of another."""
    link = Link(setting)
    image = link.stop()
    link.introduce()
    link.drain()
    yield link, image
    yield leave(setting, introduced=True)


def probe(link, nonce=0x55, **fields):
    """The endpoint is asked whether it is Stopped."""
    link.send(PROBE, **{"nonce": nonce, "echo": 0, **fields})


def f_self(link, image, **fields):
    """What an instance that lives elsewhere tells the old one [TOMB-4]."""
    link.send(RESUME, **{"flags": F_SELF, "src_qpn": link.their_qpn,
                         "nonce": image["secret"], "epoch": image["epoch"],
                         **fields})
    time.sleep(0.1)


def nobody_answers(link, seconds=0.3):
    probe(link)
    link.send(RESUME, nonce=0x55)
    link.request(link.mine)
    link.silence(seconds)


class Life:
    """How long tombstones live, for a while."""

    def __init__(self, setting, ms):
        self.endpoint, self.ms = Endpoint(setting.control), ms

    def __enter__(self):
        self.endpoint.shell(f"cp {LIFE} /tmp/tombstone_ms && "
                            f"echo {self.ms} >{LIFE}")

    def __exit__(self, *_):
        self.endpoint.shell(f"cat /tmp/tombstone_ms >{LIFE}")
        self.endpoint.close()


@clause("TOMB-1", "When a Stopped RC QP in RTR, RTS or SQD is destroyed, the device "
        "keeps a tombstone")
def answers(setting):
    for state in ("RTR", "RTS", "SQD"):
        link, image = leave(setting, state=state)
        probe(link)
        link.expect(PAUSE, to=setting.own, flags=F_TOMBSTONE, echo=0x55,
                    nonce=image["secret"], epoch=image["epoch"],
                    src_qpn=link.their_qpn, rq_psn=image["resp_psn"],
                    sq_psn=image["comp_psn"], gid=gid(setting.their),
                    pkey=0xffff)


@clause("TOMB-1", "`rq_psn`, `sq_psn`.")
def holds_numbers(setting):
    """Those of a QP that has sent and received"""
    link = Link(setting)
    link.endpoint.recv(id=9)
    link.request(link.mine)
    link.expect(ACK, psn=link.mine)
    link.endpoint.post(op="SEND", id=1, count=2)
    link.await_(SEND_ONLY, psn=(link.theirs + 1) & 0xffffff)
    link.ack(link.theirs, msn=1)
    link.completions(9, 1)
    link.stop()
    link.endpoint.leave()
    link.drain()
    probe(link)
    link.expect(PAUSE, sq_psn=(link.theirs + 1) & 0xffffff,
                rq_psn=(link.mine + 1) & 0xffffff)


@clause("TOMB-1", "When a Stopped RC QP in RTR, RTS or SQD is destroyed")
def after_destroy(setting):
    """By the verb, too"""
    link = Link(setting)
    image = link.stop()
    link.endpoint.commit()
    link.endpoint.destroy(qp=link.index)
    link.drain()
    probe(link)
    link.expect(PAUSE, flags=F_TOMBSTONE, nonce=image["secret"])


@clause("TOMB-1", "When a Stopped RC QP in RTR, RTS or SQD is destroyed")
def only_then(setting):
    """Not of a QP that was Running, in another state or of another type"""
    first = Link(setting)
    first.endpoint.destroy(qp=first.index)
    nobody_answers(first)
    links = [Link(setting)]
    links += [links[0].another(state="INIT"), links[0].another(state="ERR"),
              links[0].another(type="UC")]
    links[0].stop()
    links[0].endpoint.leave()
    links[0].await_(PAUSE)
    for link in links[1:]:
        nobody_answers(link)


@clause("TOMB-1", "AV, forward, self_forward, epoch")
def holds_forward(setting):
    """The endpoint hears that we moved, then leaves itself. A PROBE from there
    is answered like one from the AV [PAUSE-9]."""
    link = Link(setting)
    link.pause()
    link.send(MOVED, echo=link.its_challenge, gid=gid(setting.other))
    link.await_(PROBE, to=setting.other)
    link.stop()
    link.introduce()
    link.drain()
    probe(link, source=setting.other)
    link.expect(PAUSE, to=setting.other, echo=0x55, flags=0)
    link.endpoint.leave()
    link.drain()
    probe(link, source=setting.other)
    link.expect(PAUSE, to=setting.other, echo=0x55, flags=F_TOMBSTONE)


@clause("TOMB-1", "AV, forward, self_forward, epoch")
def holds_self_forward(setting):
    link = Link(setting)
    image = link.stop()
    f_self(link, image, source=setting.other)
    link.endpoint.destroy(qp=link.index)
    link.drain()
    probe(link)
    link.expect(MOVED, gid=gid(setting.other), echo=0x55)


@clause("TOMB-1", "secret, `peer_challenge`, `peer_capable`")
def holds_partner(setting):
    link, image = leave(setting, introduced=True)
    link.request(image["resp_psn"])
    link.expect_nak(image["resp_psn"])
    link.send(RESUME, nonce=0x1)
    link.expect(PAUSE, echo=link.challenge)


@clause("TOMB-1", "It holds neither the QPN nor memory of the process.")
def process_gone(setting):
    """It answers without the process."""
    link, image = leave(setting)
    setting.close()
    link.drain(0.3)
    probe(link)
    link.expect(PAUSE, flags=F_TOMBSTONE, nonce=image["secret"])


@clause("TOMB-1", "It holds neither the QPN nor memory of the process.")
def number_is_free(setting):
    """Another QP can have it, here one that is never activated."""
    link, image = leave(setting)
    link.endpoint.restore()
    link.endpoint.destroy(qp=link.index)
    link.drain()
    probe(link)
    link.expect(PAUSE, flags=F_TOMBSTONE, nonce=image["secret"])


@clause("TOMB-2", "a migration packet also if that QP has another `dest_qp_num` or "
        "has been restored and is not yet live")
def not_if_restored(setting):
    link, _ = leave(setting)
    link.endpoint.restore()
    link.endpoint.resume()
    link.accept(link.await_(RESUME))
    link.drain()
    probe(link)
    link.expect(RUNNING, echo=0x55)
    link.endpoint.recv(id=9)
    link.request(link.mine)
    link.expect(ACK, psn=link.mine, syndrome=ACKED)
    link.silence(0.2)


def places_exchanged(setting):
    """Both ends had the same QP number. One has left a tombstone here, and the other,
    which was at our address, comes here, too. Returns its connection, and the image of
    the one that left."""
    link = Link(setting)
    link.qpn = link.their_qpn
    link.attributes["dest"] = link.qpn
    link.endpoint.modify(qp=link.index, anew=1, state="RTS", **link.attributes)
    image = link.stop()
    link.endpoint.leave()
    link.endpoint.edit(local=setting.own, remote=setting.their)
    link.endpoint.restore()
    link.drain()
    return link, image


@clause("TOMB-2", "a RESUME with F_SELF also if that QP does not accept it")
@clause("TOMB-2", "a PROBE or RESUME also if that QP *meets itself* and has sent it.")
@clause("TOMB-3", "(adoption), unless that QP meets itself: then it is the partner's")
def meets_itself(setting):
    """It hears from the tombstone where we are now."""
    link, image = places_exchanged(setting)
    link.endpoint.post(op="SEND", id=1)
    link.endpoint.recv(id=9)
    link.endpoint.resume(new_addr=1)
    link.await_(RESUME, flags=F_SELF, to=setting.own)
    link.silence(0.3, RESUME, to=setting.other)
    f_self(link, image, source=setting.other)
    link.await_(RESUME, to=setting.other, flags=0)
    link.send(RESUME, epoch=5, nonce=0x77, echo=0, source=setting.other)
    packet = link.await_(PROBE, to=setting.other)
    link.send(RESUME, epoch=5, nonce=0x77, echo=packet[MIGETH].nonce,
              source=setting.other)
    link.await_(RESUME_ACK, to=setting.other, echo=0x77)
    link.accept(link.await_(RESUME, to=setting.other), source=setting.other)
    link.expect(SEND_ONLY, to=setting.other, psn=link.theirs)
    link.ack(link.theirs, msn=1, source=setting.other)
    link.completions(1)


@clause("RESUME-9", "The requester of a QP that meets itself (TOMB-2) MUST NOT run: "
        "outstanding work fails as in PAUSE-10")
def executes_nothing_of_itself(setting):
    link, _ = places_exchanged(setting)
    link.endpoint.recv(id=9)
    link.endpoint.post(op="SEND", id=1)

    def act():
        link.endpoint.resume(new_addr=1)
        found = link.endpoint.poll(ms=4000, count=2)["wc"]
        check(found.split(",")[0] == "1:12" and "9:0" not in found,
              f"completions (id:status) {found}")
    with_limit(link, "resume_limit", 500, act)


@clause("TOMB-8", "A QP that meets itself (TOMB-2) MUST NOT be stopped")
def not_stopped_where_it_meets_itself(setting):
    """RESUME_LIMIT changes nothing about that."""
    link, _ = places_exchanged(setting)

    def act():
        link.endpoint.resume(new_addr=1)
        for _ in range(2):
            try:
                link.stop()
            except EndpointError as error:
                check("temporarily unavailable" in str(error), str(error))
            else:
                raise Failure("it was stopped")
            time.sleep(1)
    with_limit(link, "resume_limit", 500, act)


@clause("TOMB-3", "when a QP with this QPN and this destination QPN goes live on the "
        "device (adoption)")
def another_connection(setting):
    """A QP with that number, and another partner"""
    link, image = leave(setting)
    link.endpoint.edit(dest=link.qpn ^ 1)
    link.endpoint.restore()
    link.endpoint.resume()
    link.drain(0.3)
    probe(link)
    link.expect(PAUSE, flags=F_TOMBSTONE, nonce=image["secret"], echo=0x55)


@clause("TOMB-2", "A tombstone answers requests (STOP-6) and migration packets like the "
        "Stopped QP, PAUSE with F_TOMBSTONE.")
def like_stopped(setting):
    """The same packets to both: the answers differ in that flag only."""
    for number, (link, image) in enumerate(stopped_or_gone(setting)):
        flags = F_TOMBSTONE if number else 0
        probe(link)
        link.expect(PAUSE, flags=flags, echo=0x55, nonce=image["secret"])
        link.send(RESUME, nonce=0x1)
        link.expect(PAUSE, flags=flags, echo=link.challenge)
        # What answered an announcement is not answered again [PAUSE-9].
        link.introduce()
        for opcode in (PAUSE, RUNNING, RESUME_ACK, MOVED):
            link.send(opcode, epoch=5, nonce=0x1, echo=image["challenge"],
                      gid=gid(setting.other))
        link.silence(0.2)
        link.request(link.mine)
        link.expect_nak(link.mine)


@clause("TOMB-2", "a migration packet also if that QP has another `dest_qp_num` or "
        "has been restored and is not yet live")
@clause("ACC-1", "`src_qpn` equals that QP's `dest_qp_num`")
def other_partner(setting):
    link, _ = leave(setting)
    probe(link, src_qpn=link.qpn ^ 1)
    link.send(RESUME, nonce=0x1, src_qpn=link.qpn ^ 1)
    probe(link, bth={"dqpn": link.their_qpn ^ 0x8000})
    link.silence(0.3)


@clause("TOMB-2", "A tombstone answers requests (STOP-6) and migration packets like the "
        "Stopped QP")
@clause("TOMB-1", "QPN, destination QPN, P_Key, own GID")
def wrong_key(setting):
    """A packet with another P_Key is not for it."""
    for link, _ in stopped_or_gone(setting):
        link.request(link.mine, pkey=0x1234)
        probe(link, bth={"pkey": 0x1234})
        link.silence(0.3)


@clause("TOMB-2", "A tombstone answers requests (STOP-6) and migration packets like the "
        "Stopped QP")
def own_address(setting):
    """The data path drops what comes to another address of the port than that
    of the QP; a tombstone has it, too [TOMB-1]."""
    with setting.address() as address:
        for link, _ in stopped_or_gone(setting):
            packet = BTH(opcode=SEND_ONLY, dqpn=link.their_qpn, psn=link.mine,
                         ackreq=1) / (b"x" * 64)
            link.transmit(link.frame(packet, to=address.text))
            link.silence(0.3)
            link.transmit(link.frame(packet))
            link.expect_nak(link.mine)


@clause("TOMB-2", "A tombstone answers requests (STOP-6) and migration packets like the "
        "Stopped QP")
def drops_replies(setting):
    for link, _ in stopped_or_gone(setting):
        link.ack(link.theirs)
        link.data(READ_ONLY, link.theirs, AETH(syndrome=ACKED),
                  payload=b"x" * 64, ack=False)
        link.silence(0.3)


@clause("TOMB-3", "It ends after `TOMBSTONE` (300 s)")
def ends_in_time(setting):
    with Life(setting, 1000):
        link, _ = leave(setting)
        ends = time.monotonic() + 1
        probe(link)
        link.expect(PAUSE, flags=F_TOMBSTONE)
        time.sleep(max(0, ends + 0.1 - time.monotonic()))
        nobody_answers(link)


@clause("TOMB-3", "when a QP with this QPN and this destination QPN goes live on the "
        "device (adoption)")
def ends_with_adoption(setting):
    link, _ = leave(setting)
    link.endpoint.restore()
    link.endpoint.resume()
    link.accept(link.await_(RESUME))
    # This one leaves no tombstone.
    link.endpoint.destroy(qp=link.index)
    link.drain()
    nobody_answers(link)


@clause("TOMB-3", "Without its GID it is mute.")
def mute_without_address(setting):
    """Also to what reaches the port by another address"""
    with setting.address() as address:
        link = Link(setting, local=address.text)
        link.stop()
        link.endpoint.leave()
        link.drain()
        probe(link, to=address.text)
        link.expect(PAUSE, flags=F_TOMBSTONE)
        address.remove()
        for their in (address.text, setting.their):
            link.their = their
            nobody_answers(link)


@clause("TOMB-3", "when a QP with this QPN and this destination QPN goes live on the "
        "device (adoption)")
def ends_only_with_life(setting):
    """A restored QP that is not activated is none."""
    link, _ = leave(setting, introduced=True)
    link.endpoint.restore()
    link.drain()
    probe(link)
    link.expect(PAUSE, flags=F_TOMBSTONE)


@clause("TOMB-3", "*Reason:* src → dst → src must not be blocked by what the QP "
        "itself left behind.")
def back_and_forth(setting):
    link = Link(setting)
    for number in range(3):
        link.stop()
        link.accept(link.back())
        link.request(link.mine)
    link.stop()
    link.endpoint.leave()
    link.drain()
    probe(link)
    link.expect(PAUSE, epoch=4, nonce=link.its_secret)


@clause("TOMB-4", "A Resuming QP whose address differs from the one in the snapshot "
        "sends, with every RESUME, a RESUME with F_SELF to the old address, "
        "DestQP = its own QPN, `src_qpn` = the same.")
@clause("WIRE-3", "RESUME with F_SELF | own secret | 0 | own | own | own old address")
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


@clause("TOMB-7", "the connection still resumes if the address moves along")
def old_host_dead_same_address(setting):
    """Nothing of its Stop reached us: we verify, and it gives our challenge
    back [RESUME-7]."""
    with Life(setting, 1):
        link = Link(setting)
        link.stop()
        packet = link.back()
        check(packet[MIGETH].echo == 0, "it cannot know a challenge")
        probe(link)
        link.accept(link.await_(RESUME, echo=0x55))
        link.endpoint.post(op="SEND", id=1)
        link.expect(SEND_ONLY, psn=link.theirs)


@clause("TOMB-7", "or if the partner accepted the PAUSE (it knows the secret)")
def partner_knows_secret(setting):
    """The endpoint is the partner: we return from elsewhere, and no tombstone
    of ours says anything."""
    link = Link(setting)
    link.pause()
    link.send(RESUME, nonce=link.secret, echo=0, source=setting.other)
    link.await_(RESUME_ACK, to=setting.other, echo=link.secret)
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs, to=setting.other)


@clause("TOMB-7", "or if the snapshot holds the partner's current challenge (it was "
        "given in a RESUME_ACK, or in a PROBE before this Stop).")
def snapshot_holds_challenge(setting):
    """Of both sides: the endpoint returns what our RESUME_ACK gave it, and
    accepts from elsewhere what its own gave us."""
    link = Link(setting)
    link.stop()
    link.accept(link.back())
    link.stop()
    packet = link.back()
    check(packet[MIGETH].echo == link.challenge, "the challenge is not ours")
    link.accept(packet)
    link.pause()
    link.resume()
    link.epoch += 1
    link.send(RESUME, nonce=0x1, echo=link.its_challenge, source=setting.other)
    link.await_(RESUME_ACK, to=setting.other, echo=0x1)


@clause("TOMB-8", "A QP that is Resuming at a new address SHOULD NOT be stopped "
        "again before its RESUME was answered (an implementation MAY make the "
        "dump wait or fail with EAGAIN).")
@clause("TOMB-8", "Otherwise it is safe, and heals if the partner stays where it is.")
def patience(setting):
    with setting.address() as address:
        link = Link(setting, local=address.text)
        link.stop()
        link.endpoint.leave()
        address.remove()
        link.endpoint.restore()
        link.endpoint.resume(new_addr=1)
        packet = link.await_(RESUME)
        secret = packet[MIGETH].nonce
        try:
            image = link.stop()
            check(image["secret"] == secret, "it has another secret")
        except EndpointError:
            link.accept(packet)
            image = link.stop()
        check(image["epoch"] == 2, f"epoch {image['epoch']} after two Stops")
        link.accept(link.back())
        link.endpoint.post(op="SEND", id=1)
        link.expect(SEND_ONLY, psn=link.theirs)
