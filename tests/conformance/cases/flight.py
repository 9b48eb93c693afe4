"""Sections 5 and 7: what was in flight when one of the two ends stopped."""

import struct
import time

from clauses import clause
from peer import *

SLOT = 32768    # memory of each QP: five packets at any path MTU
REMOTE = 0x1234000
KEY = 0x5678

# What is posted -> opcodes of first, middle, last and only packet
MESSAGES = {
    "SEND": (SEND_FIRST, SEND_MIDDLE, SEND_LAST, SEND_ONLY),
    "SEND_IMM": (SEND_FIRST, SEND_MIDDLE, SEND_LAST_IMM, SEND_ONLY_IMM),
    "SEND_INV": (SEND_FIRST, SEND_MIDDLE, SEND_LAST_INV, SEND_ONLY_INV),
    "WRITE": (WRITE_FIRST, WRITE_MIDDLE, WRITE_LAST, WRITE_ONLY),
    "WRITE_IMM": (WRITE_FIRST, WRITE_MIDDLE, WRITE_LAST_IMM, WRITE_ONLY_IMM),
}
SINGLES = {"CAS": COMPARE_SWAP, "FAA": FETCH_ADD, "FLUSH": FLUSH,
           "ATOMIC_WRITE": ATOMIC_WRITE}
EXTENDED = {SEND_LAST_IMM: 4, SEND_ONLY_IMM: 4, SEND_LAST_INV: 4,
            SEND_ONLY_INV: 4, WRITE_FIRST: 16, WRITE_ONLY: 16,
            WRITE_LAST_IMM: 4, WRITE_ONLY_IMM: 20}


def behind_bth(packet):
    """The bytes between BTH and ICRC."""
    return bytes(packet[BTH])[12:-4]


def near(psn, base):
    return (psn - base) & 0xffffff


class Flow:
    """A QP, what it has posted, and which packets that makes."""

    def __init__(self, link, op, packets=1, slot=0):
        self.link, self.op, self.packets = link, op, packets
        self.mtu = link.setting.mtu
        self.offset = slot * SLOT
        self.ident = 100 + slot
        self.name = f"{op} of {packets} packets"
        # The last packet is not full.
        self.length = (packets - 1) * self.mtu + 52
        if op in ("CAS", "FAA", "ATOMIC_WRITE"):
            self.length = 8
        self.acked = 0

    def post(self):
        offset = 0 if self.op == "ATOMIC_WRITE" else self.offset
        if self.op in MESSAGES:
            self.link.endpoint.fill(offset=self.offset, len=self.length,
                                    seed=self.ident)
        self.link.endpoint.post(qp=self.link.index, op=self.op, id=self.ident,
                                offset=offset, len=self.length, va=REMOTE,
                                remote_key=KEY)

    def opcode(self, number):
        first, middle, last, only = MESSAGES[self.op]
        if self.packets == 1:
            return only
        return first if number == 0 else \
            last if number == self.packets - 1 else middle

    def requests(self):
        """How many packets it sends from the first unacknowledged PSN."""
        return self.packets - self.acked if self.op in MESSAGES else 1

    def compare(self, packets, moment):
        """These are its packets from the first unacknowledged PSN, in order."""
        what = f"{self.name}, {self.acked} acknowledged, {moment}"
        check(len(packets) == self.requests(),
              f"{what}: {len(packets)} packets came, not {self.requests()}: "
              f"{', '.join(map(describe, packets))}")
        for number, packet in enumerate(packets, self.acked):
            self.compare_one(packet, number, what)

    def compare_one(self, packet, number, what):
        psn = near(packet[BTH].psn, self.link.theirs)
        check(psn == number, f"{what}: PSN is {psn} behind the first, "
              f"not {number} ({describe(packet)})")
        rest = behind_bth(packet)
        if self.op in MESSAGES:
            opcode = self.opcode(number)
        else:
            opcode = READ_REQUEST if self.op == "READ" else SINGLES[self.op]
        check(packet[BTH].opcode == opcode,
              f"{what}: {describe(packet)}, not {NAMES[opcode]}")
        if self.op == "FLUSH":
            rest = rest[4:]
        if opcode in (WRITE_FIRST, WRITE_ONLY, WRITE_ONLY_IMM, READ_REQUEST,
                      FLUSH):
            done = number * self.mtu
            want = (REMOTE + done, KEY, self.length - done)
            check(struct.unpack(">QII", rest[:16]) == want,
                  f"{what}: RETH is {rest[:16].hex()}")
        elif opcode in (COMPARE_SWAP, FETCH_ADD, ATOMIC_WRITE):
            check(struct.unpack(">QI", rest[:12]) == (REMOTE, KEY),
                  f"{what}: address and key are {rest[:12].hex()}")
        if self.op in MESSAGES:
            start = number * self.mtu
            length = min(self.mtu, self.length - start)
            check(rest[EXTENDED.get(opcode, 0):] ==
                  pattern(start, length, self.ident),
                  f"{what}: payload of packet {number} is wrong")

    def acknowledge(self, count):
        """The packets before this one arrived, as the peer says."""
        link = self.link
        if self.op == "READ":
            for number in range(self.acked, count):
                self.respond(number)
        elif self.op in ("CAS", "FAA"):
            link.data(ATOMIC_ACK, link.theirs, AETH(syndrome=ACKED, msn=1),
                      AtomicAckETH(original=0x1122334455667788), ack=False)
        elif self.op in ("FLUSH", "ATOMIC_WRITE"):
            # A READ response of no length
            link.data(READ_ONLY, link.theirs, AETH(syndrome=ACKED, msn=1),
                      ack=False)
        else:
            link.ack((link.theirs + count - 1) & 0xffffff,
                     msn=int(count == self.packets))
        self.acked = count

    def respond(self, number):
        link, final = self.link, number == self.packets - 1
        # The first response to a request asked for again is FIRST or ONLY.
        first = number == self.acked
        opcode = (READ_ONLY if final else READ_FIRST) if first else \
            READ_LAST if final else READ_MIDDLE
        start = number * self.mtu
        data = pattern(start, min(self.mtu, self.length - start), self.ident)
        headers = [] if opcode == READ_MIDDLE else [AETH(syndrome=ACKED, msn=1)]
        link.data(opcode, link.theirs + number, *headers, payload=data,
                  ack=False)

    def finish(self):
        """All is acknowledged: it completes, once, with the right data."""
        self.acknowledge(self.packets)
        try:
            self.link.completions(self.ident)
        except Failure as failure:
            raise Failure(f"{self.name}: {failure}") from None
        if self.op == "READ":
            same(self.link, self.offset, pattern(0, self.length, self.ident),
                 f"{self.name}: what was read")


def same(link, offset, data, what):
    """The endpoint's memory holds this."""
    for at in range(0, len(data), 8192):
        part = data[at:at + 8192]
        got = link.endpoint.stream
        got.write(f"read offset={offset + at} len={len(part)}\n")
        got.flush()
        answer = got.readline()
        check(answer.strip() == "ok data=" + part.hex(),
              f"{what}: memory from byte {at} is wrong")


def introduced(link):
    """It knows that we speak the protocol. If it did not, its requester would run
    before its RESUME is answered, where it was [RESUME-2]."""
    link.pause()
    link.resume()
    link.drain(0.02)
    return link


def several(setting, *ops, **attributes):
    """A flow for each (op, packets), each with a QP, in one process."""
    link, flows = None, []
    for slot, (op, packets) in enumerate(ops):
        link = introduced(link.another(**attributes) if link else
                          Link(setting, **attributes))
        flows.append(Flow(link, op, packets, slot))
    return flows


def gather(links, wanted, seconds=3.0, quiet=0.15):
    """The packets of the data path to these QPs until there are so many, and
    those that still come then: {QPN: packets}"""
    found = {link.qpn: [] for link in links}
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        enough = sum(map(len, found.values())) >= wanted
        packet = links[0].receive(min(left, quiet) if enough else left,
                                  mine=False)
        if packet is None and enough:
            break
        if packet and packet[BTH].dqpn in found and \
                packet[BTH].opcode not in MIGRATION:
            found[packet[BTH].dqpn].append(packet)
    return found


def resumes(links):
    """The first RESUME of each of these QPs: {QPN: packet}"""
    found, waiting = {}, {link.qpn for link in links}
    end = time.monotonic() + 5
    while waiting and (left := end - time.monotonic()) > 0:
        packet = links[0].receive(left, mine=False)
        if packet and packet[BTH].opcode == RESUME and \
                packet[BTH].dqpn in waiting:
            waiting.remove(packet[BTH].dqpn)
            found[packet[BTH].dqpn] = packet
    check(not waiting, f"no RESUME came from {len(waiting)} of {len(links)} QPs")
    return found


def answer(link, packet):
    """Acknowledge its RESUME, without a wait."""
    link.challenge += 1
    link.send(RESUME_ACK, nonce=link.challenge, echo=packet[MIGETH].nonce,
              epoch=packet[MIGETH].epoch)


def migrate(*links, between=None):
    """The endpoint leaves and comes back. What its RESUMEs were."""
    endpoint = links[0].endpoint
    endpoint.stop()
    endpoint.leave()
    endpoint.restore()
    links[0].drain(0.05)
    if between:
        between()
    endpoint.resume()
    found = resumes(links)
    for link in links:
        answer(link, found[link.qpn])
    return found


def check_flows(flows, moment):
    found = gather([flow.link for flow in flows],
                   sum(flow.requests() for flow in flows))
    for flow in flows:
        flow.compare(found[flow.link.qpn], moment)


def partly_acknowledged(flows, counts):
    """Post all, see all, acknowledge some."""
    for flow in flows:
        flow.post()
    check_flows(flows, "before the stop")
    for flow, count in zip(flows, counts):
        if count:
            flow.acknowledge(count)
    # so that the acknowledgements are worked on
    time.sleep(0.1)


def finish(flows):
    for flow in flows:
        flow.finish()
    time.sleep(0.05)
    late = flows[0].link.endpoint.poll(ms=0)["wc"]
    check(not late, f"completed more than once (id:status): {late}")


ONE_EACH = [(op, 1) for op in (*MESSAGES, "READ", *SINGLES)]
LONG = [(op, 5) for op in (*MESSAGES, "READ")]


# -- the endpoint is the requester and stops --

@clause("STOP-4", "after restore it continues from the first unacknowledged PSN.")
@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def single_packets(setting):
    """A request of each kind, not answered before the stop."""
    flows = several(setting, *ONE_EACH)
    partly_acknowledged(flows, [0] * len(flows))
    found = migrate(*(flow.link for flow in flows))
    for flow in flows:
        flow.link.compare(found[flow.link.qpn], None,
                          {"sq_psn": flow.link.theirs})
    check_flows(flows, "after the restore")
    finish(flows)


@clause("STOP-4", "A requester is saved with its retry flag set: after restore it "
        "continues from the first unacknowledged PSN.")
def unacknowledged_messages(setting):
    """Messages of several packets of which nothing was acknowledged"""
    flows = several(setting, *LONG)
    partly_acknowledged(flows, [0] * len(flows))
    migrate(*(flow.link for flow in flows))
    check_flows(flows, "after the restore")
    finish(flows)


@clause("STOP-4", "after restore it continues from the first unacknowledged PSN.")
@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def partly_acknowledged_messages(setting):
    """The rest of a message goes on with MIDDLE or LAST, not with FIRST; that of
    a READ is asked for with a shorter request."""
    counts = (1, 2, 3, 4, 2, 3)
    flows = several(setting, *LONG)
    partly_acknowledged(flows, counts)
    found = migrate(*(flow.link for flow in flows))
    for flow in flows:
        flow.link.compare(found[flow.link.qpn], None, {
            "sq_psn": (flow.link.theirs + flow.acked) & 0xffffff})
    check_flows(flows, "after the restore")
    finish(flows)


@clause("STOP-4", "after restore it continues from the first unacknowledged PSN.")
def stopped_twice(setting):
    """The second stop is before anything more was acknowledged."""
    flows = several(setting, *LONG)
    partly_acknowledged(flows, (1, 2, 3, 4, 2, 3))
    for _ in range(2):
        migrate(*(flow.link for flow in flows))
        check_flows(flows, "after the restore")
    finish(flows)


@clause("STOP-4", "after restore it continues from the first unacknowledged PSN.")
def several_requests(setting):
    """Requests behind each other: those acknowledged are not sent again, the
    rest in order"""
    link = introduced(Link(setting))
    for ident, op in enumerate(("SEND", "WRITE", "FAA", "SEND_IMM"), 1):
        link.endpoint.post(op=op, id=ident, len=8 if op == "FAA" else 64)
    opcodes = (SEND_ONLY, WRITE_ONLY, FETCH_ADD, SEND_ONLY_IMM)
    for number, opcode in enumerate(opcodes):
        link.expect(opcode, psn=(link.theirs + number) & 0xffffff)
    link.ack(link.theirs, msn=1)
    link.completions(1)
    migrate(link)
    for number, opcode in enumerate(opcodes[1:], 1):
        link.expect(opcode, psn=(link.theirs + number) & 0xffffff)
    link.ack((link.theirs + 1) & 0xffffff, msn=2)
    link.data(ATOMIC_ACK, link.theirs + 2, AETH(syndrome=ACKED, msn=3),
              AtomicAckETH(original=1), ack=False)
    link.ack((link.theirs + 3) & 0xffffff, msn=4)
    link.completions(2, 3, 4)


@clause("RESUME-11", "Nothing in this protocol acknowledges a data packet.")
def resume_ack_completes_nothing(setting):
    """Whatever rq_psn the peer's answer names, only an ACK completes."""
    flows = several(setting, ("SEND", 1), ("READ", 1), ("FAA", 1))
    partly_acknowledged(flows, (0, 0, 0))
    flows[0].link.endpoint.stop()
    flows[0].link.endpoint.leave()
    flows[0].link.endpoint.restore()
    flows[0].link.drain(0.05)
    flows[0].link.endpoint.resume()
    found = resumes([flow.link for flow in flows])
    for flow in flows:
        link = flow.link
        link.send(RESUME_ACK, nonce=7, echo=found[link.qpn][MIGETH].nonce,
                  epoch=1, rq_psn=(link.theirs + 1) & 0xffffff,
                  bth={"psn": link.theirs})
    check_flows(flows, "after the restore")
    check(not flows[0].link.endpoint.poll(ms=100)["wc"],
          "a request completed without its response")
    finish(flows)


@clause("STOP-3", "Before the snapshot the requester, completer and responder MUST "
        "be idle, their timers deleted")
def rnr_wait(setting):
    """A requester that waits for an RNR timer sends at once after RESUME, and
    does not send while it is stopped because the timer ends."""
    link = introduced(Link(setting))
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    # timer code 0: 655 ms
    link.ack(link.theirs, syndrome=RNR)
    time.sleep(0.1)
    link.stop()
    link.silence(0.8, SEND_ONLY)
    link.endpoint.cancel()
    packet = link.await_(RESUME)
    link.silence(0.1, SEND_ONLY)
    start = time.monotonic()
    answer(link, packet)
    link.expect(SEND_ONLY, psn=link.theirs)
    check(link.at - start < 0.4, "it waited for an RNR timer of before the stop")
    link.ack(link.theirs, msn=1)
    link.completions(1)


@clause("STOP-3", "Before the snapshot the requester, completer and responder MUST "
        "be idle, their timers deleted")
def rnr_wait_restored(setting):
    link = introduced(Link(setting))
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    link.ack(link.theirs, syndrome=RNR)
    time.sleep(0.1)
    migrate(link)
    start = time.monotonic()
    link.expect(SEND_ONLY, psn=link.theirs)
    check(link.at - start < 0.4, "it waited for an RNR timer of before the stop")
    link.ack(link.theirs, msn=1)
    link.completions(1)


@clause("STOP-4", "after restore it continues from the first unacknowledged PSN.")
@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def rewound_while_blocked(setting):
    """A sequence error has made it go back to the middle of a message, and it
    could not send since because its packets fill the queue of the interface:
    then such a message looks as if it had not begun."""
    for op, opcode, last in (("SEND", SEND_MIDDLE, SEND_LAST),
                             ("WRITE", WRITE_MIDDLE, WRITE_LAST)):
        rewound(setting, op, opcode, last)


def rewound(setting, op, opcode, last):
    link = introduced(Link(setting))
    endpoint, mtu, packets = link.endpoint, setting.mtu, 100
    length = packets * mtu
    endpoint.fill(offset=0, len=length, seed=3)
    # 30 ms for a packet
    rate = (mtu + 100) * 8 * 33
    # These are not to wait for their answers, which are in that queue, too.
    words = [f"shell tc qdisc add dev eth0 root tbf rate {rate}bit burst 6k "
             "limit 1m",
             f"post op={op} id=1 offset=0 len={length} va={REMOTE} "
             f"remote_key={KEY}",
             "shell sleep 0.8", "stop",
             "shell tc qdisc del dev eth0 root"]
    try:
        endpoint.stream.write("\n".join(words) + "\n")
        endpoint.stream.flush()
        link.receive(3)
        time.sleep(0.1)
        # The first three arrived, the fourth did not.
        link.ack((link.theirs + 2) & 0xffffff)
        link.ack((link.theirs + 3) & 0xffffff, syndrome=NAK_SEQUENCE)
    finally:
        answers = [endpoint.stream.readline().strip() for _ in words]
    check(all(text.startswith("ok") for text in answers), f"{op}: {answers}")
    image = dict(word.split("=") for word in answers[3].split()[1:])
    check(near(int(image["comp_psn"], 0), link.theirs) == 3,
          f"{op}: the acknowledgement was not worked on: {answers[3]}")
    endpoint.leave()
    endpoint.restore()
    link.drain(0.1)
    endpoint.resume()
    packet = link.await_(RESUME)
    answer(link, packet)
    for number in range(3, 8):
        packet = link.expect(opcode, psn=(link.theirs + number) & 0xffffff)
        check(behind_bth(packet) == pattern(number * mtu, mtu, 3),
              f"{op}: payload of packet {number} is wrong")
    # It does not believe that what it has not sent again has arrived.
    end = (link.theirs + packets - 1) & 0xffffff
    link.await_(last, psn=end)
    link.ack(end, msn=1)
    link.completions(1)


# -- the endpoint is the responder and stops --

def half_received(setting, op):
    link = Link(setting)
    mtu = setting.mtu
    data = pattern(0, 3 * mtu + 20, 9)
    parts = [data[at:at + mtu] for at in range(0, len(data), mtu)]
    if op == "SEND":
        opcodes, headers = (SEND_FIRST, SEND_MIDDLE, SEND_MIDDLE, SEND_LAST), ()
        place = 1 << 19
        link.endpoint.recv(id=9, offset=place)
    else:
        opcodes = (WRITE_FIRST, WRITE_MIDDLE, WRITE_MIDDLE, WRITE_LAST)
        headers, place = (link.reth(4096, len(data)),), 4096

    def put(number):
        link.data(opcodes[number], link.mine + number,
                  *(headers if number == 0 else ()), payload=parts[number],
                  ack=True)

    put(0)
    put(1)
    link.await_(ACK, psn=(link.mine + 1) & 0xffffff)
    found = migrate(link)
    link.compare(found[link.qpn], None, {"rq_psn": (link.mine + 2) & 0xffffff})
    put(2)
    put(3)
    link.await_(ACK, psn=(link.mine + 3) & 0xffffff, syndrome=ACKED, msn=1)
    if op == "SEND":
        link.completions(9)
    same(link, place, data, f"half received {op}")


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


@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def half_received_send(setting):
    half_received(setting, "SEND")


@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def half_received_write(setting):
    half_received(setting, "WRITE")


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


# -- the peer stops --

def peer_migrates(flows, paused):
    for flow in flows:
        if paused:
            flow.link.pause()
        else:
            flow.link.learn()
            flow.link.epoch += 1
        flow.link.drain(0.02)
    for flow in flows:
        link = flow.link
        link.send(RESUME, nonce=link.secret, echo=link.its_challenge,
                  rq_psn=(link.theirs + flow.acked) & 0xffffff)
        packets = gather([link], flow.requests(), quiet=0.05)
        flow.compare(packets[link.qpn], "after the peer's RESUME")
    finish(flows)


@clause("RESUME-5", "force retransmission from the first unacknowledged PSN")
@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def peer_single_packets(setting):
    flows = several(setting, *ONE_EACH)
    partly_acknowledged(flows, [0] * len(flows))
    peer_migrates(flows, True)


@clause("RESUME-5", "force retransmission from the first unacknowledged PSN")
@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def peer_partly_acknowledged(setting):
    flows = several(setting, *LONG)
    partly_acknowledged(flows, (1, 2, 3, 4, 2, 3))
    peer_migrates(flows, True)


@clause("RESUME-5", "This happens whether or not the QP was Paused.")
def peer_not_paused(setting):
    flows = several(setting, ("SEND", 5), ("WRITE", 5), ("READ", 5), ("FAA", 1))
    partly_acknowledged(flows, (2, 3, 1, 0))
    peer_migrates(flows, False)


@clause("RESUME-5", "clear the retransmission and RNR wait, force retransmission "
        "from the first unacknowledged PSN")
def peer_rnr_wait(setting):
    link = Link(setting)
    link.learn()
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    link.ack(link.theirs, syndrome=RNR)
    time.sleep(0.05)
    link.epoch += 1
    start = time.monotonic()
    link.send(RESUME, nonce=link.secret, echo=link.its_challenge)
    link.expect(SEND_ONLY, psn=link.theirs, skip={RESUME_ACK})
    check(link.at - start < 0.4, "it waited for the RNR timer")
    link.ack(link.theirs, msn=1)
    link.completions(1)


@clause("RESUME-5", "retry counters := attributes")
def peer_retry_count(setting):
    """Retries before the RESUME do not count."""
    link = Link(setting, timeout=17, retry=3)
    link.learn()
    link.endpoint.post(op="SEND", id=1)
    for _ in range(3):
        link.expect(SEND_ONLY, psn=link.theirs)
    link.epoch += 1
    link.send(RESUME, nonce=link.secret, echo=link.its_challenge)
    for _ in range(4):
        link.expect(SEND_ONLY, psn=link.theirs, skip={RESUME_ACK})
    link.ack(link.theirs, msn=1)
    link.completions(1)


@clause("RESUME-5", "AV := source address")
@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
def peer_moves(setting):
    """In mid-message, and the rest goes to the new address."""
    flow, = several(setting, ("WRITE", 5))
    link = flow.link
    partly_acknowledged([flow], (2,))
    link.pause()
    link.own = setting.other
    link.send(RESUME, nonce=link.secret, rq_psn=(link.theirs + 2) & 0xffffff)
    link.await_(RESUME_ACK, to=setting.other)
    packets = gather([link], flow.requests())[link.qpn]
    for packet in packets:
        link.compare(packet, setting.other, {})
    flow.compare(packets, "at the new address")
    finish([flow])
