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
    each(setting, EACH_LIVE, act, PROBE, echo=NONCE, flags=F_PAUSED)
    each(setting, GONE, act, None)


@clause("STATE-3", "| PAUSE fresh, no match | PROBE | PROBE | PROBE | – | – |")
@clause("WIRE-1", "| 0xe1 | PROBE | here is my challenge; are you Stopped? | Running, "
        "Paused, Resuming |")
def pause_does_not_match(setting):
    def act(link):
        link.send(PAUSE, epoch=link.epoch + 1, nonce=NONCE, echo=1)
    each(setting, EACH_LIVE, act, PROBE, echo=NONCE)
    each(setting, GONE, act, None)


@clause("STATE-3", "| PAUSE not fresh | – | – | – | – | – |")
def pause_stale(setting):
    def act(link):
        epoch = link.epoch - 1 if link.epoch == 2 else link.epoch
        link.send(PAUSE, epoch=epoch, nonce=NONCE, echo=link.its_challenge)
    each(setting, EACH_LIVE + GONE, act, None)


@clause("STATE-3", "| PROBE, no self_forward | RUNNING | RUNNING | RESUME | PAUSE-9 | "
        "PAUSE-9 |")
@clause("WIRE-1", "| 0xe0 | PAUSE | I am Stopped | Stopped, tombstone |")
@clause("WIRE-1", "| 0xe2 | RUNNING | I am not Stopped | Running |")
@clause("WIRE-1", "| 0xe3 | RESUME | I am back; this is my address | Resuming |")
def probe(setting):
    def act(link):
        link.send(PROBE, nonce=NONCE)
    each(setting, (running, paused), act, RUNNING, echo=NONCE)
    each(setting, PENDING, act, RESUME, echo=NONCE)
    each(setting, GONE, act, PAUSE, echo=NONCE)


def forwarded(link):
    """It is told that it lives on, elsewhere."""
    link.send(RESUME, flags=F_SELF, src_qpn=link.their_qpn, epoch=1,
              nonce=link.its_secret, source=link.setting.other)
    time.sleep(0.05)


@clause("STATE-3", "| PROBE, self_forward known | | | | MOVED | MOVED |")
@clause("WIRE-1", "| 0xe5 | MOVED | the QP you look for is at `gid` | Stopped, tombstone |")
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
    each(setting, EACH_LIVE + GONE, act, None)
    for enter in EACH_LIVE:
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


@clause("STATE-3", "| RUNNING, echo matches | PAUSE-8 | PAUSE-8 | PAUSE-8 | – | – |")
def running_packet(setting):
    def act(link):
        link.send(RUNNING, echo=link.its_challenge)
    each(setting, EACH_LIVE + GONE, act, None)
    # Paused by a NAK_STOPPED
    for enter in (running, unanswered):
        link = enter(setting)
        nak_paused(link)
        act(link)
        link.await_(SEND_ONLY, psn=link.theirs)
    # and Resuming: when its RESUME is answered, it is Paused until then
    for early in (True, False):
        link = capable(setting)
        nak_paused(link)
        link.stop()
        link.introduce()
        link.drain()
        link.endpoint.cancel()
        packet = link.await_(RESUME)
        if early:
            act(link)
        link.silence(0.2, SEND_ONLY)
        link.accept(packet)
        if not early:
            link.silence(0.3, SEND_ONLY)
            act(link)
        link.await_(SEND_ONLY, psn=link.theirs)


def nak_paused(link):
    sent(link, 1)
    nak(link, link.theirs)
    link.await_(PROBE, flags=F_PAUSED)
    link.drain(0.05)


@clause("STATE-3", "| NAK_STOPPED, token right | →P, PROBE | PROBE or – | PROBE or – | – "
        "| – |")
@clause("STATE-3", "| NAK_STOPPED, wrong | PROBE | PROBE or – | PROBE or – | – | – |")
@clause("PAUSE-4", "A QP whose requester is held already MAY drop it, as any response "
        "(PAUSE-3).")
def nak_stopped(setting):
    for token in (None, 1):
        link = capable(setting)
        sent(link, 1)
        nak(link, link.theirs, token)
        packet = answer(link)
        check(packet is not None and packet[BTH].opcode == PROBE,
              f"token {token}: {describe(packet)}, not PROBE")

        def told(link, may, gone=False):
            """It fails no request, nor lets it go."""
            nak(link, link.theirs, token)
            packet = answer(link)
            check(packet is None or packet[BTH].opcode in may,
                  f"token {token}: {describe(packet)}")
            check(gone or not link.endpoint.poll()["wc"], "the request has completed")
        # Paused, Stopped, Resuming
        link = capable(setting)
        sent(link, 1)
        link.pause()
        link.drain(0.05)
        told(link, (PROBE,))
        link.stop()
        link.introduce()
        link.drain(0.05)
        told(link, ())
        link.endpoint.cancel()
        packet = link.await_(RESUME)
        link.drain(0.05)
        told(link, (PROBE,))
        link.resume()
        link.accept(packet)
        link.await_(SEND_ONLY, psn=link.theirs)
        # tombstone
        link.stop()
        link.introduce()
        link.endpoint.leave()
        link.drain(0.05)
        told(link, (), gone=True)
        # It sends while its RESUME is not answered.
        link = unanswered(setting)
        sent(link, 1)
        told(link, (PROBE,))
        link.send(RUNNING, echo=link.its_challenge)
        link.drain()
        link.ack(link.theirs)
        link.completions(1)


def own_resume(link):
    """That of a timer comes later, or not at all."""
    link.await_(RESUME, seconds=0.4, to=link.own, nonce=link.its_secret)


@clause("STATE-3", "| RESUME fresh, verified | apply, RESUME_ACK | apply, →R, "
        "RESUME_ACK | apply, RESUME_ACK, own RESUME | TOMB-5 | TOMB-5 |")
@clause("WIRE-1", "| 0xe4 | RESUME_ACK | I have your address | Running, Paused, Resuming |")
def resume_verified(setting):
    def act(link):
        link.send(RESUME, epoch=link.epoch + 1, nonce=NONCE, echo=link.its_challenge)
    each(setting, (running, paused), act, RESUME_ACK, echo=NONCE)
    each(setting, PENDING, act, RESUME_ACK, echo=NONCE, then=own_resume)
    each(setting, GONE, act, PAUSE)


@clause("STATE-3", "| RESUME fresh, not verified | PROBE | PROBE | PROBE | TOMB-5 | "
        "TOMB-5 |")
def resume_not_verified(setting):
    def act(link):
        link.send(RESUME, epoch=link.epoch + 1, nonce=NONCE, echo=1)
    each(setting, EACH_LIVE, act, PROBE, echo=NONCE)
    each(setting, GONE, act, PAUSE)


@clause("STATE-3", "| RESUME duplicate (RESUME-6) | RESUME_ACK | RESUME_ACK | "
        "RESUME_ACK | TOMB-5 | TOMB-5 |")
def resume_duplicate(setting):
    def act(link):
        link.send(RESUME, nonce=link.secret)
    each(setting, EACH_LIVE, act, RESUME_ACK)
    each(setting, GONE, act, PAUSE)


@clause("STATE-3", "| RESUME stale | – | – | – | TOMB-5 | TOMB-5 |")
def resume_stale(setting):
    def act(link):
        link.send(RESUME, epoch=0, nonce=NONCE, echo=link.its_challenge)
    each(setting, EACH_LIVE, act, None)
    each(setting, GONE, act, PAUSE)


@clause("STATE-3", "What the table says MUST happen, and what it does not list MUST NOT: an "
        "event with \"–\" or without an entry is dropped.")
@clause("STATE-3", "| RESUME_ACK, matches, source = AV | – | – | →R or P | – | – |")
def resume_ack(setting):
    def act(link):
        link.send(RESUME_ACK, epoch=1, echo=link.its_secret, nonce=NONCE)
    each(setting, EACH_LIVE + GONE, act, None)
    for enter in PENDING:
        for stops in (False, True):
            link = enter(setting)
            if stops:
                link.pause()
            act(link)
            link.drain(0.05)
            link.send(PROBE, nonce=NONCE)
            link.await_(RUNNING, echo=NONCE)
            link.silence(1.2, RESUME)
            if stops:
                link.endpoint.post(op="SEND", id=1)
                link.silence(0.2, SEND_ONLY)
                link.resume()
                link.await_(SEND_ONLY, psn=link.theirs)


@clause("STATE-3", "| RESUME_ACK, matches, other source | – | – | stay | – | – |")
def resume_ack_elsewhere(setting):
    def act(link):
        link.send(RESUME_ACK, epoch=1, echo=link.its_secret or NONCE, nonce=NONCE,
                  source=setting.other)
    each(setting, (running, paused, *GONE), act, None)
    link = resuming(setting)
    act(link)
    link.drain()
    link.await_(RESUME, nonce=link.its_secret, echo=NONCE)
    link = unanswered(setting)
    act(link)
    link.drain(0.05)
    link.send(PROBE, nonce=NONCE)
    link.await_(RESUME, nonce=link.its_secret, echo=NONCE)


@clause("STATE-3", "| MOVED fresh, echo = challenge | PROBE to it | PROBE to it | PROBE "
        "to it | – | – |")
def moved_challenge(setting):
    def act(link):
        link.send(MOVED, epoch=link.epoch + 1, echo=link.its_challenge,
                  gid=gid(setting.other))
    for enter in EACH_LIVE:
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
    for enter in PENDING:
        link = enter(setting)
        act(link)
        link.await_(RESUME, to=setting.other, nonce=link.its_secret)


@clause("STATE-3", "| RC request, PSN ≤ expected | execute | execute | execute | CAP-2 "
        "| CAP-2 |")
@clause("STATE-4", "| request with the expected PSN | responder | execute, answer | "
        "execute, answer | execute, answer | CAP-2 | CAP-2 |")
def request(setting):
    def act(link):
        link.data(WRITE_ONLY, link.mine, link.reth(0, 8), payload=b"\xa5" * 8)

    def then(link):
        found = link.endpoint.read(offset=0, len=8)["data"]
        check(int(str(found), 16) == 0xa5a5a5a5a5a5a5a5, f"not executed: {found}")
    each(setting, EACH_LIVE, act, ACK, syndrome=ACKED, then=then)
    each(setting, GONE, act, ACK, syndrome=NAK_STOPPED)


@clause("STATE-3", "| RC request, PSN beyond | stock | stock | stock | – | – |")
@clause("STATE-4", "| request beyond | responder | NAK | NAK | NAK | – | – |")
def request_beyond(setting):
    def act(link):
        link.data(WRITE_ONLY, link.mine + 1, link.reth(0, 8), payload=b"\xa5" * 8)
    each(setting, EACH_LIVE, act, ACK, syndrome=NAK_SEQUENCE)
    each(setting, GONE, act, None)


@clause("STATE-5", "| RTR | responder, migration packets | as in RTS | as in RTS | as in "
        "RTS | as in RTS | as in RTS |")
@clause("STATE-5", "| RTR | requester, completer | none; NAK_STOPPED: – | none | none | "
        "none | |")
def in_rtr(setting):
    connected(setting, "RTR")
    pending(setting, "RTR")


@clause("STATE-5", "| SQD | completer, responder, migration packets | as in RTS | as in "
        "RTS | as in RTS | as in RTS | as in RTS |")
def in_sqd(setting):
    connected(setting, "SQD")
    pending(setting, "SQD")
    # with a request that it has sent
    link = capable(setting)
    sent(link, 1)
    link.endpoint.modify(state="SQD")
    nak(link, link.theirs)
    link.await_(PROBE, flags=F_PAUSED, nonce=link.its_challenge)
    link.silence(0.2, SEND_ONLY)
    link.send(RUNNING, echo=link.its_challenge)
    time.sleep(0.1)

    def held():
        """A NAK_STOPPED is answered by PROBE, or dropped."""
        for token in (None, 1):
            link.drain(0.05)
            nak(link, link.theirs, token)
            packet = answer(link)
            check(packet is None or packet[BTH].opcode == PROBE, f"{describe(packet)} came")
        check(not link.endpoint.poll()["wc"], "the request has completed")
    link.pause()
    held()
    link.stop()
    link.introduce()
    packet = link.back()
    held()
    link.resume()
    link.accept(packet)
    link.silence(0.2, SEND_ONLY)
    link.endpoint.modify(state="RTS")
    link.await_(SEND_ONLY, psn=link.theirs)
    link.ack(link.theirs)
    link.completions(1)


def connected(setting, state):
    """Every packet to a QP of this state, and its own, in all states of section 12. It
    has sent no request: that is in in_sqd()."""
    link = Link(setting, state=state)
    other = setting.other

    def served(syndrome, number):
        """What the responder does, for the first request and its duplicates"""
        link.data(WRITE_ONLY, link.mine + number, link.reth(0, 8), payload=bytes(8))
        link.await_(ACK, psn=(link.mine + number) & 0xffffff, syndrome=syndrome)

    def nothing(opcode, **fields):
        link.drain(0.05)
        link.send(opcode, **fields)
        packet = answer(link, 0.15)
        check(packet is None, f"{NAMES[opcode]}: {describe(packet)} came")

    def no_request():
        """What answers a request is for none of its own."""
        for token in (None, 1):
            link.drain(0.05)
            nak(link, link.theirs, token)
            packet = answer(link, 0.15)
            check(packet is None or state == "SQD" and token and
                  packet[BTH].opcode == PROBE, f"NAK_STOPPED: {describe(packet)} came")

    def live(answered):
        """Dropped in each state that is not Stopped. It still answers where it is."""
        epochs = {0, link.epoch - 1} if link.epoch else {0}
        for epoch in epochs:
            nothing(PAUSE, epoch=epoch, nonce=NONCE, echo=link.its_challenge)
            nothing(RESUME, epoch=epoch, nonce=NONCE, echo=link.its_challenge)
        nothing(RUNNING, echo=link.its_challenge)
        for epoch in (1, 5):
            nothing(RESUME_ACK, epoch=epoch, echo=link.its_challenge, nonce=NONCE)
            nothing(RESUME, epoch=epoch, flags=F_SELF, src_qpn=link.their_qpn,
                    nonce=link.its_secret or NONCE, source=other)
        no_request()
        link.send(PROBE, nonce=NONCE)
        link.await_(answered, echo=NONCE)

    def unverified():
        link.send(RESUME, epoch=link.epoch + 1, nonce=NONCE, echo=1)
        link.await_(PROBE, echo=NONCE, nonce=link.its_challenge)
    # Running
    link.learn()
    live(RUNNING)
    unverified()
    link.send(MOVED, epoch=1, echo=link.its_challenge, gid=gid(other))
    link.await_(PROBE, to=other, nonce=link.its_challenge)
    served(ACKED, 0)
    link.epoch += 1
    link.send(RESUME, nonce=link.secret, echo=link.its_challenge)
    link.its_challenge = link.await_(RESUME_ACK, echo=link.secret)[MIGETH].nonce
    # Paused
    link.pause()
    live(RUNNING)
    unverified()
    link.send(MOVED, echo=link.its_challenge, gid=gid(other))
    link.await_(PROBE, to=other, flags=F_PAUSED, nonce=link.its_challenge)
    served(ACKED, 1)
    link.resume()
    link.send(RESUME, nonce=link.secret)
    link.await_(RESUME_ACK, nonce=link.its_challenge)
    # Stopped, and a tombstone
    link.stop()
    link.await_(PAUSE, epoch=1)
    link.introduce()
    for gone in (False, True):
        if gone:
            link.endpoint.leave()
        for opcode in (PAUSE, RUNNING, RESUME_ACK, MOVED):
            nothing(opcode, epoch=5, nonce=NONCE, echo=link.its_challenge, gid=gid(other))
        link.send(PROBE, nonce=NONCE)
        link.await_(PAUSE, echo=NONCE, nonce=link.its_secret)
        link.send(RESUME, nonce=NONCE)
        link.await_(PAUSE, echo=link.challenge, nonce=link.its_secret)
        served(NAK_STOPPED, 1)
        link.drain(0.05)
        nak(link, link.theirs)
        link.silence(0.1)
    forwarded(link)
    link.send(PROBE, nonce=NONCE)
    link.await_(MOVED, echo=NONCE, gid=gid(other))
    # Resuming
    link.endpoint.restore()
    link.endpoint.resume()
    packet = link.await_(RESUME, nonce=link.its_secret, epoch=1)
    live(RESUME)
    unverified()
    nothing(PAUSE, epoch=link.epoch, nonce=NONCE, echo=link.its_challenge)
    nothing(RESUME, epoch=link.epoch, nonce=NONCE, echo=link.its_challenge)
    served(ACKED, 2)
    link.pause()
    live(RESUME)
    link.send(MOVED, echo=link.its_secret, gid=gid(other))
    link.await_(RESUME, to=other, nonce=link.its_secret)
    link.resume()
    link.accept(packet)
    link.drain()
    link.silence(1.1, RESUME)
    # Running and Paused, with a secret that it does not use any more
    live(RUNNING)
    link.pause()
    live(RUNNING)
    link.resume()
    # A copy that lives elsewhere
    link = Link(setting, state=state)
    link.stop()
    link.introduce()
    forwarded(link)
    link.send(PROBE, nonce=NONCE)
    link.await_(MOVED, echo=NONCE, gid=gid(other))
    try:
        link.endpoint.cancel()
    except EndpointError:
        return
    raise Failure("a copy that lives elsewhere was resumed here")


def pending(setting, state):
    """The rest of connected(): RESUME_LIMIT is over."""
    link = unanswered(setting, state=state)

    def asked(answered):
        link.drain(0.05)
        link.send(PROBE, nonce=NONCE)
        link.await_(answered, echo=NONCE)
    asked(RESUME)
    link.send(RESUME, epoch=link.epoch + 1, nonce=NONCE, echo=1)
    link.await_(PROBE, echo=NONCE)
    link.data(WRITE_ONLY, link.mine, link.reth(0, 8), payload=bytes(8))
    link.await_(ACK, psn=link.mine, syndrome=ACKED)
    link.mine = (link.mine + 1) & 0xffffff
    link.pause()
    asked(RESUME)
    link.send(MOVED, echo=link.its_secret, gid=gid(setting.other))
    link.await_(RESUME, to=setting.other, nonce=link.its_secret)
    link.resume()
    asked(RESUME)
    link.send(RESUME_ACK, epoch=1, echo=link.its_secret, nonce=NONCE)
    asked(RUNNING)


@clause("STATE-5", "| RESET, INIT | all | stock; migration packets: – | | | silent "
        "(STOP-2) | none is left |")
def not_connected(setting):
    """Of a QP that was connected, too, whose nonces are known"""
    link = capable(setting)
    links = [link, link.another(state="RESET"), link.another(state="INIT")]
    numbers = [one.their_qpn for one in links]

    def unheard(state):
        for one in links:
            for opcode in MIGRATION:
                one.send(opcode, epoch=5, nonce=NONCE, echo=link.its_challenge,
                         gid=gid(one.own))
            nak(one, one.theirs, link.its_challenge & WIRE["TOKEN_MASK"])
        deadline = time.monotonic() + 0.3
        while (packet := link.receive(deadline - time.monotonic(),
                                      mine=False)) is not None:
            check(MIGETH not in packet or packet[MIGETH].src_qpn not in numbers,
                  f"{state}: {describe(packet)} came")
    for state in ("RESET", "INIT"):
        link.endpoint.modify(anew=1, **{**link.attributes, "state": state})
        unheard(state)
    link.stop()
    unheard("Stopped")
    link.endpoint.leave()
    unheard("gone")
