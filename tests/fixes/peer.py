#!/usr/bin/env python3
"""peer.py VICTIM OWN CASE: the other end of a QP, made by hand.

Runs on a host without rxe. Sends and receives the packets of one QP (number
0x77) as the case wants them, and controls the driver's end (victim.py) on the
host with address VICTIM. Exit status 0: the driver behaved; 3: it did not.
"""

import json
import socket
import struct
import sys
import time
import zlib

PORT = 4791
PSN, PEER_PSN = 0x1000, 0x5000
MTU = 1024

SEND_FIRST, SEND_MIDDLE, SEND_LAST, SEND_ONLY, WRITE_ONLY, SEND_ONLY_INV = \
    0x00, 0x01, 0x02, 0x04, 0x0a, 0x17
READ_REQUEST, READ_ONLY, READ_FIRST, READ_MIDDLE, READ_LAST = \
    0x0c, 0x10, 0x0d, 0x0e, 0x0f
ACK, ATOMIC_ACK, FETCH_ADD, FLUSH, ATOMIC_WRITE = 0x11, 0x12, 0x14, 0x1c, 0x1d
UC_WRITE_FIRST, UC_SEND_ONLY = 0x26, 0x24
ACKED = 0x1f << 24
NAMES = {value: name for name, value in list(globals().items())
         if name.isupper() and isinstance(value, int) and value < 0x20}
FLUSHED, BAD_RESPONSE = 5, 7  # IBV_WC_WR_FLUSH_ERR, IBV_WC_BAD_RESP_ERR
CSUM_OK, WITH_INV = 4, 8  # IBV_WC_IP_CSUM_OK, IBV_WC_WITH_INV
CREDITS = 8  # max_rd_atomic of the victim's QP


class Misbehaviour(Exception):
    """What the driver under test did wrong."""


def expect(good, text):
    if not good:
        raise Misbehaviour(text)


def icrc(ip, udp, bth, again=b""):
    masked = bytearray(ip)
    masked[1] = masked[8] = masked[10] = masked[11] = 0xff
    packet = bytearray(udp)
    packet[6:8] = b"\xff\xff"
    rest = bytearray(bth)
    rest[4] = 0xff
    return struct.pack("<I", zlib.crc32(b"\xff" * 8 + masked + packet + rest +
                                        again))


class Victim:
    """The driver's end: every method is one of victim.py's."""

    def __init__(self, address):
        end = time.monotonic() + 30
        while True:
            try:
                link = socket.create_connection((address, 4000), 30)
                break
            except ConnectionRefusedError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
        self.link, self.stream = link, link.makefile("rw")

    def patience(self, seconds):
        """How long a call may take before it raises TimeoutError."""
        self.link.settimeout(seconds)

    def __getattr__(self, name):
        def call(**arguments):
            print(json.dumps([name, arguments]), file=self.stream, flush=True)
            good, answer = json.loads(self.stream.readline())
            if not good:
                raise RuntimeError(answer)
            return answer
        return call


class Peer:
    def __init__(self, victim, own):
        self.address, self.own = victim, own
        self.raw = socket.socket(socket.AF_INET, socket.SOCK_RAW,
                                 socket.IPPROTO_RAW)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.udp.bind((own, PORT))
        self.victim = Victim(victim)

    def connect(self, remote=None, **arguments):
        info = self.victim.setup(local=self.address, remote=remote or self.own,
                                 psn=PSN, peer_psn=PEER_PSN, **arguments)
        self.qpn, self.va, self.rkey = (info["qpn"], info["va"], info["rkey"])

    def send(self, opcode, psn, header=b"", payload=b"", ack=True):
        pad = -len(payload) % 4
        bth = struct.pack(">BBHII", opcode, pad << 4, 0xffff, self.qpn,
                          ack << 31 | psn & 0xffffff)
        body = bth + header + payload + bytes(pad)
        udp = struct.pack(">HHHH", 0xc077, PORT, 8 + len(body) + 4, 0)
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp) +
                         len(body) + 4, 1, 0x4000, 64, socket.IPPROTO_UDP, 0,
                         socket.inet_aton(self.own),
                         socket.inet_aton(self.address))
        # rxe takes all of a FLUSH for its payload as well, see docs/limits.md.
        again = body if opcode == FLUSH else b""
        self.raw.sendto(ip + udp + body + icrc(ip, udp, body, again),
                        (self.address, 0))

    def receive(self, seconds=3.0):
        """The next packet: (opcode, psn, what follows the BTH), or Nones."""
        self.udp.settimeout(seconds)
        try:
            data = self.udp.recv(65536)
        except socket.timeout:
            return None, None, b""
        opcode, flags, _, _, psn = struct.unpack(">BBHII", data[:12])
        end = len(data) - 4 - (flags >> 4 & 3)
        return opcode, psn & 0xffffff, data[12:end]

    def wanted(self, opcode, psn, seconds=3.0):
        """The next packet, which must be this one: what follows the BTH."""
        got, number, rest = self.receive(seconds)
        expect((got, number) == (opcode, psn),
               f"expected {NAMES[opcode]} {psn:#x}, got "
               + (f"{NAMES.get(got, got)} {number:#x} {rest[:4].hex()}"
                  if got is not None else "nothing"))
        return rest

    def ack(self, psn):
        self.send(ACK, psn, struct.pack(">I", ACKED), ack=False)

    def not_ready(self, psn):
        """RNR NAK, to wait for 655 ms"""
        self.send(ACK, psn, struct.pack(">I", 0x20 << 24), ack=False)

    def reth(self, offset, length, rkey=None, va=None):
        return struct.pack(">QII", self.va + offset if va is None else va,
                           self.rkey if rkey is None else rkey, length)

    def completions(self, idents, seconds=3.0):
        """The statuses of these requests, all of which must complete."""
        found = {}
        end = time.monotonic() + seconds
        while not set(idents) <= set(found) and time.monotonic() < end:
            found.update(self.victim.poll(seconds=0.2))
        missing = set(idents) - set(found)
        expect(not missing, f"requests {missing} did not complete")
        return [found[ident] for ident in idents]


def ack_completes_atomic(peer):
    """The answers to a SEND and an atomic are both lost.

    The requester sends both again; a responder acknowledges the duplicate
    SEND with the PSN of the last request it has executed: the atomic's.
    """
    peer.connect()
    peer.victim.write(offset=8192, data="ee" * 8)
    peer.victim.post(opcode="SEND", ident=1, length=64)
    peer.victim.post(opcode="ATOMIC_FETCH_AND_ADD", ident=2, offset=8192,
                     length=8)
    peer.wanted(SEND_ONLY, PSN)
    peer.wanted(FETCH_ADD, PSN + 1)
    peer.wanted(SEND_ONLY, PSN)
    peer.wanted(FETCH_ADD, PSN + 1)
    peer.ack(PSN + 1)
    time.sleep(0.1)
    peer.send(ATOMIC_ACK, PSN + 1, struct.pack(">IQ", ACKED,
                                               0x1122334455667788))
    statuses = peer.completions([1, 2])
    expect(statuses == [0, 0], f"completed with {statuses}")
    data = bytes.fromhex(peer.victim.read(offset=8192, length=8))
    expect(data == struct.pack("=Q", 0x1122334455667788),
           f"the atomic has completed, but its buffer holds {data.hex()}")


def ack_completes_read(peer):
    """An ACK with the PSN of a READ is not its answer."""
    peer.connect()
    peer.victim.write(offset=8192, data="ee" * 64)
    peer.victim.post(opcode="RDMA_READ", ident=1, offset=8192, length=64)
    peer.wanted(READ_REQUEST, PSN)
    peer.ack(PSN)
    time.sleep(0.1)
    expect(not peer.victim.poll(seconds=0), "an ACK completed the READ")
    peer.send(READ_ONLY, PSN, struct.pack(">I", ACKED), b"\x55" * 64)
    expect(peer.completions([1]) == [0], "the READ failed")
    expect(peer.victim.read(offset=8192, length=64) == "55" * 64,
           "the READ has completed without its data")


def bad_response(peer):
    """A response that is none to the request, in its place"""
    peer.connect()
    peer.victim.post(opcode="RDMA_WRITE", ident=1, length=64)
    peer.wanted(WRITE_ONLY, PSN)
    peer.send(ATOMIC_ACK, PSN, struct.pack(">IQ", ACKED, 0))
    statuses = peer.completions([1])
    expect(statuses == [BAD_RESPONSE], f"completed with {statuses}")


def ack_within_read(peer):
    """A late ACK between the packets of a READ response changes nothing."""
    peer.connect()
    peer.victim.post(opcode="SEND", ident=1, length=64)
    peer.victim.post(opcode="RDMA_READ", ident=2, offset=8192, length=3 * MTU)
    peer.wanted(SEND_ONLY, PSN)
    peer.wanted(READ_REQUEST, PSN + 1)
    peer.ack(PSN)
    peer.send(READ_FIRST, PSN + 1, struct.pack(">I", ACKED), b"\x51" * MTU)
    peer.ack(PSN)
    peer.send(READ_MIDDLE, PSN + 2, b"", b"\x52" * MTU)
    peer.ack(PSN)
    peer.send(READ_LAST, PSN + 3, struct.pack(">I", ACKED), b"\x53" * MTU)
    statuses = peer.completions([1, 2])
    expect(statuses == [0, 0], f"completed with {statuses}")
    data = peer.victim.read(offset=8192, length=3 * MTU)
    expect(data == "51" * MTU + "52" * MTU + "53" * MTU, "wrong data")


def replay_read_after_empty_write(peer):
    """A READ's answer is lost; meanwhile a WRITE of length zero arrived."""
    peer.connect()
    peer.victim.write(offset=0, data="a5" * 256)
    read = (READ_REQUEST, PEER_PSN, peer.reth(0, 256))
    peer.send(*read)
    expect(peer.wanted(READ_ONLY, PEER_PSN)[4:] == b"\xa5" * 256, "bad data")
    peer.send(WRITE_ONLY, PEER_PSN + 1, peer.reth(0, 0))
    peer.wanted(ACK, PEER_PSN + 1)
    peer.send(*read)
    expect(peer.wanted(READ_ONLY, PEER_PSN)[4:] == b"\xa5" * 256, "bad data")


def replay_empty_read(peer):
    """A READ of length zero; its answer is lost, then also after a WRITE."""
    peer.connect()
    read = (READ_REQUEST, PEER_PSN, peer.reth(0, 0))
    peer.send(*read)
    peer.wanted(READ_ONLY, PEER_PSN)
    peer.send(*read)
    peer.wanted(READ_ONLY, PEER_PSN)


def replay_empty_read_after_write(peer):
    """The same with the key zero, and with a WRITE in between."""
    peer.connect()
    read = (READ_REQUEST, PEER_PSN, peer.reth(0, 0, rkey=0))
    peer.send(*read)
    peer.wanted(READ_ONLY, PEER_PSN)
    peer.send(WRITE_ONLY, PEER_PSN + 1, peer.reth(0, 8), bytes(8))
    peer.wanted(ACK, PEER_PSN + 1)
    peer.send(*read)
    peer.wanted(READ_ONLY, PEER_PSN)


def replay_read_zero_based(peer):
    """A READ through a zero-based memory window whose answer is lost."""
    peer.connect()
    peer.victim.write(offset=4096, data="77" * 2 * MTU)
    rkey = peer.victim.bind(offset=4096, length=8192)
    expect(peer.completions([1]) == [0], "the bind failed")
    read = (READ_REQUEST, PEER_PSN, peer.reth(0, 2 * MTU, rkey, va=0))
    try:
        for _ in range(2):
            peer.send(*read)
            expect(peer.wanted(READ_FIRST, PEER_PSN)[4:] == b"\x77" * MTU,
                   "wrong data")
            expect(peer.wanted(READ_LAST, PEER_PSN + 1)[4:] == b"\x77" * MTU,
                   "wrong data")
        # The rest of it only: the requester has the first packet.
        peer.send(READ_REQUEST, PEER_PSN + 1, peer.reth(0, MTU, rkey, va=MTU))
        expect(peer.wanted(READ_LAST, PEER_PSN + 1)[4:] == b"\x77" * MTU,
               "wrong data")
    finally:
        peer.victim.unbind()


def flush(peer):
    """Send a FLUSH: of a range, for global visibility."""
    peer.send(FLUSH, PEER_PSN, struct.pack(">I", 1) + peer.reth(0, 64))


def replay_flush(peer):
    """A FLUSH whose answer is lost."""
    peer.connect()
    flush(peer)
    peer.wanted(READ_ONLY, PEER_PSN)
    flush(peer)
    peer.wanted(READ_ONLY, PEER_PSN)


def flush_without_resources(peer):
    """A FLUSH for a QP with max_dest_rd_atomic 0 is refused as READs are."""
    peer.connect(rd_atomic=0)
    flush(peer)
    syndrome = peer.wanted(ACK, PEER_PSN)[0]
    expect(syndrome == 0x61, f"syndrome {syndrome:#x}, not NAK invalid request")


def retried_address(peer):
    """FLUSH and ATOMIC_WRITE that are sent again keep their address."""
    peer.connect(extended=True)
    for number, opcode in enumerate((FLUSH, ATOMIC_WRITE)):
        peer.victim.post_extended(opcode=NAMES[opcode], ident=1, va=0x123456)
        for what in ("first", "second"):
            rest = peer.wanted(opcode, PSN + number)
            va, = struct.unpack_from(">Q", rest, 4 if opcode == FLUSH else 0)
            expect(va == 0x123456, f"{what} {NAMES[opcode]} to {va:#x}")
        peer.send(READ_ONLY, PSN + number, struct.pack(">I", ACKED))
        expect(peer.completions([1]) == [0], f"{NAMES[opcode]} failed")
        while peer.receive(0.5)[0] is not None:
            pass


def retry_before_bind(peer):
    """A SEND is sent again when the bind behind it has been executed."""
    peer.connect()
    peer.victim.post(opcode="SEND", ident=2, length=64)
    peer.victim.bind(offset=4096, length=8192)
    try:
        while peer.receive(0.01)[0] is not None:
            pass  # the bind may have been slow
        peer.wanted(SEND_ONLY, PSN)
        peer.wanted(SEND_ONLY, PSN)
        peer.ack(PSN)
        statuses = peer.completions([2, 1])
        expect(statuses == [0, 0], f"completed with {statuses}")
    finally:
        peer.victim.unbind()


def rnr_longer_than_timeout(peer):
    """It is asked to wait more often than it may retry, each time longer than its timeout
    (67 ms)."""
    peer.connect(timeout=14, retry=1)
    peer.victim.post(opcode="SEND", ident=1, length=64)
    for _ in range(4):
        peer.wanted(SEND_ONLY, PSN)
        peer.not_ready(PSN)
    peer.wanted(SEND_ONLY, PSN)
    peer.ack(PSN)
    expect(peer.completions([1]) == [0], "the SEND failed")


def destroy_bound(peer):
    """A QP is destroyed while a memory window is bound to it."""
    peer.connect()
    peer.victim.bind(offset=4096, length=8192)
    expect(peer.completions([1]) == [0], "the bind failed")
    peer.victim.patience(10)
    try:
        peer.victim.destroy()
    except TimeoutError:
        raise Misbehaviour("not destroyed after 10 s") from None


def atomic_write_credit(peer):
    """ATOMIC_WRITEs that the ACK of a later request completes."""
    peer.connect(extended=True, timeout=0)
    for number in range(0, 2 * (CREDITS + 1), 2):
        peer.victim.post_extended(opcode="ATOMIC_WRITE", ident=1, va=0x1000)
        peer.wanted(ATOMIC_WRITE, PSN + number)
        peer.victim.post_extended(opcode="SEND", ident=2, va=0)
        peer.wanted(SEND_ONLY, PSN + number + 1)
        peer.ack(PSN + number + 1)
        expect(peer.completions([1, 2]) == [0, 0], "failed")


def flush_credit(peer):
    """Not more FLUSHes at once than the responder has resources for."""
    peer.connect(extended=True, timeout=0)
    for ident in range(CREDITS + 1):
        peer.victim.post_extended(opcode="FLUSH", ident=ident, va=0x1000)
    for number in range(CREDITS):
        peer.wanted(FLUSH, PSN + number)
    opcode = peer.receive(1)[0]
    expect(opcode is None, f"{CREDITS} FLUSHes without answer, then "
           f"{NAMES.get(opcode, opcode)}")
    peer.send(READ_ONLY, PSN, struct.pack(">I", ACKED))
    peer.wanted(FLUSH, PSN + CREDITS)


def acked_before_sent_again(peer):
    """The ACK of a whole message while the window holds half of it back.

    A responder sends such an ACK for each packet that it gets once more.
    """
    peer.connect()
    packets = 200
    last = PSN + packets - 1
    peer.victim.post(opcode="SEND", ident=1, length=packets * MTU)
    peer.wanted(SEND_FIRST, PSN)
    newest = PSN
    while (psn := peer.receive(0.02)[1]) is not None and psn > newest:
        newest = psn
    expect(newest < last, "no window holds the message back")
    peer.ack(last)
    # What that lets through is lost; the last packet is sent again.
    while (psn := peer.receive()[1]) is not None and psn < last:
        pass
    peer.wanted(SEND_LAST, last)
    peer.ack(last)
    expect(peer.completions([1]) == [0], "the SEND failed")


def posted_in_sqd(peer):
    """A SEND posted in SQD is sent in RTS."""
    peer.connect()
    peer.victim.modify(state="SQD")
    peer.victim.post(opcode="SEND", ident=1, length=64)
    opcode = peer.receive(0.5)[0]
    expect(opcode is None, f"{NAMES.get(opcode, opcode)} in SQD")
    peer.victim.modify(state="RTS")
    peer.wanted(SEND_ONLY, PSN)


def reset_after_send(peer):
    """A QP that has sent something is connected anew: it sends what is posted then."""
    peer.connect()
    peer.victim.post(opcode="SEND", ident=1, length=64)
    peer.wanted(SEND_ONLY, PSN)
    peer.victim.reset()
    opcode = peer.receive(0.5)[0]
    expect(opcode is None, f"{NAMES.get(opcode, opcode)} when nothing was posted")
    peer.victim.post(opcode="SEND", ident=2, length=64)
    peer.wanted(SEND_ONLY, PSN)
    peer.ack(PSN)
    expect(peer.completions([2]) == [0], "the SEND failed")


def reconnected(peer):
    """A QP that has sent to its own host is connected to another one."""
    peer.connect(remote=peer.address)
    peer.victim.post(opcode="SEND", ident=1, length=64)
    time.sleep(0.2)
    peer.victim.modify(state="ERR")
    expect(peer.completions([1]) == [FLUSHED], "the first SEND has not been flushed")
    peer.victim.reset(remote=peer.own)
    peer.victim.post(opcode="SEND", ident=2, length=64)
    peer.wanted(SEND_ONLY, PSN)
    peer.ack(PSN)
    expect(peer.completions([2]) == [0], "the SEND failed")


def send_with_invalidate(peer):
    """What a program is told of a SEND with invalidate"""
    peer.connect()
    rkey = peer.victim.bind(offset=4096, length=8192)
    try:
        expect(peer.completions([1]) == [0], "the bind failed")
        peer.send(SEND_ONLY_INV, PEER_PSN, struct.pack(">I", rkey), bytes(64))
        peer.wanted(ACK, PEER_PSN)
        expect(peer.completions([1000]) == [0], "the SEND failed")
        flags = peer.victim.flags_of(ident=1000)
        expect(flags & (WITH_INV | CSUM_OK) == WITH_INV,
               f"wc_flags {flags:#x}: not IBV_WC_WITH_INV")
    finally:
        peer.victim.unbind()


def empty_write_with_payload(peer):
    """A WRITE whose RETH says that there is nothing to write."""
    peer.connect()
    peer.send(WRITE_ONLY, PEER_PSN, peer.reth(0, 0), bytes(8))
    syndrome = peer.wanted(ACK, PEER_PSN)[0]
    expect(syndrome == 0x61, f"syndrome {syndrome:#x}, not NAK invalid request")


def uc_after_loss(peer):
    """A SEND over UC after a WRITE that has lost its end."""
    peer.connect(reliable=False)
    peer.send(UC_WRITE_FIRST, PEER_PSN, peer.reth(0, 2 * MTU), bytes(MTU))
    peer.send(UC_SEND_ONLY, PEER_PSN + 2, b"", bytes(64))
    expect(peer.completions([1000]) == [0], "the SEND failed")


def full_queue(peer):
    """The queue of the device is full (a shaper is set up by the test)."""
    peer.connect()
    for ident in range(1, 9):
        peer.victim.post(opcode="SEND", ident=ident, length=16 * MTU)
    last = PSN + 8 * 16 - 1
    expected = PSN
    end = time.monotonic() + 40
    while expected <= last and time.monotonic() < end:
        opcode, psn, _ = peer.receive()
        if opcode is None:
            break
        if psn == expected:
            expected += 1
        elif psn > expected:
            continue
        peer.ack(expected - 1)
    statuses = peer.completions(range(1, 9))
    expect(not any(statuses), f"completed with {statuses}")


def short_packet(peer):
    """Packets that are too short for a BTH, over IPv6."""
    peer.connect()
    six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    for _ in range(3):
        six.sendto(b"\n", ("fd77::" + peer.address.split(".")[-1], PORT))
    time.sleep(0.5)
    peer.send(SEND_ONLY, PEER_PSN, b"", bytes(64))
    peer.wanted(ACK, PEER_PSN)


def healthy(peer):
    """No fault at all: shows that the peer itself is right."""
    peer.connect(timeout=0)
    peer.victim.write(offset=0, data="a5" * 256)
    peer.victim.post(opcode="SEND", ident=1, length=64)
    peer.wanted(SEND_ONLY, PSN)
    peer.ack(PSN)
    expect(peer.completions([1]) == [0], "the SEND failed")
    peer.send(READ_REQUEST, PEER_PSN, peer.reth(0, 256))
    expect(peer.wanted(READ_ONLY, PEER_PSN)[4:] == b"\xa5" * 256, "bad data")
    peer.send(FETCH_ADD, PEER_PSN + 1, struct.pack(
        ">QIQQ", peer.va, peer.rkey, 1, 0))
    peer.wanted(ATOMIC_ACK, PEER_PSN + 1)


def main():
    victim, own, case = sys.argv[1:]
    peer = Peer(victim, own)
    try:
        globals()[case](peer)
    except Misbehaviour as what:
        print(f"{case}: {what}")
        return 3
    print(f"{case}: ok")
    return 0


sys.exit(main())
