"""Section 2: what the packets look like."""

import struct
import time
import zlib

from clauses import clause
from peer import *

FIELDS = ("version", "flags", "reserved", "src_qpn", "epoch", "sq_psn",
          "rq_psn", "reserved2", "nonce", "echo")


def icrc(data):
    """That of a frame, without the help of scapy [IBTA A17.3.3.4]."""
    data = bytearray(data[14:])
    if data[0] >> 4 == 4:
        head = 20
        data[1] = data[8] = 0xff
        data[10:12] = b"\xff\xff"
    else:
        head = 40
        data[0] |= 0x0f
        data[1:4] = b"\xff\xff\xff"
        data[7] = 0xff
    data[head + 6:head + 8] = b"\xff\xff"
    data[head + 8 + 4] = 0xff
    return zlib.crc32(b"\xff" * 8 + data[:-4]).to_bytes(4, "little")


def raw(packet):
    """(BTH, what is between BTH and ICRC), checked: lengths, ports and ICRC."""
    data = bytes(packet.original)
    if data[12:14] == b"\x08\x00":
        head, length = 34, struct.unpack(">H", data[16:18])[0] - 20
    else:
        head, length = 54, struct.unpack(">H", data[18:20])[0]
    data = data[:head + length]
    check(struct.unpack(">HH", data[head + 2:head + 6]) == (PORT, length),
          f"{describe(packet)}: port or length of UDP is wrong")
    check(icrc(data) == data[-4:], f"{describe(packet)}: the ICRC is wrong")
    return data[head + 8:head + 20], data[head + 20:-4]


def layout(link, packet, opcode, qpn=None, **wanted):
    """Every byte of a migration packet, of which these fields are wanted"""
    bth, eth = raw(packet)
    check(bth[:4] == bytes([opcode, bth[1] & 0x40]) + b"\xff\xff",
          f"{describe(packet)}: the BTH begins with {bth[:4].hex()}")
    check(int.from_bytes(bth[4:8], "big") & 0xffffff == (qpn or link.qpn) and
          bth[8] & 0x80 == 0, f"{describe(packet)}: DestQP or AckReq is wrong")
    check(len(eth) == 56, f"{describe(packet)} has {len(eth)} bytes of MIGETH")
    got = dict(zip(FIELDS, struct.unpack(">BBHIIIIIQQ", eth[:40])))
    got["gid"] = int.from_bytes(eth[40:], "big")
    wanted = {"version": 1, "flags": 0, "reserved": 0, "reserved2": 0,
              "src_qpn": link.their_qpn, "gid": gid(link.their), **wanted}
    for name, value in wanted.items():
        check(got[name] == value, f"{describe(packet)}: {name} is "
              f"{got[name]:#x}, not {value:#x}")
    return got


def below(packet):
    """Traffic class, hop limit and UDP source port"""
    data = bytes(packet.original)
    if data[12:14] == b"\x08\x00":
        return data[15], data[22], data[34:36]
    return int.from_bytes(data[14:16], "big") >> 4 & 0xff, data[21], data[54:56]


@clause("WIRE-1", "Traffic class, hop limit and UDP source port are those of the QP's data "
        "packets.")
def as_data(setting):
    """Of the QP, of what is left of it, and of what is restored from it"""
    link = Link(setting, tclass=0x48)
    link.endpoint.post(op="SEND", id=1)
    wanted = below(link.expect(SEND_ONLY, psn=link.theirs))
    check(wanted[0] == 0x48, f"data packets have {wanted}")

    def same(packet):
        check(below(packet) == wanted, f"{describe(packet)} has {below(packet)}, data "
              f"packets {wanted}")

    link.send(PROBE, nonce=0x5)
    same(link.await_(RUNNING, echo=0x5))
    link.stop()
    same(link.await_(PAUSE))
    link.endpoint.leave()
    link.drain()
    link.send(PROBE, nonce=0x6)
    same(link.await_(PAUSE, echo=0x6))
    link.endpoint.restore()
    link.endpoint.resume()
    packet = link.await_(RESUME)
    same(packet)
    link.accept(packet)
    same(link.await_(SEND_ONLY, psn=link.theirs))


def moved(link, source=None):
    """It learns from itself that it lives there."""
    link.send(RESUME, source=source or link.setting.other, nonce=link.its_secret,
              flags=F_SELF, src_qpn=link.their_qpn, epoch=1)
    time.sleep(0.05)


@clause("WIRE-3", "ICRC is computed as for any RoCE v2 packet, over 56 bytes of MIGETH.")
@clause("WIRE-3", "`version` is 1.")
@clause("WIRE-3", "All fields are big-endian.")
@clause("WIRE-1", "The packets carry no payload and have BTH.PadCnt = 0, SE = 0, "
        "AckReq = 0, TVer = 0, BTH.DestQP = the receiver's QPN, P_Key = that of "
        "the sender's QP")
def running_sends(setting):
    """PROBE, RUNNING and RESUME_ACK of a Running QP"""
    link = Link(setting)
    numbers = {"sq_psn": link.theirs, "rq_psn": link.mine}
    link.learn()
    link.send(PROBE, nonce=0x1122334455667788)
    layout(link, link.expect(RUNNING, to=link.own), RUNNING, nonce=link.its_challenge,
           epoch=0, echo=0x1122334455667788, **numbers)
    link.send(PAUSE, epoch=1, nonce=0xa1b2c3d4e5f60718, echo=0x1)
    packet = link.expect(PROBE, to=link.own)
    layout(link, packet, PROBE, nonce=link.its_challenge,
           echo=0xa1b2c3d4e5f60718, epoch=0, **numbers)
    link.epoch = 0x01020304
    link.secret = 0x8877665544332211
    link.send(RESUME, nonce=link.secret, echo=link.its_challenge)
    packet = link.expect(RESUME_ACK, to=link.own)
    got = layout(link, packet, RESUME_ACK, echo=link.secret, epoch=link.epoch,
                 **numbers)
    check(got["nonce"] not in (0, link.its_challenge), "challenge not renewed")


@clause("WIRE-3", "F_PAUSED (0x01) in a PROBE says that the sender holds its "
        "requester")
def paused_sends(setting):
    link = Link(setting)
    packet = link.pause()
    layout(link, packet, PROBE, flags=1, nonce=link.its_challenge,
           echo=link.secret, epoch=0)
    # one that a timer sends
    link.drain(0.02)
    layout(link, link.expect(PROBE, to=link.own), PROBE, flags=1, epoch=0,
           nonce=link.its_challenge, echo=link.secret)
    link.resume()
    link.drain(0.05)
    link.send(PAUSE, epoch=link.epoch + 1, nonce=5, echo=5)
    layout(link, link.expect(PROBE), PROBE, flags=0, echo=5,
           nonce=link.its_challenge)


@clause("WIRE-3", "`sq_psn` is the first unacknowledged PSN of the sender's send "
        "queue and `rq_psn` the next PSN it expects, at the moment of sending")
@clause("WIRE-3", "An IPv4 address is written into `gid` as `::ffff:a.b.c.d`, as RoCE v2 "
        "GIDs are.")
@clause("WIRE-1", "PSN = `sq_psn` (informative).")
def stopped_sends(setting):
    """PAUSE and MOVED of a Stopped QP and of its tombstone; BTH.PSN = sq_psn"""
    link = Link(setting)
    link.endpoint.recv(count=2)
    link.endpoint.post(op="SEND", id=1, count=2)
    link.expect(SEND_ONLY)
    link.expect(SEND_ONLY)
    link.ack(link.theirs)
    link.completions(1)
    for number in (0, 1):
        link.data(SEND_ONLY, link.mine + number, payload=b"data")
    link.await_(ACK, psn=(link.mine + 1) & 0xffffff)
    numbers = {"sq_psn": (link.theirs + 1) & 0xffffff, "epoch": 1,
               "rq_psn": (link.mine + 2) & 0xffffff}
    link.stop()
    packet = link.await_(PAUSE, to=link.own)
    layout(link, packet, PAUSE, nonce=link.its_secret, echo=0, **numbers)
    check(packet[BTH].psn == numbers["sq_psn"], "BTH.PSN is not sq_psn")
    for gone in (False, True):
        if gone:
            link.endpoint.leave()
        link.drain(0.05)
        link.send(PROBE, nonce=0x77)
        layout(link, link.await_(PAUSE, echo=0x77, to=link.own), PAUSE,
               flags=F_TOMBSTONE if gone else 0, nonce=link.its_secret, **numbers)
    link.introduce()
    link.drain(0.05)
    link.send(RESUME, nonce=0x99)
    layout(link, link.expect(PAUSE, to=link.own), PAUSE, flags=F_TOMBSTONE,
           nonce=link.its_secret, echo=link.challenge, **numbers)


@clause("WIRE-3", "| MOVED | 0 | nonce of the PROBE or RESUME answered | own | forward "
        "address | source of that packet |")
@clause("WIRE-3", "F_TOMBSTONE (0x02) in a PAUSE that the QP itself is gone")
def moved_of_stopped(setting):
    moved_sends(setting, False)


@clause("WIRE-3", "F_TOMBSTONE (0x02) in a PAUSE that the QP itself is gone")
def moved_of_tombstone(setting):
    moved_sends(setting, True)


def moved_sends(setting, gone):
    """MOVED has the forward address and no nonce of the QP, and goes to whom
    asks."""
    link = Link(setting)
    link.stop()
    if gone:
        link.endpoint.leave()
    link.introduce()
    moved(link)
    link.drain(0.05)
    for opcode, source in ((PROBE, link.own), (RESUME, setting.other)):
        link.send(opcode, source=source, nonce=0x1234, echo=0x55)
        packet = link.expect(MOVED, to=source)
        layout(link, packet, MOVED, nonce=0, echo=0x1234, epoch=1,
               gid=gid(setting.other))


def told_of_forward(link, opcode, echo):
    """A MOVED says that we are at our second address, too: it asks or tells there."""
    link.send(MOVED, epoch=link.epoch + 1, echo=echo, gid=gid(link.setting.other))
    return link.await_(opcode, to=link.setting.other)


@clause("WIRE-3", "| PAUSE | own secret | PROBE's nonce when it answers one; else "
        "`peer_challenge`, or 0 | own | own | AV (and forward); an answer: the source |")
def row_of_pause(setting):
    link = Link(setting)
    link.stop()
    layout(link, link.expect(PAUSE, to=link.own), PAUSE, nonce=link.its_secret, echo=0,
           epoch=1)
    link.endpoint.cancel()
    link.accept(link.await_(RESUME))
    told_of_forward(link, PROBE, link.learn())
    link.drain(0.05)
    link.stop()
    wanted = {"nonce": link.its_secret, "epoch": 2}
    for address in (link.own, setting.other):
        layout(link, link.await_(PAUSE, to=address), PAUSE, echo=link.challenge, **wanted)
    for gone in (False, True):
        if gone:
            link.endpoint.leave()
        for source in (link.own, setting.other):
            link.drain(0.05)
            link.send(PROBE, nonce=0x77, source=source)
            layout(link, link.await_(PAUSE, echo=0x77, to=source), PAUSE,
                   flags=F_TOMBSTONE if gone else 0, **wanted)
        link.introduce()


@clause("WIRE-3", "| PROBE | own challenge | nonce of the PAUSE or RESUME that caused it; "
        "else `peer_secret` if the peer is Stopped, else 0 | own | own | AV and forward; an "
        "answer: see ACC-4 |")
def row_of_probe(setting):
    link = Link(setting)
    wanted = {"nonce": link.learn(), "epoch": 0}
    for opcode in (PAUSE, RESUME):
        link.send(opcode, epoch=1, nonce=opcode, echo=0x1)
        layout(link, link.await_(PROBE, echo=opcode, to=link.own), PROBE, **wanted)
    link.endpoint.ask()
    layout(link, link.await_(PROBE, to=link.own), PROBE, echo=0, **wanted)
    layout(link, told_of_forward(link, PROBE, link.its_challenge), PROBE, echo=0, **wanted)
    link.drain(0.05)
    link.endpoint.ask()
    for address in (link.own, setting.other):
        layout(link, link.await_(PROBE, to=address), PROBE, echo=0, **wanted)
    link.pause()
    link.drain(0.02)
    for address in (link.own, setting.other):
        layout(link, link.await_(PROBE, to=address), PROBE, echo=link.secret,
               flags=F_PAUSED, **wanted)


@clause("WIRE-3", "| RESUME | own secret | PROBE's nonce when it answers one; else "
        "`peer_challenge`, or 0 | own | own | AV and forward; an answer: the source |")
def row_of_resume(setting):
    link = Link(setting)
    link.stop()
    packet = link.back()
    layout(link, packet, RESUME, nonce=link.its_secret, echo=0, epoch=1)
    link.compare(packet, link.own, {})
    link.accept(packet)
    link.stop()
    link.back()
    wanted = {"nonce": link.its_secret, "epoch": 2}
    layout(link, told_of_forward(link, RESUME, link.its_secret), RESUME,
           echo=link.challenge, **wanted)
    for address in (link.own, setting.other):
        layout(link, link.await_(RESUME, echo=link.challenge, to=address), RESUME, **wanted)
        link.send(PROBE, nonce=0x77, source=address)
        layout(link, link.await_(RESUME, echo=0x77, to=address), RESUME, **wanted)


@clause("WIRE-3", "| RESUME_ACK | own challenge, already renewed | RESUME's nonce | RESUME's "
        "| own | source of the RESUME |")
def row_of_resume_ack(setting):
    link = Link(setting)
    for address in (setting.own, setting.other):
        old = link.learn(address)
        link.epoch += 3
        link.secret += 1
        link.send(RESUME, nonce=link.secret, echo=old, source=setting.other)
        got = layout(link, link.await_(RESUME_ACK, to=setting.other), RESUME_ACK,
                     echo=link.secret, epoch=link.epoch)
        check(got["nonce"] == link.learn(setting.other) != old,
              "not the new challenge")


@clause("WIRE-3", "a repeated RESUME carries current numbers")
def resuming_sends(setting):
    """RESUME: of a timer, and as answer to a PROBE"""
    link = Link(setting)
    link.endpoint.recv()
    # our challenge gets into the image
    link.stop()
    link.endpoint.cancel()
    link.accept(link.await_(RESUME, echo=0))
    link.stop()
    layout(link, link.await_(PAUSE, epoch=2), PAUSE, nonce=link.its_secret,
           echo=link.challenge, epoch=2)
    packet = link.back()
    numbers = {"nonce": link.its_secret, "epoch": 2, "sq_psn": link.theirs}
    layout(link, packet, RESUME, echo=link.challenge, rq_psn=link.mine, **numbers)
    link.send(PROBE, nonce=0x4321)
    layout(link, link.await_(RESUME, echo=0x4321), RESUME, rq_psn=link.mine,
           **numbers)
    link.data(SEND_ONLY, link.mine, payload=b"data")
    link.await_(ACK, psn=link.mine)
    layout(link, link.await_(RESUME, echo=link.challenge,
                             rq_psn=(link.mine + 1) & 0xffffff), RESUME,
           **numbers)


@clause("WIRE-3", "F_SELF (0x04) see TOMB-4.")
def self_sends(setting):
    """RESUME with F_SELF goes to the old address, which is ours now."""
    four = setting.family == 4
    old = "10.77.0.201" if four else "fd77::c9"
    word = f"{old}/{24 if four else 64} dev eth0{'' if four else ' nodad'}"
    before = setting.their
    link = None
    try:
        Endpoint(setting.control).shell(f"ip address add {word}")
        time.sleep(0.3)
        setting.their = old
        link = Link(setting)
        link.stop()
        link.endpoint.leave()
        link.endpoint.restore()
        link.endpoint.shell(f"ip address del {word}")
        link.shell(f"ip address add {word}")
        time.sleep(0.3)
        link.drain(0.02)
        link.endpoint.resume(new_addr=1)
        deadline = time.monotonic() + 3
        while (packet := link.receive(deadline - time.monotonic(),
                                      mine=False)) is not None:
            if packet[BTH].opcode == RESUME and packet[BTH].dqpn == link.their_qpn:
                break
        check(packet is not None, "no RESUME with F_SELF came")
        link.compare(packet, old, {})
        ip = packet[IP] if IP in packet else packet[IPv6]
        layout(link, packet, RESUME, qpn=link.their_qpn, flags=4,
               nonce=link.its_secret, echo=0, epoch=1, gid=gid(ip.src))
        check(gid(ip.src) != gid(old), "it came from the old address")
    finally:
        setting.their = before
        if link:
            link.shell(f"ip address del {word} 2>/dev/null; true")
        Endpoint(setting.control).shell(
            f"ip address del {word} 2>/dev/null; true")


@clause("WIRE-1", "0xe6–0xff are not used; version 1 MUST drop them.")
def unused_opcodes(setting):
    link = Link(setting)
    link.learn()
    for opcode in range(0xe6, 0x100):
        link.transmit(link.frame(
            BTH(opcode=opcode, dqpn=link.their_qpn, psn=link.mine) /
            MIGETH(src_qpn=link.qpn, epoch=1, nonce=0x9, gid=gid(link.own),
                   sq_psn=link.mine, rq_psn=link.theirs,
                   echo=link.its_challenge)))
    link.silence(0.3)
    challenge = link.its_challenge
    check(link.learn() == challenge, "the challenge has changed")
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)


@clause("WIRE-1", "They are not part of the PSN sequence: receiving one MUST NOT "
        "change any PSN, MSN, timer or credit except where section 7 says so.")
def no_psn(setting):
    """Whatever numbers they have"""
    link = Link(setting)
    link.endpoint.recv(id=9, count=2)
    link.data(SEND_ONLY, link.mine, payload=b"data")
    link.expect(ACK, psn=link.mine, msn=1)
    link.completions(9)
    for psn in (0, link.mine + 1, link.mine + 77, 0xffffff):
        for opcode in (*MIGRATION, 0xe6):
            link.send(opcode, epoch=9, nonce=0x9, echo=0x8,
                      bth={"psn": psn & 0xffffff}, sq_psn=psn, rq_psn=psn)
    link.drain(0.1)
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    link.ack(link.theirs)
    link.completions(1)
    link.data(SEND_ONLY, link.mine + 1, payload=b"data")
    link.expect(ACK, psn=(link.mine + 1) & 0xffffff, msn=2, syndrome=ACKED)


@clause("WIRE-1", "receiving one MUST NOT change any PSN, MSN, timer or credit")
def no_timer(setting):
    """A timeout of 67 ms ends although a PROBE comes every 30 ms."""
    link = Link(setting, timeout=14, retry=7)
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    came, end = 0, time.monotonic() + 0.5
    while time.monotonic() < end:
        link.send(PROBE, nonce=0x5)
        packet = link.receive(0.03)
        came += packet is not None and packet[BTH].opcode == SEND_ONLY
    check(came, "PROBEs keep it from sending again")
    link.ack(link.theirs)
    link.completions(1)


@clause("WIRE-3", "Reserved fields are sent as zero and ignored. Unknown flags are "
        "ignored.")
def reserved(setting):
    link = Link(setting)
    odd = {"reserved": 0xffff, "reserved2": 0xffffffff, "flags": 0xf8}
    link.send(PROBE, nonce=0x5, **odd)
    link.expect(RUNNING, echo=0x5)
    link.learn()
    link.epoch = 1
    link.send(PAUSE, nonce=link.secret, echo=link.its_challenge, **odd)
    link.expect(PROBE, echo=link.secret, flags=F_PAUSED)
    link.send(RESUME, nonce=link.secret, **odd)
    link.expect(RESUME_ACK, echo=link.secret)
    link.stop()
    packet = link.back()
    link.endpoint.post(op="SEND", id=1)
    link.accept(packet, **odd)
    link.await_(SEND_ONLY, psn=link.theirs)


@clause("WIRE-2", "Syndrome 0x65 is NAK code 5")
@clause("WIRE-2", "`token` is the low 24 bits of the receiver's challenge "
        "(`MIGROS_TOKEN_MASK`).")
@clause("WIRE-2", "BTH.PSN is the PSN of the request that it answers.")
def nak_stopped(setting):
    link = Link(setting)
    link.challenge = 0xfedcba9876543210
    for gone in (False, True):
        if gone:
            link.endpoint.leave()
        else:
            link.stop()
        link.introduce()
        link.drain(0.05)
        for psn in (link.mine - 1, link.mine):
            link.data(SEND_ONLY, psn, payload=b"data")
            packet = link.expect(ACK, to=link.own, psn=psn & 0xffffff)
            bth, aeth = raw(packet)
            check(aeth == bytes.fromhex("65543210"), f"the AETH is {aeth.hex()}")
            check(bth[:4] == b"\x11" + bytes([bth[1] & 0x40]) + b"\xff\xff",
                  f"the BTH begins with {bth[:4].hex()}")
