"""Section 13: what those who know no nonce can do."""

import time

from clauses import clause
from peer import *


def attack(link, attacker, epochs=(0, 1, 2, 1000, 0x7fffffff)):
    """All packets an attacker off the path can make up: he knows everything but
    nonces, and uses the addresses of others."""
    setting = link.setting
    for source in (setting.own, setting.other, attacker):
        for opcode in MIGRATION:
            for epoch in epochs:
                for flags in (0, F_PAUSED):
                    link.send(opcode, source=source, epoch=epoch, flags=flags,
                              nonce=0xbad, echo=0x1234567887654321,
                              gid=gid(attacker if opcode == MOVED else source))
        link.send(RESUME, source=source, epoch=5, nonce=0xbad, flags=F_SELF,
                  src_qpn=link.their_qpn)
        time.sleep(0.02)
    link.drain(0.1)


@clause("SEC-1", "An attacker off the path (can send any packet with any source "
        "address, knows addresses, QPNs, P_Key and even PSNs, sees nothing) can neither "
        "pause, resume nor move a QP, nor make one look capable")
def running(setting):
    link = Link(setting)
    attack(link, setting.other)
    link.runs(1)
    image = link.stop()
    check(not image["capable"] and not image["peer_stopped"] and
          not image["peer_epoch"] and not image["peer_challenge"],
          f"believed: {image}")


@clause("SEC-1", "can neither pause, resume nor move a QP")
def paused(setting):
    link = Link(setting)
    link.pause()
    link.endpoint.post(op="SEND", id=1)
    attack(link, setting.other)
    link.silence(0.3, SEND_ONLY)
    link.resume()
    link.await_(SEND_ONLY, psn=link.theirs, to=link.own)
    link.ack(link.theirs)
    link.completions(1)


@clause("SEC-1", "nor make one look capable: all need a 64-bit nonce that was sent "
        "only as AUTH-3 says.")
def stopped(setting):
    """A stock partner that is NAKed with our syndrome would be dead."""
    link = Link(setting)
    link.stop()
    for gone in (False, True):
        if gone:
            link.endpoint.leave()
        attack(link, setting.other)
        for _ in range(2):
            link.drain(0.05)
            link.data(SEND_ONLY, link.mine, payload=b"data")
            packet = link.await_(ACK) if gone else link.receive(0.3)
            check(packet is None or AETH not in packet or
                  packet[AETH].syndrome != NAK_STOPPED,
                  f"{describe(packet)} to a partner that nobody has vouched for")
            time.sleep(0.15)
    # nor moved
    link.send(PROBE, nonce=0x5)
    link.await_(PAUSE, echo=0x5)
    link.endpoint.restore()
    link.drain(0.05)
    link.endpoint.resume()
    link.await_(RESUME, nonce=link.its_secret)


@clause("SEC-1", "can neither pause, resume nor move a QP")
def resuming(setting):
    link = Link(setting)
    # One that is not known to be capable is not waited for [RESUME-2].
    link.pause()
    link.resume()
    link.stop()
    packet = link.back()
    link.endpoint.post(op="SEND", id=1)
    attack(link, setting.other)
    link.await_(RESUME, to=link.own)
    link.silence(0.1, SEND_ONLY)
    link.accept(packet)
    link.await_(SEND_ONLY, psn=link.theirs, to=link.own)


@clause("SEC-1", "a guess pauses one QP until the next PROBE (200 ms)")
def guessed_token(setting):
    """Our RUNNING ends it; a wrong token or another source does nothing."""
    link = Link(setting)
    link.learn()
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    token = link.its_challenge & 0xffffff
    link.ack(link.theirs, syndrome=NAK_STOPPED, msn=token ^ 1)
    link.ack(link.theirs, syndrome=NAK_STOPPED, msn=token, source=setting.other)
    link.drain(0.05)
    link.endpoint.post(op="SEND", id=2)
    link.expect(SEND_ONLY, psn=(link.theirs + 1) & 0xffffff)
    start = time.monotonic()
    link.ack(link.theirs, syndrome=NAK_STOPPED, msn=token)
    packet = link.await_(PROBE, flags=F_PAUSED)
    link.send(RUNNING, echo=packet[MIGETH].nonce)
    link.expect(SEND_ONLY, psn=link.theirs)
    check(link.at - start < 1, "it was held longer")
    link.ack((link.theirs + 1) & 0xffffff, msn=2)
    link.completions(1, 2)


@clause("SEC-1", "To pause, NAK_STOPPED needs 24 bits and a PSN of the window")
def guessed_psn(setting):
    """With the token right and the PSN of a request that was not sent"""
    link = Link(setting)
    link.learn()
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    for psn in (link.theirs - 1, link.theirs + 5):
        link.ack(psn, syndrome=NAK_STOPPED, msn=link.its_challenge & 0xffffff)
    link.drain()
    link.endpoint.post(op="SEND", id=2)
    link.expect(SEND_ONLY, psn=(link.theirs + 1) & 0xffffff)


def one_for_one(link, frame, opcode, what, seconds=0.2, **fields):
    """Its cause is as long, and there is one of it."""
    link.drain(0.05)
    link.transmit(frame)
    found, deadline = [], time.monotonic() + seconds
    while (packet := link.receive(deadline - time.monotonic(),
                                  mine=False)) is not None:
        if packet[BTH].opcode == opcode and all(
                link.field(packet, name) == value
                for name, value in fields.items()):
            found.append(packet)
    check(len(found) == 1, f"{what}: {len(found)} answers: "
          f"{', '.join(map(describe, found))}")
    check(len(found[0].original) <= max(len(frame), 60),
          f"{what}: {len(found[0].original)} bytes, caused by {len(frame)}")


@clause("SEC-3", "Replies are not longer than what causes them, go one for one")
def running_replies(setting):
    link = Link(setting)
    one_for_one(link, link.migration(PROBE, nonce=0x5), RUNNING, "PROBE",
                echo=0x5)
    one_for_one(link, link.migration(PAUSE, epoch=1, nonce=0x6, echo=0x1), PROBE,
                "PAUSE", echo=0x6)
    one_for_one(link, link.migration(RESUME, epoch=1, nonce=0x7, echo=0x1), PROBE,
                "RESUME", echo=0x7)
    link.pause()
    link.resume()
    one_for_one(link, link.migration(RESUME, nonce=link.secret), RESUME_ACK,
                "RESUME again")


@clause("SEC-3", "go one for one, to configured addresses except MOVED and "
        "RESUME_ACK")
def stopped_replies(setting):
    for gone in (False, True):
        link = Link(setting)
        link.stop()
        if gone:
            link.endpoint.leave()
        link.introduce()
        what = "tombstone" if gone else "Stopped"
        one_for_one(link, link.migration(PROBE, nonce=0x5), PAUSE,
                    f"{what}, PROBE", echo=0x5)
        one_for_one(link, link.migration(RESUME, nonce=0x5, epoch=9), PAUSE,
                    f"{what}, RESUME")
        one_for_one(link, link.packet(SEND_ONLY, link.mine, payload=b"data"),
                    ACK, f"{what}, request", syndrome=NAK_STOPPED)
        link.send(RESUME, source=setting.other, nonce=link.its_secret,
                  flags=F_SELF, src_qpn=link.their_qpn, epoch=1)
        time.sleep(0.05)
        for opcode in (PROBE, RESUME):
            one_for_one(link, link.migration(opcode, nonce=0x5, epoch=9), MOVED,
                        f"{what} with self_forward, {NAMES[opcode]}")


@clause("SEC-3", "MOVED tells the new address of a QP to one who knows both QPNs and "
        "the P_Key, for the life of a tombstone.")
def moved_to_whom(setting):
    """and to nobody else"""
    link = Link(setting)
    link.stop()
    link.endpoint.leave()
    link.send(RESUME, source=setting.other, nonce=link.its_secret, flags=F_SELF,
              src_qpn=link.their_qpn, epoch=1)
    time.sleep(0.05)
    link.drain(0.05)
    for source in (setting.own, setting.other):
        for opcode in (PROBE, RESUME):
            link.send(opcode, source=source, nonce=0x5, src_qpn=link.qpn + 1)
            link.send(opcode, source=source, nonce=0x5, bth={"pkey": 0x1234})
            link.send(opcode, source=source, nonce=0x5,
                      bth={"dqpn": link.their_qpn + 1})
    link.silence(0.2)
    link.send(PROBE, source=setting.other, nonce=0x5)
    link.expect(MOVED, echo=0x5, to=setting.other)


@clause("SEC-6", "nonces of an image are copied, never trusted for anything beyond "
        "this QP.")
def copied(setting):
    """and nothing of it is seen at another QP with the same partner."""
    link = Link(setting)
    bystander = Link(setting)
    challenge = link.learn()
    foreign = bystander.learn()
    link.epoch = 3
    link.pause()
    image = link.stop()
    check(image["challenge"] == challenge and image["peer_epoch"] == 4 and
          image["peer_secret"] == link.secret, f"the image says {image}")
    packet = link.back()
    link.compare(packet, None, {"nonce": image["secret"], "epoch": 1})
    # The restored QP is Paused as it was, with the nonces it had.
    link.await_(PROBE, flags=F_PAUSED, nonce=challenge, echo=link.secret)
    # These nonces are worth nothing elsewhere.
    for echo in (challenge, image["secret"]):
        for opcode in (PAUSE, RESUME, RESUME_ACK):
            bystander.send(opcode, epoch=1, nonce=link.secret, echo=echo)
    check(bystander.learn() == foreign, "the bystander has a new challenge")
    bystander.runs(1)
    link.resume()
    link.accept(packet)
    link.runs(2)


@clause("SEC-7", "An image used twice (restored again after the QP went on) is fenced at "
        "a capable partner: its epoch is not fresh from another address")
def used_twice_elsewhere(setting):
    """The image's QP was resumed at one address, and is restored again at
    another."""
    link = Link(setting)
    link.pause()
    link.resume()
    link.drain(0.05)
    link.send(RESUME, source=setting.other, nonce=link.secret)
    link.send(RESUME, source=setting.other, nonce=link.secret,
              echo=link.its_challenge)
    link.silence(0.3)
    link.runs(1)
    # after it moved to that other, the first copy does not get it back
    link.pause()
    link.own = setting.other
    link.resume(rq_psn=link.theirs)
    link.drain(0.05)
    link.send(RESUME, source=setting.own, nonce=link.secret)
    link.silence(0.3)
    link.runs(2)


@clause("SEC-7", "from the same address its PSNs fail RESUME-4 as soon as the partner "
        "has seen a completion since.")
def used_twice_here(setting):
    link = Link(setting)
    link.pause()
    old = link.theirs
    link.resume()
    link.drain(0.05)
    # a duplicate, as long as nothing was done
    link.send(RESUME, nonce=link.secret, rq_psn=old)
    link.expect(RESUME_ACK)
    link.runs(1)
    link.drain(0.05)
    link.send(RESUME, nonce=link.secret, rq_psn=old)
    link.silence(0.3)
    # stopped a second time from that image: a new epoch, but old numbers
    link.send(RESUME, epoch=link.epoch + 1, nonce=link.secret, rq_psn=old,
              echo=link.its_challenge)
    link.silence(0.3)
    link.runs(2)


class Counted:
    """What is counted of migrations from its making on"""

    def __init__(self, link):
        self.link, self.before = link, link.endpoint.counters()

    def expect(self, **wanted):
        """These have grown by so much, and nothing else that tells of a refusal."""
        time.sleep(0.1)  # as old as a reading of them may be
        now = self.link.endpoint.counters()
        for name in ("refused", "contradicted", "dropped", "pauses", "resumes",
                     "gave_up", *wanted):
            grown = now[f"mig_{name}"] - self.before[f"mig_{name}"]
            check(grown == wanted.get(name, 0),
                  f"mig_{name} has grown by {grown}, not {wanted.get(name, 0)}")
        self.before = now


@clause("SEC-8", "An implementation SHOULD count, where administrators see it and "
        "applications do not: pauses, RESUMEs applied, QPs that gave up;")
def counts_migrations(setting):
    link = Link(setting)
    link.drain()
    counted = Counted(link)
    link.pause()
    time.sleep(0.3)
    link.drain()
    link.endpoint.shell("rdma -dd resource show qp | grep -q 'mig_state paused .*"
                        "mig_peer_epoch 1 .*mig_held_ms [0-9][0-9][0-9]'")
    # pause() begins with a PAUSE that knows nothing, see learn()
    counted.expect(pauses=1, refused=1, held_ms=0)
    link.resume()
    held = link.endpoint.counters()["mig_held_ms"] - counted.before["mig_held_ms"]
    check(250 < held < 5000, f"it was held for 300 ms at least, {held} are counted")
    counted.expect(resumes=1, rcvd_resume=1, held_ms=held)
    link.runs(1)
    link.endpoint.shell("rdma -dd resource show qp | grep -q 'mig_state running'")
    link.stop()
    counted.expect(stops=1)
    link.endpoint.shell("rdma -dd resource show qp | grep -q 'mig_state stopped .*"
                        "mig_epoch 1 .*mig_stopped_ms '")
    link.introduce()
    link.request(link.mine)
    link.expect_nak(link.mine)
    counted.expect(sent_nak_stopped=1)


@clause("SEC-8", "pauses, RESUMEs applied, QPs that gave up;")
def counts_what_is_destroyed(setting):
    """The time of a pause ends with the QP."""
    link = Link(setting)
    link.pause()
    time.sleep(0.3)
    before = link.endpoint.counters()["mig_held_ms"]
    link.endpoint.destroy("qp")
    time.sleep(0.1)
    held = link.endpoint.counters()["mig_held_ms"] - before
    check(250 < held < 5000, f"it was held for 300 ms at least, {held} are counted")


@clause("SEC-8", "those refused because a nonce or an epoch is wrong")
def counts_refused(setting):
    link = Link(setting)
    link.learn()
    link.drain()
    counted = Counted(link)
    for opcode in (PAUSE, RUNNING, RESUME, MOVED):
        link.send(opcode, epoch=5, nonce=0xbad, echo=0xbad, gid=gid(setting.own))
        counted.expect(refused=1)
    # who does not know it yet has none, and is told
    link.send(PAUSE, epoch=5, nonce=0xbad, echo=0)
    link.await_(PROBE, echo=0xbad)
    counted.expect()
    link.pause()
    link.resume()
    counted.expect(pauses=1, resumes=1, refused=1)
    link.send(PAUSE, nonce=link.secret, echo=link.its_challenge)
    counted.expect(refused=1)
    # its partner's secret was announced
    link.pause()
    link.send(RESUME, nonce=link.secret ^ 1)
    counted.expect(pauses=1, refused=2)
    link.resume()
    link.stop()
    counted.expect(resumes=1, stops=1)
    link.send(RESUME, nonce=0xbad, flags=F_SELF, src_qpn=link.their_qpn)
    counted.expect(refused=1)


@clause("SEC-8", "verified RESUMEs that are not applied (RESUME-4).")
def counts_contradicted(setting):
    """An image that was used twice"""
    link = Link(setting)
    link.pause()
    old = link.theirs
    link.resume()
    link.runs(1)
    link.drain()
    counted = Counted(link)
    link.send(RESUME, epoch=link.epoch + 1, nonce=link.secret, rq_psn=old,
              echo=link.its_challenge)
    counted.expect(contradicted=1)


@clause("SEC-8", "and, each apart, migration packets dropped by ACC-1 or addressed to "
        "nobody")
def counts_dropped(setting):
    link = Link(setting)
    link.drain()
    counted = Counted(link)
    link.send(PROBE, nonce=0x5, version=2)
    counted.expect(dropped=1)
    link.send(PROBE, nonce=0x5, bth={"dqpn": 0xfffffe})
    counted.expect(dropped=1, rcvd_pkts=1)
    link.send(PROBE, nonce=0x5, src_qpn=0xfffffe)
    counted.expect(dropped=1, rcvd_pkts=1)
    link.stop()
    link.endpoint.leave()
    link.drain()
    counted = Counted(link)
    link.send(PROBE, nonce=0x5, src_qpn=0xfffffe)
    counted.expect(dropped=1)
    link.send(RESUME, nonce=0xbad, flags=F_SELF, src_qpn=link.their_qpn)
    counted.expect(refused=1)
