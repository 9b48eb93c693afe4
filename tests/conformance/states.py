"""A QP in each of the states of section 12, and what it answers there."""

import time

from peer import *

NONCE = 0x4711471147114711


def capable(setting, company=(), **attributes):
    """A QP that knows that we speak the protocol. In its process there are others, with
    these attributes."""
    link = Link(setting, **attributes)
    link.company = [link.another(**one) for one in company]
    link.pause()
    link.resume()
    return link


def running(setting, **attributes):
    return capable(setting, **attributes)


def paused(setting, **attributes):
    link = capable(setting, **attributes)
    link.pause()
    return link


def resuming(setting, **attributes):
    link = capable(setting, **attributes)
    link.stop()
    link.back()
    return link


def stopped(setting, **attributes):
    link = capable(setting, **attributes)
    link.stop()
    link.introduce()
    return link


def tombstone(setting, **attributes):
    link = stopped(setting, **attributes)
    link.endpoint.leave()
    return link


def unanswered(setting, **attributes):
    """Running with `resume_pending`: RESUME_LIMIT is over [RESUME-9]."""
    link = capable(setting, **attributes)
    link.stop()
    with_limit(link, "resume_limit", 100 * SLOW, link.back)
    time.sleep(0.4 * SLOW)
    link.drain(0.02)
    # It would have been sent again after 0.62 s, or a quarter later.
    link.silence(0.6 * SLOW, RESUME)
    return link


LIVE = (running, paused, resuming)
# Column Z of the table
PENDING = (resuming, unanswered)
EACH_LIVE = (running, paused, *PENDING)
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


def refused_modify(link, state):
    try:
        link.endpoint.modify(state=state)
    except EndpointError:
        return
    raise Failure(f"a Stopped QP was modified to {state}")


def each(setting, states, act, opcode, then=None, **fields):
    """In each state act() is answered so; opcode None: not at all. then() looks at what
    has become of the QP."""
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
        if then:
            then(link)
