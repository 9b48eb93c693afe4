"""Section 10: who speaks the protocol, and who does not."""

import time

from clauses import clause
from peer import *


def wait_rnr(link):
    """Until it may answer a partner that it does not know."""
    time.sleep(WIRE["CAP_WAIT_MS"] / 1000)
    link.drain()


def rnr(link, psn):
    """RNR NAK with timer code 0"""
    return link.expect(ACK, syndrome=RNR, psn=psn & 0xffffff)


def capable(link):
    """What its image says of us"""
    return link.stop()["capable"]


@clause("CAP-1", "`peer_capable` is set only by packets that echo one of our nonces")
def initially_not(setting):
    link = Link(setting)
    check(not capable(link), "capable without a packet")


@clause("CAP-1", "PAUSE with echo = `challenge`")
def by_pause(setting):
    link = Link(setting)
    link.pause()
    check(capable(link), "not capable after a PAUSE that it accepted")


@clause("CAP-1", "RESUME verified")
def by_resume(setting):
    link = Link(setting)
    link.learn()
    link.epoch = 1
    link.send(RESUME, nonce=0x1, echo=link.its_challenge)
    link.await_(RESUME_ACK, echo=0x1)
    check(capable(link), "not capable after a RESUME that it accepted")


@clause("CAP-1", "RESUME_ACK accepted.")
def by_resume_ack(setting):
    link = Link(setting)
    link.stop()
    link.endpoint.cancel()
    link.accept(link.await_(RESUME))
    check(capable(link), "not capable after a RESUME_ACK that it accepted")


@clause("CAP-1", "PROBE with echo = `secret`")
def by_probe(setting):
    link = Link(setting)
    check(not capable(link), "capable without a packet")
    link.introduce()
    link.drain()
    link.request(link.mine)
    link.expect_nak(link.mine)
    link.endpoint.cancel()
    link.await_(RESUME)
    check(capable(link), "not capable after a PROBE with the secret")


@clause("CAP-1", "`peer_capable` is set only by packets that echo one of our nonces")
def not_by_forged(setting):
    """Each without a nonce of the endpoint, or with one that does not count."""
    link = Link(setting)
    challenge = link.learn()
    for opcode, fields in (
            (PAUSE, {"epoch": 5, "nonce": 0x1, "echo": 0}),
            (PAUSE, {"epoch": 5, "nonce": 0x1, "echo": challenge ^ 1}),
            # Not fresh
            (PAUSE, {"epoch": 0, "nonce": 0x1, "echo": challenge}),
            (RESUME, {"epoch": 5, "nonce": 0x1, "echo": challenge ^ 1}),
            (RESUME, {"epoch": 0, "nonce": 0x1, "echo": challenge}),
            (RESUME_ACK, {"epoch": 0, "nonce": 0x1, "echo": 0}),
            (RESUME_ACK, {"epoch": 0, "nonce": 0x1, "echo": challenge}),
            (PROBE, {"nonce": 0x1, "echo": 0}),
            (PROBE, {"nonce": 0x1, "echo": challenge}),
            (PROBE, {"nonce": 0x1, "echo": 0xbad, "flags": F_PAUSED})):
        link.send(opcode, **fields)
    link.drain()
    check(not capable(link), "capable after packets that prove nothing")


@clause("CAP-1", "`peer_capable` is set only by packets that echo one of our nonces: "
        "PROBE with echo = `secret`, PAUSE with echo = `challenge`, RESUME "
        "verified, RESUME_ACK accepted.")
def not_by_others(setting):
    """RUNNING, MOVED and NAK_STOPPED are accepted, but not in the list."""
    link = Link(setting)
    challenge = link.learn()
    link.send(RUNNING, echo=challenge)
    link.send(MOVED, epoch=5, echo=challenge, gid=gid(setting.other))
    link.endpoint.post(op="SEND", id=1)
    link.await_(SEND_ONLY, psn=link.theirs)
    link.ack(link.theirs, syndrome=NAK_STOPPED,
             msn=challenge & WIRE["TOKEN_MASK"])
    link.await_(PROBE, flags=F_PAUSED)
    check(not capable(link), "capable by RUNNING, MOVED or NAK_STOPPED")


@clause("CAP-1", "*Reason:* if a forged PROBE could set it, a forger could make us "
        "send NAK_STOPPED, which kills a stock partner.")
@clause("CAP-3", "NAK_STOPPED MUST NOT be sent to a partner that is not known to be "
        "capable.")
def forged_probes(setting):
    """A Stopped QP answers as it answers a partner without the extension."""
    for gone in (False, True):
        link = Link(setting)
        image = link.stop()
        if gone:
            link.endpoint.leave()
        for echo in (0, 0xbad, image["challenge"], image["secret"] ^ 1):
            for flags in (0, F_PAUSED):
                link.send(PROBE, nonce=0x1, echo=echo, flags=flags)
        link.drain()
        wait_rnr(link)
        for _ in range(3):
            link.request(link.mine)
            rnr(link, link.mine)


@clause("CAP-1", "It is kept in the snapshot and cleared at RESET.")
def kept_in_snapshot(setting):
    link = Link(setting)
    link.stop()
    link.endpoint.cancel()
    link.accept(link.await_(RESUME))
    check(capable(link), "not capable after a RESUME_ACK that it accepted")
    link.back()
    check(capable(link), "the restored QP has forgotten it")


@clause("CAP-1", "It is kept in the snapshot and cleared at RESET.")
def cleared_at_reset(setting):
    link = Link(setting)
    link.pause()
    link.endpoint.modify(qp=link.index, anew=1, state="RTS", **link.attributes)
    check(not capable(link), "still capable after RESET")


@clause("CAP-2", "`peer_capable` and `peer_challenge` known: NAK_STOPPED")
def known(setting):
    """At once, and with the low bits of the last challenge it was given"""
    for gone in (False, True):
        link = Link(setting)
        link.stop()
        link.introduce()
        if gone:
            link.endpoint.leave()
        link.drain()
        link.request(link.mine)
        link.expect_nak(link.mine)
        link.challenge += 0x1234
        link.introduce()
        link.drain()
        link.request(link.mine)
        link.expect_nak(link.mine)


@clause("CAP-2", "`peer_capable` and `peer_challenge` known: NAK_STOPPED")
def challenge_not_known(setting):
    """It knows that we are capable, but no challenge: there is no token."""
    link = Link(setting)
    link.pause()
    image = link.stop()
    check(image["capable"] and not image["peer_challenge"],
          "a PAUSE gave it a challenge")
    wait_rnr(link)
    link.request(link.mine)
    rnr(link, link.mine)


@clause("CAP-2", "else within 140 ms (the first three PAUSEs) of the Stop: nothing")
@clause("CAP-2", "else, own `rnr_retry` ≠ 0: RNR NAK, timer code 0 (655.36 ms)")
def not_at_once(setting):
    """Asked all the time. The Stop was after the command was sent."""
    link = Link(setting)
    earliest = time.monotonic() + WIRE["CAP_WAIT_MS"] / 1000
    link.stop()
    deadline = time.monotonic() + SLOW
    while time.monotonic() < deadline:
        link.request(link.mine)
        packet = link.receive(0.01)
        if packet is not None and packet[BTH].opcode == ACK:
            check(packet[AETH].syndrome == RNR, f"{describe(packet)} came")
            check(link.at >= earliest, "RNR NAK came too early")
            return
    raise Failure("no RNR NAK came")


@clause("CAP-2", "else within 140 ms (the first three PAUSEs) of the Stop: nothing")
def not_soon(setting):
    """Asked right behind the first PAUSE, which may have come late: far from
    the end of those 140 ms, there is no answer."""
    link = Link(setting)
    link.stop()
    link.await_(PAUSE)
    end = link.at + WIRE["CAP_WAIT_MS"] / 1000 / 2
    while time.monotonic() < end:
        link.request(link.mine)
        packet = link.receive(0.01)
        check(packet is None or packet[BTH].opcode == PAUSE or link.at > end,
              f"{describe(packet)} came early")


@clause("CAP-2", "else, own `rnr_retry` ≠ 0: RNR NAK, timer code 0 (655.36 ms)")
def not_ready(setting):
    for gone in (False, True):
        link = Link(setting, rnr=1)
        link.stop()
        if gone:
            link.endpoint.leave()
        wait_rnr(link)
        for psn in (link.mine, link.mine - 1):
            link.request(psn)
            rnr(link, psn)


@clause("CAP-2", "else nothing.")
def no_retries(setting):
    """Our own rnr_retry of 0 says that the partner's may be so, too."""
    for gone in (False, True):
        link = Link(setting, rnr=0)
        link.stop()
        if gone:
            link.endpoint.leave()
        wait_rnr(link)
        link.request(link.mine)
        link.silence(0.3, ACK)


@clause("CAP-2", "`peer_capable` and `peer_challenge` known: NAK_STOPPED")
def no_retries_but_known(setting):
    link = Link(setting, rnr=0)
    link.stop()
    link.introduce()
    link.drain()
    link.request(link.mine)
    link.expect_nak(link.mine)


@clause("CAP-3", "NAK_STOPPED MUST NOT be sent to a partner that is not known to be "
        "capable.")
def never_to_stock(setting):
    """From the Stop on, and by the tombstone"""
    link = Link(setting)
    link.stop()
    for gone in (False, True):
        if gone:
            link.endpoint.leave()
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            link.request(link.mine)
            packet = link.receive(0.02)
            check(packet is None or AETH not in packet or
                  packet[AETH].syndrome != NAK_STOPPED,
                  "NAK_STOPPED came to a stock partner")


@clause("CAP-4", "If the address moved along nothing is needed: retransmission and "
        "its own timers resume (RESUME-2's exception).")
def stock_requests_go_on(setting):
    """The endpoint's work, while its RESUMEs find no answer"""
    link = Link(setting)
    link.endpoint.post(op="SEND", id=1, count=2)
    link.await_(SEND_ONLY, psn=(link.theirs + 1) & 0xffffff)
    link.stop()
    link.back()
    for number in range(2):
        link.await_(SEND_ONLY, psn=(link.theirs + number) & 0xffffff)
    link.ack(link.theirs + 1, msn=2)
    link.completions(1, 2)
    link.await_(RESUME)


@clause("CAP-4", "If the address moved along nothing is needed: retransmission and "
        "its own timers resume (RESUME-2's exception).")
def stock_requests_are_served(setting):
    """A partner's request: RNR NAK while it is away, then executed once."""
    link = Link(setting)
    link.endpoint.recv(id=9)
    link.stop()
    wait_rnr(link)
    link.request(link.mine)
    rnr(link, link.mine)
    link.back()
    link.request(link.mine)
    link.expect(ACK, psn=link.mine, syndrome=ACKED, msn=1)
    link.completions(9)


@clause("CAP-4", "A stock partner never answers RESUME.")
def timers_run(setting):
    """A restored QP whose partner is silent retransmits."""
    link = Link(setting, timeout=14)
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    link.stop()
    link.back()
    for _ in range(3):
        link.await_(SEND_ONLY, psn=link.theirs)


@clause("CAP-5", "A version other than 1 is as no extension.")
def other_versions_live(setting):
    link = Link(setting)
    challenge = link.learn()
    link.drain()
    for version in (0, 2, 0xff):
        for opcode, fields in (
                (PAUSE, {"epoch": 5, "nonce": 0x1, "echo": challenge}),
                (PAUSE, {"epoch": 5, "nonce": 0x1, "echo": 0}),
                (PROBE, {"nonce": 0x1, "echo": 0}),
                (RESUME, {"epoch": 5, "nonce": 0x1, "echo": challenge})):
            link.send(opcode, version=version, **fields)
    link.silence(0.3)
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    check(not capable(link), "another version made it look capable")


@clause("CAP-5", "A version other than 1 is as no extension.")
def other_versions_stopped(setting):
    for gone in (False, True):
        link = Link(setting)
        link.stop()
        if gone:
            link.endpoint.leave()
        for version in (0, 2, 0xff):
            link.introduce(version=version)
        wait_rnr(link)
        link.request(link.mine)
        rnr(link, link.mine)
