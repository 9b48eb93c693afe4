"""Section 5: what a Stopped QP says, and does not do."""

import time

from clauses import clause
from peer import *


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
@clause("STATE-3", "| RETRY timer | | | RESUME, F_SELF | PAUSE (announcement) | |")
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
