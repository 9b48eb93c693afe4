"""Sections 5 and 7: what was in flight to the endpoint when it stopped."""

from clauses import clause
from flow import *
from peer import *


IMMEDIATE = 0x11223344
# wc_flags of ibv_poll_cq()
WITH_IMM, WITH_INV = 2, 8


@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def half_received(setting):
    """A message of each kind, of which the endpoint had half: the rest completes it, and
    brings what its last packet holds."""
    halves, link = [], None
    for slot, op in enumerate(MESSAGES):
        link = link.another() if link else Link(setting)
        halves.append(Half(link, op, slot))
    for half in halves:
        half.put(0)
        half.put(1)
        half.link.await_(ACK, psn=(half.link.mine + 1) & 0xffffff)
    found = migrate(*(half.link for half in halves))
    for half in halves:
        half.link.compare(found[half.link.qpn], None,
                          {"rq_psn": (half.link.mine + 2) & 0xffffff})
        half.put(2)
        half.put(3)
        half.link.await_(ACK, psn=(half.link.mine + 3) & 0xffffff, syndrome=ACKED, msn=1)
        half.finish()


class Half:
    """A message of four packets from us"""

    def __init__(self, link, op, slot):
        self.link, self.op, self.ident = link, op, 900 + slot
        mtu = link.setting.mtu
        self.data = pattern(0, 3 * mtu + 20, 9 + slot)
        self.parts = [self.data[at:at + mtu] for at in range(0, len(self.data), mtu)]
        first, middle, last, _ = MESSAGES[op]
        self.opcodes = first, middle, middle, last
        self.place = slot * SLOT
        self.headers = {0: [], 3: []}
        if op in ("WRITE", "WRITE_IMM"):
            self.headers[0] = [link.reth(self.place, len(self.data))]
        if op != "WRITE":
            link.endpoint.recv(qp=link.index, id=self.ident, offset=self.place,
                               len=SLOT)
        if op.endswith("_IMM"):
            self.headers[3] = [ImmDt(data=IMMEDIATE)]
        elif op == "SEND_INV":
            # A window behind the message
            self.window = link.endpoint.bind(qp=link.index, id=1,
                                             offset=self.place + SLOT, len=64)["rkey"]
            link.completions(1)
            self.headers[3] = [IETH(rkey=self.window)]

    def put(self, number):
        self.link.data(self.opcodes[number], self.link.mine + number,
                       *self.headers.get(number, []), payload=self.parts[number])

    def finish(self):
        link, ident = self.link, self.ident
        wanted = {"SEND": f"{ident}:0:0:0", "WRITE": ""}.get(
            self.op, f"{ident}:0:{WITH_IMM}:{IMMEDIATE:#x}")
        if self.op == "SEND_INV":
            wanted = f"{ident}:0:{WITH_INV}:{self.window:#x}"
        found = link.endpoint.poll(ms=2000 if wanted else 0, more=1)["wc"]
        check(found == wanted, f"{self.op}: completion (id:status:flags:value) "
              f"{found or 'none'}, not {wanted or 'none'}")
        same(link, self.place, self.data, f"half received {self.op}")
        if self.op == "SEND_INV":
            link.data(WRITE_ONLY, link.mine + 4, link.reth(
                self.place + SLOT, 8, rkey=self.window), payload=bytes(8))
            link.await_(ACK, psn=(link.mine + 4) & 0xffffff, syndrome=NAK_ACCESS)


@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def counts_on(setting):
    """The message sequence number of its acknowledgements, too"""
    link = Link(setting)

    def put(number):
        psn = (link.mine + number) & 0xffffff
        link.data(WRITE_ONLY, psn, link.reth(4096, 4), payload=b"abcd")
        link.await_(ACK, psn=psn, syndrome=ACKED, msn=number + 1)
    for number in range(3):
        put(number)
    migrate(link)
    put(3)


def responses(link, psn, data, what):
    """A READ response: these data from this PSN on."""
    mtu = link.setting.mtu
    got = b""
    for number in range((len(data) + mtu - 1) // mtu):
        packet = link.receive()
        check(packet is not None and READ_FIRST <= packet[BTH].opcode <=
              READ_ONLY, f"{what}: {describe(packet)} came, not a response")
        check(packet[BTH].psn == (psn + number) & 0xffffff,
              f"{what}: response {number} is {describe(packet)}")
        rest = behind_bth(packet)
        got += rest if packet[BTH].opcode == READ_MIDDLE else rest[4:]
    check(got == data, f"{what}: the data are wrong")


@clause("STOP-4", "the requester's retry reaches the duplicate path.")
def read_again(setting):
    """A READ whose response was lost, wholly and from its middle on"""
    link = Link(setting)
    mtu = setting.mtu
    length = 3 * mtu + 40
    data = pattern(0, length, 5)
    link.endpoint.fill(offset=0, len=length, seed=5)
    link.data(READ_REQUEST, link.mine, link.reth(0, length))
    responses(link, link.mine, data, "before the stop")
    found = migrate(link)
    link.compare(found[link.qpn], None, {"rq_psn": (link.mine + 4) & 0xffffff})
    link.drain(0.05)
    link.data(READ_REQUEST, link.mine, link.reth(0, length))
    responses(link, link.mine, data, "from the start")
    link.data(READ_REQUEST, link.mine + 2, link.reth(2 * mtu, length - 2 * mtu))
    responses(link, link.mine + 2, data[2 * mtu:], "from the middle")
    # and the next request is the next
    link.endpoint.recv(id=9)
    link.data(SEND_ONLY, link.mine + 4, payload=b"abcd")
    link.await_(ACK, psn=(link.mine + 4) & 0xffffff, syndrome=ACKED, msn=2)
    link.completions(9)


@clause("STOP-4", "A responder stopped amid a READ reply MUST be saved as if the "
        "reply were complete (next expected PSN behind the READ, nothing in "
        "progress)")
def amid_long_read(setting):
    link = Link(setting)
    length = 1 << 20
    packets = length // setting.mtu
    link.endpoint.fill(offset=0, len=length, seed=5)
    link.data(READ_REQUEST, link.mine, link.reth(0, length))
    check(link.receive() is not None, "no response came")
    link.endpoint.stop()
    link.endpoint.leave()
    link.endpoint.restore()
    link.wire.begin()
    link.endpoint.resume()
    packet = link.await_(RESUME, rq_psn=(link.mine + packets) & 0xffffff)
    answer(link, packet)
    link.drain(0.1)
    start = length - 3 * setting.mtu
    link.data(READ_REQUEST, link.mine + packets - 3,
              link.reth(start, length - start))
    responses(link, link.mine + packets - 3,
              pattern(start, length - start, 5), "the end of the READ")
    link.endpoint.recv(id=9)
    link.data(SEND_ONLY, link.mine + packets, payload=b"abcd")
    link.await_(ACK, psn=(link.mine + packets) & 0xffffff, syndrome=ACKED, msn=2)
    link.completions(9)


def number_at(link, offset):
    got = link.endpoint.stream
    got.write(f"read offset={offset} len=8\n")
    got.flush()
    return int.from_bytes(bytes.fromhex(
        got.readline().strip().removeprefix("ok data=")), "little")


@clause("STOP-3", "the snapshot promises at least what the wire has promised.")
@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def atomics_again(setting):
    """Replayed after the restore: the same original value, executed once"""
    link = Link(setting)
    for offset, value in ((0, 5), (8, 7)):
        link.endpoint.write(offset=offset,
                            data=value.to_bytes(8, "little").hex())
    va, rkey = link.memory["va"], link.memory["rkey"]
    atomics = [(FETCH_ADD, AtomicETH(va=va, rkey=rkey, swap=3), 5),
               (COMPARE_SWAP, AtomicETH(va=va + 8, rkey=rkey, swap=9, compare=7),
                7)]

    def ask():
        for number, (opcode, header, original) in enumerate(atomics):
            link.data(opcode, link.mine + number, header)
            packet = link.await_(ATOMIC_ACK,
                                 psn=(link.mine + number) & 0xffffff)
            got = int.from_bytes(behind_bth(packet)[4:12], "big")
            check(got == original, f"{NAMES[opcode]}: original value {got}, "
                  f"not {original}")
    ask()
    migrate(link)
    link.drain(0.05)
    ask()
    check(number_at(link, 0) == 8, "FETCH_ADD was executed twice")
    check(number_at(link, 8) == 9, "COMPARE_SWAP has gone wrong")


@clause("STOP-3", "the snapshot promises at least what the wire has promised.")
@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def atomic_write_again(setting):
    """Answered again; what was written since is not overwritten. (FLUSH: tests/fixes and
    tests/grid. rxe takes its headers into the ICRC twice, which docs/limits.md is about.)"""
    link = Link(setting)
    new, newer = bytes(range(1, 9)), bytes(range(11, 19))
    link.endpoint.write(offset=0, data=bytes(8).hex())

    def ask():
        link.data(ATOMIC_WRITE, link.mine, link.reth(0, 8), payload=new)
        link.expect(READ_ONLY, psn=link.mine, syndrome=ACKED)
    ask()
    same(link, 0, new, "ATOMIC_WRITE")
    link.endpoint.write(offset=0, data=newer.hex())
    found = migrate(link)
    link.compare(found[link.qpn], None, {"rq_psn": (link.mine + 1) & 0xffffff})
    link.drain(0.05)
    ask()
    same(link, 0, newer, "ATOMIC_WRITE again")
    # and the next is executed
    link.mine = (link.mine + 1) & 0xffffff
    ask()
    same(link, 0, new, "another ATOMIC_WRITE")


@clause("STOP-3", "every acknowledgement already sent MUST be covered by the saved "
        "state")
@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def duplicate_send(setting):
    """Acknowledged again, not delivered again"""
    link = Link(setting)
    link.endpoint.recv(id=9, count=2, len=4096)
    link.data(SEND_ONLY, link.mine, payload=b"once")
    link.await_(ACK, psn=link.mine, msn=1)
    link.completions(9)
    migrate(link)
    link.drain(0.05)
    link.data(SEND_ONLY, link.mine, payload=b"once")
    link.expect(ACK, syndrome=ACKED, msn=1)
    check(not link.endpoint.poll(ms=100)["wc"], "it was delivered again")
    link.data(SEND_ONLY, link.mine + 1, payload=b"next")
    link.expect(ACK, psn=(link.mine + 1) & 0xffffff, syndrome=ACKED, msn=2)
    link.completions(10)


@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def responder_not_ready(setting):
    """An RNR NAK before the stop: the request is executed after it, once"""
    link = Link(setting)
    link.data(SEND_ONLY, link.mine, payload=b"wait")
    packet = link.expect(ACK, psn=link.mine)
    check(packet[AETH].syndrome & 0xe0 == RNR, f"{describe(packet)}, not RNR")
    found = migrate(link)
    link.compare(found[link.qpn], None, {"rq_psn": link.mine})
    link.endpoint.recv(id=9)
    link.drain(0.05)
    link.data(SEND_ONLY, link.mine, payload=b"wait")
    link.expect(ACK, psn=link.mine, syndrome=ACKED, msn=1)
    link.completions(9)


@clause("STOP-3", "received packets that were not processed dropped")
@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def beyond_expected(setting):
    """A gap before the stop does not keep the restored QP from telling that
    there still is one."""
    link = Link(setting)
    link.endpoint.recv(id=9, count=2)
    link.data(SEND_ONLY, link.mine + 1, payload=b"gap")
    link.expect(ACK, psn=link.mine, syndrome=NAK_SEQUENCE)
    migrate(link)
    link.drain(0.05)
    link.data(SEND_ONLY, link.mine + 1, payload=b"gap")
    link.expect(ACK, psn=link.mine, syndrome=NAK_SEQUENCE)
    check(not link.endpoint.poll(ms=50)["wc"], "a request beyond was executed")
    for number in (0, 1):
        link.data(SEND_ONLY, link.mine + number, payload=b"data")
    link.await_(ACK, psn=(link.mine + 1) & 0xffffff, syndrome=ACKED, msn=2)
    link.completions(9, 10)
