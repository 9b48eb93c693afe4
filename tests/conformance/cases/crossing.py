"""Sections 6 and 7: both ends stop at once, and packets that overtake each other."""

import itertools
import time

from clauses import clause
from flow import answer, resumes
from pause import sent
from peer import *
from states import capable


# -- both ends stop --

def both_stopped(setting, accepted):
    """The endpoint has a request that is not answered. It accepted our PAUSE before its
    own Stop, or the two have crossed."""
    link = capable(setting)
    link.endpoint.recv(id=9)
    sent(link, 1)
    if accepted:
        link.pause()
    image = link.stop()
    link.await_(PAUSE, epoch=1)
    if not accepted:
        link.epoch += 1
        link.secret += 1
        link.send(PAUSE, nonce=link.secret, echo=link.its_challenge)
        link.silence(0.1, PROBE)
    check(image["peer_stopped"] == accepted, f"peer_stopped is {image['peer_stopped']}")
    return link


def carry_on(link):
    """Both are back: what was in flight is sent again, and a request of ours served."""
    link.await_(SEND_ONLY, psn=link.theirs, to=link.own)
    link.ack(link.theirs, msn=1)
    link.completions(1)
    link.request(link.mine)
    link.await_(ACK, psn=link.mine, syndrome=ACKED, msn=1, to=link.own)
    link.completions(9)
    link.drain(0.05)
    link.send(PROBE, nonce=0x5)
    link.await_(RUNNING, echo=0x5, to=link.own)


@clause("RESUME-5", "the QP's own RESUME is sent at once to the "
        "new AV.")
@clause("STOP-8", "It answers migration packets as the state table says.")
def it_returns_first(setting):
    """We are Stopped: its RESUME is answered by PAUSE [TOMB-5]."""
    for accepted in (True, False):
        for address in (setting.own, setting.other):
            link = both_stopped(setting, accepted)
            link.back()
            link.send(PAUSE, nonce=link.secret, echo=link.its_challenge)
            link.await_(PROBE, echo=link.secret, flags=F_PAUSED, to=setting.own)
            link.silence(0.2, SEND_ONLY)
            # It repeats its RESUME once a second.
            link.drain(0.05)
            link.own = address
            link.resume()
            link.accept(link.await_(RESUME, to=address))
            carry_on(link)


@clause("TOMB-5", "Without it, a RESUME from the AV is answered by PAUSE and one from "
        "elsewhere dropped.")
@clause("RESUME-8", "the QP is Running (Paused if `peer_stopped`)")
def we_return_first(setting):
    """It is Stopped, or gone: our RESUME is not acknowledged."""
    for accepted in (True, False):
        link = both_stopped(setting, accepted)
        link.drain(0.05)
        for gone in (False, True):
            if gone:
                link.endpoint.leave()
            link.send(RESUME, nonce=link.secret, echo=link.its_challenge)
            link.expect(PAUSE, nonce=link.its_secret)
            link.introduce()
        link.endpoint.restore()
        link.endpoint.resume()
        link.accept(link.await_(RESUME, nonce=link.its_secret))
        if accepted:
            # It has our PAUSE, and not our RESUME.
            link.silence(0.3, SEND_ONLY)
        link.send(RESUME, nonce=link.secret, echo=link.its_challenge)
        link.await_(RESUME_ACK, echo=link.secret)
        carry_on(link)


@clause("RESUME-8", "If its source is not the AV, the partner has moved too and will say "
        "so by its own RESUME; the QP stays Resuming until then.")
@clause("TOMB-6", "or `resume_pending` and its echo matches `secret`.")
def we_return_elsewhere(setting):
    """and first. Our tombstone tells it where we are."""
    for accepted in (True, False):
        link = both_stopped(setting, accepted)
        link.drain(0.05)
        link.send(RESUME, nonce=link.secret, echo=link.its_challenge,
                  source=setting.other)
        link.silence(0.2, RESUME_ACK)
        packet = link.back()
        link.send(MOVED, echo=packet[MIGETH].nonce, gid=gid(setting.other))
        packet = link.await_(RESUME, to=setting.other)
        link.own = setting.other
        link.accept(packet)
        link.silence(0.1, SEND_ONLY)
        link.send(RESUME, nonce=link.secret, echo=link.its_challenge)
        link.await_(RESUME_ACK, echo=link.secret, to=setting.other)
        link.accept(link.await_(RESUME, to=setting.other))
        carry_on(link)


# -- packets in another order --

def settle(link):
    """What we say at the end, from our second address, until it is acknowledged: RESUME,
    and, at the first one, where we are."""
    other = link.setting.other

    def resume(echo):
        link.send(RESUME, epoch=2, nonce=link.secret, echo=echo, source=other)
    deadline = time.monotonic() + 4 * SLOW
    packet = None
    while time.monotonic() < deadline:
        if packet is None:
            resume(0)
        packet = link.receive(0.3)
        if packet is None:
            continue
        ip = packet[IP] if IP in packet else packet[IPv6]
        opcode, there = packet[BTH].opcode, gid(ip.dst) == gid(other)
        if opcode == RESUME_ACK and packet[MIGETH].epoch == 2 and there:
            return
        if opcode == PROBE and there:
            resume(packet[MIGETH].nonce)
        elif opcode == PROBE:
            link.send(MOVED, epoch=2, echo=packet[MIGETH].nonce, gid=gid(other))
    raise Failure("no RESUME_ACK came")


@clause("EPOCH-2", "*Reason:* this is what makes packets of the old host, however late, "
        "harmless, also when the address did not change.")
@clause("AUTH-1", "*unless* `resume_pending` is set: then it is kept.")
def epochs_permuted(setting):
    """PAUSE and RESUME of two Stops, the second before the first RESUME was answered, in
    each order; and all of them again, when it is over"""
    link = None
    for order in itertools.permutations(range(4)):
        link = link.another() if link else Link(setting)
        challenge = link.learn()
        packets = [(opcode, {"epoch": epoch, "nonce": link.secret, "echo": challenge,
                             "source": source})
                   for opcode, epoch, source in (
                       (PAUSE, 1, setting.own), (RESUME, 1, setting.own),
                       (PAUSE, 2, setting.own), (RESUME, 2, setting.other))]
        try:
            for number in order:
                link.send(packets[number][0], **packets[number][1])
            settle(link)
            for number in order:
                link.send(packets[number][0], **packets[number][1])
            link.drain(0.02)
            link.own = setting.other
            link.endpoint.post(qp=link.index, op="SEND", id=1)
            link.await_(SEND_ONLY, psn=link.theirs, to=setting.other)
            link.ack(link.theirs)
            link.completions(1)
        except Failure as failure:
            raise Failure(f"order {order}: {failure}") from None


@clause("STOP-3", "*Reason:* then every late packet of the old host equals a "
        "retransmission")
@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def requests_permuted(setting):
    """Three in each order, some before and some behind the endpoint's Stop. Then we go
    back to what it expects. Each is executed once, in order."""
    count, links = 3, []
    cases = [(order, cut) for order in itertools.permutations(range(count))
             for cut in range(count + 1)]

    def put(link, number):
        link.data(SEND_ONLY, link.mine + number, payload=bytes([number]) * 8)
    for slot, (order, cut) in enumerate(cases):
        link = links[0].another() if links else Link(setting)
        links.append(link)
        link.endpoint.recv(qp=link.index, id=10 * slot, count=count, len=4096)
        for number in order[:cut]:
            put(link, number)
    endpoint = links[0].endpoint
    endpoint.stop()
    endpoint.leave()
    endpoint.restore()
    links[0].drain(0.05)
    endpoint.resume()
    found = resumes(links)
    for link, (order, cut) in zip(links, cases):
        answer(link, found[link.qpn])
        for number in order[cut:]:
            put(link, number)
        expected = (found[link.qpn][MIGETH].rq_psn - link.mine) & 0xffffff
        check(expected <= count, f"{order}, {cut}: it expects {expected}")
        for number in range(expected, count):
            put(link, number)
    wanted = [10 * slot + number for slot in range(len(cases)) for number in range(count)]
    done = endpoint.poll(ms=4000, count=len(wanted))["wc"].split(",")
    time.sleep(0.1)
    done += [word for word in endpoint.poll()["wc"].split(",") if word]
    check(sorted(done) == sorted(f"{ident}:0" for ident in wanted),
          f"completions (id:status) {done}")
    for slot, case in enumerate(cases):
        ours = [int(word.split(":")[0]) for word in done]
        ours = [ident for ident in ours if ident // 10 == slot]
        check(ours == sorted(ours), f"{case}: executed in the order {ours}")


@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
@clause("PAUSE-3", "Responses MAY be dropped: after RESUME they are asked for again.")
def acknowledgements_permuted(setting):
    """Of three requests, in each order: one before our Stop, one while it is Paused, one
    behind our RESUME, which says that all have arrived"""
    for order in itertools.permutations(range(3)):
        link = Link(setting)
        sent(link, 3)
        for step, number in enumerate(order):
            if step == 1:
                link.pause()
            elif step == 2:
                link.resume(rq_psn=(link.theirs + 3) & 0xffffff)
            link.ack(link.theirs + number, msn=number + 1)
        link.drain(0.05)
        link.ack(link.theirs + 2, msn=3)
        link.completions(1, 2, 3)
        check(not link.endpoint.poll(ms=50)["wc"], f"{order}: completed more than once")
        link.drain(0.05)
        link.theirs = (link.theirs + 3) & 0xffffff
        link.runs(4)
