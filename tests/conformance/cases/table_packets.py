"""Section 12: every packet in every state. A row of the table is a case here, unless
the clauses of other sections have it."""

import time

from clauses import clause
from pause import nak, sent
from peer import *
from states import *


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
