"""Section 12: every event in every state. A row of the table is a case here, unless
the clauses of other sections have it."""

import time

from clauses import clause
from pause import nak, sent
from peer import *
from resume import capable

NONCE = 0x4711471147114711


def running(setting):
    return capable(setting)


def paused(setting):
    link = capable(setting)
    link.pause()
    return link


def resuming(setting):
    link = capable(setting)
    link.stop()
    link.back()
    return link


def stopped(setting):
    link = capable(setting)
    link.stop()
    link.introduce()
    return link


def tombstone(setting):
    link = stopped(setting)
    link.endpoint.leave()
    return link


LIVE = (running, paused, resuming)
GONE = (stopped, tombstone)


def by_timer(link, packet):
    """What a Paused or Resuming QP repeats, whatever it receives."""
    eth = packet[MIGETH] if MIGETH in packet else None
    return eth is not None and (
        packet[BTH].opcode == PROBE and eth.echo == link.secret or
        packet[BTH].opcode == RESUME and eth.echo in (0, link.challenge) and
        eth.flags == 0)


def answer(link, seconds=0.25):
    """The first packet that no timer has sent, or None."""
    deadline = time.monotonic() + seconds
    while (packet := link.receive(deadline - time.monotonic())) is not None:
        if not by_timer(link, packet):
            return packet
    return None


def each(setting, states, act, opcode, **fields):
    """In each state act() is answered so; opcode None: not at all."""
    for enter in states:
        link = enter(setting)
        link.drain(0.05)
        act(link)
        packet = answer(link)
        name = enter.__name__
        if opcode is None:
            check(packet is None, f"{name}: {describe(packet)}")
        else:
            check(packet is not None, f"{name}: no {NAMES[opcode]}")
            check(packet[BTH].opcode == opcode,
                  f"{name}: {describe(packet)}, not {NAMES[opcode]}")
            link.compare(packet, fields.get("to"), {
                key: value for key, value in fields.items() if key != "to"})


@clause("STATE-3", "| PAUSE fresh, echo matches | →P, PROBE+F_PAUSED | store, "
        "PROBE+F_PAUSED | store, PROBE+F_PAUSED | – | – |")
def pause_matches(setting):
    def act(link):
        link.send(PAUSE, epoch=link.epoch + 1, nonce=NONCE, echo=link.its_challenge)
    each(setting, LIVE, act, PROBE, echo=NONCE, flags=F_PAUSED)
    each(setting, GONE, act, None)


@clause("STATE-3", "| PAUSE fresh, no match | PROBE | PROBE | PROBE | – | – |")
def pause_does_not_match(setting):
    def act(link):
        link.send(PAUSE, epoch=link.epoch + 1, nonce=NONCE, echo=1)
    each(setting, LIVE, act, PROBE, echo=NONCE)
    each(setting, GONE, act, None)


@clause("STATE-3", "| PAUSE not fresh | – | – | – | – | – |")
def pause_stale(setting):
    def act(link):
        epoch = link.epoch - 1 if link.epoch == 2 else link.epoch
        link.send(PAUSE, epoch=epoch, nonce=NONCE, echo=link.its_challenge)
    each(setting, LIVE + GONE, act, None)


@clause("STATE-3", "| PROBE, no self_forward | RUNNING | RUNNING | RESUME | PAUSE-9 | "
        "PAUSE-9 |")
def probe(setting):
    def act(link):
        link.send(PROBE, nonce=NONCE)
    each(setting, (running, paused), act, RUNNING, echo=NONCE)
    each(setting, (resuming,), act, RESUME, echo=NONCE)
    each(setting, GONE, act, PAUSE, echo=NONCE)


def forwarded(link):
    """It is told that it lives on, elsewhere."""
    link.send(RESUME, flags=F_SELF, src_qpn=link.their_qpn, epoch=1,
              nonce=link.its_secret, source=link.setting.other)
    time.sleep(0.05)


@clause("STATE-3", "| PROBE, self_forward known | | | | MOVED | MOVED |")
def probe_forwarded(setting):
    def act(link):
        forwarded(link)
        link.send(PROBE, nonce=NONCE)
    each(setting, GONE, act, MOVED, echo=NONCE, gid=gid(setting.other), nonce=0,
         to=setting.own)


@clause("STATE-3", "| RESUME+F_SELF, nonce = secret | – | – | – | self_forward, commit "
        "| self_forward |")
def self_resume(setting):
    def act(link):
        forwarded(link)
    each(setting, LIVE + GONE, act, None)
    for enter in LIVE:
        link = enter(setting)
        forwarded(link)
        link.drain()
        link.send(PROBE, nonce=NONCE)
        packet = answer(link)
        check(packet is not None and packet[BTH].opcode in (RUNNING, RESUME),
              f"{enter.__name__}: {describe(packet)} after F_SELF")
    link = stopped(setting)
    forwarded(link)
    try:
        link.endpoint.cancel()
    except EndpointError:
        return
    raise Failure("a copy that lives elsewhere was resumed here")


@clause("STATE-3", "| RUNNING, echo matches | – | clears `nak_paused` | clears "
        "`nak_paused` | – | – |")
def running_packet(setting):
    def act(link):
        link.send(RUNNING, echo=link.its_challenge)
    each(setting, LIVE + GONE, act, None)


@clause("STATE-3", "| NAK_STOPPED, token right | →P, PROBE | PROBE | `nak_paused`, "
        "PROBE | – | – |")
@clause("STATE-3", "| NAK_STOPPED, wrong | PROBE | PROBE | PROBE | – | – |")
def nak_stopped(setting):
    for token in (None, 1):
        for stop in (False, True):
            link = capable(setting)
            sent(link, 1)
            if stop:
                link.stop()
                link.introduce()
                link.drain(0.05)
            nak(link, link.theirs, token)
            packet = answer(link)
            if stop:
                check(packet is None, f"stopped: {describe(packet)}")
            else:
                check(packet is not None and packet[BTH].opcode == PROBE,
                      f"token {token}: {describe(packet)}, not PROBE")


@clause("STATE-3", "| RESUME fresh, verified | apply, RESUME_ACK | apply, →R, "
        "RESUME_ACK | apply, RESUME_ACK, own RESUME | TOMB-5 | TOMB-5 |")
def resume_verified(setting):
    def act(link):
        link.send(RESUME, epoch=link.epoch + 1, nonce=NONCE, echo=link.its_challenge)
    each(setting, LIVE, act, RESUME_ACK, echo=NONCE)
    each(setting, GONE, act, PAUSE)


@clause("STATE-3", "| RESUME fresh, not verified | PROBE | PROBE | PROBE | TOMB-5 | "
        "TOMB-5 |")
def resume_not_verified(setting):
    def act(link):
        link.send(RESUME, epoch=link.epoch + 1, nonce=NONCE, echo=1)
    each(setting, LIVE, act, PROBE, echo=NONCE)
    each(setting, GONE, act, PAUSE)


@clause("STATE-3", "| RESUME duplicate (RESUME-6) | RESUME_ACK | RESUME_ACK | "
        "RESUME_ACK | TOMB-5 | TOMB-5 |")
def resume_duplicate(setting):
    def act(link):
        link.send(RESUME, nonce=link.secret)
    each(setting, LIVE, act, RESUME_ACK)
    each(setting, GONE, act, PAUSE)


@clause("STATE-3", "| RESUME stale | – | – | – | TOMB-5 | TOMB-5 |")
def resume_stale(setting):
    def act(link):
        link.send(RESUME, epoch=0, nonce=NONCE, echo=link.its_challenge)
    each(setting, LIVE, act, None)
    each(setting, GONE, act, PAUSE)


@clause("STATE-3", "| RESUME_ACK, matches, source = AV | – | – | →R or P | – | – |")
def resume_ack(setting):
    def act(link):
        link.send(RESUME_ACK, epoch=1, echo=link.its_secret, nonce=NONCE)
    each(setting, LIVE + GONE, act, None)
    link = resuming(setting)
    act(link)
    link.drain()
    link.silence(1.2, RESUME)


@clause("STATE-3", "| MOVED fresh, echo = challenge | PROBE to it | PROBE to it | PROBE "
        "to it | – | – |")
def moved_challenge(setting):
    def act(link):
        link.send(MOVED, epoch=link.epoch + 1, echo=link.its_challenge,
                  gid=gid(setting.other))
    for enter in LIVE:
        link = enter(setting)
        act(link)
        link.await_(PROBE, to=setting.other, nonce=link.its_challenge)
    each(setting, GONE, act, None)


@clause("STATE-3", "| MOVED fresh, echo = secret | – | – | RESUME to it | – | – |")
def moved_secret(setting):
    def act(link):
        link.send(MOVED, epoch=link.epoch + 1, echo=link.its_secret or NONCE,
                  gid=gid(setting.other))
    each(setting, (running, paused, *GONE), act, None)
    link = resuming(setting)
    act(link)
    link.await_(RESUME, to=setting.other, nonce=link.its_secret)


@clause("STATE-3", "| RC request, PSN ≤ expected | execute | execute | execute | CAP-2 "
        "| CAP-2 |")
def request(setting):
    def act(link):
        link.data(WRITE_ONLY, link.mine, link.reth(0, 8), payload=b"\xa5" * 8)
    each(setting, LIVE, act, ACK, syndrome=ACKED)
    each(setting, GONE, act, ACK, syndrome=NAK_STOPPED)


@clause("STATE-3", "| RC request, PSN beyond | stock | stock | stock | – | – |")
@clause("STATE-4", "| request beyond | responder | NAK | NAK | – |")
def request_beyond(setting):
    def act(link):
        link.data(WRITE_ONLY, link.mine + 1, link.reth(0, 8), payload=b"\xa5" * 8)
    each(setting, LIVE, act, ACK, syndrome=NAK_SEQUENCE)
    each(setting, GONE, act, None)


@clause("STATE-3", "| RC response | complete | complete or – | complete or – | – | – |")
@clause("PAUSE-3", "Responses MAY be dropped: after RESUME they are asked for again.")
@clause("STATE-4", "| acknowledgement, READ response, atomic answer | completer "
        "| complete | complete, MAY – | – |")
def response(setting):
    link = capable(setting)
    sent(link, 3)
    link.ack(link.theirs)
    link.completions(1)
    link.pause()
    link.ack(link.theirs + 1)
    link.drain()
    link.resume(rq_psn=link.theirs + 2 & 0xffffff)
    packet = link.receive()
    if packet[BTH].psn != link.theirs + 2 & 0xffffff:
        link.compare(packet, None, {"opcode": SEND_ONLY,
                                    "psn": link.theirs + 1 & 0xffffff})
        link.ack(link.theirs + 1)
    link.completions(2)
    link.stop()
    link.ack(link.theirs + 2)
    check(not link.endpoint.poll(ms=300)["wc"], "a Stopped QP completes work")
    packet = link.back()
    link.accept(packet)
    link.await_(SEND_ONLY, psn=(link.theirs + 2) & 0xffffff)
    link.ack(link.theirs + 2)
    link.completions(3)


@clause("STATE-3", "| work posted | send | hold | hold | hold | |")
@clause("STATE-4", "| work posted; window, credit or fence lets more go | "
        "requester | send | hold | hold |")
def posted(setting):
    for enter in (paused, resuming, stopped):
        link = enter(setting)
        link.endpoint.post(op="SEND", id=1)
        link.silence(0.3, SEND_ONLY)


@clause("STATE-3", "| Stop | →S, epoch+1, PAUSE | the same | the same, secret kept | "
        "error | |")
def stop(setting):
    for enter in (running, paused):
        link = enter(setting)
        link.drain(0.05)
        check(link.stop()["epoch"] == 1, f"{enter.__name__}: epoch")
        link.await_(PAUSE, epoch=1)
    link = resuming(setting)
    secret = link.its_secret
    image = link.stop()
    check(image["epoch"] == 2 and image["secret"] == secret,
          "resuming: epoch or secret")
    try:
        link.stop()
    except EndpointError as error:
        check("ok" not in str(error), "a Stopped context was stopped again")


@clause("STATE-3", "| CANCEL | error | error | error | →Z, unless committed | |")
def cancel(setting):
    for enter in LIVE:
        link = enter(setting)
        try:
            link.endpoint.cancel()
        except EndpointError:
            continue
        raise Failure(f"{enter.__name__}: CANCEL without a dump")
    link = stopped(setting)
    link.endpoint.cancel()
    link.await_(RESUME, epoch=1, nonce=link.its_secret)


@clause("STATE-3", "| modify to ERR | stock | →ERR | →ERR | refused | |")
@clause("STATE-2", "Modify to ERR, and any transition to ERR, MUST end Paused and "
        "Resuming.")
@clause("STATE-2", "A QP in ERR drops migration packets.")
def modify_to_error(setting):
    for enter in (paused, resuming):
        link = enter(setting)
        link.endpoint.post(op="SEND", id=1)
        link.endpoint.modify(state="ERR")
        check(link.endpoint.poll(ms=2000)["wc"] == "1:5", "work is not flushed")
        link.drain()
        link.send(PROBE, nonce=NONCE)
        link.send(PAUSE, epoch=link.epoch + 1, nonce=NONCE, echo=1)
        link.silence(1.3)
    link = stopped(setting)
    refused_modify(link, "ERR")


@clause("STATE-3", "| modify to RESET | clear all | clear all | clear all | refused | |")
@clause("STATE-2", "Modify to RESET MUST return the QP to Running, stop the timers of "
        "this protocol and clear every variable of section 3.")
@clause("CAP-1", "It is kept in the snapshot and cleared at RESET.")
def modify_to_reset(setting):
    for enter in LIVE:
        link = enter(setting)
        challenge = link.its_challenge
        link.endpoint.modify(**{**link.attributes, "state": "RTS", "anew": 1})
        link.drain()
        link.silence(1.2)
        link.endpoint.post(op="SEND", id=1)
        link.expect(SEND_ONLY, psn=link.theirs)
        link.epoch = 0
        check(link.learn() != challenge, f"{enter.__name__}: the challenge is kept")
        image = link.stop()
        for name in ("capable", "peer_stopped", "peer_epoch", "peer_secret",
                     "peer_challenge"):
            check(image[name] == 0, f"{enter.__name__}: {name} is kept")
    link = stopped(setting)
    refused_modify(link, "RESET")


def refused_modify(link, state):
    try:
        link.endpoint.modify(state=state)
    except EndpointError:
        return
    raise Failure(f"a Stopped QP was modified to {state}")


@clause("STATE-1", "`ibv_modify_qp` works as if the QP were Running")
@clause("STATE-4", "| modify to SQD, send queue empty | requester | drained | "
        "drained | refused |")
def modify_paused(setting):
    link = paused(setting)
    link.endpoint.modify(state="SQD")
    check(link.endpoint.query()["qp_state"] == 4, "not in SQD")
    link.endpoint.modify(state="RTS")
    check(link.endpoint.query()["qp_state"] == 3, "not in RTS")
    link.resume()
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)


@clause("STATE-1", "An implementation MUST NOT show these states in any verb, event or "
        "attribute.")
def invisible(setting):
    link = Link(setting)
    before = link.endpoint.query()
    link.pause()
    check(link.endpoint.query() == before, "ibv_query_qp shows Paused")
    link.resume()
    link.stop()
    check(link.endpoint.query() == before, "ibv_query_qp shows Stopped")
    link.introduce()
    link.back()
    check(link.endpoint.query() == before, "ibv_query_qp shows Resuming")


@clause("STATE-4", "| duplicate request | responder | answer again | answer again | "
        "CAP-2 |")
def duplicate_request(setting):
    def act(link):
        link.data(WRITE_ONLY, link.mine - 1, link.reth(0, 8), payload=bytes(8))

    for enter in (running, paused):
        link = enter(setting)
        link.data(WRITE_ONLY, link.mine, link.reth(0, 8), payload=bytes(8))
        link.await_(ACK, psn=link.mine)
        link.data(WRITE_ONLY, link.mine, link.reth(0, 8), payload=bytes(8))
        link.await_(ACK, psn=link.mine, syndrome=ACKED)
    each(setting, GONE, act, ACK, syndrome=NAK_STOPPED)


@clause("STATE-4", "| NAK of a sequence error, RNR NAK | completer | go back, wait | "
        "MAY – | – |")
@clause("STATE-4", "| NAK of another error | completer | fail the request | fail it, "
        "MAY – | – |")
def naks_while_held(setting):
    """None is lost for good: after RESUME the requests are asked for again."""
    for syndrome in (NAK_SEQUENCE, RNR):
        link = capable(setting)
        sent(link, 2)
        link.pause()
        link.ack(link.theirs, syndrome=syndrome)
        link.silence(0.3, SEND_ONLY)
        link.resume()
        link.await_(SEND_ONLY, psn=link.theirs)
        link.ack(link.theirs + 1)
        link.completions(1, 2)


@clause("STATE-4", "| receive posted | responder | use it | use it | keep it for "
        "CANCEL |")
def receive_posted(setting):
    for enter in (paused, stopped):
        link = enter(setting)
        link.endpoint.recv(id=9)
        if enter is stopped:
            link.endpoint.cancel()
            link.accept(link.await_(RESUME))
        link.data(SEND_ONLY, link.mine, payload=bytes(8))
        link.await_(ACK, psn=link.mine, syndrome=ACKED)
        link.completions(9)


@clause("STATE-3", "| GID or route gone | stock | stay | stay, retry | stay | stay, mute |")
def without_address(setting):
    """It says nothing, and fails nothing, until the address is back. (What it sends then is
    stock: the GID has another place in the port's table.)"""
    with setting.address() as address:
        def gone(link, act):
            link.drain()
            address.remove()
            act(link)
            time.sleep(0.3)
            link.drain()
            link.silence(1)
            check(link.endpoint.query()["qp_state"] == 3, "the QP has failed")
            address.add()

        def link_to_it():
            link = Link(setting, local=address.text, timeout=14, retry=1)
            link.their = address.text
            link.pause()
            link.resume()
            return link

        link = link_to_it()
        link.pause()
        gone(link, lambda link: link.endpoint.post(op="SEND", id=1))
        link.resume()

        link = link_to_it()
        link.stop()
        link.back()
        gone(link, lambda link: link.endpoint.post(op="SEND", id=1))
        link.await_(RESUME)

        link = link_to_it()
        link.stop()
        link.introduce()
        gone(link, lambda link: link.request(link.mine))
        link.request(link.mine)
        link.expect_nak(link.mine)
