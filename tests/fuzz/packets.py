#!/usr/bin/env python3
"""packets.py SECONDS SEED STORED: mutated packets at QPs in every state.

Runs on the host of the conformance peer, whose words it uses. It begins with the packets
of the file STORED (corpus/packets). Then a round is about a connection in one of the
states of the protocol. In the same process there are QPs of all types in the states of
the verbs, which get half of the packets. In the end there is a line for each state of
the protocol, with how many packets each QP got; the order of the rounds is by the seed,
but no state is left out. Two kinds of rounds take turns:

  blind  migration packets whose nonces are guessed, as by somebody who does not
         see the connection [SEC-1]: it must go on as if nothing had been sent
  seen   any packets, with the right nonces too: the connection may do what the
         packets say, but the host must stay well, and the QP be destroyed
"""

import os
import random
import struct
import sys
import time
from pathlib import Path

sys.path[:0] = ["/tmp/conformance", "/tmp/conformance/cases"]

from peer import *  # noqa: E402
from states import (LIVE, paused, resuming, running,  # noqa: E402
                    stopped, tombstone)
from wire import icrc  # noqa: E402


def broken(setting, company):
    """In SQE, where no verb of rxe leads to: by images that say so"""
    link = stopped(setting, company=company)
    link.endpoint.leave()
    for one in (link, *link.company):
        one.attributes["state"] = "SQE"
        link.endpoint.edit(qpn=one.their_qpn, state="SQE")
    link.endpoint.restore()
    link.endpoint.resume()
    return link


STATES = (running, paused, resuming, stopped, tombstone, broken)
# As the verbs number them
QP_STATES = ("RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR")
OPCODES = {"RC": 0, "UC": 0x20, "UD": 0x60}  # plus that of RC
QKEY = 0x1234  # of the endpoint
# They take part in the protocol, besides the one in RTS that a round is about.
PARTNERS = [("RC", "RTR"), ("RC", "SQD")]
BATCH = 400
MODELS = {"RC": 24, "UC": 6, "UD": 6}  # scapy takes long for each
NUMBERS = (0, 1, 2, 3, 0x7f, 0x80, 0xff, 0xffff, 0x7fffff, 0x800000, 0xffffff,
           0x7fffffff, 0x80000000, 0xffffffff)


def number(bits):
    value = random.choice((random.choice(NUMBERS), random.getrandbits(bits)))
    return value & (1 << bits) - 1


def migration(link, seen):
    """A migration packet with some fields that are not as they should be"""
    fields = {"nonce": random.getrandbits(64), "echo": random.getrandbits(64),
              "epoch": random.choice((link.epoch, link.epoch + 1, number(32)))}
    if seen:
        right = (link.its_secret, link.its_challenge, link.secret, link.challenge)
        for name in ("nonce", "echo"):
            fields[name] = random.choice((*right, 0, number(64)))
    for name, bits in (("sq_psn", 24), ("rq_psn", 24), ("flags", 8),
                       ("reserved", 16), ("reserved2", 32), ("version", 8),
                       ("src_qpn", 32), ("gid", 128)):
        if not random.randrange(6):
            fields[name] = number(bits)
    bth = {name: number(bits) for name, bits in (
        ("psn", 24), ("pkey", 16), ("padcount", 2), ("ackreq", 1),
        ("solicited", 1), ("version", 4)) if not random.randrange(10)}
    source = random.choice((None, None, link.setting.other))
    opcode = random.choice((*MIGRATION, *MIGRATION, random.randrange(0xc0, 0x100)))
    return link.migration(opcode, source=source, bth=bth, **fields)


def data(link, kind):
    """A packet of the data path, near the numbers that are expected"""
    opcode = random.randrange(0x20)
    psn = random.choice((link.mine, link.theirs)) + random.randrange(-3, 4)
    headers = random.choice(((), (link.reth(0, number(16)),),
                             (AETH(syndrome=number(8), msn=number(24)),)))
    if kind == "UD":
        opcode = random.choice((SEND_ONLY, SEND_ONLY_IMM, opcode))
        headers = (DETH(qkey=random.choice((QKEY, QKEY, number(32))),
                        sqpn=number(24)), *headers)
    return link.packet(OPCODES[kind] + opcode, psn, *headers,
                       payload=bytes(random.randrange(2 * link.setting.mtu)))


def behind_udp(frame):
    return 42 if frame[12:14] == b"\x08\x00" else 62


def aimed(frame, link, one):
    """A packet to this connection as one to another QP of its process, whose numbers
    are others"""
    start = behind_udp(frame)
    body = frame[start:]
    for old, new, size in ((link.qpn, one.qpn, 4),
                           (link.its_challenge, one.its_challenge, 8)):
        body = body.replace(old.to_bytes(size, "big"), new.to_bytes(size, "big"))
    return frame[:start] + body[:5] + one.their_qpn.to_bytes(3, "big") + body[8:]


def spoil(body):
    """Bytes that flip, are cut off or too many."""
    body = bytearray(body)
    for _ in range(random.choice((0, 0, 1, 4))):
        if body:
            body[random.randrange(len(body))] ^= 1 << random.randrange(8)
    if not random.randrange(8):
        del body[random.randrange(len(body) + 1):]
    elif not random.randrange(8):
        body += bytes(random.randrange(64))
    return body


def sealed(head, body, good):
    """A frame with the lengths and checksums of what is behind its UDP header"""
    head, start = bytearray(head), len(head)
    # No checksum, which is good over IPv6 too
    struct.pack_into(">HH", head, start - 4, 8 + len(body) + 4, 0)
    if start == 42:
        struct.pack_into(">H", head, 16, start - 14 + len(body) + 4)
        head[24:26] = bytes(2)
        total = sum(struct.unpack(">10H", head[14:34]))
        total = (total & 0xffff) + (total >> 16)
        struct.pack_into(">H", head, 24, ~(total + (total >> 16)) & 0xffff)
    else:
        struct.pack_into(">H", head, 18, 8 + len(body) + 4)
    packet = bytes(head + body)
    return packet + (icrc(packet + bytes(4)) if good and len(body) >= 12 else
                     random.randbytes(4))


def works(link, state):
    """After blind packets the connection does what it did."""
    if state in (stopped, tombstone):
        if state is stopped:
            link.endpoint.leave()
        link.endpoint.restore()
        link.endpoint.resume()
    if state in (stopped, tombstone, resuming):
        link.accept(link.await_(RESUME))
    if state is paused:
        link.resume()
    link.endpoint.recv(id=9)
    link.data(SEND_ONLY, link.mine, payload=bytes(8))
    link.await_(ACK, psn=link.mine, syndrome=ACKED)
    link.completions(9)
    link.endpoint.post(op="SEND", id=1)
    link.await_(SEND_ONLY, psn=link.theirs, to=link.own)
    link.ack(link.theirs)
    link.completions(1)


def company(state):
    """(type, state) of the QPs beside the one that a round is about"""
    if state is broken:
        return [("UC", "RTS"), ("UD", "RTS")]
    if state in (paused, tombstone):
        # The others know no pause, and nothing is left of them.
        return PARTNERS
    return [(kind, name) for kind in OPCODES for name in QP_STATES
            if name != "SQE" and (kind, name) != ("RC", "RTS")]


def name_of(link):
    return link.attributes.get("type", "RC") + " " + \
        link.attributes.get("state", "RTS")


def names(state):
    """What all QPs of a round are called"""
    if state is broken:
        return [kind + " SQE" for kind in OPCODES]
    return ["RC RTS", *(" ".join(one) for one in company(state))]


def enter(setting, state):
    """A connection in this state, in its company"""
    link = state(setting, company=[{"type": kind, "state": name}
                                   for kind, name in company(state)])
    for one in link.company:
        if state in LIVE and tuple(name_of(one).split()) in PARTNERS:
            (one.pause if state is paused else one.learn)()
    return link


def occupy(link):
    """Let requests wait for answers, and receives for messages."""
    link.endpoint.post(op=random.choice(("SEND", "READ", "FAA", "WRITE")), count=4)
    for one in (link, *link.company):
        if one.attributes.get("state") not in ("RESET", "ERR"):
            link.endpoint.recv(qp=one.index, count=8)


def unchanged(link):
    """They are in the states that they were brought into."""
    for one in (link, *link.company):
        found = QP_STATES[link.endpoint.query(qp=one.index)["qp_state"]]
        check(name_of(one).split()[1] == found, f"{name_of(one)} went to {found}")


def batch(setting, state, seen, counts):
    """Packets for one connection and its company"""
    link = enter(setting, state)
    if seen and state in LIVE:
        occupy(link)
    frames = {kind: [data(link, kind) if seen and random.randrange(2) else
                     migration(link, seen) for _ in range(MODELS[kind])]
              for kind in OPCODES}
    for _ in range(BATCH):
        one = link if random.randrange(2) else random.choice(link.company)
        frame = random.choice(frames[name_of(one).split()[0]])
        frame = aimed(frame, link, one)[:-4]
        start, spoilt = behind_udp(frame), random.randrange(3)
        body = spoil(frame[start:]) if spoilt else frame[start:]
        link.transmit(sealed(frame[:start], body, not spoilt or random.randrange(5)))
        counts[state.__name__, name_of(one)] += 1
    time.sleep(0.1)
    if not seen:
        if state is not broken:
            works(link, state)
        unchanged(link)
    elif state is not tombstone:
        for one in (link, *link.company):
            link.endpoint.query(qp=one.index)


def replay(setting, words):
    """A stored input: a connection in this state gets these packets."""
    state, *packets = words
    link = {each.__name__: each for each in STATES}[state](setting, company=())
    numbers = {"qpn": link.their_qpn, "psn": link.mine, "ack": link.theirs,
               "va": link.memory["va"], "key": link.memory["rkey"],
               "source": link.qpn, "epoch": link.epoch + 1,
               "secret": link.its_secret, "challenge": link.its_challenge}
    frame = link.migration(PAUSE)
    for text in packets:
        link.transmit(sealed(frame[:behind_udp(frame)],
                             bytes.fromhex(text.format(**numbers)), True))
    time.sleep(0.1)
    if state != "tombstone":
        link.endpoint.query()


def replay_all(setting, path):
    lines = [line.partition("#")[0].split()
             for line in path.read_text(encoding="ascii").splitlines()]
    inputs = [(number, words) for number, words in enumerate(lines, 1) if words]
    for number, words in inputs:
        setting.wire.begin()
        try:
            replay(setting, words)
        except (Failure, EndpointError, OSError, KeyError, ValueError) as failure:
            print(f"not ok - {path}:{number}: {failure!r}", flush=True)
            os._exit(1)
        finally:
            setting.close()
    print(f"# {len(inputs)} stored inputs", flush=True)


def main():
    seconds, seed = int(sys.argv[1]), int(sys.argv[2], 0)
    random.seed(seed)
    setting = Setting(Wire("eth0"), random.choice((4, 6)))
    replay_all(setting, Path(sys.argv[3]))
    counts = {(state.__name__, name): 0 for state in STATES
              for name in names(state)}
    end, rounds, order = time.monotonic() + seconds, 0, []
    while time.monotonic() < end or rounds < len(STATES):
        order = order or random.sample(STATES, len(STATES))
        state = order.pop()
        seen = (STATES.index(state) + rounds // len(STATES)) % 2
        setting.wire.begin()
        try:
            batch(setting, state, seen, counts)
        except (Failure, EndpointError, OSError, ValueError) as failure:
            print(f"# {state.__name__}, {'seen' if seen else 'blind'}, round "
                  f"{rounds}: {failure!r}")
            print(f"not ok - {sum(counts.values())} packets, seed {seed}", flush=True)
            os._exit(1)
        finally:
            setting.close()
        rounds += 1
    for state in STATES:
        print(f"# {state.__name__}: " + ", ".join(
            f"{name} {counts[state.__name__, name]}" for name in names(state)))
    missed = [" ".join(key) for key, count in counts.items() if not count]
    print(f"{'not ' if missed else ''}ok - {sum(counts.values())} packets in "
          f"{rounds} rounds, IPv{setting.family}, seed {seed}"
          + (f", none to {', '.join(missed)}" if missed else ""), flush=True)
    os._exit(bool(missed))


main()
