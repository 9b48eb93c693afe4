"""Section 5: the endpoint's QPs stop for a snapshot, and what that holds."""

import threading
import time

from clauses import clause
from peer import *

# Its opcode is that of RC, plus this [IBTA 9.2].
UC = 0x20


def quiet(links, seconds=0.5):
    """No packet to any of these QPs; the first link receives."""
    deadline = time.monotonic() + seconds
    numbers = {link.qpn for link in links}
    while (packet := links[0].receive(deadline - time.monotonic(),
                                      mine=False)) is not None:
        check(packet[BTH].dqpn not in numbers,
              f"{describe(packet)} came to QP {packet[BTH].dqpn:#x}")


@clause("STOP-1", "Stop is atomic over a context: every QP is Stopped before the "
        "first byte of the snapshot is taken")
def every_qp(setting):
    first = Link(setting)
    links = [first, first.another(), first.another()]
    for ident, link in enumerate(links):
        link.endpoint.recv(qp=link.index, id=ident)
    first.stop()
    for link in links:
        link.await_(PAUSE)
        link.request(link.mine)
    check(first.endpoint.poll(ms=300)["wc"] == "", "a Stopped QP executed")


@clause("STOP-1", "every QP is Stopped before the first byte of the snapshot is "
        "taken, or none is.")
def none_if_refused(setting):
    """One QP cannot be dumped, as far as this implementation uses its right to
    refuse it [TOMB-8]: the other one goes on."""
    link = Link(setting)
    with setting.address() as address:
        moving = link.another(local=address.text)
        moving.their = address.text
        link.stop()
        link.endpoint.leave()
        address.remove()
        link.endpoint.restore()
        link.endpoint.resume(new_addr=1)
        link.accept(link.await_(RESUME))
        try:
            link.stop()
        except EndpointError:
            link.drain()
            link.endpoint.recv(id=9)
            link.request(link.mine)
            link.expect(ACK, psn=link.mine, syndrome=ACKED)
            link.completions(9)
            return
        link.await_(PAUSE)
        moving.await_(PAUSE)


@clause("STOP-2", "Stop applies to RC QPs in RTR, RTS and SQD")
def connected_states(setting):
    first = Link(setting)
    links = [first, first.another(state="RTR"), first.another(state="SQD")]
    first.stop()
    for link in links:
        packet = link.await_(PAUSE, epoch=1)
        link.its_secret = packet[MIGETH].nonce
    for link in links:
        link.send(PROBE, nonce=0x55, echo=0)
        link.await_(PAUSE, echo=0x55, nonce=link.its_secret)
        link.introduce()
        link.drain()
        link.request(link.mine)
        link.expect_nak(link.mine)


@clause("STOP-2", "freezes QPs of other types and states too; only the former send "
        "and answer as this document says.")
def others_are_silent(setting):
    first = Link(setting)
    links = [first.another(type="UC"), first.another(type="UD"),
             *(first.another(state=state) for state in ("RESET", "INIT", "ERR"))]
    first.stop()
    for link in links:
        link.send(PROBE, nonce=0x55, echo=0)
        link.send(RESUME, nonce=0x55, echo=0)
        link.request(link.mine)
    quiet(links)


@clause("STOP-2", "freezes QPs of other types and states too")
def others_freeze(setting):
    link = Link(setting)
    uc = link.another(type="UC")
    link.endpoint.recv(qp=uc.index, id=7)
    link.stop()
    uc.data(UC + SEND_ONLY, uc.mine, payload=b"x" * 64, ack=False)
    check(link.endpoint.poll(ms=300)["wc"] == "", "a frozen UC QP executed")
    link.endpoint.cancel()
    link.accept(link.await_(RESUME))
    uc.data(UC + SEND_ONLY, uc.mine, payload=b"x" * 64, ack=False)
    link.completions(7)


@clause("STOP-2", "In ERR a QP is saved and restored, and silent.")
def error(setting):
    link = Link(setting, state="ERR")
    link.stop()
    link.endpoint.leave()
    link.endpoint.restore()
    link.endpoint.resume()
    link.send(PROBE, nonce=0x55, echo=0)
    link.request(link.mine)
    link.silence(0.5)
    check(link.endpoint.query()["qp_state"] == 6, "it is not in ERR any more")


@clause("STOP-3", "Before the snapshot the requester, completer and responder MUST "
        "be idle, their timers deleted")
def no_retransmission(setting):
    link = Link(setting, timeout=14)
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    link.stop()
    link.drain()
    # Several times the timeout of 67 ms
    link.silence(0.5, SEND_ONLY)


@clause("STOP-3", "Before the snapshot the requester, completer and responder MUST "
        "be idle, their timers deleted")
def no_rnr_timer(setting):
    link = Link(setting)
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    # Timer code 0x1c: 163.84 ms
    link.ack(link.theirs, syndrome=RNR | 0x1c)
    time.sleep(0.05)
    link.stop()
    link.drain()
    link.silence(0.5, SEND_ONLY)


@clause("STOP-3", "every acknowledgement already sent MUST be covered by the saved "
        "state: the snapshot promises at least what the wire has promised.")
def promises_kept(setting):
    """Stopped amid many SENDs. Those acknowledged are in the snapshot, and
    each is executed once."""
    link, count = Link(setting), 60
    link.endpoint.recv(id=1000, count=count)
    frames = [link.packet(SEND_ONLY, link.mine + number, payload=b"x" * 64)
              for number in range(count)]

    def send(first, pause):
        for frame in frames[first:]:
            link.transmit(frame)
            time.sleep(pause)

    sender = threading.Thread(target=send, args=(0, 0.002))
    sender.start()
    image = link.stop()
    sender.join()
    acked = 0
    while (packet := link.receive(0.2)) is not None:
        if packet[BTH].opcode == ACK and packet[AETH].syndrome == ACKED:
            acked = max(acked, (packet[BTH].psn - link.mine + 1) & 0xffffff)
    saved = (image["resp_psn"] - link.mine) & 0xffffff
    check(acked <= saved <= count, f"{acked} acknowledged, {saved} saved")
    check(image["msn"] == saved, f"MSN {image['msn']} after {saved} messages")
    link.accept(link.back())
    send(acked, 0)
    link.completions(*range(1000, 1000 + count))
    check(link.endpoint.poll(ms=200)["wc"] == "", "one was executed twice")


READS = 24


def read_until_stop(link, packets):
    """It stops amid the replies to many READs. Returns how far these came, of
    which the network may lose some, and how far the image says."""
    length = packets * link.setting.mtu
    link.endpoint.fill(offset=0, len=length)
    frames = [link.packet(READ_REQUEST, link.mine + number * packets,
                          link.reth(0, length)) for number in range(READS)]
    for frame in frames:
        link.transmit(frame)
    image = link.stop()
    came = 0
    # They are too many for scapy.
    for opcode, psn in link.wire.take_headers(0.2):
        if opcode in range(READ_FIRST, READ_ONLY + 1):
            came = max(came, (psn - link.mine + 1) & 0xffffff)
    return came, (image["resp_psn"] - link.mine) & 0xffffff


@clause("STOP-4", "A responder stopped amid a READ reply MUST be saved as if the "
        "reply were complete (next expected PSN behind the READ, nothing in "
        "progress); the requester's retry reaches the duplicate path.")
@clause("STATE-4", "| READ reply in progress | responder | go on | go on | go on | end "
        "it (STOP-4) | |")
def amid_read(setting):
    # So many that the driver's task is interrupted
    packets = 128
    for _ in range(20):
        link = Link(setting)
        came, saved = read_until_stop(link, packets)
        check(saved % packets == 0 and came <= saved,
              f"after {came} of {packets} packets a READ, {saved} are saved")
        if came % packets:
            break
    else:
        raise Failure("it was never stopped amid a READ")
    link.accept(link.back())
    link.drain()
    done, mtu = came % packets, setting.mtu
    link.data(READ_REQUEST, link.mine + came,
              link.reth(done * mtu, (packets - done) * mtu))
    for number in range(done, packets):
        packet = link.receive()
        check(packet is not None and
              packet[BTH].opcode in range(READ_FIRST, READ_ONLY + 1) and
              packet[BTH].psn == (link.mine + came + number - done) & 0xffffff,
              f"{describe(packet)} is reply {number} of {packets}")
        check(pattern(number * mtu, mtu) in bytes(packet),
              f"reply {number} has other data")
    # A new one begins behind those.
    link.data(READ_REQUEST, link.mine + saved, link.reth(0, 64))
    link.expect(READ_ONLY, psn=(link.mine + saved) & 0xffffff)


@clause("STOP-4", "A requester is saved with its retry flag set: after restore it "
        "continues from the first unacknowledged PSN.")
def requester_continues(setting):
    link = Link(setting)
    link.endpoint.post(op="SEND", id=1, count=3)
    for number in range(3):
        link.expect(SEND_ONLY, psn=(link.theirs + number) & 0xffffff)
    link.ack(link.theirs, msn=1)
    link.completions(1)
    link.stop()
    link.accept(link.back())
    for number in (1, 2):
        link.expect(SEND_ONLY, psn=(link.theirs + number) & 0xffffff)
    link.ack(link.theirs + 2, msn=3)
    link.completions(2, 3)
