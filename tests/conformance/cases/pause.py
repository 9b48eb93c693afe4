"""Section 6: a partner stops, and this end waits for it."""

import time

from clauses import clause
from peer import *


@clause("PAUSE-1", "A PAUSE is accepted by a Running, Paused or Resuming QP iff "
        "it is fresh and its echo matches `challenge`.")
@clause("STATE-1", "`ibv_query_qp` on a Paused RTS QP reports RTS")
def accepted(setting):
    link = Link(setting)
    link.pause()
    check(link.endpoint.query()["qp_state"] == 3, "the QP does not report RTS")
    link.endpoint.post(op="SEND", id=1)
    link.silence(0.5, SEND_ONLY)
    link.resume()
    link.expect(SEND_ONLY, psn=link.theirs)
    link.ack(link.theirs)
    link.completions(1)


@clause("PAUSE-1", "Then `peer_epoch` := epoch, `peer_secret` := nonce, `peer_stopped` := "
        "1")
@clause("PAUSE-1", "`peer_capable` := 1, and a PROBE with F_PAUSED and echo = that nonce "
        "is the answer (ACC-4).")
def what_it_knows(setting):
    """Also by a PAUSE of another epoch, and by one that comes from elsewhere"""
    link = Link(setting)
    for source in (setting.own, setting.other):
        link.learn()
        link.epoch += 7
        link.secret += 1
        link.send(PAUSE, nonce=link.secret, echo=link.its_challenge, source=source)
        link.await_(PROBE, echo=link.secret, flags=F_PAUSED, to=setting.own,
                    nonce=link.its_challenge)
    image = link.stop()
    for name, value in (("peer_epoch", link.epoch), ("peer_secret", link.secret),
                        ("peer_stopped", 1), ("capable", 1),
                        ("challenge", link.its_challenge)):
        check(image[name] == value, f"{name} is {image[name]:#x}, not {value:#x}")


@clause("PAUSE-2", "A fresh PAUSE whose echo does not match changes nothing; the "
        "QP answers PROBE (echo = its nonce, ACC-4).")
def wrong_echo(setting):
    link = Link(setting)
    for echo in (0, link.learn() ^ 1):
        link.send(PAUSE, epoch=5, nonce=0x77, echo=echo)
        link.expect(PROBE, echo=0x77, flags=0, nonce=link.its_challenge, to=link.own)
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)


@clause("PAUSE-3", "While Paused the requester sends nothing and the "
        "retransmission and RNR timers are off.")
def no_retransmission(setting):
    link = Link(setting, timeout=16, retry=2)
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    link.pause()
    link.drain()
    # The timeout is 268 ms, and there are two retries.
    link.silence(2, SEND_ONLY)
    link.resume()
    link.expect(SEND_ONLY, psn=link.theirs)
    link.ack(link.theirs)
    link.completions(1)


@clause("PAUSE-3", "The responder runs as usual.")
def responder_runs(setting):
    link = Link(setting)
    link.endpoint.fill(offset=0, len=64)
    link.pause()
    link.data(READ_REQUEST, link.mine, link.reth(0, 64))
    link.await_(READ_ONLY, psn=link.mine)
    link.endpoint.recv(id=9)
    link.data(SEND_ONLY, link.mine + 1, payload=b"x" * 64)
    link.await_(ACK, psn=(link.mine + 1) & 0xffffff)
    link.completions(9)


def nak(link, psn, token=None, **options):
    """NAK_STOPPED: the token is of its challenge unless given."""
    if token is None:
        token = link.its_challenge & WIRE["TOKEN_MASK"]
    link.ack(psn, syndrome=NAK_STOPPED, msn=token, **options)


def sent(link, count):
    """The endpoint posts SENDs, and we see them."""
    link.endpoint.post(op="SEND", id=1, count=count)
    for number in range(count):
        link.expect(SEND_ONLY, psn=(link.theirs + number) & 0xffffff)


@clause("PAUSE-4", "Then the requester is held at once, `nak_paused` := 1 and PROBE "
        "is sent.")
@clause("PAUSE-5", "a NAK_STOPPED MAY acknowledge the PSNs before its own, as any "
        "acknowledge packet does")
def nak_stopped(setting):
    link = Link(setting, timeout=17, retry=2)
    link.learn()
    sent(link, 3)
    nak(link, link.theirs + 1)
    link.await_(PROBE, flags=F_PAUSED, nonce=link.its_challenge)
    # We may have been slow.
    link.drain(0.05)
    # It need not, but then the partner is asked once more.
    link.ack(link.theirs)
    link.endpoint.post(op="SEND", id=4)
    # It does not count as a retry, of which there are two, and none is made.
    link.silence(2, SEND_ONLY)
    link.send(RUNNING, echo=link.its_challenge)
    link.await_(SEND_ONLY, psn=(link.theirs + 3) & 0xffffff)
    link.ack(link.theirs + 3)
    link.completions(1, 2, 3, 4)


@clause("PAUSE-4", "A NAK_STOPPED is accepted iff source = AV, token matches the low "
        "24 bits of `challenge` and its PSN lies between the first unacknowledged and "
        "the last sent PSN.")
def nak_stopped_elsewhere(setting):
    link = Link(setting)
    link.learn()
    sent(link, 2)
    nak(link, link.theirs, source=setting.other)
    nak(link, link.theirs - 1)
    nak(link, link.theirs + 2)
    time.sleep(0.3)
    link.drain()
    link.endpoint.post(op="SEND", id=3)
    link.expect(SEND_ONLY, psn=(link.theirs + 2) & 0xffffff)


@clause("PAUSE-4", "its PSN lies between the first unacknowledged and the last sent PSN")
def nak_stopped_ahead(setting):
    """In a message of more packets than may be unacknowledged, one not yet sent"""
    link = Link(setting, timeout=21)
    link.learn()
    link.endpoint.post(op="SEND", id=1, len=200 * setting.mtu)
    count = 0
    while (packet := link.receive(1.0 * SLOW)) is not None:
        check(count < 190, "it does not wait for an acknowledgement")
        count += packet[BTH].opcode in (SEND_FIRST, SEND_MIDDLE)
    check(count, "no packet came")
    nak(link, (link.theirs + count + 5) & 0xffffff)
    link.await_(PROBE, flags=0)
    link.ack((link.theirs + count - 1) & 0xffffff)
    link.expect(SEND_MIDDLE, psn=(link.theirs + count) & 0xffffff)


@clause("PAUSE-4", "It MUST NOT fail a work request or count as a retry.")
def nak_stopped_is_no_retry(setting):
    """With the only retry, and without any"""
    for retry in (1, 0):
        link = Link(setting, retry=retry, rnr=0)
        link.learn()
        sent(link, 1)
        for _ in range(3):
            nak(link, link.theirs)
            link.await_(PROBE, flags=F_PAUSED)
            check(not link.endpoint.poll(ms=100)["wc"], "the request has completed")
            link.send(RUNNING, echo=link.its_challenge)
            link.await_(SEND_ONLY, psn=link.theirs)
        link.ack(link.theirs)
        link.completions(1)


@clause("PAUSE-5", "A NAK_STOPPED with a wrong token holds nothing and SHOULD cause "
        "a PROBE.")
def nak_stopped_wrong_token(setting):
    link = Link(setting)
    link.learn()
    sent(link, 1)
    nak(link, link.theirs, token=(link.its_challenge ^ 1) & 0xffffff)
    link.await_(PROBE, flags=0)
    link.endpoint.post(op="SEND", id=2)
    link.expect(SEND_ONLY, psn=(link.theirs + 1) & 0xffffff)


@clause("PAUSE-6", "A Paused QP sends PROBE to AV and forward at `PROBE_MIN` doubling "
        "to `PROBE_MAX`.")
@clause("TIME-2", "Each implementation SHOULD add up to a quarter of random delay to "
        "PROBE and RESUME")
def probes(setting):
    link = Link(setting)
    link.learn()
    start = time.monotonic()
    link.pause()
    intervals(link, start, PROBE, (200, 400, 800, 1600), flags=F_PAUSED,
              echo=link.secret)


@clause("PAUSE-6", "So a pause heals itself whatever was lost.")
def heals(setting):
    """Answers to two PROBEs are lost, and what would have ended the pause."""
    link = Link(setting)
    link.learn()
    sent(link, 1)
    nak(link, link.theirs)
    for _ in range(3):
        packet = link.await_(PROBE, flags=F_PAUSED)
    link.send(RUNNING, echo=packet[MIGETH].nonce)
    link.await_(SEND_ONLY, psn=link.theirs)
    link.pause()
    for _ in range(2):
        link.await_(PROBE, flags=F_PAUSED, echo=link.secret)
    link.resume()
    link.await_(SEND_ONLY, psn=link.theirs)
    link.ack(link.theirs)
    link.completions(1)


def intervals(link, start, opcode, wanted, **fields):
    """Such a packet comes after each of these times in milliseconds, or up to
    a quarter later. A virtual machine may be late, but never early."""
    earliest = 0
    for interval in wanted:
        link.expect(opcode, seconds=4, **fields)
        earliest += interval
        passed = (link.at - start) * 1000
        check(passed >= earliest * 0.9, f"{NAMES[opcode]} {passed:.0f} ms after the "
              f"first, not {earliest} or later")
    check(passed <= earliest * 1.25 + 1500, f"the last {NAMES[opcode]} came "
          f"{passed:.0f} ms after the first, not {earliest} to {earliest * 1.25:.0f}")


@clause("PAUSE-7", "A Running QP without `resume_pending` answers PROBE with RUNNING (nonce "
        "= its challenge).")
@clause("WIRE-3", "| RUNNING | own challenge | PROBE's nonce | own | own | AV, if the "
        "PROBE's source |")
def probe_running(setting):
    link = Link(setting)
    challenge = link.learn()
    link.send(PROBE, nonce=0x4711)
    link.expect(RUNNING, echo=0x4711, nonce=challenge, epoch=0, gid=gid(link.their),
                src_qpn=link.their_qpn, to=link.own)
    link.send(PROBE, nonce=0x4712, source=setting.other)
    link.silence(0.3)


@clause("PAUSE-7", "A QP with `resume_pending` (Resuming, or Running after RESUME-9) "
        "answers RESUME.")
def probe_resuming(setting):
    link = Link(setting)
    link.stop()
    link.introduce()
    link.back()
    time.sleep(0.3)
    link.send(PROBE, nonce=0x4711)
    link.await_(RESUME, echo=0x4711, nonce=link.its_secret)
    link.silence(0.2, RUNNING)


@clause("PAUSE-8", "RUNNING is accepted iff its echo matches `challenge`.")
def running_wrong_echo(setting):
    link = Link(setting)
    link.learn()
    sent(link, 1)
    nak(link, link.theirs)
    link.await_(PROBE, flags=F_PAUSED)
    for echo in (0, link.its_challenge ^ 1, link.its_secret):
        link.send(RUNNING, echo=echo)
    link.silence(0.3, SEND_ONLY)


@clause("PAUSE-8", "It MUST NOT clear `peer_stopped`, which only an accepted RESUME "
        "ends, nor replace a `peer_challenge`.")
def running_after_pause(setting):
    link = Link(setting)
    link.pause()
    link.endpoint.post(op="SEND", id=1)
    link.send(RUNNING, echo=link.its_challenge)
    link.silence(0.5, SEND_ONLY)
    link.resume()
    link.expect(SEND_ONLY, psn=link.theirs)


def stopped(setting, gone):
    """A Stopped QP, or its tombstone, that has not said anything for a while."""
    link = Link(setting)
    link.stop()
    link.introduce()
    if gone:
        link.endpoint.leave()
    time.sleep(0.1)
    link.drain()
    return link


@clause("PAUSE-9", "A Stopped QP or tombstone that receives PROBE: 1. if its echo "
        "matches `secret`: `peer_capable` := 1, `peer_challenge` := nonce")
def probe_introduces(setting):
    for gone in (False, True):
        link = stopped(setting, gone)
        for challenge in (0xabc111111, 0xabc222222):
            link.send(PROBE, nonce=challenge, echo=link.its_secret,
                      flags=F_PAUSED)
            # It answers nothing else for a while.
            time.sleep(0.1)
            link.data(SEND_ONLY, link.mine, payload=b"x")
            link.expect(ACK, psn=link.mine, syndrome=NAK_STOPPED,
                        msn=challenge & WIRE["TOKEN_MASK"])
        link.send(PROBE, nonce=0xabc333333, echo=link.its_secret ^ 1)
        link.await_(PAUSE)
        link.data(SEND_ONLY, link.mine, payload=b"x")
        link.expect(ACK, msn=0xabc222222 & WIRE["TOKEN_MASK"])


@clause("PAUSE-9", "F_PAUSED ends the announcement")
def announcement_ends(setting):
    link = Link(setting)
    link.stop()
    link.await_(PAUSE)
    link.introduce()
    link.drain()
    link.silence(1.2, PAUSE)


@clause("PAUSE-9", "if the source is its AV or forward, and not (F_PAUSED and echo = "
        "`secret`): answers PAUSE.")
@clause("PAUSE-9", "The exception in 3 is required: PAUSE answered by PROBE answered by "
        "PAUSE would run for ever at the speed of the network.")
def probe_stopped(setting):
    for gone in (False, True):
        link = stopped(setting, gone)
        flags = F_TOMBSTONE if gone else 0
        link.send(PROBE, nonce=0x4711)
        link.expect(PAUSE, echo=0x4711, nonce=link.its_secret, epoch=1, flags=flags)
        link.send(PROBE, nonce=0x4712, flags=F_PAUSED)
        link.expect(PAUSE, echo=0x4712, nonce=link.its_secret, epoch=1, flags=flags)
        link.send(PROBE, nonce=0x4713, source=setting.other)
        link.send(PROBE, nonce=0x4714, echo=link.its_secret, flags=F_PAUSED)
        link.silence(0.3)


@clause("PAUSE-10", "A pause is bounded by `PAUSE_LIMIT`, counted from the moment the "
        "requester was held and not restarted by duplicates.")
@clause("PAUSE-10", "Then a QP with outstanding work fails it with retry-exceeded and "
        "goes to ERR, as after any unreachable partner")
@clause("STATE-3", "| PAUSE_LIMIT | | ERR if work outstanding | the same if "
        "`peer_stopped` | | |")
def bounded(setting):
    link = Link(setting)

    def act():
        link.endpoint.post(op="SEND", id=1)
        link.pause()
        # As long as they come, a bound that they restarted would not be reached.
        for _ in range(20):
            link.send(PAUSE, nonce=link.secret, echo=link.its_challenge)
            done = link.endpoint.poll(ms=200)["wc"]
            if done:
                break
        check(done == "1:12", f"completion {done or 'none'}, not retry-exceeded")
        check(link.endpoint.query()["qp_state"] == 6, "the QP is not in ERR")
    with_limit(link, "pause_limit", 1000, act)


@clause("TIME-1", "limits are module parameters, 0 = no limit")
@clause("PAUSE-10", "a QP with outstanding work fails it with retry-exceeded and goes "
        "to ERR")
def unbounded(setting):
    """0 is not at once."""
    link = Link(setting, timeout=16, retry=2)
    before = link.endpoint.counters()["mig_gave_up"]
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)

    def waits():
        link.pause()
        link.endpoint.post(op="SEND", id=2)
        # Several PROBEs, which is when a limit is looked at
        done = link.endpoint.poll(ms=4000)["wc"]
        check(not done, f"completion {done} without a limit")
        check(link.endpoint.query()["qp_state"] == 3, "the QP left RTS")
        link.drain()
        link.resume()
        for psn in (link.theirs, link.theirs + 1):
            link.expect(SEND_ONLY, psn=psn & 0xffffff)
        link.ack(link.theirs + 1, msn=2)
        link.completions(1, 2)
        check(link.endpoint.counters()["mig_gave_up"] == before, "counted")
    with_limit(link, "pause_limit", 0, waits)


@clause("SEC-8", "QPs that gave up;")
def counts_gave_up(setting):
    """and the kernel's log names them"""
    link = Link(setting)
    before = link.endpoint.counters()["mig_gave_up"]
    message = (f"qp#{link.their_qpn} .*partner qp#{link.qpn} did not resume within "
               "[1-9][0-9]* ms, giving up")
    # Another QP may have had the number.
    named = f"dmesg | grep -c '{message}'"
    link.endpoint.shell(f"{named} >/tmp/gave-up || true")

    def act():
        link.pause()
        link.endpoint.post(op="SEND", id=1)
        link.endpoint.poll(ms=4000)
        time.sleep(0.1)
        check(link.endpoint.counters()["mig_gave_up"] == before + 1, "not counted")
        link.endpoint.shell(f"[ $({named}) -gt $(cat /tmp/gave-up) ]")
    with_limit(link, "pause_limit", 500, act)


@clause("PAUSE-10", "a QP without outstanding work stays as it is and the limit "
        "applies when work is posted")
def bounded_idle(setting):
    link = Link(setting)

    def act():
        link.pause()
        time.sleep(1.5)
        check(link.endpoint.query()["qp_state"] == 3, "an idle QP left RTS")
        link.endpoint.post(op="SEND", id=1)
        done = link.endpoint.poll(ms=4000)["wc"]
        check(done == "1:12", f"completion {done or 'none'}, not retry-exceeded")
    with_limit(link, "pause_limit", 500, act)
