"""Section 3: epochs, secrets and challenges."""


from clauses import clause
from peer import *


def leave_and_return(link):
    """It stops and is restored; returns (what its image says, RESUME)"""
    image = link.stop()
    return image, link.back()


@clause("VAR-1", "Per QP: | Variable | Initial | Meaning | |---|---|---| "
        "| `epoch` | 0 | stops of this QP; u32 |")
@clause("VAR-1", "| `challenge` | random ≠ 0 | what my partner must echo; u64 | "
        "| `resume_pending` | 0 | my RESUME of this epoch is not answered | "
        "| `peer_epoch` | 0 | the newest epoch of the partner that I know | "
        "| `peer_stopped` | 0 | the partner stopped with `peer_epoch` and has not resumed | "
        "| `peer_secret` | 0 | its secret of `peer_epoch` | "
        "| `peer_challenge` | 0 | its challenge, 0 unknown | "
        "| `peer_capable` | 0 | the partner speaks this protocol | "
        "| `nak_paused` | 0 | held by a NAK_STOPPED, not yet confirmed | "
        "| `forward` | none | address that a MOVED named | "
        "| `self_forward` | none | Stopped, tombstone: where I am now (TOMB-4) |")
def initial(setting):
    """Of a QP that nobody has told anything"""
    link = Link(setting)
    link.send(PROBE, nonce=0x5)
    packet = link.expect(RUNNING, echo=0x5, epoch=0)
    check(packet[MIGETH].nonce != 0, "the challenge is 0")
    link.runs()
    # What comes from elsewhere is answered at each address that it knows [ACC-4].
    link.send(RESUME, epoch=1, nonce=0x6, echo=0x7, source=setting.other)
    link.expect(PROBE, echo=0x6, flags=0, to=link.own)
    link.silence(0.2)
    image = link.stop()
    for name, value in (("epoch", 1), ("challenge", packet[MIGETH].nonce),
                        ("peer_epoch", 0), ("peer_stopped", 0), ("peer_secret", 0),
                        ("peer_challenge", 0), ("capable", 0)):
        check(image[name] == value, f"{name} is {image[name]:#x}, not {value:#x}")
    link.send(PROBE, nonce=0x8)
    link.await_(PAUSE, echo=0x8)


@clause("VAR-1", "All but `resume_pending`, `nak_paused`, `forward` and `self_forward` are "
        "part of the snapshot.")
def what_is_kept(setting):
    """and what is not"""
    link = Link(setting)
    link.stop()
    link.endpoint.cancel()
    link.accept(link.await_(RESUME))
    link.pause()
    link.send(MOVED, echo=link.its_challenge, gid=gid(setting.other))
    link.await_(PROBE, to=setting.other)
    image = link.stop()
    packet = link.back()
    again = link.stop()
    for name in ("secret", "challenge", "peer_epoch", "peer_stopped", "peer_secret",
                 "peer_challenge", "capable"):
        check(again[name] == image[name] != 0, f"{name} was {image[name]:#x} and is "
              f"{again[name]:#x}")
    check(again["epoch"] == image["epoch"] + 1, "the epoch was not kept")
    # forward, and self_forward, of which the tombstone is told
    link.endpoint.leave()
    link.send(RESUME, flags=F_SELF, src_qpn=link.their_qpn, epoch=3,
              nonce=link.its_secret, source=setting.other)
    link.send(PROBE, nonce=0x5)
    link.await_(MOVED, echo=0x5)
    link.endpoint.restore()
    link.drain()
    link.endpoint.resume()
    packet = link.await_(RESUME, to=setting.own)
    link.silence(0.5, RESUME, to=setting.other)
    link.resume()
    link.accept(packet)
    link.stop()
    link.send(PROBE, nonce=0x6)
    link.await_(PAUSE, echo=0x6)


@clause("VAR-1", "Paused = Running with `peer_stopped` or `nak_paused`.")
@clause("VAR-1", "All but `resume_pending`, `nak_paused`, `forward` and `self_forward` are "
        "part of the snapshot.")
def held_by_nak(setting):
    """It is no more, when it is restored and its RESUME was answered."""
    link = Link(setting)
    link.pause()
    link.resume()
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    link.ack(link.theirs, syndrome=NAK_STOPPED,
             msn=link.its_challenge & WIRE["TOKEN_MASK"])
    link.await_(PROBE, flags=F_PAUSED)
    link.endpoint.post(op="SEND", id=2)
    link.silence(0.3, SEND_ONLY)
    link.stop()
    link.accept(link.back())
    for number in (0, 1):
        link.await_(SEND_ONLY, psn=(link.theirs + number) & 0xffffff)


@clause("EPOCH-1", "A QP MUST increase `epoch` by one at each Stop, before it sends "
        "anything as Stopped.")
def increases(setting):
    link = Link(setting)
    for epoch in (1, 2, 3):
        image = link.stop()
        check(image["epoch"] == epoch, f"stop {epoch}: epoch {image['epoch']}")
        link.expect(PAUSE, epoch=epoch)
        packet = link.back()
        link.compare(packet, None, {"epoch": epoch})
        link.accept(packet)


@clause("EPOCH-1", "CANCEL does not change it.")
def cancelled(setting):
    link = Link(setting)
    for epoch in (1, 2):
        link.stop()
        link.expect(PAUSE, epoch=epoch)
        link.endpoint.cancel()
        link.accept(link.await_(RESUME, epoch=epoch))


@clause("EPOCH-2", "or equals it and `peer_stopped` is set.")
def fresh(setting):
    link = Link(setting)
    # epoch of a partner that never stopped
    link.learn()
    link.send(PAUSE, epoch=0, nonce=0x5, echo=link.its_challenge)
    link.send(PAUSE, epoch=0, nonce=0x5, echo=0x6)
    link.send(RESUME, epoch=0, nonce=0x5, echo=link.its_challenge)
    link.silence(0.2)
    link.epoch = 6
    link.pause()
    # equal, while it is Stopped: with a new secret, or as a duplicate
    for nonce in (link.secret, 0x66):
        link.drain(0.05)
        link.send(PAUSE, nonce=nonce, echo=link.its_challenge)
        # A PROBE that it sends anyway may be on its way.
        link.await_(PROBE, echo=nonce, flags=F_PAUSED)
    # a jump
    link.epoch = 0x7000
    link.secret = 0x67
    link.send(PAUSE, nonce=link.secret, echo=link.its_challenge)
    link.await_(PROBE, echo=link.secret, flags=F_PAUSED)
    link.resume()
    link.runs()


@clause("EPOCH-2", "A PAUSE, RESUME or MOVED is *fresh* iff its epoch is greater than "
        "`peer_epoch` (difference modulo 2^32 below 2^31)")
def wraps(setting):
    link = Link(setting)
    link.learn()
    for old, new, late in ((0, 0x7fffffff, 0x80000001),
                           (0x7fffffff, 0xfffffffe, 0x7ffffffe),
                           (0xfffffffe, 3, 0xfffffffd)):
        for opcode in (PAUSE, RESUME, MOVED):
            link.send(opcode, epoch=late, nonce=0x5, echo=link.its_challenge,
                      gid=gid(setting.other if opcode == MOVED else link.own))
        link.silence(0.1)
        link.epoch = new
        link.secret += 1
        link.send(MOVED, echo=link.its_challenge, gid=gid(setting.other))
        link.await_(PROBE, to=setting.other, nonce=link.its_challenge)
        link.drain(0.02)
        link.send(RESUME, nonce=link.secret, echo=link.its_challenge)
        packet = link.receive()
        check(packet is not None and packet[BTH].opcode == RESUME_ACK,
              f"epoch {new:#x} after {old:#x}: {describe(packet)} came")
        link.its_challenge = packet[MIGETH].nonce


@clause("EPOCH-2", "One that is not fresh MUST change nothing")
def stale_while_paused(setting):
    link = Link(setting)
    link.epoch = 6
    link.pause()
    for opcode in (PAUSE, RESUME, MOVED):
        for echo in (link.its_challenge, 0x9):
            link.send(opcode, epoch=6, nonce=0x5, echo=echo,
                      gid=gid(setting.other if opcode == MOVED else link.own))
    link.drain(0.1)
    link.endpoint.post(op="SEND", id=1)
    link.silence(0.3, SEND_ONLY, RESUME_ACK)
    link.silence(0.3, *MIGRATION, to=setting.other)
    link.resume()
    link.expect(SEND_ONLY, psn=link.theirs, skip={RESUME_ACK})


@clause("EPOCH-2", "One that is not fresh MUST change nothing")
def stale_after_resume(setting):
    """Those of before the RESUME, however late, and though their nonces are
    right"""
    link = Link(setting)
    link.epoch = 4
    link.pause()
    link.own = setting.other
    link.resume()
    link.drain(0.05)
    for epoch in (0, 4, 5):
        for nonce in (link.secret, 0x5):
            for opcode in (PAUSE, RESUME):
                link.send(opcode, epoch=epoch, nonce=nonce, source=setting.own,
                          echo=link.its_challenge)
        link.send(MOVED, epoch=epoch, echo=link.its_challenge,
                  source=setting.own, gid=gid(setting.own))
    link.silence(0.3)
    link.runs()


@clause("AUTH-1", "`secret` and `challenge` MUST come from the kernel's "
        "cryptographic generator, 64 bits, never 0.")
def random(setting):
    """As far as one sees: 40 challenges have nothing in common."""
    link = Link(setting)
    found = [link.learn()]
    for _ in range(39):
        found.append(link.another().learn())
    ones = zeros = 0
    for value in found:
        ones |= value
        zeros |= ~value & (1 << 64) - 1
    check(ones == zeros == (1 << 64) - 1, f"bits that never change: {ones:#x} "
          f"{zeros:#x}")
    for part in (lambda v: v >> 32, lambda v: v & 0xffffffff):
        check(len(set(map(part, found))) == 40, "challenges are alike")


@clause("AUTH-1", "`secret` is new at every Stop")
def new_secret(setting):
    link = Link(setting)
    found = set()
    for _ in range(3):
        image, packet = leave_and_return(link)
        check(image["secret"] == packet[MIGETH].nonce != 0,
              "RESUME has another secret than the image")
        check(image["secret"] >> 32 and image["secret"] & 0xffffffff,
              "half of the secret is 0")
        found.add(image["secret"])
        link.accept(packet)
    check(len(found) == 3, "a secret was used twice")


@clause("AUTH-1", "*unless* `resume_pending` is set: then it is kept.")
def kept_secret(setting):
    """Stopped again before the RESUME was answered: the same secret, another
    epoch; after an answer a new one"""
    link = Link(setting)
    image, _ = leave_and_return(link)
    again, packet = leave_and_return(link)
    check(again["secret"] == image["secret"], "the secret was not kept")
    link.compare(packet, None, {"epoch": 2, "nonce": image["secret"]})
    link.accept(packet)
    link.drain(0.05)
    image = link.stop()
    check(image["secret"] != again["secret"], "the secret was kept after RESUME_ACK")
    link.endpoint.cancel()
    link.await_(RESUME, nonce=image["secret"])
    again = link.stop()
    check(again["secret"] == image["secret"], "not kept after CANCEL")


@clause("AUTH-1", "`challenge` is renewed whenever a RESUME is accepted and at RESET.")
def renewed(setting):
    link = Link(setting)
    seen = [link.learn()]
    check(link.learn() == seen[0], "renewed by a PAUSE")
    # One that is not accepted renews nothing.
    link.send(RESUME, epoch=9, nonce=0x5, echo=seen[0] ^ 1)
    link.await_(PROBE, echo=0x5, nonce=seen[0])
    link.pause()
    link.drain(0.05)
    link.resume()
    seen.append(link.its_challenge)
    # A duplicate neither
    link.drain(0.05)
    link.send(RESUME, nonce=link.secret)
    link.expect(RESUME_ACK, nonce=link.its_challenge)
    link.epoch += 1
    link.drain(0.05)
    link.send(RESUME, nonce=0x77, echo=link.its_challenge)
    seen.append(link.expect(RESUME_ACK, echo=0x77)[MIGETH].nonce)
    link.endpoint.modify(state="RTS", anew=1, **{
        name: value for name, value in link.attributes.items()})
    seen.append(link.learn())
    check(len(set(seen)) == 4 and 0 not in seen, f"challenges {seen}")


@clause("AUTH-2", "An echo field matches iff it is not 0 and equals the variable "
        "named in the clause.")
def zero_echo(setting):
    """A QP that never stopped has the secret 0."""
    link = Link(setting)
    for opcode in (RUNNING, RESUME_ACK, PAUSE, RESUME, MOVED):
        link.send(opcode, epoch=0, nonce=0, echo=0, gid=gid(setting.other))
    link.send(RESUME, epoch=0, nonce=0, echo=0, flags=F_SELF,
              src_qpn=link.their_qpn)
    for opcode in (PAUSE, RESUME, MOVED):
        link.send(opcode, epoch=1, nonce=0, echo=0, source=setting.other,
                  gid=gid(setting.other))
    # It never had a RESUME that this could repeat (RESUME-6).
    link.send(RESUME, epoch=0, nonce=0, echo=0, rq_psn=link.theirs)
    link.silence(0.2, RESUME_ACK)
    link.runs()
    image = link.stop()
    check(not image["capable"] and not image["peer_epoch"], "it believed one")


@clause("AUTH-2", "An echo field matches iff it is not 0 and equals the variable "
        "named in the clause.")
def other_variable(setting):
    """The challenge is not the secret, and neither is one of ours."""
    link = Link(setting)
    image, packet = leave_and_return(link)
    link.learn()
    wrong = (image["challenge"], link.challenge, image["secret"] ^ 1 << 63,
             image["secret"] ^ 1)
    link.endpoint.post(op="SEND", id=1)
    for echo in wrong:
        link.send(RESUME_ACK, epoch=1, nonce=0x7, echo=echo)
    for echo in (image["secret"], link.challenge, image["challenge"] ^ 1):
        link.send(PAUSE, epoch=1, nonce=0x7, echo=echo)
    link.drain(0.05)
    # It is Resuming as before.
    link.await_(RESUME, nonce=image["secret"], epoch=1, echo=0)
    link.accept(packet)
    link.silence(0.4, RESUME)


@clause("AUTH-2", "A match alone authenticates; the source address of the packet is "
        "*not* part of the check.")
def any_source(setting):
    """PAUSE, PROBE and RESUME from an address it has not heard of"""
    link = Link(setting)
    link.learn()
    link.epoch = 1
    link.send(PAUSE, nonce=link.secret, echo=link.its_challenge,
              source=setting.other)
    link.await_(PROBE, echo=link.secret, flags=F_PAUSED, to=setting.own)
    link.send(RESUME, nonce=link.secret, source=setting.other)
    link.await_(RESUME_ACK, echo=link.secret, to=setting.other)
    link.own = setting.other
    link.runs()
    link.stop()
    link.challenge = 0x1234567890abcdef
    link.introduce(source=setting.own)
    link.drain(0.05)
    link.data(SEND_ONLY, link.mine, payload=b"data")
    link.await_(ACK, syndrome=NAK_STOPPED, msn=0xabcdef)


def told(link, address):
    """Nonces that were sent to this address since the case began"""
    found = []
    for _, data in link.wire.capture:
        packet = Ether(data)
        ip = packet[IP] if IP in packet else packet[IPv6]
        if gid(ip.dst) == gid(address) and MIGETH in packet and \
                packet[MIGETH].src_qpn == link.their_qpn and packet[MIGETH].nonce:
            found.append(describe(packet))
    return found


@clause("AUTH-3", "Secrets and challenges MUST be sent only to: the AV address, the "
        "`forward`")
def strangers(setting):
    """Asked from elsewhere, in every state, with nonces that are wrong"""
    link = Link(setting)

    def ask():
        for opcode in MIGRATION:
            for echo in (0, 0x9):
                link.send(opcode, source=setting.other, epoch=3, nonce=0x5,
                          echo=echo, flags=0, gid=gid(setting.other))
        link.data(SEND_ONLY, link.mine, payload=b"x", source=setting.other)
        link.drain(0.1)
    ask()                   # Running
    link.pause()
    ask()                   # Paused
    link.resume()
    link.stop()
    ask()                   # Stopped
    link.endpoint.leave()
    ask()                   # tombstone
    link.endpoint.restore()
    ask()                   # restored, not live
    link.endpoint.resume()
    link.await_(RESUME)
    ask()                   # Resuming
    check(not told(link, setting.other),
          f"nonces went to a stranger: {told(link, setting.other)[:3]}")


@clause("AUTH-3", "as RESUME_ACK to the source of a RESUME that was accepted.")
def resume_source(setting):
    """and only as that; the old address is told nothing any more"""
    link = Link(setting)
    link.pause()
    link.own = setting.other
    link.resume()
    link.drain(0.1)
    link.wire.begin()
    for opcode in MIGRATION:
        link.send(opcode, source=setting.own, epoch=9, nonce=0x5, echo=0x6)
    link.drain(0.2)
    check(not told(link, setting.own), f"{told(link, setting.own)[:3]}")
