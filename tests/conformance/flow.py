"""Work on several QPs of the endpoint at once, and what becomes of it when one of
the two ends moves: what the cases of flight have in common.
"""

import struct
import time

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
