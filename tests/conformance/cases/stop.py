"""Section 5: the endpoint's QPs stop for a snapshot."""

import threading
import time

from clauses import clause
from pause import with_limit
from peer import *

# Its opcode is that of RC, plus this [IBTA 9.2].
UC = 0x20


def refused(command, **words):
    try:
        command(**words)
    except EndpointError:
        return
    raise Failure("it was not refused")


def f_self(link, image, **fields):
    """What an instance that lives elsewhere tells the old one [TOMB-4]."""
    link.send(RESUME, **{"flags": F_SELF, "src_qpn": link.their_qpn,
                         "nonce": image["secret"], "epoch": image["epoch"],
                         **fields})
    time.sleep(0.1)


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
@clause("STATE-4", "| READ reply in progress | responder | go on | go on | end "
        "it (STOP-4) |")
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


@clause("STOP-5", "A Stopped QP MUST NOT execute, complete, send requests or send "
        "acknowledgements")
def executes_nothing(setting):
    link = Link(setting)
    link.endpoint.recv(id=9)
    link.endpoint.write(offset=0, data="00" * 8)
    link.stop()
    link.introduce()
    link.drain()
    link.request(link.mine)
    link.expect_nak(link.mine)
    link.data(WRITE_ONLY, link.mine, link.reth(0, 8), payload=b"y" * 8)
    link.expect_nak(link.mine)
    link.data(READ_REQUEST, link.mine, link.reth(0, 8))
    link.expect_nak(link.mine)
    check(link.endpoint.poll(ms=200)["wc"] == "", "it executed a SEND")
    data = link.endpoint.read(offset=0, len=8)["data"]
    check(int(str(data), 16) == 0, "it executed a WRITE")
    link.accept(link.back())
    link.request(link.mine)
    link.expect(ACK, psn=link.mine, syndrome=ACKED, msn=1)
    link.completions(9)


@clause("STOP-5", "A Stopped QP MUST NOT execute, complete, send requests or send "
        "acknowledgements")
def sends_nothing(setting):
    link = Link(setting)
    link.stop()
    link.endpoint.post(op="SEND", id=1)
    link.silence(0.5, *range(0x20))
    link.endpoint.cancel()
    link.accept(link.await_(RESUME))
    link.expect(SEND_ONLY, psn=link.theirs)
    link.ack(link.theirs, msn=1)
    link.completions(1)


@clause("STOP-5", "MUST drop all RC packets other than requests.")
def drops_acknowledgements(setting):
    """Neither one that completes nor one that fails a request."""
    link = Link(setting)
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    link.stop()
    link.introduce()
    link.drain()
    link.ack(link.theirs, msn=1)
    link.ack(link.theirs, syndrome=NAK_REQUEST)
    link.ack(link.theirs, syndrome=NAK_SEQUENCE)
    link.ack(link.theirs, syndrome=RNR)
    link.silence(0.2)
    check(link.endpoint.poll()["wc"] == "", "a Stopped QP completed")
    link.accept(link.back())
    link.expect(SEND_ONLY, psn=link.theirs)
    link.ack(link.theirs, msn=1)
    link.completions(1)


@clause("STOP-5", "MUST drop all RC packets other than requests.")
def drops_read_replies(setting):
    link = Link(setting)
    link.endpoint.write(offset=0, data="00" * 64)
    link.endpoint.post(op="READ", id=1, len=64)
    link.expect(READ_REQUEST, psn=link.theirs)
    link.stop()
    link.introduce()
    link.drain()
    reply = AETH(syndrome=ACKED, msn=1)
    link.data(READ_ONLY, link.theirs, reply, payload=b"z" * 64, ack=False)
    link.silence(0.2)
    check(link.endpoint.poll()["wc"] == "", "a Stopped QP completed")
    data = link.endpoint.read(offset=0, len=8)["data"]
    check(int(str(data), 16) == 0, "a Stopped QP stored the reply")
    link.accept(link.back())
    link.expect(READ_REQUEST, psn=link.theirs)
    link.data(READ_ONLY, link.theirs, reply, payload=b"z" * 64, ack=False)
    link.completions(1)


def stopped(setting, gone):
    """It is Stopped, or only its tombstone is there, and knows us."""
    link = Link(setting)
    image = link.stop()
    link.introduce()
    if gone:
        link.endpoint.leave()
    link.drain()
    return link, image["resp_psn"]


@clause("STOP-6", "A Stopped QP (and a tombstone) answers a request whose source "
        "address is its AV and whose PSN is not beyond its expected PSN `rq_psn` "
        "(window arithmetic modulo 2^24) as CAP-2 says")
def answers_expected(setting):
    for gone in (False, True):
        link, expected = stopped(setting, gone)
        for psn in (expected, expected - 1, expected - 0x7f0000):
            link.request(psn)
            link.expect_nak(psn)


@clause("STOP-6", "answers a request")
def answers_each_request(setting):
    for gone in (False, True):
        link, psn = stopped(setting, gone)
        # More than one packet of a message too, and without AckReq
        link.request(psn, ack=False)
        link.expect_nak(psn)
        link.data(SEND_FIRST, psn, payload=b"x" * setting.mtu, ack=False)
        link.expect_nak(psn)
        link.data(WRITE_ONLY, psn, link.reth(0, 8), payload=b"y" * 8)
        link.expect_nak(psn)
        link.data(READ_REQUEST, psn, link.reth(0, 8))
        link.expect_nak(psn)
        link.data(FETCH_ADD, psn, AtomicETH(va=link.memory["va"],
                                            rkey=link.memory["rkey"]))
        link.expect_nak(psn)


@clause("STOP-6", "drops requests beyond it.")
def drops_beyond(setting):
    for gone in (False, True):
        link, expected = stopped(setting, gone)
        for psn in (expected + 1, expected + 100, expected + 0x7f0000):
            link.request(psn)
        link.silence(0.3)
        link.request(expected)
        link.expect_nak(expected)


@clause("STOP-6", "answers a request whose source address is its AV")
def drops_strangers(setting):
    for gone in (False, True):
        link, expected = stopped(setting, gone)
        link.request(expected, source=setting.other)
        link.silence(0.3)


def pauses(link, seconds):
    """When they came"""
    deadline, times = time.monotonic() + seconds, []
    while (packet := link.receive(deadline - time.monotonic())) is not None:
        check(packet[BTH].opcode == PAUSE, f"{describe(packet)} came")
        times.append(link.at)
    return times


@clause("STOP-7", "On Stop it sends PAUSE to its AV, and repeats it at `RETRY_MIN` "
        "doubling to `RETRY_MAX` until")
@clause("STOP-7", "or `ANNOUNCE` is over.")
def announces(setting):
    link = Link(setting)
    image = link.stop()
    link.expect(PAUSE, to=setting.own, nonce=image["secret"], echo=0,
                epoch=image["epoch"], flags=0, gid=gid(setting.their))
    times = [link.at, *pauses(link, 3.5)]
    check(times[-1] - times[0] < WIRE["ANNOUNCE_MS"] / 1000 + 0.2,
          "it announces for too long")
    check(5 <= len(times) <= 8, f"it announced {len(times)} times")
    nominal = WIRE["RETRY_MIN_MS"] / 1000
    for before, after in zip(times, times[1:]):
        # A quarter at random, and the virtual machines are not fast.
        check(nominal * 0.5 < after - before < nominal * 1.25 + 0.15,
              f"after {after - before:.3f} s, not {nominal} s")
        nominal *= 2


@clause("STOP-7", "until a PROBE with F_PAUSED and echo = `secret` comes")
def probe_ends_it(setting):
    link = Link(setting)
    link.stop()
    link.await_(PAUSE)
    link.introduce()
    link.drain()
    link.silence(2)


@clause("STOP-7", "until a PROBE with F_PAUSED and echo = `secret` comes")
def other_probes_do_not(setting):
    for fields in ({"echo": 0, "flags": F_PAUSED},
                   {"echo": 0xbad, "flags": F_PAUSED},
                   {"flags": 0}):
        link = Link(setting)
        image = link.stop()
        link.send(PROBE, nonce=0x55, **{"echo": image["secret"], **fields})
        link.await_(PAUSE, echo=0x55)
        check(len(pauses(link, 1)) >= 2, f"a PROBE with {fields} ended it")


@clause("STOP-8", "It MUST NOT acknowledge a RESUME.")
def acknowledges_no_resume(setting):
    """Ours, which it would have accepted, and accepts when it is back."""
    link = Link(setting)
    link.pause()
    link.stop()
    link.introduce()
    link.drain()
    link.send(RESUME, nonce=link.secret)
    link.expect(PAUSE, nonce=link.its_secret, to=setting.own)
    link.silence(0.2)
    link.accept(link.back())
    link.endpoint.post(op="SEND", id=1)
    link.silence(0.2, SEND_ONLY)
    link.resume()
    link.expect(SEND_ONLY, psn=link.theirs)


@clause("STOP-8", "It answers migration packets as the state table says.")
def drops_the_others(setting):
    """What changes a live QP: the column S of the table has no answer."""
    link = Link(setting)
    image = link.stop()
    link.introduce()
    link.drain()
    challenge, secret = image["challenge"], image["secret"]
    for opcode, fields in (
            (PAUSE, {"epoch": 5, "nonce": 0x1, "echo": challenge}),
            (PAUSE, {"epoch": 5, "nonce": 0x1, "echo": 0xbad}),
            (RUNNING, {"echo": challenge}),
            (RESUME_ACK, {"epoch": image["epoch"], "nonce": 0x1,
                          "echo": secret}),
            (MOVED, {"epoch": 5, "echo": challenge, "gid": gid(setting.other)}),
            (MOVED, {"epoch": 5, "echo": secret, "gid": gid(setting.other)})):
        link.send(opcode, **fields)
        link.silence(0.1)
    # Nothing has changed: it is not Paused, and resumes at this address only.
    link.endpoint.cancel()
    link.accept(link.await_(RESUME, to=setting.own, echo=link.challenge))
    link.drain()
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs, to=setting.own)


def still_stopped(link):
    link.drain()
    link.request(link.mine)
    link.expect_nak(link.mine)
    link.silence(0.3)


@clause("STOP-9", "After COMMIT, or after an accepted F_SELF, CANCEL and every "
        "automatic resume in place MUST fail.")
def committed(setting):
    link = Link(setting)
    link.stop()
    link.introduce()
    link.endpoint.commit()
    refused(link.endpoint.cancel)
    still_stopped(link)
    try:
        link.endpoint.lose()
    except EndpointError:
        pass  # COMMIT has closed it
    still_stopped(link)


@clause("STOP-9", "After COMMIT, or after an accepted F_SELF, CANCEL and every "
        "automatic resume in place MUST fail.")
@clause("TOMB-4", "On a Stopped QP this also commits (STOP-9).")
def committed_by_self(setting):
    link = Link(setting)
    image = link.stop()
    link.introduce()
    f_self(link, image, source=setting.other)
    refused(link.endpoint.cancel)
    still_stopped(link)
    link.endpoint.lose()
    still_stopped(link)


@clause("STOP-9", "after an accepted F_SELF, CANCEL and every automatic resume in "
        "place MUST fail.")
def wrong_self_commits_not(setting):
    link = Link(setting)
    image = link.stop()
    f_self(link, image, nonce=image["secret"] ^ 1)
    f_self(link, image, epoch=image["epoch"] - 1)
    f_self(link, image, src_qpn=link.qpn)
    link.endpoint.cancel()
    link.accept(link.await_(RESUME))
    link.request(link.mine)
    link.await_(ACK, psn=link.mine)


@clause("STOP-9", "A lease that ends without either resumes the QP in place, not "
        "before `LEASE_GRACE`.")
def lease_ends(setting):
    link = Link(setting)

    def act():
        image = link.stop()
        link.introduce()
        link.endpoint.post(op="SEND", id=1)
        link.drain()
        link.endpoint.lose()
        link.silence(0.7 * SLOW, RESUME, SEND_ONLY)
        link.accept(link.await_(RESUME, epoch=image["epoch"],
                                nonce=image["secret"]))
        link.expect(SEND_ONLY, psn=link.theirs)
        link.ack(link.theirs, msn=1)
        link.completions(1)
    with_limit(link, "lease_grace", 1000 * SLOW, act)


@clause("STOP-9", "A lease that ends without either resumes the QP in place")
def lease_ends_at_once(setting):
    link = Link(setting)

    def act():
        image = link.stop()
        link.introduce()
        link.endpoint.lose()
        link.accept(link.await_(RESUME, epoch=image["epoch"]))
    with_limit(link, "lease_grace", 0, act)


@clause("STOP-9", "not before `LEASE_GRACE`")
def cancelled_within_grace(setting):
    link = Link(setting)
    image = link.stop()
    link.introduce()
    link.endpoint.lose()
    link.endpoint.cancel()
    link.accept(link.await_(RESUME, epoch=image["epoch"]))


@clause("STOP-9", "not before `LEASE_GRACE`")
def gone_within_grace(setting):
    """Its application dies with the holder: nothing but a tombstone is left."""
    link = Link(setting)
    image = link.stop()
    link.introduce()
    link.endpoint.post(op="SEND", id=1)
    link.drain()
    link.endpoint.lose()
    link.endpoint.destroy(qp=link.index)
    link.send(PROBE, nonce=0x55, echo=0)
    link.expect(PAUSE, flags=F_TOMBSTONE, nonce=image["secret"])
    link.silence(0.3, RESUME, SEND_ONLY)


@clause("STOP-9", "The snapshot's holder MUST commit (give up CANCEL) before any "
        "instance made from the snapshot is activated.")
def not_cancelled_after_activation(setting):
    link = Link(setting)
    link.stop()
    link.endpoint.leave()
    refused(link.endpoint.cancel)
    link.endpoint.restore()
    refused(link.endpoint.cancel)
    link.silence(0.3, RESUME)


@clause("STOP-10", "CANCEL makes the QP Resuming at the same address, epoch "
        "unchanged")
def cancelled(setting):
    link = Link(setting)
    image = link.stop()
    link.introduce()
    link.endpoint.post(op="SEND", id=1)
    link.drain()
    link.endpoint.cancel()
    packet = link.expect(RESUME, to=setting.own, epoch=image["epoch"],
                         nonce=image["secret"], echo=link.challenge,
                         gid=gid(setting.their), flags=0)
    # Resuming: it repeats that, and its requester waits for the answer.
    link.silence(0.3, SEND_ONLY)
    link.accept(packet)
    link.expect(SEND_ONLY, psn=link.theirs)
    link.ack(link.theirs, msn=1)
    link.completions(1)


@clause("STOP-10", "PAUSE may have been accepted, so RESUME is needed as after a "
        "migration")
def cancel_ends_at_answer(setting):
    link = Link(setting)
    link.stop()
    link.endpoint.cancel()
    packet = link.await_(RESUME)
    link.await_(RESUME)
    link.accept(packet)
    link.drain()
    link.silence(1.5)
