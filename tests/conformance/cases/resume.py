"""Section 7: a partner is back, or this end is."""

import time

from clauses import clause
from pause import intervals, nak, sent, with_limit
from peer import *
from states import capable


def away(setting, **attributes):
    """Such a QP that was stopped and is not yet back."""
    link = capable(setting, **attributes)
    link.stop()
    link.endpoint.leave()
    link.endpoint.restore()
    time.sleep(0.1)
    link.drain()
    return link


@clause("RESUME-1", "Every restored RC QP in RTR, RTS or SQD becomes Resuming with "
        "`resume_pending` and sends RESUME, whether its partner is Paused or not.")
@clause("RESUME-1", "A QP in RTR sends it too, although it may not send requests.")
def from_each_state(setting):
    for state in ("RTR", "RTS", "SQD"):
        link = away(setting, state=state)
        link.endpoint.resume()
        packet = link.expect(RESUME, to=link.own, nonce=link.its_secret, echo=0,
                             epoch=1, gid=gid(link.their), flags=0,
                             rq_psn=link.mine, src_qpn=link.their_qpn)
        # Now it knows our challenge.
        link.accept(packet)
        link.stop()
        link.endpoint.leave()
        link.endpoint.restore()
        link.drain()
        link.endpoint.resume()
        link.expect(RESUME, nonce=link.its_secret, echo=link.challenge, epoch=2)


@clause("RESUME-1", "It is repeated at `RETRY_MIN` doubling to `RETRY_MAX` until "
        "answered.")
@clause("TIME-1", "`RETRY_MIN` .. `RETRY_MAX` | 20 ms .. 1 s, doubling")
def repeated(setting):
    link = away(setting)
    start = time.monotonic()
    link.endpoint.resume()
    packet = link.expect(RESUME)
    intervals(link, start, RESUME, (20, 40, 80, 160, 320, 640, 1000, 1000))
    link.accept(packet)
    link.drain()
    link.silence(1.5, RESUME)


@clause("RESUME-2", "While Resuming the requester is held and responses MAY be "
        "dropped; the responder runs.")
def held_while_resuming(setting):
    link = capable(setting)
    sent(link, 2)
    link.stop()
    packet = link.back()
    link.endpoint.post(op="SEND", id=3)
    link.silence(0.5, SEND_ONLY)
    link.endpoint.recv(id=9)
    link.data(SEND_ONLY, link.mine, payload=b"x" * 64)
    link.await_(ACK, psn=link.mine)
    link.completions(9)
    link.accept(packet)
    link.await_(SEND_ONLY, psn=link.theirs)


@clause("RESUME-2", "What the partner says after the snapshot, for instance the PROBE that "
        "answers this Stop, is not in it.")
def not_in_snapshot(setting):
    """The restored QP takes its partner for one without the extension."""
    link = Link(setting)
    sent(link, 1)
    link.stop()
    link.introduce()
    link.back()
    link.await_(SEND_ONLY, psn=link.theirs)
    # In place it is known.
    link = Link(setting)
    sent(link, 1)
    link.stop()
    link.introduce()
    link.drain()
    link.endpoint.cancel()
    packet = link.await_(RESUME)
    link.silence(0.3, SEND_ONLY)
    link.accept(packet)
    link.await_(SEND_ONLY, psn=link.theirs)


@clause("RESUME-2", "Exception: if the address did not change and `peer_capable` is not "
        "set, the requester runs at once (CAP-4).")
def stock_partner(setting):
    link = Link(setting)
    sent(link, 1)
    link.stop()
    link.endpoint.leave()
    link.endpoint.restore()
    link.drain()
    link.endpoint.resume()
    link.expect(SEND_ONLY, psn=link.theirs)


@clause("RESUME-3", "(a) `peer_stopped` is set and nonce = `peer_secret`")
@clause("RESUME-5", "then send RESUME_ACK (nonce = the new challenge) to the new AV "
        "and run.")
def verified_by_secret(setting):
    link = Link(setting)
    link.pause()
    old = link.its_challenge
    link.own = setting.other
    link.send(RESUME, nonce=link.secret, echo=0)
    packet = link.await_(RESUME_ACK, echo=link.secret, epoch=link.epoch,
                         to=setting.other)
    check(packet[MIGETH].nonce not in (0, old), "the challenge is the old one")
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, to=setting.other, psn=link.theirs)


@clause("RESUME-3", "or (b) echo matches `challenge`.")
@clause("RESUME-5", "This happens whether or not the QP was Paused.")
def verified_by_challenge(setting):
    link = Link(setting)
    link.learn()
    link.epoch = 1
    link.own = setting.other
    link.send(RESUME, nonce=link.secret, echo=link.its_challenge)
    link.await_(RESUME_ACK, echo=link.secret, to=setting.other)
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, to=setting.other, psn=link.theirs)


@clause("RESUME-7", "A fresh RESUME that is not verified changes nothing; the QP sends "
        "PROBE (echo = its nonce, ACC-4).")
@clause("RESUME-3", "A fresh RESUME is *verified* by a Running, Paused or Resuming QP "
        "iff")
def not_verified(setting):
    link = Link(setting)
    link.pause()
    link.drain()
    link.epoch += 1
    for echo in (0, link.its_challenge ^ 1):
        link.send(RESUME, nonce=link.secret ^ 0x100, echo=echo)
        link.await_(PROBE, echo=link.secret ^ 0x100, to=link.own)
    link.endpoint.post(op="SEND", id=1)
    link.silence(0.3, SEND_ONLY, RESUME_ACK)
    link.epoch -= 1
    link.resume()
    link.expect(SEND_ONLY, psn=link.theirs)


def refused(link, **fields):
    """This RESUME is dropped, and the right one is applied afterwards."""
    link.endpoint.post(op="SEND", id=1)
    link.drain()
    link.send(RESUME, nonce=link.secret, **fields)
    link.silence(0.3, SEND_ONLY, RESUME_ACK)
    link.resume()
    link.expect(SEND_ONLY, psn=link.theirs)


@clause("RESUME-4", "A verified RESUME is *applied* iff its `gid` equals the packet's "
        "source address")
@clause("RESUME-4", "Otherwise it is dropped.")
def foreign_gid(setting):
    link = Link(setting)
    link.pause()
    refused(link, gid=gid(setting.other))


@clause("RESUME-4", "the address is of the same family as the AV")
@clause("ADDR-1", "a change of family is refused (RESUME-4)")
def another_family(setting):
    link = Link(setting)
    link.pause()
    own, to = ("fd77::2", "fd77::1") if setting.family == 4 else \
        ("10.77.0.2", "10.77.0.1")
    refused(link, source=own, to=to)


@clause("RESUME-4", "a route to it exists")
def unreachable(setting):
    if setting.family == 4:
        raise Skip("Linux takes any IPv4 address to be on the link of a given device")
    link = Link(setting)
    link.pause()
    refused(link, source="2001:db8::1")


@clause("RESUME-4", "`rq_psn` is not behind the receiver's first unacknowledged PSN "
        "(difference modulo 2^24 below 2^23)")
@clause("SEC-7", "from the same address its PSNs fail RESUME-4 as soon as the partner "
        "has seen a completion since")
def image_too_old(setting):
    link = Link(setting)
    sent(link, 2)
    link.ack(link.theirs + 1)
    link.completions(1, 2)
    link.pause()
    old, link.theirs = link.theirs, (link.theirs + 2) & 0xffffff
    for number in (old, old + 1, link.theirs - (1 << 22), link.theirs + (1 << 23)):
        link.send(RESUME, nonce=link.secret, rq_psn=number & 0xffffff)
        link.silence(0.1, RESUME_ACK)
    refused(link, rq_psn=(link.theirs - 1) & 0xffffff)


@clause("RESUME-4", "nor beyond the PSN that follows what the receiver has sent.")
@clause("RESUME-4", "The first fails for an image older than what its partner saw "
        "completed; the second if the receiver itself was made from such an image")
def receiver_too_old(setting):
    """It knows of two requests of one packet and one of three, none acknowledged."""
    link = Link(setting)
    link.pause()
    for ahead in (1, 2, 100, (1 << 23) - 1):
        link.send(RESUME, nonce=link.secret, rq_psn=(link.theirs + ahead) & 0xffffff)
    link.silence(0.3, RESUME_ACK)
    link.resume()
    sent(link, 2)
    link.endpoint.post(op="WRITE", id=3, len=2 * setting.mtu + 1)
    link.await_(WRITE_LAST, psn=(link.theirs + 4) & 0xffffff)
    link.pause()
    link.drain()
    for ahead in (6, 7, 100, (1 << 23) - 1):
        link.send(RESUME, nonce=link.secret, rq_psn=(link.theirs + ahead) & 0xffffff)
    link.silence(0.3, RESUME_ACK, SEND_ONLY)
    # All of it has arrived, and it is asked for the acknowledgement.
    link.resume(rq_psn=(link.theirs + 5) & 0xffffff)
    link.await_(SEND_ONLY, psn=link.theirs)
    link.await_(WRITE_LAST, psn=(link.theirs + 4) & 0xffffff)
    link.ack(link.theirs + 4)
    link.completions(1, 2, 3)
    # Nor is a duplicate.
    link.drain()
    link.send(RESUME, nonce=link.secret, rq_psn=(link.theirs + 6) & 0xffffff)
    link.silence(0.2, RESUME_ACK)
    link.send(RESUME, nonce=link.secret, rq_psn=(link.theirs + 5) & 0xffffff)
    link.await_(RESUME_ACK)


@clause("RESUME-4", "if the receiver is in RTS or SQD")
def numbers_in_rtr(setting):
    link = Link(setting, state="RTR")
    link.pause()
    link.send(RESUME, nonce=link.secret, rq_psn=0x123456)
    link.await_(RESUME_ACK, echo=link.secret)


@clause("RESUME-5", "force retransmission from the first unacknowledged PSN")
@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def sends_again(setting):
    link = Link(setting)
    sent(link, 3)
    link.ack(link.theirs)
    link.completions(1)
    link.pause()
    link.drain()
    link.theirs = (link.theirs + 1) & 0xffffff
    link.resume()
    for number in (0, 1):
        link.expect(SEND_ONLY, psn=(link.theirs + number) & 0xffffff)


@clause("RESUME-5", "retry counters := attributes")
def retries_anew(setting):
    link = Link(setting, timeout=17, retry=1)
    sent(link, 1)
    # Its only retry, after half a second
    link.expect(SEND_ONLY, psn=link.theirs)
    link.pause()
    link.drain()
    link.resume()
    link.expect(SEND_ONLY, psn=link.theirs)
    # It has one again.
    link.expect(SEND_ONLY, psn=link.theirs)
    link.ack(link.theirs)
    link.completions(1)


@clause("RESUME-5", "clear the retransmission and RNR wait")
def ends_rnr_wait(setting):
    link = Link(setting)
    sent(link, 1)
    link.ack(link.theirs, syndrome=RNR)  # 655 ms
    link.pause()
    link.drain()
    link.resume()
    link.expect(SEND_ONLY, seconds=0.4, psn=link.theirs)


@clause("RESUME-5", "the QP's own RESUME is sent at once to the "
        "new AV.")
def both_moved(setting):
    link = capable(setting)
    link.stop()
    packet = link.back()
    # It repeats it once a second now.
    time.sleep(1.5)
    link.learn()
    link.epoch += 1
    link.own = setting.other
    link.drain(0.3)
    link.send(RESUME, nonce=link.secret, echo=link.its_challenge)
    link.await_(RESUME_ACK, to=setting.other)
    packet = link.await_(RESUME, seconds=0.4, to=setting.other)
    link.accept(packet)
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, to=setting.other, psn=link.theirs)


@clause("RESUME-6", "A RESUME that is not fresh but has epoch = `peer_epoch`, nonce = "
        "`peer_secret`, source = AV and numbers that agree (RESUME-4) is a duplicate: "
        "RESUME_ACK is sent again with the current challenge, nothing else changes.")
@clause("EPOCH-2", "section 7 says when a RESUME that is not fresh is acknowledged again.")
def duplicate(setting):
    link = Link(setting)
    link.pause()
    link.resume()
    sent(link, 1)
    challenge = link.its_challenge
    for _ in range(3):
        link.send(RESUME, nonce=link.secret, echo=0x1234)
        link.await_(RESUME_ACK, nonce=challenge, echo=link.secret,
                    epoch=link.epoch)
    # A RESUME that is applied makes it send again.
    link.silence(0.3, SEND_ONLY)


@clause("RESUME-5", "`peer_epoch` := epoch, `peer_secret` := nonce, `peer_stopped` := "
        "`nak_paused` := 0")
@clause("RESUME-5", "renew `challenge`, `peer_capable` := 1;")
def what_it_knows(setting):
    """Of a QP that was held by a NAK_STOPPED, and of one that was Paused"""
    for stops in (False, True):
        link = Link(setting)
        old = link.learn()
        sent(link, 1)
        nak(link, link.theirs)
        link.await_(PROBE, flags=F_PAUSED)
        if stops:
            link.pause()
        link.epoch += 5
        link.secret += 1
        link.send(RESUME, nonce=link.secret, echo=link.its_challenge)
        new = link.await_(RESUME_ACK, echo=link.secret)[MIGETH].nonce
        link.await_(SEND_ONLY, psn=link.theirs)
        image = link.stop()
        for name, value in (("peer_epoch", link.epoch), ("peer_secret", link.secret),
                            ("peer_stopped", 0), ("capable", 1), ("challenge", new)):
            check(image[name] == value, f"{name} is {image[name]:#x}, not {value:#x}")
        check(new != old, "the challenge is the old one")


@clause("RESUME-5", "`forward` := none")
def forgets_forward(setting):
    """Who is there is asked no more, and answered no more [ACC-4]."""
    link = Link(setting)
    link.pause()
    link.send(MOVED, echo=link.its_challenge, gid=gid(setting.other))
    link.await_(PROBE, to=setting.other)
    link.resume()
    link.pause()
    link.drain()
    link.silence(1, PROBE, to=setting.other)
    link.await_(PROBE, to=setting.own, flags=F_PAUSED)
    link.stop()
    link.introduce()
    link.drain()
    link.send(PROBE, nonce=0x5, source=setting.other)
    link.silence(0.3, to=setting.other)
    link.send(PROBE, nonce=0x6)
    link.await_(PAUSE, echo=0x6)


@clause("RESUME-5", "reset route and neighbour caches")
def another_route(setting):
    """To an address that no host has, and that has a route of its own, to this host: by
    the route to the old address nothing would come."""
    address = "10.79.0.5" if setting.family == 4 else "fd79::5"
    link = Link(setting)
    link.endpoint.shell(f"ip route add {address} via {setting.own} dev eth0")
    try:
        link.runs(1)
        link.pause()
        link.own = address
        link.resume()
        link.runs(2)
        link.request(link.mine)
        link.await_(ACK, psn=link.mine, to=address)
    finally:
        link.endpoint.shell(f"ip route del {address} via {setting.own} dev eth0")


@clause("RESUME-6", "Any other that is not fresh is dropped.")
def stale(setting):
    link = Link(setting)
    link.pause()
    link.resume()
    old = (link.epoch, link.secret)
    link.pause()
    link.resume()
    link.drain()
    link.send(RESUME, epoch=old[0], nonce=old[1], echo=link.its_challenge)
    link.send(RESUME, nonce=link.secret ^ 1, echo=link.its_challenge)
    link.send(RESUME, nonce=link.secret, echo=link.its_challenge,
              source=setting.other)
    link.send(RESUME, nonce=link.secret, rq_psn=(link.theirs - 1) & 0xffffff)
    link.silence(0.3)
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, to=link.own, psn=link.theirs)


@clause("RESUME-8", "RESUME_ACK is accepted iff `resume_pending`, epoch = own epoch "
        "and echo = `secret`.")
def wrong_answers(setting):
    link = capable(setting)
    sent(link, 1)
    link.stop()
    link.back()
    for epoch, echo in ((0, link.its_secret), (2, link.its_secret),
                        (1, link.its_secret ^ 1), (1, 0)):
        link.send(RESUME_ACK, nonce=0x99, epoch=epoch, echo=echo)
    link.silence(0.3, SEND_ONLY)
    link.send(RESUME_ACK, nonce=0x99, epoch=1, echo=link.its_secret)
    link.expect(SEND_ONLY, psn=link.theirs)


@clause("RESUME-8", "If its source is not the AV, the partner has moved too and will "
        "say so by its own RESUME; the QP stays Resuming until then.")
@clause("RESUME-10", "The AV changes only by RESUME-5")
def answer_from_elsewhere(setting):
    link = capable(setting)
    sent(link, 1)
    link.stop()
    link.back()
    link.drain(0.05)
    link.send(RESUME_ACK, nonce=0x99, epoch=1, echo=link.its_secret,
              source=setting.other)
    link.silence(0.3, SEND_ONLY)
    packet = link.await_(RESUME, to=link.own, echo=0x99)
    link.accept(packet)
    link.expect(SEND_ONLY, psn=link.theirs, to=link.own)


@clause("RESUME-8", "If its source is the AV, `resume_pending` := 0, `forward` := none and "
        "the QP is Running (Paused if `peer_stopped`), with retransmission from the first "
        "unacknowledged PSN.")
def answered(setting):
    for stops in (False, True):
        link = capable(setting)
        sent(link, 3)
        link.ack(link.theirs)
        link.completions(1)
        link.stop()
        packet = link.back()
        if stops:
            link.pause()
        link.accept(packet)
        if stops:
            link.silence(0.3, SEND_ONLY)
            link.resume(rq_psn=(link.theirs + 1) & 0xffffff)
        for number in (1, 2):
            link.await_(SEND_ONLY, psn=(link.theirs + number) & 0xffffff)
        link.drain()
        link.send(PROBE, nonce=0x5)
        link.await_(RUNNING, echo=0x5)
        link.silence(1.2, RESUME)


@clause("RESUME-8", "Then `peer_capable` := 1 and `peer_challenge` := nonce.")
def answer_introduces(setting):
    link = Link(setting)
    link.stop()
    link.introduce()
    packet = link.back()
    link.challenge = 0xfedcba9876543
    link.accept(packet)
    image = link.stop()
    check(image["peer_challenge"] == link.challenge and image["capable"],
          f"it knows {image['peer_challenge']:#x}, not {link.challenge:#x}")
    link.await_(PAUSE, echo=link.challenge)


@clause("RESUME-9", "After `RESUME_LIMIT` without an answer the QP stops repeating "
        "RESUME and its requester runs")
@clause("RESUME-9", "`resume_pending` stays set and PAUSE-7 applies, so a partner that "
        "comes back later still heals.")
@clause("STATE-3", "| RESUME_LIMIT | | | requester runs, no repeat | | |")
def limit(setting):
    link = away(setting)
    link.endpoint.post(op="SEND", id=1)

    def act():
        link.endpoint.resume()
        link.silence(0.6, SEND_ONLY)
        link.expect(SEND_ONLY, seconds=3, psn=link.theirs)
        link.drain()
        link.silence(1.5, RESUME)
        link.send(PROBE, nonce=0x4711)
        link.await_(RESUME, echo=0x4711, nonce=link.its_secret)
    with_limit(link, "resume_limit", 1000, act)


@clause("RESUME-9", "While `peer_stopped` is set the limit does not run (PAUSE-10 "
        "does).")
def limit_while_paused(setting):
    link = capable(setting)
    link.stop()

    def act():
        link.back()
        link.pause()
        time.sleep(0.5 * SLOW + 0.7)
        link.drain()
        link.await_(RESUME, seconds=5, nonce=link.its_secret)
    with_limit(link, "resume_limit", 500 * SLOW, act)


@clause("RESUME-5", "If `resume_pending`, RESUME_LIMIT begins anew, and the QP's own RESUME is "
        "sent at once to the new AV.")
@clause("STATE-3", "| RESUME fresh, verified | apply, RESUME_ACK | apply, →R, RESUME_ACK | "
        "apply, RESUME_ACK, own RESUME | TOMB-5 | TOMB-5 |")
def partner_back_after_limit(setting):
    """Its limit is over, or did not run while we were Stopped. When we are back, elsewhere, it
    says where it is until it is heard, and no work goes there before."""
    for were_stopped in (True, False):
        link = capable(setting)
        link.stop()

        def act():
            link.back()
            if were_stopped:
                link.pause()
            time.sleep(0.5 * SLOW + 0.7)
            link.drain()
            link.epoch += not were_stopped
            link.own = setting.other
            link.send(RESUME, nonce=link.secret, echo=link.its_challenge)
            packet = link.await_(RESUME_ACK, echo=link.secret, to=setting.other)
            link.its_challenge = packet[MIGETH].nonce
            link.endpoint.post(op="SEND", id=1)
            for _ in range(3):
                packet = link.await_(RESUME, nonce=link.its_secret, to=setting.other)
            link.silence(0.1, SEND_ONLY)
            link.accept(packet)
            link.expect(SEND_ONLY, psn=link.theirs, to=setting.other)
        with_limit(link, "resume_limit", 500 * SLOW, act)


@clause("RESUME-10", "The AV changes only by RESUME-5")
def address_stays(setting):
    link = Link(setting)
    link.pause()
    link.send(MOVED, epoch=link.epoch, echo=link.its_challenge,
              gid=gid(setting.other))
    link.await_(PROBE, to=setting.other)
    link.send(PROBE, nonce=0x1, source=setting.other)
    link.send(RUNNING, echo=link.its_challenge, source=setting.other)
    link.send(PAUSE, nonce=link.secret, echo=link.its_challenge,
              source=setting.other)
    link.drain(0.1)
    # A RESUME would set it anew.
    link.await_(PROBE, to=setting.own, seconds=4)
    link.resume()
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, to=setting.own, psn=link.theirs)


@clause("RESUME-10", "(and by the application's modify).")
def address_modified(setting):
    link = Link(setting)
    link.endpoint.modify(state="RTS", anew=1, **{**link.attributes,
                                                 "remote": setting.other})
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, to=setting.other, psn=link.theirs)
    link.ack(link.theirs)
    link.silence(0.1)
    link.ack(link.theirs, source=setting.other)
    link.completions(1)


@clause("RESUME-11", "Nothing in this protocol acknowledges a data packet.")
def acknowledges_nothing(setting):
    link = Link(setting)
    link.endpoint.post(op="READ", id=1)
    link.expect(READ_REQUEST, psn=link.theirs)
    link.pause(rq_psn=(link.theirs + 1) & 0xffffff)
    link.resume(rq_psn=(link.theirs + 1) & 0xffffff)
    check(not link.endpoint.poll(ms=300)["wc"], "the READ completed without data")
    link.expect(READ_REQUEST, psn=link.theirs)
