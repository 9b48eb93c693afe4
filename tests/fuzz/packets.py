#!/usr/bin/env python3
"""packets.py SECONDS SEED: mutated packets at a QP in every state.

Runs on the host of the conformance peer, whose words it uses. Two kinds of
rounds take turns:

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

sys.path[:0] = ["/tmp/conformance", "/tmp/conformance/cases"]

from peer import *  # noqa: E402
from states import (paused, resuming, running, stopped,  # noqa: E402
                    tombstone)
from wire import icrc  # noqa: E402

STATES = (running, paused, resuming, stopped, tombstone)
BATCH = 400
MODELS = 30  # scapy takes long for each
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


def data(link):
    """A packet of the data path, near the numbers that are expected"""
    opcode = random.randrange(0x20)
    psn = random.choice((link.mine, link.theirs)) + random.randrange(-3, 4)
    headers = random.choice(((), (link.reth(0, number(16)),),
                             (AETH(syndrome=number(8), msn=number(24)),)))
    return link.packet(opcode, psn, *headers,
                       payload=bytes(random.randrange(2 * link.setting.mtu)))


def spoil(frame):
    """Bytes that flip, are cut off or too many, behind the UDP header."""
    start = 42 if frame[12:14] == b"\x08\x00" else 62
    body = bytearray(frame[start:-4])
    for _ in range(random.choice((0, 0, 1, 4))):
        if body:
            body[random.randrange(len(body))] ^= 1 << random.randrange(8)
    if not random.randrange(8):
        del body[random.randrange(len(body) + 1):]
    elif not random.randrange(8):
        body += bytes(random.randrange(64))
    head = bytearray(frame[:start])
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
    good = random.randrange(5)
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


def batch(setting, state, seen):
    """Packets for one connection; how many"""
    link = state(setting)
    frames = [data(link) if seen and random.randrange(2) else
              migration(link, seen) for _ in range(MODELS)]
    for _ in range(BATCH):
        frame = random.choice(frames)
        link.transmit(spoil(frame) if random.randrange(3) else frame)
    time.sleep(0.1)
    if not seen:
        works(link, state)
    elif state is not tombstone:
        link.endpoint.query()
    return BATCH


def main():
    seconds, seed = int(sys.argv[1]), int(sys.argv[2], 0)
    random.seed(seed)
    setting = Setting(Wire("eth0"), random.choice((4, 6)))
    end, sent, rounds = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        state, seen = STATES[rounds // 2 % len(STATES)], rounds % 2
        setting.wire.begin()
        try:
            sent += batch(setting, state, seen)
        except (Failure, EndpointError, OSError, ValueError) as failure:
            print(f"# {state.__name__}, {'seen' if seen else 'blind'}, round "
                  f"{rounds}: {failure!r}")
            print(f"not ok - {sent} packets, seed {seed}", flush=True)
            os._exit(1)
        finally:
            setting.close()
        rounds += 1
    print(f"ok - {sent} packets in {rounds} rounds, IPv{setting.family}, "
          f"seed {seed}", flush=True)
    os._exit(0)


main()
