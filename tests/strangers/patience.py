"""patience.py: what partners with little or much patience see of a migration.

Runs in h2. The QPs that migrate are in h1, where they come back with the address that
they had, and that nobody had in between. Their partners are in h2, with the extension, and
in h3 and h4, without. Both ends are tests/conformance/endpoint.c.
"""

import math
import sys
import time

from peer import Endpoint, pattern

SUCCESS, FLUSHED, REM_ACCESS, RETRY_EXCEEDED, RNR_EXCEEDED = 0, 5, 10, 12, 13
ADDRESS = "10.77.0.1"
OURS, STOCK, NEWER = 2, 3, 4
# Seconds that nobody has the address
BLACKOUT = 5
RECEIVED = ("SEND", "SEND_IMM", "WRITE_IMM", "SEND_INV")
OPERATIONS = (*RECEIVED[:3], "WRITE", "READ", "CAS", "FAA")
# Without patch 0009 they are sent again with address 0.
WRONGLY_RETRIED = ("FLUSH", "ATOMIC_WRITE")
# Messages of several packets, two of them with a memory window: WINDOW writes through it.
LONG_OPERATIONS = (*RECEIVED, "WRITE", "READ", "WINDOW")
LONG = 8192
# Each QP has one at either end, and one where it receives.
SLOT, RECEIVE = 16384, 1 << 19
# 67 ms: perftest; 1.07 s: UCX
PERFTEST, UCX, NO_TIMEOUT = 14, 18, 0
# Until a QP that does not know its partner answers requests (CAP-2)
CAP_WAIT = 0.14
# The last packets of messages, and what stops a QP
LASTS = "{ 0x02, 0x03, 0x08, 0x09, 0x0f, 0x16 }"
PAUSE = "0xe0"
ANNOUNCEMENT = "all of 2 s"
ANYTHING = "0-255"


def check(good, text):
    if not good:
        raise AssertionError(text)


class Pair:
    """QPs of h1, and their partners in another host. QPs of both are numbered alike."""

    def __init__(self, host):
        self.here = Endpoint("fd77::1")
        self.there = Endpoint(f"fd77::{host}")
        self.remote = f"10.77.0.{host}"
        self.memory = self.here.open()
        self.there.open()
        self.address("replace")
        # Keys that requests have; those of windows are not that of the memory.
        self.keys = {}

    def close(self):
        self.address("replace")
        for end in (self.here, self.there):
            self.hears(end)
        self.here.close()
        self.there.close()

    def address(self, verb):
        self.here.shell(f"ip address {verb} {ADDRESS}/24 dev eth0")

    def connect(self, **patience):
        """Another connection; its number"""
        a, b = self.here.setup(state="INIT"), self.there.setup(state="INIT")
        self.here.modify(qp=a["qp"], state="RTS", anew=1, local=ADDRESS,
                         remote=self.remote, dest=b["qpn"], rq_psn=1000, sq_psn=2000,
                         **patience)
        self.there.modify(qp=b["qp"], state="RTS", anew=1, local=self.remote,
                          remote=ADDRESS, dest=a["qpn"], rq_psn=2000, sq_psn=1000,
                          **patience)
        for _ in range(2):
            self.here.recv(qp=a["qp"], id=a["qp"], offset=RECEIVE + SLOT * a["qp"],
                           len=SLOT)
        return a["qp"]

    def window(self, qp):
        """The QP's partner sees its slot through a memory window."""
        self.keys[qp] = self.here.bind(qp=qp, id=qp, offset=SLOT * qp, len=SLOT)["rkey"]
        check(self.ended(self.here, 1) == [(qp, SUCCESS)], "no window")

    def post(self, requests, size=64):
        """The partners' requests: QP -> operation. Their ids are those of the QPs."""
        for qp, op in requests.items():
            self.there.post(qp=qp, op="WRITE" if op == "WINDOW" else op, id=qp,
                            va=self.memory["va"] + SLOT * qp, offset=SLOT * qp,
                            remote_key=self.keys.get(qp, self.memory["rkey"]),
                            len=8 if op in ("CAS", "FAA") else size)

    def fill(self, requests):
        """What is to be sent, or read"""
        for qp, op in requests.items():
            end = self.here if op == "READ" else self.there
            end.fill(offset=SLOT * qp, len=LONG, seed=qp + 1)

    def arrived(self, requests):
        """All of it is where it should be."""
        for qp, op in requests.items():
            end = self.there if op == "READ" else self.here
            offset = SLOT * qp + RECEIVE * op.startswith("SEND")
            found = end.read(offset=offset, len=LONG)["data"]
            check(found == pattern(0, LONG, qp + 1).hex(), f"{op}: other contents")

    @staticmethod
    def deaf(end, opcodes, count=0):
        """RoCE packets with these opcodes, or the first so many, do not arrive there."""
        first = f"quota until {100 * count} bytes" if count else ""
        end.shell("nft add table inet patience; nft 'add chain inet patience in "
                  "{ type filter hook input priority 0; }'; nft 'add rule inet patience in "
                  f"udp dport 4791 @th,64,8 {opcodes} {first} drop'")

    @staticmethod
    def hears(end):
        end.shell("nft delete table inet patience 2>/dev/null || true")

    @staticmethod
    def ended(end, count, seconds=20):
        """(QP, status) of the completions, as soon as there are that many"""
        text = end.poll(ms=int(seconds * 1000), count=count).get("wc", "")
        return sorted(tuple(int(number) for number in word.split(":"))
                      for word in str(text).split(",") if word)

    def failed(self, qp, status, seconds):
        """It fails with that status."""
        found = self.ended(self.there, 1, seconds)
        check(found == [(qp, status)], f"partner: {found}")

    def waits(self, seconds):
        found = self.ended(self.there, 1, seconds)
        check(not found, f"partner: {found}")

    def whole(self, requests):
        """Each is done, and was received, once."""
        found = self.ended(self.there, len(requests))
        check(found == [(qp, SUCCESS) for qp in sorted(requests)], f"partner: {found}")
        wanted = sorted(qp for qp, op in requests.items() if op in RECEIVED)
        found = self.ended(self.here, len(wanted), 5)
        check(found == [(qp, SUCCESS) for qp in wanted], f"receiver: {found}")
        check(not self.ended(self.here, 1, 0.3), "received twice")

    def gap(self, seconds):
        """The QPs are Stopped; from tombstones to nothing at all, and back"""
        self.here.leave()
        self.address("del")
        time.sleep(seconds)
        self.address("add")
        self.here.restore()
        self.here.resume()


def stopped(pair):
    """A migration: Stopped, away, and back"""
    pair.here.stop()
    for end in (pair.here, pair.there):
        pair.hears(end)
    pair.waits(2)
    pair.gap(BLACKOUT)


def unheard(pair):
    """No migration: for as long nothing arrives."""
    pair.deaf(pair.here, ANYTHING)
    pair.waits(2 + BLACKOUT)
    for end in (pair.here, pair.there):
        pair.hears(end)


def works(pair, requests):
    """One of each, before the migration"""
    pair.post(requests)
    pair.whole(requests)


def posts_meanwhile(pair, retries, timeouts):
    """A partner with the extension posts after the source is gone."""
    qps = [pair.connect(timeout=timeout, retry=retry, rnr=retry)
           for timeout in timeouts for retry in retries]
    requests = {qp: OPERATIONS[qp % len(OPERATIONS)] for qp in qps}
    works(pair, requests)
    pair.here.stop()
    pair.here.leave()
    pair.address("del")
    pair.post(requests)
    pair.waits(BLACKOUT)
    pair.address("add")
    pair.here.restore()
    pair.here.resume()
    pair.whole(requests)


def seconds_of(patience):
    """For how long a partner sends without any answer, (retry_cnt, timeout): with 7 for ever"""
    retry, timeout = patience
    return math.inf if retry == 7 else (retry + 1) * 4.096e-6 * 2 ** timeout


def never_paused(pair, known, lost, later, retries, gives_up):
    """A partner with the extension does not get the PAUSE, or not the first so many, and posts
    so much later than the QP stops, which goes away then. Nobody fails while it is there, and
    then only who "gives_up". One that was "paused" before is known, or if it was "asked": the
    Stopped QP may send it NAK_STOPPED. If its announcement is lost, but nothing later, it learns
    of the Stop when it sends a request."""
    qps = {pair.connect(timeout=timeout, retry=retry, rnr=7): (retry, timeout)
           for timeout in (PERFTEST, UCX) for retry in retries}
    requests = {qp: OPERATIONS[qp % len(OPERATIONS)] for qp in qps}
    works(pair, requests)
    if known == "asked":
        pair.here.ask()
        time.sleep(0.5)
    elif known == "paused":
        pair.here.stop()
        time.sleep(0.5)
        pair.here.cancel()
        for qp in qps:
            pair.here.recv(qp=qp, id=qp)
        works(pair, requests)
    pair.deaf(pair.there, PAUSE, 0 if lost == ANNOUNCEMENT else lost * len(qps))
    pair.here.stop()
    time.sleep(later)
    pair.post(requests)
    pair.waits(2)
    if lost == ANNOUNCEMENT:
        pair.hears(pair.there)
        # an RNR NAK is 655 ms
        pair.waits(1)
    pair.here.leave()
    pair.waits(1)
    pair.address("del")
    failed = pair.ended(pair.there, len(qps) + 1, BLACKOUT)
    wanted = [(qp, RETRY_EXCEEDED) for qp in requests if gives_up(qps[qp])]
    check(failed == wanted, f"partner: {failed}")
    for qp, _ in failed:
        del requests[qp]
    pair.address("add")
    pair.here.restore()
    pair.here.resume()
    pair.whole(requests)


def is_patient(pair):
    """Every operation is under way when the QP stops, by a partner that never gives up."""
    requests = {pair.connect(timeout=PERFTEST, retry=7, rnr=7): op for op in OPERATIONS}
    works(pair, requests)
    pair.here.stop()
    pair.post(requests)
    pair.waits(2)
    pair.gap(BLACKOUT)
    pair.whole(requests)


def long_messages(pair, happens):
    """All but the last packet of each message has arrived when it happens."""
    requests = {pair.connect(timeout=PERFTEST, retry=7, rnr=7): op
                for op in LONG_OPERATIONS}
    for qp, op in requests.items():
        if op in ("SEND_INV", "WINDOW"):
            pair.window(qp)
    pair.fill(requests)
    for end in (pair.here, pair.there):
        pair.deaf(end, LASTS)
    pair.post(requests, LONG)
    pair.waits(0.5)
    happens(pair)
    pair.whole(requests)
    pair.arrived(requests)


def dumped(pair):
    """A migration that is given up: what is sent meanwhile must be sent again."""
    pair.here.stop()
    return pair.here.cancel


def mute(pair):
    """The same without a migration"""
    pair.deaf(pair.here, ANYTHING)
    return lambda: pair.hears(pair.here)


def retries_wrongly(pair, op, held):
    """What the stock driver cannot send again ends in an error, with a migration or not."""
    qp = pair.connect(timeout=PERFTEST, retry=7, rnr=7)
    works(pair, {qp: op})
    release = held(pair)
    pair.post({qp: op})
    pair.waits(1)
    release()
    pair.failed(qp, REM_ACCESS, 10)


def binds_again(pair, held):
    """A window that the stock driver has bound behind what it sends again: it is bound again,
    which fails the QP, with a migration or not."""
    qp = pair.connect(timeout=PERFTEST, retry=7, rnr=7)
    works(pair, {qp: "SEND"})
    held(pair)
    pair.post({qp: "SEND"})
    pair.there.bind(qp=qp, id=qp)
    found = pair.ended(pair.there, 2)
    check(found == [(qp, FLUSHED)] * 2, f"partner: {found}")


def few_retries(pair):
    """RNR NAKs hold it while there is a tombstone; then it lives on its retries."""
    qp = pair.connect(timeout=UCX, retry=1, rnr=7)
    works(pair, {qp: "SEND"})
    pair.here.stop()
    # The first RNR NAK takes 140 ms (CAP-2).
    time.sleep(0.3)
    pair.post({qp: "SEND"})
    pair.waits(3)
    pair.here.leave()
    pair.waits(3)
    pair.address("del")
    pair.failed(qp, RETRY_EXCEEDED, 10)


def short_timeout(pair):
    """rxe counts a timeout that is over before the 655 ms of an RNR NAK are."""
    qp = pair.connect(timeout=PERFTEST, retry=2, rnr=7)
    works(pair, {qp: "SEND"})
    pair.here.stop()
    pair.post({qp: "SEND"})
    pair.failed(qp, RETRY_EXCEEDED, 10)


def enough_retries(pair):
    """4 s of nothing"""
    qp = pair.connect(timeout=UCX, retry=3, rnr=7)
    works(pair, {qp: "SEND"})
    pair.here.stop()
    pair.post({qp: "SEND"})
    pair.gap(1)
    pair.whole({qp: "SEND"})


def few_rnr_retries(pair):
    """655 ms each"""
    qp = pair.connect(timeout=PERFTEST, retry=7, rnr=2)
    works(pair, {qp: "SEND"})
    pair.here.stop()
    pair.post({qp: "SEND"})
    pair.failed(qp, RNR_EXCEEDED, 10)


def no_rnr_retry(pair):
    """It is never sent an RNR NAK; its own retries hold it."""
    qp = pair.connect(timeout=19, retry=2, rnr=0)
    works(pair, {qp: "SEND"})
    pair.here.stop()
    pair.post({qp: "SEND"})
    pair.waits(1)
    pair.here.cancel()
    pair.whole({qp: "SEND"})


def main():
    failed = number = 0

    def case(name, host, function, *words, seldom=False):
        nonlocal failed, number
        number += 1
        if seldom and "all" not in sys.argv:
            print(f"ok {number} - {name} # SKIP make containers has it", flush=True)
            return
        pair = Pair(host)
        try:
            function(pair, *words)
            print(f"ok {number} - {name}", flush=True)
        except AssertionError as error:
            failed += 1
            print(f"not ok {number} - {name}\n# {error}", flush=True)
        finally:
            pair.close()

    case("partner of ours posts meanwhile: retry_cnt 1 to 6, timeouts of perftest and UCX",
         OURS, posts_meanwhile, range(1, 7), (PERFTEST, UCX))
    case("partner of ours posts meanwhile: timeout 0", OURS, posts_meanwhile, (1, 7),
         (NO_TIMEOUT,))
    for known in ("paused", "asked"):
        case(f"partner of ours, {known} before: each PAUSE is lost", OURS, never_paused, known, 0,
             0, (1, 2, 3, 6), lambda _: False, seldom=known == "paused")
    case("partner of ours, new: the first three PAUSEs are lost", OURS, never_paused, None, 3,
         0, (2, 3, 6), lambda _: False, seldom=True)
    case("partner of ours, new: each PAUSE of the announcement is lost", OURS, never_paused, None,
         ANNOUNCEMENT, 2 * CAP_WAIT, (1, 2, 3, 6), lambda _: False)
    case("partner of ours, new: each PAUSE is lost", OURS, never_paused, None, 0, 2 * CAP_WAIT,
         (1, 2, 3, 7), lambda patience: seconds_of(patience) < BLACKOUT, seldom=True)
    for name, host in (("stock", STOCK), ("newer", NEWER)):
        case(f"{name}: 2 s Stopped and {BLACKOUT} s of nothing, rnr_retry and retry_cnt 7",
             host, is_patient)
        case(f"{name}: retry_cnt 1, which is too few", host, few_retries)
        case(f"{name}: retry_cnt 3, which is enough", host, enough_retries)
        case(f"{name}: retry_cnt 2 and a short timeout", host, short_timeout)
        case(f"{name}: rnr_retry 2", host, few_rnr_retries)
        case(f"{name}: rnr_retry 0", host, no_rnr_retry)
        case(f"{name}: messages of several packets, with windows", host, long_messages,
             stopped, seldom=True)
        case(f"{name}: messages of several packets, no migration", host, long_messages,
             unheard, seldom=True)
        for op in WRONGLY_RETRIED:
            case(f"{name}: {op}", host, retries_wrongly, op, dumped)
            case(f"{name}: {op}, no migration", host, retries_wrongly, op, mute, seldom=True)
        case(f"{name}: bind behind what is sent again", host, binds_again, dumped, seldom=True)
        case(f"{name}: bind behind what is sent again, no migration", host, binds_again, mute,
             seldom=True)
    sys.exit(bool(failed))


main()
