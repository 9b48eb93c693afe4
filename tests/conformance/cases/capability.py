"""Section 10: who speaks the protocol, and who does not."""

import time

from acceptance import flood
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


@clause("CAP-1", "RESUME_ACK accepted, RUNNING accepted.")
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


@clause("CAP-1", "RUNNING accepted.")
@clause("PAUSE-8", "Then `nak_paused` := 0, `peer_capable` := 1 and, if `peer_challenge` "
        "is 0, it := nonce.")
def by_running(setting):
    """The first challenge that it brings; another it does not bring"""
    link = Link(setting)
    challenge = link.learn()
    link.send(RUNNING, echo=challenge, nonce=0)
    link.send(RUNNING, echo=challenge, nonce=0xc1)
    link.send(RUNNING, echo=challenge, nonce=0xc2)
    link.drain()
    image = link.stop()
    check(image["capable"], "not capable after a RUNNING that it accepted")
    check(image["peer_challenge"] == 0xc1, f"it has challenge "
          f"{image['peer_challenge']:#x}, not {0xc1:#x}")


@clause("PAUSE-8", "It MUST NOT clear `peer_stopped`, which only an accepted RESUME ends, "
        "nor replace a `peer_challenge`.")
def running_of_before(setting):
    """One that was late: what RESUME_ACK has told since is newer."""
    link = Link(setting)
    challenge = link.learn()
    link.stop()
    link.endpoint.cancel()
    link.accept(link.await_(RESUME))
    link.send(RUNNING, echo=challenge, nonce=0xc1)
    link.drain()
    check(link.stop()["peer_challenge"] == link.challenge, "a RUNNING has replaced it")


@clause("CAP-1", "`peer_capable` is set only by packets that echo one of our nonces: "
        "PROBE with echo = `secret`, PAUSE with echo = `challenge`, RESUME "
        "verified, RESUME_ACK accepted, RUNNING accepted.")
def not_by_others(setting):
    """MOVED and NAK_STOPPED are accepted, but not in the list."""
    link = Link(setting)
    challenge = link.learn()
    link.send(MOVED, epoch=5, echo=challenge, gid=gid(setting.other))
    link.endpoint.post(op="SEND", id=1)
    link.await_(SEND_ONLY, psn=link.theirs)
    link.ack(link.theirs, syndrome=NAK_STOPPED,
             msn=challenge & WIRE["TOKEN_MASK"])
    link.await_(PROBE, flags=F_PAUSED)
    check(not capable(link), "capable by MOVED or NAK_STOPPED")


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


@clause("CAP-2", "Answer of a Stopped QP or tombstone to a request (STOP-6): 1. "
        "`peer_capable` and `peer_challenge` known: NAK_STOPPED")
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


@clause("CAP-2", "In cases 3 and 4 it sends PAUSE, too (echo = `peer_challenge`, or 0; "
        "ACC-3 limits it), however long ago the Stop was.")
def told_again(setting):
    """Long after the announcement, of which nothing was heard; with and without RNR NAK.
    Before that nobody asks, and nothing comes."""
    for rnr_retry in (7, 0):
        for gone in (False, True):
            link = Link(setting, rnr=rnr_retry)
            link.stop()
            time.sleep(WIRE["ANNOUNCE_MS"] / 1000 * SLOW)
            if gone:
                link.endpoint.leave()
            link.drain(1.3)
            link.silence(0.5)
            link.request(link.mine)
            packet = link.await_(PAUSE, echo=0, nonce=link.its_secret, to=link.own,
                                 flags=F_TOMBSTONE if gone else 0)
            # It has told all that makes us Paused, and itself the better answer.
            link.drain()
            link.send(PROBE, nonce=link.challenge, echo=packet[MIGETH].nonce,
                      flags=F_PAUSED)
            time.sleep(0.1)
            link.drain()
            link.request(link.mine)
            link.expect_nak(link.mine)
            link.silence(0.3)


@clause("CAP-2", "In cases 3 and 4 it sends PAUSE, too (echo = `peer_challenge`, or 0; "
        "ACC-3 limits it), however long ago the Stop was.")
def told_not_more_often(setting):
    for gone in (False, True):
        link = Link(setting)
        link.stop()
        time.sleep(WIRE["ANNOUNCE_MS"] / 1000 * SLOW)
        if gone:
            link.endpoint.leave()
        link.drain(1.3)
        flood(link, link.packet(SEND_ONLY, link.mine, payload=b"x" * 64), PAUSE)


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


@clause("CAP-4", "A stock partner never answers PROBE nor RESUME.")
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


@clause("CAP-6", "A Running QP MAY send PROBE (echo = 0) at any time, and SHOULD before it "
        "is stopped if `peer_capable` or `peer_challenge` is unknown.")
@clause("STATE-3", "| asked whether the partner is capable | PROBE | – | MAY PROBE | – | |")
def asks(setting):
    """When it is asked, and no more when it knows"""
    link = Link(setting)
    link.silence(0.3)
    link.endpoint.ask()
    packet = link.expect(PROBE, skip=(), echo=0, flags=0, to=link.own, gid=gid(link.their),
                         src_qpn=link.their_qpn)
    # once, until it is asked again
    link.silence(0.5)
    link.endpoint.ask()
    packet = link.await_(PROBE, echo=0, nonce=packet[MIGETH].nonce)
    link.send(RUNNING, echo=packet[MIGETH].nonce, nonce=link.challenge)
    time.sleep(0.1)
    link.endpoint.ask()
    link.silence(0.3)
    link.runs()


@clause("CAP-6", "the first PAUSE holds the partner at once, requests find NAK_STOPPED from "
        "the beginning, and TOMB-7's third condition holds.")
def asked_before_the_stop(setting):
    link = Link(setting)
    link.endpoint.ask()
    packet = link.await_(PROBE)
    link.send(RUNNING, echo=packet[MIGETH].nonce, nonce=link.challenge)
    link.drain()
    image = link.stop()
    check(image["capable"] and image["peer_challenge"] == link.challenge,
          "the image does not know its partner")
    link.expect(PAUSE, echo=link.challenge)
    link.request(link.mine)
    link.expect_nak(link.mine)
    check(link.back()[MIGETH].echo == link.challenge, "RESUME does not echo the challenge")


@clause("STATE-3", "| asked whether the partner is capable | PROBE | – | MAY PROBE | – | |")
@clause("CAP-6", "A Running QP MAY send PROBE (echo = 0) at any time")
def asks_only_running(setting):
    """One that is held asks for another reason, a Stopped one not at all, nor does one
    that is not connected."""
    link = Link(setting)
    link.stop()
    link.drain(1.3)
    try:
        link.endpoint.ask()
    except EndpointError:
        pass
    link.silence(0.3, PROBE)
    link.endpoint.cancel()
    link.accept(link.await_(RESUME))
    link.endpoint.modify(qp=link.index, state="ERR")
    # RESUMEs of before it was answered
    link.drain()
    link.endpoint.ask()
    link.silence(0.3)
