"""Section 4: which packets are for us, and where answers go."""

import time

from clauses import clause
from pause import nak, sent
from peer import *


def rebuilt(link, bth, eth):
    """A frame of this BTH and these bytes; length and ICRC are right."""
    return link.frame(BTH(dqpn=link.their_qpn, psn=link.mine, **bth) / eth)


def damaged(frame, at):
    """A bit is wrong, and so is the ICRC."""
    data = bytearray(frame)
    data[at] ^= 0x10
    return bytes(data)


def violations(link, opcode, **fields):
    """Packets that are right but for one condition: (what is wrong, frame)"""
    def right(**more):
        return link.migration(opcode, **{**fields, **more})
    values = {"src_qpn": link.qpn, "epoch": link.epoch, "sq_psn": link.mine,
              "rq_psn": link.theirs, "gid": gid(link.own), **fields}
    eth = bytes(MIGETH(**values))
    bth = {"opcode": opcode}
    yield "4 bytes too long", rebuilt(link, bth, eth + bytes(4))
    yield "a block too long", rebuilt(link, bth, eth + bytes(64))
    yield "4 bytes too short", rebuilt(link, bth, eth[:-4])
    yield "a byte too short", rebuilt(link, bth, eth[:-1])
    yield "nothing behind the BTH", rebuilt(link, bth, b"")
    yield "ICRC", damaged(right(), -1)
    yield "ICRC", damaged(right(), -4)
    yield "ICRC, a changed gid", damaged(right(), -5)
    yield "ICRC, a changed BTH", damaged(right(), -4 - 56 - 1)
    for version in (0, 2, 0x81, 0xff):
        yield f"version {version}", right(version=version)
    for name, value in (("version", 1), ("version", 15), ("padcount", 1), ("padcount", 3)):
        yield f"BTH {name} {value}", right(bth={name: value})
    for pkey in (0x1234, 0x8000, 0, 0xfffe):
        yield f"P_Key {pkey:#x}", right(bth={"pkey": pkey})
    number = values["src_qpn"]
    for qpn in {0, 1, number + 1, number | 1 << 24, number << 8, link.qpn,
                link.their_qpn} - {number}:
        yield f"src_qpn {qpn:#x}", right(src_qpn=qpn)
    for qpn in (0, 1, 0xfffffe, 0xffffff):
        yield f"DestQP {qpn:#x}", right(bth={"dqpn": qpn})


def answered(link, seconds):
    """The next packet of its QP, whoever it is for. QPs of the case before, whose
    process is gone, may still speak."""
    while (packet := link.receive(seconds, mine=False)) is not None:
        if MIGETH not in packet or packet[MIGETH].src_qpn == link.their_qpn:
            return packet
    return None


def unheard(link, opcode, **fields):
    """No such violation has an answer, whoever it would go to."""
    for what, frame in violations(link, opcode, **fields):
        link.transmit(frame)
        packet = answered(link, 0.03)
        while packet is not None and packet[BTH].opcode in (PAUSE, RESUME) and \
                packet[MIGETH].echo != fields["nonce"]:
            packet = answered(link, 0.03)  # of a timer
        check(packet is None, f"{NAMES[opcode]}, {what}: {describe(packet)} came")


@clause("ACC-1", "A migration packet MUST be dropped unless all of: length is "
        "exactly BTH + MIGETH + ICRC; ICRC correct; `version` = 1; BTH.TVer and BTH.PadCnt "
        "are 0;")
def probe_dropped(setting):
    link = Link(setting)
    unheard(link, PROBE, nonce=0x5)
    link.send(PROBE, nonce=0x5)
    link.expect(RUNNING, echo=0x5)


@clause("ACC-1", "A migration packet MUST be dropped unless all of: length is "
        "exactly BTH + MIGETH + ICRC; ICRC correct; `version` = 1;")
def pause_dropped(setting):
    link = Link(setting)
    link.learn()
    link.epoch = 3
    unheard(link, PAUSE, nonce=0x5, echo=link.its_challenge)
    # It is not Paused, and knows of no epoch.
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    link.epoch = 0
    link.pause()


@clause("ACC-1", "A migration packet MUST be dropped unless all of: length is "
        "exactly BTH + MIGETH + ICRC; ICRC correct; `version` = 1;")
def resume_dropped(setting):
    link = Link(setting)
    link.pause()
    link.drain(0.05)
    link.own = setting.other
    for what, frame in violations(link, RESUME, nonce=link.secret):
        link.transmit(frame)
    link.endpoint.post(op="SEND", id=1)
    link.silence(0.3, RESUME_ACK, SEND_ONLY)
    link.silence(0.1, *MIGRATION, to=setting.other)
    link.resume()
    link.expect(SEND_ONLY, psn=link.theirs, to=setting.other, skip={RESUME_ACK})


@clause("ACC-1", "A migration packet MUST be dropped unless all of: length is "
        "exactly BTH + MIGETH + ICRC; ICRC correct; `version` = 1;")
def resume_ack_dropped(setting):
    link = Link(setting)
    # One that is not known to be capable is not waited for [RESUME-2].
    link.pause()
    link.resume()
    link.stop()
    packet = link.back()
    for _, frame in violations(link, RESUME_ACK, nonce=0x5, echo=link.its_secret):
        link.transmit(frame)
    link.endpoint.post(op="SEND", id=1)
    link.silence(0.3, SEND_ONLY)
    link.await_(RESUME)
    link.accept(packet)
    link.await_(SEND_ONLY, psn=link.theirs)


@clause("ACC-1", "A migration packet MUST be dropped unless all of: length is "
        "exactly BTH + MIGETH + ICRC; ICRC correct; `version` = 1;")
def running_dropped(setting):
    link = Link(setting)
    link.learn()
    sent(link, 1)
    nak(link, link.theirs)
    link.await_(PROBE, flags=F_PAUSED)
    for _, frame in violations(link, RUNNING, echo=link.its_challenge):
        link.transmit(frame)
    link.silence(0.3, SEND_ONLY)
    link.send(RUNNING, echo=link.its_challenge)
    link.await_(SEND_ONLY, psn=link.theirs)


@clause("ACC-1", "A migration packet MUST be dropped unless all of: length is "
        "exactly BTH + MIGETH + ICRC; ICRC correct; `version` = 1;")
def moved_dropped(setting):
    link = Link(setting)
    fields = {"epoch": 1, "echo": link.learn(), "gid": gid(setting.other)}
    link.drain(0.05)
    for what, frame in violations(link, MOVED, **fields):
        link.transmit(frame)
        packet = answered(link, 0.02)
        check(packet is None, f"MOVED, {what}: {describe(packet)} came")
    link.silence(0.2)
    link.send(MOVED, **fields)
    link.await_(PROBE, to=setting.other)


@clause("ACC-1", "A migration packet MUST be dropped unless all of: length is "
        "exactly BTH + MIGETH + ICRC; ICRC correct; `version` = 1;")
def stopped_dropped(setting):
    """NAK_STOPPED has the form of an acknowledgement, and its checks."""
    link = Link(setting)
    token = AETH(syndrome=NAK_STOPPED, msn=link.learn() & WIRE["TOKEN_MASK"])
    sent(link, 1)
    link.drain(0.05)

    def frame(aeth=token, **bth):
        return link.packet(ACK, link.theirs, aeth, ack=False, **bth)
    for at in (-1, -4, -5, -4 - 4 - 1):
        link.transmit(damaged(frame(), at))
    for pkey in (0x1234, 0x8000, 0):
        link.transmit(frame(pkey=pkey))
    for qpn in (0, 1, 0xfffffe, link.qpn):
        link.transmit(frame(dqpn=qpn))
    link.transmit(link.frame(BTH(opcode=ACK, dqpn=link.their_qpn, psn=link.theirs)))
    link.transmit(link.frame(BTH(opcode=ACK, dqpn=link.their_qpn, psn=link.theirs) /
                             bytes(token)[:3]))
    link.transmit(link.packet(ACK, link.theirs, token, ack=False, source=setting.other))
    link.silence(0.2)
    link.endpoint.post(op="SEND", id=2)
    link.expect(SEND_ONLY, psn=(link.theirs + 1) & 0xffffff)
    link.transmit(frame())
    link.await_(PROBE, flags=F_PAUSED)


@clause("ACC-1", "or a tombstone (TOMB-2);")
def tombstone_dropped(setting):
    link = Link(setting)
    link.stop()
    link.endpoint.leave()
    link.drain(0.1)
    unheard(link, PROBE, nonce=0x5)
    link.send(PROBE, nonce=0x5)
    link.expect(PAUSE, echo=0x5)


@clause("ACC-1", "(with F_SELF: equals DestQP)")
def self_dropped(setting):
    """F_SELF with the partner's number, or another's, sets no self_forward"""
    link = Link(setting)
    link.stop()
    for qpn in (link.qpn, link.their_qpn + 1, 0, 1, link.their_qpn | 1 << 24):
        link.send(RESUME, source=setting.other, nonce=link.its_secret, epoch=1,
                  flags=F_SELF, src_qpn=qpn)
    link.drain(0.05)
    link.send(PROBE, nonce=0x5)
    link.await_(PAUSE, echo=0x5)
    link.send(RESUME, source=setting.other, nonce=link.its_secret, epoch=1,
              flags=F_SELF, src_qpn=link.their_qpn)
    link.send(PROBE, nonce=0x6)
    link.await_(MOVED, echo=0x6)


@clause("ACC-1", "(with F_SELF: equals DestQP)")
@clause("ACC-1", "A migration packet MUST be dropped unless all of: length is "
        "exactly BTH + MIGETH + ICRC; ICRC correct; `version` = 1;")
def self_malformed(setting):
    link = Link(setting)
    for gone in (False, True):
        if gone:
            link.endpoint.leave()
        else:
            link.stop()
        link.own = setting.other
        fields = {"flags": F_SELF, "src_qpn": link.their_qpn, "epoch": 1,
                  "nonce": link.its_secret}
        for _, frame in violations(link, RESUME, **fields):
            link.transmit(frame)
        link.own = setting.own
        link.drain(0.05)
        link.send(PROBE, nonce=0x5)
        link.await_(PAUSE, echo=0x5)
    link.send(RESUME, source=setting.other, **fields)
    link.send(PROBE, nonce=0x6)
    link.await_(MOVED, echo=0x6, gid=gid(setting.other))


@clause("ACC-1", "both are above 1.")
def low_numbers(setting):
    """QPs 0 and 1 are not connected to, though a QP may name them."""
    for qpn in (0, 1):
        link = Link(setting, dest=qpn)
        link.qpn = qpn
        link.send(PROBE, nonce=0x5)
        packet = link.receive(0.2)
        check(packet is None, f"src_qpn {qpn}: {describe(packet)} came")


@clause("ACC-1", "the DestQP is an RC QP in RTR, RTS or SQD")
def types_and_states(setting):
    link = Link(setting)
    for state in ("RTR", "RTS", "SQD"):
        other = link.another(state=state)
        other.send(PROBE, nonce=0x5)
        other.expect(RUNNING, echo=0x5)
    for words in ({"state": "RESET"}, {"state": "INIT"}, {"state": "ERR"},
                  {"type": "UC"}, {"type": "UD"}):
        other = link.another(**words)
        for qpn in (other.qpn, 0):
            for opcode in MIGRATION:
                other.send(opcode, nonce=0x5, echo=0x6, epoch=3, src_qpn=qpn)
        nak(other, other.theirs, token=0x6)
        packet = answered(other, 0.15)
        check(packet is None, f"{words}: {describe(packet)} came")
    # It knew its partner once.
    challenge = link.learn()
    link.endpoint.modify(state="ERR")
    for opcode in MIGRATION:
        link.send(opcode, nonce=0x5, echo=challenge, epoch=3)
    nak(link, link.theirs)
    link.silence(0.15)


@clause("ACC-1", "destination address is a GID of the port;")
def not_a_gid(setting):
    """An address of its host, but of another interface"""
    link = Link(setting)
    four = setting.family == 4
    address = "10.78.0.1" if four else "fd78::1"
    word = f"{address}/{32 if four else 128} dev lo"
    link.endpoint.shell(f"ip address add {word}")
    try:
        time.sleep(0.1)
        link.learn()
        link.send(PROBE, to=address, nonce=0x5)
        link.send(PAUSE, to=address, nonce=0x5, epoch=1, echo=link.its_challenge)
        link.silence(0.2)
    finally:
        link.endpoint.shell(f"ip address del {word}")
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)


@clause("ACC-1", "destination address is a GID of the port;")
@clause("ACC-1", "P_Key matches;")
def accepted(setting):
    """Another GID than the QP's, and the P_Key of a limited member"""
    link = Link(setting)
    link.send(PROBE, nonce=0x4, bth={"pkey": 0x7fff})
    link.expect(RUNNING, echo=0x4)
    four = setting.family == 4
    address = "10.77.0.202" if four else "fd77::ca"
    word = f"{address}/{24 if four else 64} dev eth0{'' if four else ' nodad'}"
    link.endpoint.shell(f"ip address add {word}")
    try:
        time.sleep(0.3)
        link.send(PROBE, to=address, nonce=0x5)
        link.expect(RUNNING, echo=0x5)
    finally:
        link.endpoint.shell(f"ip address del {word}")


@clause("ACC-2", "The checks of the data path on the packet's *source* address MUST "
        "NOT be applied to migration packets")
def any_source(setting):
    link = Link(setting)
    link.pause()
    link.send(RESUME, source=setting.other, nonce=link.secret)
    link.await_(RESUME_ACK, to=setting.other)


@clause("ACC-2", "on all other packets they stay.")
def data_path(setting):
    """A request and an acknowledgement of a stranger, also after a migration"""
    link = Link(setting)
    link.endpoint.recv(id=9)
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    stranger = setting.other
    for _ in range(2):
        link.data(SEND_ONLY, link.mine, payload=b"data", source=stranger)
        link.ack(link.theirs, source=stranger)
        link.silence(0.1, ACK)
        check(not link.endpoint.poll(ms=50)["wc"], f"{stranger} was believed")
        # it is at that address now
        link.pause()
        link.own, stranger = stranger, link.own
        link.resume()
    link.drain(0.05)
    link.data(SEND_ONLY, link.mine, payload=b"data")
    link.await_(ACK, psn=link.mine)
    link.ack(link.theirs)
    found = link.endpoint.poll(ms=2000, count=2)["wc"]
    check(sorted(found.split(",")) == ["1:0", "9:0"], f"completions {found}")


# -- rate --

def flood(link, frame, opcode, count=300):
    """At most 4 packets of an opcode go out in 20 ms."""
    link.drain(0.05)
    time.sleep(0.05)
    start = last = time.monotonic()
    for _ in range(count):
        link.transmit(frame)
    came, deadline = 0, time.monotonic() + 0.5
    while (packet := link.receive(deadline - time.monotonic())) is not None:
        if packet[BTH].opcode == opcode:
            came, last = came + 1, link.at
    most = 4 * ((last - start) / 0.020 + 2)
    check(came, f"no {NAMES[opcode]} came")
    check(came <= most, f"{count} packets caused {came} {NAMES[opcode]} in "
          f"{(last - start) * 1000:.0f} ms")


@clause("ACC-3", "A QP or tombstone MUST NOT send more than 4 packets of one "
        "opcode (to one address each) within `RETRY_MIN` (20 ms) of the first of "
        "them.")
@clause("SEC-3", "and are rate limited (ACC-3): no amplification.")
def rate(setting):
    """RUNNING, PROBE and RESUME_ACK of a Running QP"""
    link = Link(setting)
    flood(link, link.migration(PROBE, nonce=0x5), RUNNING)
    flood(link, link.migration(PAUSE, epoch=2, nonce=0x5, echo=0x6), PROBE)
    flood(link, link.migration(RESUME, epoch=2, nonce=0x5, echo=0x6), PROBE)
    link.pause()
    link.resume()
    flood(link, link.migration(RESUME, nonce=link.secret), RESUME_ACK)


@clause("ACC-3", "A QP or tombstone MUST NOT send more than 4 packets of one "
        "opcode (to one address each) within `RETRY_MIN` (20 ms) of the first of "
        "them.")
def rate_stopped(setting):
    link = Link(setting)
    link.stop()
    flood(link, link.migration(PROBE, nonce=0x5), PAUSE)
    flood(link, link.migration(RESUME, nonce=0x5, epoch=1), PAUSE)
    link.back()
    flood(link, link.migration(PROBE, nonce=0x5), RESUME)


@clause("ACC-3", "A QP or tombstone MUST NOT send more than 4 packets of one "
        "opcode (to one address each) within `RETRY_MIN` (20 ms) of the first of "
        "them.")
def rate_moved(setting):
    link = Link(setting)
    link.stop()
    forwarded(link)
    flood(link, link.migration(PROBE, nonce=0x5), MOVED)


@clause("ACC-3", "A QP or tombstone MUST NOT send more than 4 packets of one "
        "opcode")
def rate_tombstone(setting):
    link = Link(setting)
    link.stop()
    link.endpoint.leave()
    flood(link, link.migration(PROBE, nonce=0x5), PAUSE)
    forwarded(link)
    flood(link, link.migration(PROBE, nonce=0x5), MOVED)


@clause("ACC-3", "What exceeds that is not sent.")
def not_later(setting):
    """A queue of 300 that goes out 4 at a time would be empty after 1.5 s."""
    link = Link(setting)
    frame = link.migration(PROBE, nonce=0x5)
    for _ in range(300):
        link.transmit(frame)
    time.sleep(0.5)
    link.drain(0)
    link.silence(0.5, RUNNING)
    link.send(PROBE, nonce=0x6)
    link.expect(RUNNING, echo=0x6)


@clause("ACC-3", "a handshake is not slowed")
def handshake(setting):
    """Two QPs have a rate each; a handshake of different opcodes is not slowed."""
    link = Link(setting)
    others = [link, *(link.another() for _ in range(9))]
    for other in others:
        other.send(PROBE, nonce=other.qpn)
    # What a rate forbids is not sent later.
    came = set()
    while len(came) < 10:
        packet = link.receive(2, mine=False)
        if packet is None:
            break
        if packet[BTH].opcode == RUNNING:
            came.add(packet[MIGETH].echo)
    check(len(came) == 10, f"{len(came)} of 10 QPs answered")


# -- where answers go --

def forwarded(link):
    """The Stopped QP learns that it lives elsewhere."""
    link.send(RESUME, source=link.setting.other, nonce=link.its_secret,
              flags=F_SELF, src_qpn=link.their_qpn, epoch=1)
    time.sleep(0.05)


def answers(link, seconds=0.25, **fields):
    """Where migration packets like this went: [(opcode, address)]"""
    found, deadline = [], time.monotonic() + seconds
    while (packet := link.receive(deadline - time.monotonic())) is not None:
        ip = packet[IP] if IP in packet else packet[IPv6]
        if MIGETH in packet and all(packet[MIGETH].getfieldval(name) == value
                                    for name, value in fields.items()):
            found.append((NAMES[packet[BTH].opcode], ip.dst))
    return found


def went(link, wanted, what, but=None, **fields):
    """but: an opcode that may be among them"""
    found = [each for each in answers(link, **fields) if each[0] != NAMES.get(but)]
    wanted = [(NAMES[opcode], address) for opcode, address in wanted]
    check(sorted(found) == sorted(wanted), f"{what}: {found or 'nothing'} came, "
          f"not {wanted or 'nothing'}")


@clause("ACC-4", "PAUSE, RESUME and RUNNING that answer a PROBE go to its source, "
        "and only if that is the AV (PAUSE and RESUME: or the forward); otherwise "
        "the PROBE is not answered.")
def to_probe(setting):
    link = Link(setting)

    def ask(opcode, what):
        for source, wanted in ((link.own, [(opcode, link.own)]),
                               (setting.other, [])):
            link.send(PROBE, source=source, nonce=0x55)
            went(link, wanted, f"{what}, PROBE from {source}", echo=0x55)
    ask(RUNNING, "Running")
    link.stop()
    ask(PAUSE, "Stopped")
    link.endpoint.leave()
    ask(PAUSE, "tombstone")
    link.endpoint.restore()
    link.endpoint.resume()
    link.await_(RESUME)
    ask(RESUME, "Resuming")


@clause("ACC-4", "and only if that is the AV (PAUSE and RESUME: or the forward)")
@clause("ACC-4", "Packets sent by a timer go to AV and forward.")
def to_forward(setting):
    """A Resuming QP that was told of a forward"""
    link = Link(setting)
    link.stop()
    link.back()
    link.send(MOVED, epoch=1, echo=link.its_secret, gid=gid(setting.other))
    link.await_(RESUME, to=setting.other)
    for address in (setting.other, link.own):
        link.await_(RESUME, to=address, seconds=3)
    link.drain(0.02)
    for source in (link.own, setting.other):
        link.send(PROBE, source=source, nonce=0x55)
        went(link, [(RESUME, source)], f"PROBE from {source}", echo=0x55)
    # a third
    link.send(PROBE, source=setting.nowhere, nonce=0x56)
    went(link, [], "PROBE from a stranger", echo=0x56)


@clause("ACC-4", "A PROBE caused by a PAUSE or RESUME goes to its source if that is "
        "the AV or the forward, else to AV and forward.")
def probe_without_forward(setting):
    link = Link(setting)
    for nonce, source in enumerate((link.own, setting.other), 0x60):
        for opcode in (PAUSE, RESUME):
            link.send(opcode, source=source, epoch=1, nonce=nonce, echo=0x9)
            went(link, [(PROBE, link.own)], f"{NAMES[opcode]} from {source}",
                 echo=nonce)


@clause("ACC-4", "A PROBE caused by a PAUSE or RESUME goes to its source if that is "
        "the AV or the forward, else to AV and forward.")
def probe_with_forward(setting):
    link = Link(setting)
    link.learn()
    link.send(MOVED, epoch=1, echo=link.its_challenge, gid=gid(setting.other))
    link.await_(PROBE, to=setting.other)
    link.drain(0.05)
    cases = ((link.own, [link.own]), (setting.other, [setting.other]),
             (setting.nowhere, [link.own, setting.other]))
    for nonce, (source, wanted) in enumerate(cases, 0x60):
        for opcode in (PAUSE, RESUME):
            link.send(opcode, source=source, epoch=1, nonce=nonce, echo=0x9)
            went(link, [(PROBE, address) for address in wanted],
                 f"{NAMES[opcode]} from {source}", echo=nonce)


@clause("ACC-4", "RESUME_ACK and MOVED go to the source.")
def to_source(setting):
    link = Link(setting)
    link.pause()
    link.drain(0.05)
    link.send(RESUME, source=setting.other, nonce=link.secret)
    # A Paused QP asks for itself, too.
    went(link, [(RESUME_ACK, setting.other)], "RESUME", but=PROBE, echo=link.secret)
    link.own = setting.other
    link.send(RESUME, nonce=link.secret)
    went(link, [(RESUME_ACK, setting.other)], "the same again", echo=link.secret)
    link.stop()
    forwarded(link)
    for source in (setting.own, setting.other):
        link.send(PROBE, source=source, nonce=0x55)
        went(link, [(MOVED, source)], f"PROBE from {source}", echo=0x55)
