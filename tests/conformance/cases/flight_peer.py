"""Section 7: what the endpoint had in flight when its partner stopped."""

import time

from clauses import clause
from flow import *
from peer import *


def peer_migrates(flows, paused):
    for flow in flows:
        if paused:
            flow.link.pause()
        else:
            flow.link.learn()
            flow.link.epoch += 1
        flow.link.drain(0.02)
    for flow in flows:
        link = flow.link
        link.send(RESUME, nonce=link.secret, echo=link.its_challenge,
                  rq_psn=(link.theirs + flow.acked) & 0xffffff)
        packets = gather([link], flow.requests(), quiet=0.05)
        flow.compare(packets[link.qpn], "after the peer's RESUME")
    finish(flows)


@clause("RESUME-5", "force retransmission from the first unacknowledged PSN")
@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def peer_single_packets(setting):
    flows = several(setting, *ONE_EACH)
    partly_acknowledged(flows, [0] * len(flows))
    peer_migrates(flows, True)


@clause("RESUME-5", "force retransmission from the first unacknowledged PSN")
@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def peer_partly_acknowledged(setting):
    flows = several(setting, *LONG)
    partly_acknowledged(flows, (1, 2, 3, 4, 2, 3))
    peer_migrates(flows, True)


@clause("RESUME-5", "This happens whether or not the QP was Paused.")
def peer_not_paused(setting):
    flows = several(setting, ("SEND", 5), ("WRITE", 5), ("READ", 5), ("FAA", 1))
    partly_acknowledged(flows, (2, 3, 1, 0))
    peer_migrates(flows, False)


@clause("RESUME-5", "clear the retransmission and RNR wait, force retransmission "
        "from the first unacknowledged PSN")
def peer_rnr_wait(setting):
    link = Link(setting)
    link.learn()
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    link.ack(link.theirs, syndrome=RNR)
    time.sleep(0.05)
    link.epoch += 1
    start = time.monotonic()
    link.send(RESUME, nonce=link.secret, echo=link.its_challenge)
    link.expect(SEND_ONLY, psn=link.theirs, skip={RESUME_ACK})
    check(link.at - start < 0.4, "it waited for the RNR timer")
    link.ack(link.theirs, msn=1)
    link.completions(1)


@clause("RESUME-5", "retry counters := attributes")
def peer_retry_count(setting):
    """Retries before the RESUME do not count."""
    link = Link(setting, timeout=17, retry=3)
    link.learn()
    link.endpoint.post(op="SEND", id=1)
    for _ in range(3):
        link.expect(SEND_ONLY, psn=link.theirs)
    link.epoch += 1
    link.send(RESUME, nonce=link.secret, echo=link.its_challenge)
    for _ in range(4):
        link.expect(SEND_ONLY, psn=link.theirs, skip={RESUME_ACK})
    link.ack(link.theirs, msn=1)
    link.completions(1)


@clause("RESUME-5", "AV := source address")
@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def peer_moves(setting):
    """In mid-message, and the rest goes to the new address."""
    flow, = several(setting, ("WRITE", 5))
    link = flow.link
    partly_acknowledged([flow], (2,))
    link.pause()
    link.own = setting.other
    link.send(RESUME, nonce=link.secret, rq_psn=(link.theirs + 2) & 0xffffff)
    link.await_(RESUME_ACK, to=setting.other)
    packets = gather([link], flow.requests())[link.qpn]
    for packet in packets:
        link.compare(packet, setting.other, {})
    flow.compare(packets, "at the new address")
    finish([flow])
