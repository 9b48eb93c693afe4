"""Sections 5 and 7: what the endpoint had in flight when it stopped."""

import time

from clauses import clause
from flow import *
from peer import *


@clause("STOP-4", "after restore it continues from the first unacknowledged PSN.")
@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def single_packets(setting):
    """A request of each kind, not answered before the stop."""
    flows = several(setting, *ONE_EACH)
    partly_acknowledged(flows, [0] * len(flows))
    found = migrate(*(flow.link for flow in flows))
    for flow in flows:
        flow.link.compare(found[flow.link.qpn], None,
                          {"sq_psn": flow.link.theirs})
    check_flows(flows, "after the restore")
    finish(flows)


@clause("STOP-4", "A requester is saved with its retry flag set: after restore it "
        "continues from the first unacknowledged PSN.")
def unacknowledged_messages(setting):
    """Messages of several packets of which nothing was acknowledged"""
    flows = several(setting, *LONG)
    partly_acknowledged(flows, [0] * len(flows))
    migrate(*(flow.link for flow in flows))
    check_flows(flows, "after the restore")
    finish(flows)


@clause("STOP-4", "after restore it continues from the first unacknowledged PSN.")
@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def partly_acknowledged_messages(setting):
    """The rest of a message goes on with MIDDLE or LAST, not with FIRST; that of
    a READ is asked for with a shorter request."""
    counts = (1, 2, 3, 4, 2, 3)
    flows = several(setting, *LONG)
    partly_acknowledged(flows, counts)
    found = migrate(*(flow.link for flow in flows))
    for flow in flows:
        flow.link.compare(found[flow.link.qpn], None, {
            "sq_psn": (flow.link.theirs + flow.acked) & 0xffffff})
    check_flows(flows, "after the restore")
    finish(flows)


@clause("STOP-4", "after restore it continues from the first unacknowledged PSN.")
def stopped_twice(setting):
    """The second stop is before anything more was acknowledged."""
    flows = several(setting, *LONG)
    partly_acknowledged(flows, (1, 2, 3, 4, 2, 3))
    for _ in range(2):
        migrate(*(flow.link for flow in flows))
        check_flows(flows, "after the restore")
    finish(flows)


@clause("STOP-4", "after restore it continues from the first unacknowledged PSN.")
def several_requests(setting):
    """Requests behind each other: those acknowledged are not sent again, the
    rest in order"""
    link = introduced(Link(setting))
    for ident, op in enumerate(("SEND", "WRITE", "FAA", "SEND_IMM"), 1):
        link.endpoint.post(op=op, id=ident, len=8 if op == "FAA" else 64)
    opcodes = (SEND_ONLY, WRITE_ONLY, FETCH_ADD, SEND_ONLY_IMM)
    for number, opcode in enumerate(opcodes):
        link.expect(opcode, psn=(link.theirs + number) & 0xffffff)
    link.ack(link.theirs, msn=1)
    link.completions(1)
    migrate(link)
    for number, opcode in enumerate(opcodes[1:], 1):
        link.expect(opcode, psn=(link.theirs + number) & 0xffffff)
    link.ack((link.theirs + 1) & 0xffffff, msn=2)
    link.data(ATOMIC_ACK, link.theirs + 2, AETH(syndrome=ACKED, msn=3),
              AtomicAckETH(original=1), ack=False)
    link.ack((link.theirs + 3) & 0xffffff, msn=4)
    link.completions(2, 3, 4)


@clause("STOP-4", "after restore it continues from the first unacknowledged PSN.")
def local_requests(setting):
    """A window is bound, and its key invalidated, behind what is not answered: before the stop,
    or after it, if a fence holds that. Each completes once, in order."""
    for fence in (0, 1):
        link = introduced(Link(setting))
        link.endpoint.post(op="READ", id=1)
        link.expect(READ_REQUEST, psn=link.theirs)
        window = link.endpoint.bind(id=2, fence=fence)["rkey"]
        gone = link.endpoint.bind(id=3, fence=fence)["rkey"]
        link.endpoint.post(op="LOCAL_INV", id=4, remote_key=gone)
        link.endpoint.post(op="SEND", id=5, fence=1)
        link.silence(0.2)
        migrate(link)
        link.expect(READ_REQUEST, psn=link.theirs)
        link.silence(0.2)
        link.data(READ_ONLY, link.theirs, AETH(syndrome=ACKED, msn=1), payload=bytes(64),
                  ack=False)
        link.expect(SEND_ONLY, psn=(link.theirs + 1) & 0xffffff)
        link.ack(link.theirs + 1, msn=2)
        link.completions(1, 2, 3, 4, 5)
        for number, (key, answer) in enumerate(((window, ACKED), (gone, NAK_ACCESS))):
            link.data(WRITE_ONLY, link.mine + number, link.reth(0, 8, rkey=key),
                      payload=bytes(8))
            link.await_(ACK, psn=(link.mine + number) & 0xffffff, syndrome=answer)


@clause("RESUME-11", "Nothing in this protocol acknowledges a data packet.")
def resume_ack_completes_nothing(setting):
    """Whatever rq_psn the peer's answer names, only an ACK completes."""
    flows = several(setting, ("SEND", 1), ("READ", 1), ("FAA", 1))
    partly_acknowledged(flows, (0, 0, 0))
    flows[0].link.endpoint.stop()
    flows[0].link.endpoint.leave()
    flows[0].link.endpoint.restore()
    flows[0].link.drain(0.05)
    flows[0].link.endpoint.resume()
    found = resumes([flow.link for flow in flows])
    for flow in flows:
        link = flow.link
        link.send(RESUME_ACK, nonce=7, echo=found[link.qpn][MIGETH].nonce,
                  epoch=1, rq_psn=(link.theirs + 1) & 0xffffff,
                  bth={"psn": link.theirs})
    check_flows(flows, "after the restore")
    check(not flows[0].link.endpoint.poll(ms=100)["wc"],
          "a request completed without its response")
    finish(flows)


@clause("STOP-3", "Before the snapshot the requester, completer and responder MUST "
        "be idle, their timers deleted")
def rnr_wait(setting):
    """A requester that waits for an RNR timer sends at once after RESUME, and
    does not send while it is stopped because the timer ends."""
    link = introduced(Link(setting))
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    # timer code 0: 655 ms
    link.ack(link.theirs, syndrome=RNR)
    time.sleep(0.1)
    link.stop()
    link.silence(0.8, SEND_ONLY)
    link.endpoint.cancel()
    packet = link.await_(RESUME)
    link.silence(0.1, SEND_ONLY)
    start = time.monotonic()
    answer(link, packet)
    link.expect(SEND_ONLY, psn=link.theirs)
    check(link.at - start < 0.4, "it waited for an RNR timer of before the stop")
    link.ack(link.theirs, msn=1)
    link.completions(1)


@clause("STOP-3", "Before the snapshot the requester, completer and responder MUST "
        "be idle, their timers deleted")
def rnr_wait_restored(setting):
    link = introduced(Link(setting))
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    link.ack(link.theirs, syndrome=RNR)
    time.sleep(0.1)
    migrate(link)
    start = time.monotonic()
    link.expect(SEND_ONLY, psn=link.theirs)
    check(link.at - start < 0.4, "it waited for an RNR timer of before the stop")
    link.ack(link.theirs, msn=1)
    link.completions(1)


@clause("STOP-4", "after restore it continues from the first unacknowledged PSN.")
@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def rewound_while_blocked(setting):
    """A sequence error has made it go back to the middle of a message, and it
    could not send since because its packets fill the queue of the interface:
    then such a message looks as if it had not begun."""
    for op, opcode, last in (("SEND", SEND_MIDDLE, SEND_LAST),
                             ("WRITE", WRITE_MIDDLE, WRITE_LAST)):
        rewound(setting, op, opcode, last)


def rewound(setting, op, opcode, last):
    link = introduced(Link(setting))
    endpoint, mtu, packets = link.endpoint, setting.mtu, 100
    length = packets * mtu
    endpoint.fill(offset=0, len=length, seed=3)
    # 30 ms for a packet
    rate = (mtu + 100) * 8 * 33
    # These are not to wait for their answers, which are in that queue, too.
    words = [f"shell tc qdisc add dev eth0 root tbf rate {rate}bit burst 6k "
             "limit 1m",
             f"post op={op} id=1 offset=0 len={length} va={REMOTE} "
             f"remote_key={KEY}",
             "shell sleep 0.8", "stop",
             "shell tc qdisc del dev eth0 root"]
    try:
        endpoint.stream.write("\n".join(words) + "\n")
        endpoint.stream.flush()
        link.receive(3)
        time.sleep(0.1)
        # The first three arrived, the fourth did not.
        link.ack((link.theirs + 2) & 0xffffff)
        link.ack((link.theirs + 3) & 0xffffff, syndrome=NAK_SEQUENCE)
    finally:
        answers = [endpoint.stream.readline().strip() for _ in words]
    check(all(text.startswith("ok") for text in answers), f"{op}: {answers}")
    image = dict(word.split("=") for word in answers[3].split()[1:])
    check(near(int(image["comp_psn"], 0), link.theirs) == 3,
          f"{op}: the acknowledgement was not worked on: {answers[3]}")
    endpoint.leave()
    endpoint.restore()
    link.drain(0.1)
    endpoint.resume()
    packet = link.await_(RESUME)
    answer(link, packet)
    for number in range(3, 8):
        packet = link.expect(opcode, psn=(link.theirs + number) & 0xffffff)
        check(behind_bth(packet) == pattern(number * mtu, mtu, 3),
              f"{op}: payload of packet {number} is wrong")
    # It does not believe that what it has not sent again has arrived.
    end = (link.theirs + packets - 1) & 0xffffff
    link.await_(last, psn=end)
    link.ack(end, msn=1)
    link.completions(1)


@clause("STOP-4", "after restore it continues from the first unacknowledged PSN.")
def late_response(setting):
    """The rest of the responses to a READ was under way at the stop: it comes after the
    restore, before those to the request that is sent again."""
    flow, = flows = several(setting, ("READ", 5))
    partly_acknowledged(flows, [2])
    migrate(flow.link)
    check_flows(flows, "after the restore")
    # As to the first request: MIDDLE, not FIRST
    flow.acked = 0
    flow.respond(2)
    flow.acked = 2
    time.sleep(0.1)
    finish(flows)
