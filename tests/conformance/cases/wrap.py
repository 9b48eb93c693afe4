"""PSNs that wrap while an end is stopped, in each setting."""

from clauses import clause
from flow import Flow, introduced, migrate
from peer import *

LAST = 0xffffff


@clause("STOP-6", "(window arithmetic modulo 2^24)")
@clause("RESUME-1", "sends RESUME, whether its partner is Paused or not.")
def window(setting):
    """Of what it has received: its expected PSN is 1, from 0xfffffe on."""
    link = introduced(Link(setting, mine=LAST - 1))
    for number in range(3):
        link.data(WRITE_ONLY, link.mine + number, link.reth(0, 8), payload=bytes(8))
        link.await_(ACK, psn=(link.mine + number) & LAST, msn=number + 1)
    image = link.stop()
    check(image["resp_psn"] == 1, f"it expects {image['resp_psn']:#x}")
    link.introduce()
    for gone in (False, True):
        if gone:
            link.endpoint.leave()
        link.drain(0.05)
        for psn in (1, 0, LAST, LAST - 1, 1 - 0x7f0000):
            link.request(psn)
            link.expect_nak(psn)
        for psn in (2, 0x7f0000):
            link.request(psn)
        link.silence(0.2)
    link.endpoint.restore()
    link.endpoint.resume()
    link.accept(link.await_(RESUME, rq_psn=1))
    # a duplicate from before the wrap, and the next
    link.data(WRITE_ONLY, link.mine, link.reth(0, 8), payload=bytes(8))
    link.await_(ACK, psn=0, syndrome=ACKED, msn=3)
    link.data(WRITE_ONLY, 1, link.reth(0, 8), payload=bytes(8))
    link.await_(ACK, psn=1, syndrome=ACKED, msn=4)


@clause("STOP-4", "the requester's retry reaches the duplicate path.")
@clause("STOP-3", "the snapshot promises at least what the wire has promised.")
def replay(setting):
    """Of a READ across the wrap, from its start and from behind the wrap on, and of an
    atomic behind it"""
    link = introduced(Link(setting, mine=LAST - 1))
    mtu = setting.mtu
    link.endpoint.fill(offset=0, len=4 * mtu, seed=5)
    data = pattern(0, 4 * mtu, 5)

    def read(skip):
        link.data(READ_REQUEST, link.mine + skip,
                  link.reth(skip * mtu, (4 - skip) * mtu))
        for number in range(skip, 4):
            packet = link.receive()
            check(packet is not None and READ_FIRST <= packet[BTH].opcode <= READ_ONLY and
                  packet[BTH].psn == (link.mine + number) & LAST,
                  f"{describe(packet)} is response {number}")
            check(data[number * mtu:(number + 1) * mtu] in bytes(packet),
                  f"response {number} has other data")

    def add():
        link.data(FETCH_ADD, link.mine + 4, AtomicETH(
            va=link.memory["va"] + 8 * mtu, rkey=link.memory["rkey"], swap=1))
        packet = link.await_(ATOMIC_ACK, psn=(link.mine + 4) & LAST)
        return bytes(packet[BTH])[16:24]
    read(0)
    before = add()
    found = migrate(link)
    link.compare(found[link.qpn], None, {"rq_psn": (link.mine + 5) & LAST})
    link.drain(0.05)
    read(0)
    read(3)
    check(add() == before, "the atomic was executed again")


@clause("RESUME-11", "Both sides continue from the last acknowledged PSN.")
@clause("STOP-4", "after restore it continues from the first unacknowledged PSN.")
def requester(setting):
    """A message across the wrap, acknowledged to before it, and to behind it"""
    for acked in (1, 3):
        link = introduced(Link(setting, theirs=LAST - 1))
        flow = Flow(link, "SEND", 5)
        flow.post()
        for number in range(5):
            link.await_(flow.opcode(number), psn=(link.theirs + number) & LAST)
        flow.acknowledge(acked)
        link.drain()
        found = migrate(link)
        link.compare(found[link.qpn], None, {"sq_psn": (link.theirs + acked) & LAST})
        for number in range(acked, 5):
            link.await_(flow.opcode(number), psn=(link.theirs + number) & LAST)
        flow.finish()


@clause("RESUME-4", "`rq_psn` is not behind the receiver's first unacknowledged PSN "
        "(difference modulo 2^24 below 2^23) nor beyond the PSN that follows what the "
        "receiver has sent.")
def numbers_agree(setting):
    """Of four requests, before and behind the wrap, two are acknowledged."""
    link = Link(setting, theirs=LAST - 1)
    link.endpoint.post(op="SEND", id=1, count=4)
    for number in range(4):
        link.expect(SEND_ONLY, psn=(link.theirs + number) & LAST)
    link.ack(link.theirs + 1)
    link.completions(1, 2)
    for expected in (0, 1, 2):
        link.pause()
        for wrong in (LAST, LAST - 1, 3, 4, 0x100, 0x7fffff, 0x800000):
            link.send(RESUME, nonce=link.secret, rq_psn=wrong)
        link.silence(0.2, RESUME_ACK, SEND_ONLY)
        link.resume(rq_psn=expected)
        for psn in (0, 1):
            link.await_(SEND_ONLY, psn=psn)
    link.ack(1)
    link.completions(3, 4)
