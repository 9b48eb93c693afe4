"""Section 12: what requester, completer and responder do in every state."""

import time

from clauses import clause
from flow import answer as answer_resume
from flow import check_flows, finish, resumes, several
from pause import sent
from peer import *
from states import *


def end(link, packet=None):
    """It is held no longer: we are back, or have answered its RESUME."""
    if packet is None:
        link.resume()
    else:
        link.accept(packet)


def held(setting, act, **attributes):
    """act() has been done to a QP, which then is Paused, and to one that is Resuming:
    (link, what ends that)"""
    link = capable(setting, **attributes)
    act(link)
    link.pause()
    link.drain(0.05)
    yield link, lambda: end(link)
    link = capable(setting, **attributes)
    act(link)
    link.stop()
    packet = link.back()
    link.drain(0.05)
    yield link, lambda: end(link, packet)


# -- requester --

@clause("STATE-3", "| work posted | send | hold | hold | hold | |")
@clause("STATE-4", "| work posted | requester | send | hold | hold | hold | |")
def posted(setting):
    for enter in (running, paused, resuming, stopped):
        link = enter(setting)
        link.drain(0.05)
        link.endpoint.post(op="SEND", id=1)
        if enter is running:
            link.expect(SEND_ONLY, psn=link.theirs)
        else:
            link.silence(0.3, SEND_ONLY)


@clause("STATE-4", "What is posted to a Stopped QP is not in the snapshot.")
def not_in_snapshot(setting):
    """What was posted before, is."""
    link = capable(setting)
    sent(link, 1)
    link.stop()
    link.endpoint.post(op="WRITE", id=2)
    link.accept(link.back())
    link.await_(SEND_ONLY, psn=link.theirs)
    link.ack(link.theirs)
    link.completions(1)
    link.silence(0.3, WRITE_ONLY)
    link.theirs = (link.theirs + 1) & 0xffffff
    link.runs(3)


def quickly(link, *opcodes):
    """The PSNs of such packets. They may be too many for scapy."""
    return [psn for _, psn in link.wire.take_headers(0.3 * SLOW, *opcodes)]


def blocked(link, kind):
    """Something is sent, and something behind it is not. What would let it go: the PSN
    acknowledged, the answer, the opcode of what follows."""
    mtu = link.setting.mtu
    if kind == "window":
        link.endpoint.post(op="SEND", id=1, len=200 * mtu)
        count = len(quickly(link, SEND_FIRST, SEND_MIDDLE))
        check(0 < count < 200, f"{count} of 200 packets came")
        return lambda: link.ack((link.theirs + count - 1) & 0xffffff), SEND_MIDDLE
    link.endpoint.post(op="READ", id=1, len=64)
    link.expect(READ_REQUEST, psn=link.theirs)
    if kind == "credit":
        link.endpoint.post(op="READ", id=2, len=64)
    else:
        link.endpoint.post(op="SEND", id=2, fence=1)
    return (lambda: link.data(READ_ONLY, link.theirs, AETH(syndrome=ACKED, msn=1),
                              payload=bytes(64), ack=False),
            READ_REQUEST if kind == "credit" else SEND_ONLY)


@clause("STATE-4", "| window, credit or fence lets more go | requester | send | hold | "
        "hold | hold | |")
def lets_more_go(setting):
    for kind in ("window", "credit", "fence"):
        attributes = {"rd_atomic": 1} if kind == "credit" else {}
        release = {}

        def act(link):
            link.drain(0.05)
            release[link] = blocked(link, kind)
            check(not quickly(link, SEND_ONLY, SEND_MIDDLE, READ_REQUEST), "it goes on")
        link = capable(setting, **attributes)
        act(link)
        let_go, opcode = release[link]
        let_go()
        link.expect(opcode)
        for link, ends in held(setting, act, **attributes):
            let_go, opcode = release[link]
            let_go()
            check(not quickly(link, SEND_ONLY, SEND_MIDDLE, READ_REQUEST),
                  f"{kind}: a held QP sends")
            ends()
            if kind == "window":
                check(quickly(link, SEND_MIDDLE), "it does not go on")
                continue
            # It asks again if it has dropped the answer.
            if not link.endpoint.poll(ms=100)["wc"]:
                link.await_(READ_REQUEST, psn=link.theirs)
                let_go()
            link.await_(opcode)


def through(link, window, answered):
    """A WRITE through a window, whose base is an address as the memory's is"""
    link.data(WRITE_ONLY, link.mine, link.reth(0, 8, rkey=window), payload=bytes(8))
    link.await_(ACK, psn=link.mine, syndrome=answered)
    link.mine = (link.mine + 1) & 0xffffff


@clause("STATE-4", "| bind a window, invalidate a key | requester | execute | hold | hold | "
        "hold | |")
def local_requests(setting):
    """They complete in order with what is sent."""
    def works(link, window):
        link.completions(1)
        through(link, window, ACKED)
        link.endpoint.post(op="LOCAL_INV", id=2, remote_key=window)
        link.completions(2)
        through(link, window, NAK_ACCESS)

    link = capable(setting)
    works(link, link.endpoint.bind(id=1)["rkey"])
    for link, ends in held(setting, lambda link: None):
        window = link.endpoint.bind(id=1)["rkey"]
        check(not link.endpoint.poll(ms=300)["wc"], "a held QP binds a window")
        ends()
        works(link, window)
    for link, ends in held(setting, lambda link: None):
        window = link.endpoint.bind(id=1)["rkey"]
        link.endpoint.post(op="LOCAL_INV", id=2, remote_key=window)
        check(not link.endpoint.poll(ms=300)["wc"], "a held QP invalidates a key")
        ends()
        link.completions(1, 2)
        through(link, window, NAK_ACCESS)
    link = stopped(setting)
    window = link.endpoint.bind(id=1)["rkey"]
    check(not link.endpoint.poll(ms=300)["wc"], "a Stopped QP binds a window")
    link.endpoint.cancel()
    link.accept(link.await_(RESUME))
    works(link, window)


def no_answer(link):
    sent(link, 1)


@clause("STATE-4", "| retransmission or RNR timer | requester | go back | off | off | "
        "off | |")
@clause("STATE-4", "| no acknowledgement, retries exhausted | requester | fail the "
        "request, →ERR | none is counted | none is counted | none is counted | |")
def retries(setting):
    """After 268 ms, twice"""
    attributes = {"timeout": 16, "retry": 2}
    link = capable(setting, **attributes)
    sent(link, 1)
    for _ in range(2):
        link.expect(SEND_ONLY, psn=link.theirs)
    found = link.endpoint.poll(ms=3000)["wc"]
    check(found == "1:12", f"completion {found or 'none'}, not retry-exceeded")
    check(link.endpoint.query()["qp_state"] == 6, "the QP is not in ERR")

    def unheard(link, what):
        link.silence(1.2, SEND_ONLY)
        check(not link.endpoint.poll()["wc"], f"a {what} QP fails a request")
        check(link.endpoint.query()["qp_state"] == 3, f"a {what} QP left RTS")
    for link, ends in held(setting, no_answer, **attributes):
        unheard(link, "held")
        ends()
        link.await_(SEND_ONLY, psn=link.theirs)
        link.ack(link.theirs)
        link.completions(1)
    link = capable(setting, **attributes)
    sent(link, 1)
    link.stop()
    unheard(link, "Stopped")


@clause("STATE-4", "| no acknowledgement, ACK timeout 0 | requester | wait | hold | hold "
        "| hold | |")
@clause("STATE-4", "| end of P or Z, whatever the ACK timeout | requester | | go back to "
        "the first unacknowledged PSN | the same | | |")
def no_timeout(setting):
    """The timers of this protocol run all the same."""
    link = capable(setting, timeout=0)
    sent(link, 2)
    link.silence(0.5)
    link.stop()
    link.silence(0.3, SEND_ONLY)
    for opcode, (link, ends) in zip((PROBE, RESUME),
                                    held(setting, lambda link: sent(link, 2), timeout=0)):
        link.silence(0.3, SEND_ONLY)
        link.await_(opcode)
        ends()
        for number in (0, 1):
            link.await_(SEND_ONLY, psn=(link.theirs + number) & 0xffffff)
        link.ack(link.theirs + 1)
        link.completions(1, 2)


@clause("STATE-1", "`ibv_modify_qp` works as if the QP were Running")
@clause("STATE-4", "| modify to SQD, send queue empty | requester | drained | drained | "
        "drained | refused | |")
@clause("STATE-5", "| SQD | requester | finish what is begun | hold | hold | hold | |")
def to_sqd(setting):
    for link, ends in held(setting, lambda link: None):
        link.endpoint.modify(state="SQD")
        check(link.endpoint.query()["qp_state"] == 4, "not in SQD")
        link.endpoint.post(op="SEND", id=1)
        ends()
        link.silence(0.2, SEND_ONLY)
        link.endpoint.modify(state="RTS")
        check(link.endpoint.query()["qp_state"] == 3, "not in RTS")
        link.await_(SEND_ONLY, psn=link.theirs)
    link = stopped(setting)
    refused_modify(link, "SQD")


@clause("STATE-4", "| modify from SQD to RTS | requester | go on | hold | hold | refused | |")
def from_sqd(setting):
    def in_sqd(link):
        link.endpoint.modify(state="SQD")
        link.endpoint.post(op="SEND", id=1)
    link = capable(setting)
    in_sqd(link)
    link.silence(0.2, SEND_ONLY)
    link.endpoint.modify(state="RTS")
    link.await_(SEND_ONLY, psn=link.theirs)
    for link, ends in held(setting, in_sqd):
        link.endpoint.modify(state="RTS")
        check(link.endpoint.query()["qp_state"] == 3, "not in RTS")
        link.silence(0.3, SEND_ONLY)
        ends()
        link.await_(SEND_ONLY, psn=link.theirs)
        link.ack(link.theirs)
        link.completions(1)
    link = capable(setting)
    in_sqd(link)
    link.stop()
    refused_modify(link, "RTS")


@clause("STATE-5", "| RTR, modify to RTS | requester, completer | begin | begin, held | begin, "
        "held | refused | |")
def to_rts(setting):
    def begins(link):
        link.await_(SEND_ONLY, psn=link.theirs)
        link.ack(link.theirs)
        link.completions(1)

    def goes(link):
        link.endpoint.modify(**{**link.attributes, "state": "RTS", "next": 1})
        check(link.endpoint.query()["qp_state"] == 3, "not in RTS")
        link.endpoint.post(op="SEND", id=1)
    link = capable(setting, state="RTR")
    goes(link)
    begins(link)
    for link, ends in held(setting, lambda link: None, state="RTR"):
        goes(link)
        link.silence(0.3, SEND_ONLY)
        ends()
        begins(link)
    link = capable(setting, state="RTR")
    link.stop()
    try:
        link.endpoint.modify(**{**link.attributes, "state": "RTS", "next": 1})
    except EndpointError:
        return
    raise Failure("a Stopped QP was modified from RTR to RTS")


@clause("STATE-4", "| modify to SQD, work unacknowledged | requester | stock | hold | "
        "hold | refused | |")
def to_sqd_unacknowledged(setting):
    """It completes once, in SQD or when the QP is in RTS again."""
    for link, ends in held(setting, no_answer):
        link.endpoint.modify(state="SQD")
        link.silence(0.2, SEND_ONLY)
        ends()
        time.sleep(0.1)
        link.endpoint.modify(state="RTS")
        link.await_(SEND_ONLY, psn=link.theirs)
        link.ack(link.theirs)
        link.completions(1)
    link = capable(setting)
    sent(link, 1)
    link.stop()
    refused_modify(link, "SQD")


# -- completer --

def late(flows, ends):
    """What is answered while they are held completes, or is asked for again."""
    endpoint = flows[0].link.endpoint
    for flow in flows:
        flow.acknowledge(1)
    done = endpoint.poll(ms=300, count=len(flows))["wc"]
    check(all(word.endswith(":0") for word in done.split(",") if word),
          f"completions (id:status) {done}")
    ends()
    left = [flow for flow in flows if f"{flow.ident}:0" not in done.split(",")]
    for flow in left:
        flow.acked = 0
    if left:
        check_flows(left, "after it was held")
        finish(left)


def answered(setting):
    """A request of each kind of answer that is on the wire"""
    flows = several(setting, ("SEND", 1), ("READ", 1), ("FAA", 1))
    for flow in flows:
        flow.post()
    check_flows(flows, "at first")
    return flows, [flow.link for flow in flows]


@clause("STATE-3", "| RC response | complete | complete or – | complete or – | – | – |")
@clause("PAUSE-3", "Responses MAY be dropped: after RESUME they are asked for again.")
@clause("STATE-4", "| acknowledgement, READ response, atomic answer | completer | "
        "complete | complete, MAY – | complete, MAY – | – | – |")
def response(setting):
    flows, _ = answered(setting)
    finish(flows)
    # Paused
    flows, links = answered(setting)
    for link in links:
        link.pause()
    late(flows, lambda: [link.send(RESUME, nonce=link.secret) for link in links])
    # Resuming
    flows, links = answered(setting)
    endpoint = links[0].endpoint
    endpoint.stop()
    endpoint.leave()
    # its tombstones
    for flow in flows:
        flow.acknowledge(1)
        flow.acked = 0
    links[0].drain()
    endpoint.restore()
    endpoint.resume()
    found = resumes(links)
    late(flows, lambda: [answer_resume(link, found[link.qpn]) for link in links])
    # Stopped
    flows, links = answered(setting)
    endpoint = links[0].endpoint
    endpoint.stop()
    for flow in flows:
        flow.acknowledge(1)
        flow.acked = 0
    check(not endpoint.poll(ms=300)["wc"], "a Stopped QP completes work")
    endpoint.cancel()
    found = resumes(links)
    for link in links:
        answer_resume(link, found[link.qpn])
    check_flows(flows, "after CANCEL")
    finish(flows)


@clause("STATE-4", "\"MAY –\": may be dropped; the retransmission that follows RESUME asks "
        "for it again.")
@clause("STATE-4", "| NAK of a sequence error, RNR NAK | completer | go back, wait | "
        "MAY – | MAY – | – | – |")
def go_back_while_held(setting):
    """None is lost for good: after RESUME the requests are asked for again."""
    for syndrome in (NAK_SEQUENCE, RNR):
        link = capable(setting)
        sent(link, 2)
        link.ack(link.theirs, syndrome=syndrome)
        link.expect(SEND_ONLY, psn=link.theirs)
        for link, ends in held(setting, lambda link: sent(link, 2)):
            link.ack(link.theirs, syndrome=syndrome)
            link.silence(0.3, SEND_ONLY)
            ends()
            link.await_(SEND_ONLY, psn=link.theirs)
            link.ack(link.theirs + 1)
            link.completions(1, 2)
    for link in nobody(setting):
        for syndrome in (NAK_SEQUENCE, RNR):
            link.ack(link.theirs, syndrome=syndrome)
        link.silence(0.3)


@clause("STATE-4", "| READ response beyond the expected one | completer | – or go back | – | – "
        "| – | – |")
def responses_lost(setting):
    """The second response to a READ comes first."""
    def asked(link):
        link.endpoint.post(op="READ", id=1, len=2 * setting.mtu)
        link.expect(READ_REQUEST, psn=link.theirs)

    def second(link):
        link.data(READ_LAST, link.theirs + 1, AETH(syndrome=ACKED, msn=1),
                  payload=bytes(setting.mtu), ack=False)

    def both(link):
        link.data(READ_FIRST, link.theirs, AETH(syndrome=ACKED, msn=1),
                  payload=bytes(setting.mtu), ack=False)
        second(link)
        link.completions(1)
    link = capable(setting)
    asked(link)
    second(link)
    check(not link.endpoint.poll(ms=200)["wc"], "half a READ completes")
    both(link)
    for link, ends in held(setting, asked):
        second(link)
        link.silence(0.3, READ_REQUEST)
        check(not link.endpoint.poll()["wc"], "half a READ completes")
        ends()
        link.await_(READ_REQUEST, psn=link.theirs)
        both(link)
    for link in nobody(setting):
        second(link)
        link.silence(0.3)


@clause("STATE-4", "| response with an old PSN | completer | – | – | – | – | – |")
def old_response(setting):
    def done(link):
        sent(link, 1)
        link.ack(link.theirs)
        link.completions(1)
        link.theirs = (link.theirs + 1) & 0xffffff
        link.endpoint.post(op="SEND", id=2)
        link.expect(SEND_ONLY, psn=link.theirs)

    def old(link):
        """Also one that would be an error of a request that is not acknowledged"""
        for syndrome in (ACKED, NAK_ACCESS):
            link.ack(link.theirs - 1, syndrome=syndrome)
            link.ack(link.theirs - 2, syndrome=syndrome)
        link.silence(0.2, SEND_ONLY)
        check(not link.endpoint.poll()["wc"], "it completes the next request")
        check(link.endpoint.query()["qp_state"] == 3, "the QP has left RTS")

    def completes(link):
        link.ack(link.theirs)
        link.completions(2)
    link = capable(setting)
    done(link)
    old(link)
    completes(link)
    for link, ends in held(setting, done):
        old(link)
        ends()
        link.await_(SEND_ONLY, psn=link.theirs)
        completes(link)
    link = capable(setting)
    done(link)
    link.stop()
    link.introduce()
    link.drain(0.05)
    old(link)
    link.endpoint.leave()
    for syndrome in (ACKED, NAK_ACCESS):
        link.ack(link.theirs - 1, syndrome=syndrome)
    link.silence(0.2)


def nobody(setting):
    """A Stopped QP with a request that is not answered, and then its tombstone"""
    link = capable(setting)
    sent(link, 1)
    link.stop()
    link.introduce()
    link.drain(0.05)
    yield link
    link.endpoint.leave()
    link.drain(0.05)
    yield link


# NAK code -> status of the request that it fails [IBTA 9.7.5.2.8, 11.6.2]
FATAL = {NAK_REQUEST: 9, NAK_ACCESS: 10, NAK_OPERATION: 11}


@clause("STATE-4", "| NAK of another error | completer | fail the request | fail it, "
        "MAY – | fail it, MAY – | – | – |")
@clause("SEC-1", "while in stock RoCE the same guess with another syndrome kills it.")
def fatal_naks(setting):
    for syndrome, status in FATAL.items():
        def failed(link, found, what):
            check(found == f"1:{status}", f"{what}, syndrome {syndrome:#x}: completion "
                  f"(id:status) {found or 'none'}, not 1:{status}")
            check(link.endpoint.query()["qp_state"] == 6, f"{what}: not in ERR")
        link = capable(setting)
        sent(link, 1)
        link.ack(link.theirs, syndrome=syndrome)
        failed(link, link.endpoint.poll(ms=2000)["wc"], "Running")
        for link, ends in held(setting, no_answer):
            link.ack(link.theirs, syndrome=syndrome)
            found = link.endpoint.poll(ms=200)["wc"]
            if not found:
                check(link.endpoint.query()["qp_state"] == 3, "held: not in RTS")
                ends()
                link.await_(SEND_ONLY, psn=link.theirs)
                link.ack(link.theirs, syndrome=syndrome)
                found = link.endpoint.poll(ms=2000)["wc"]
            failed(link, found, "held")
    for tombstone, link in enumerate(nobody(setting)):
        for syndrome in FATAL:
            link.ack(link.theirs, syndrome=syndrome)
        link.silence(0.2)
        # That has no CQ.
        check(tombstone or not link.endpoint.poll()["wc"], "a Stopped QP fails a request")


# -- responder --

@clause("STATE-4", "| the same, but no receive is posted | responder | RNR NAK | RNR NAK "
        "| RNR NAK | CAP-2 | CAP-2 |")
def no_receive(setting):
    """It is executed once, when one is posted and it comes again."""
    def act(link):
        link.data(SEND_ONLY, link.mine, payload=bytes(8))

    def then(link):
        link.endpoint.recv(id=9)
        act(link)
        link.await_(ACK, psn=link.mine, syndrome=ACKED, msn=1)
        link.completions(9)
    # min_rnr of the endpoint
    each(setting, LIVE, act, ACK, syndrome=RNR | 12, then=then)
    each(setting, GONE, act, ACK, syndrome=NAK_STOPPED)


def in_error(link):
    """The responder has failed it: nothing of this protocol is left."""
    check(link.endpoint.query()["qp_state"] == 6, "the QP is not in ERR")
    link.drain()
    link.send(PROBE, nonce=NONCE)
    link.silence(0.6)


@clause("STATE-4", "| the same, but without access | responder | NAK, →ERR | NAK, →ERR | "
        "NAK, →ERR | CAP-2 | CAP-2 |")
@clause("STATE-2", "Modify to ERR, and any transition to ERR, MUST end Paused and "
        "Resuming.")
def no_access(setting):
    def act(link):
        link.data(WRITE_ONLY, link.mine, link.reth(0, 8, rkey=link.memory["rkey"] ^ 0xff),
                  payload=bytes(8))
    each(setting, LIVE, act, ACK, syndrome=NAK_ACCESS, then=in_error)
    each(setting, GONE, act, ACK, syndrome=NAK_STOPPED)


@clause("STATE-4", "| the same, but malformed | responder | NAK, →ERR | NAK, →ERR | NAK, →ERR | "
        "CAP-2 | CAP-2 |")
def malformed(setting):
    """The middle of a message that has not begun [IBTA 9.7.4.1.2]"""
    def act(link):
        link.data(WRITE_MIDDLE, link.mine, payload=bytes(setting.mtu))
    each(setting, LIVE, act, ACK, syndrome=NAK_REQUEST, then=in_error)
    each(setting, GONE, act, ACK, syndrome=NAK_STOPPED)


@clause("STATE-4", "| duplicate request | responder | answer again | answer again | "
        "answer again | CAP-2 | CAP-2 |")
def duplicate_request(setting):
    for enter in LIVE:
        link = enter(setting)
        link.data(WRITE_ONLY, link.mine, link.reth(0, 8), payload=bytes(8))
        link.await_(ACK, psn=link.mine)
        link.data(WRITE_ONLY, link.mine, link.reth(0, 8), payload=bytes(8))
        link.await_(ACK, psn=link.mine, syndrome=ACKED)

    def act(link):
        link.data(WRITE_ONLY, link.mine - 1, link.reth(0, 8), payload=bytes(8))
    each(setting, GONE, act, ACK, syndrome=NAK_STOPPED)


@clause("STATE-4", "| READ reply in progress | responder | go on | go on | go on | end "
        "it (STOP-4) | |")
def read_in_progress(setting):
    """What ends it, is in STOP-4/amid_read."""
    packets = 64
    for enter in LIVE:
        link = enter(setting)
        link.learn()
        link.drain(0.05)
        link.data(READ_REQUEST, link.mine, link.reth(0, packets * setting.mtu))
        if enter is running:
            link.send(PAUSE, epoch=link.epoch + 1, nonce=NONCE, echo=link.its_challenge)
        found = quickly(link, *range(READ_FIRST, READ_ONLY + 1))
        check(found == [(link.mine + number) & 0xffffff for number in range(packets)],
              f"{enter.__name__}: {len(found)} of {packets} responses came")


@clause("STATE-4", "| receive posted | responder | use it | use it | use it | keep it "
        "for CANCEL | |")
def receive_posted(setting):
    for enter in (*LIVE, stopped):
        link = enter(setting)
        link.endpoint.recv(id=9)
        if enter is stopped:
            link.endpoint.cancel()
            link.accept(link.await_(RESUME))
        link.data(SEND_ONLY, link.mine, payload=bytes(8))
        link.await_(ACK, psn=link.mine, syndrome=ACKED)
        link.completions(9)
