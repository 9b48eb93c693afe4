"""patience.py: what partners with little or much patience see of a migration.

Runs in h2. The QPs that migrate are in h1, where they come back with the address that
they had, and that nobody had in between. Their partners are in h2, with the extension, and
in h3 and h4, without. Both ends are tests/conformance/endpoint.c.
"""

import sys
import time

from peer import Endpoint

SUCCESS, REM_ACCESS, RETRY_EXCEEDED, RNR_EXCEEDED = 0, 10, 12, 13
ADDRESS = "10.77.0.1"
OURS, STOCK, NEWER = 2, 3, 4
# Seconds that nobody has the address
BLACKOUT = 5
RECEIVED = ("SEND", "SEND_IMM", "WRITE_IMM")
OPERATIONS = (*RECEIVED, "WRITE", "READ", "CAS", "FAA")
# Without patch 0009 they are sent again with address 0.
WRONGLY_RETRIED = ("FLUSH", "ATOMIC_WRITE")
# 67 ms: perftest; 1.07 s: UCX
PERFTEST, UCX, NO_TIMEOUT = 14, 18, 0


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

    def close(self):
        self.address("replace")
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
            self.here.recv(qp=a["qp"], id=a["qp"])
        return a["qp"]

    def post(self, requests):
        """The partners' requests: QP -> operation. Their ids are those of the QPs."""
        for qp, op in requests.items():
            self.there.post(qp=qp, op=op, id=qp, va=self.memory["va"] + 4096 * qp,
                            remote_key=self.memory["rkey"],
                            len=8 if op in ("CAS", "FAA") else 64)

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


def is_patient(pair):
    """Every operation is under way when the QP stops, by a partner that never gives up."""
    requests = {pair.connect(timeout=PERFTEST, retry=7, rnr=7): op for op in OPERATIONS}
    works(pair, requests)
    pair.here.stop()
    pair.post(requests)
    pair.waits(2)
    pair.gap(BLACKOUT)
    pair.whole(requests)


def retries_wrongly(pair, op):
    """What the stock driver cannot send again ends in an error, as without a migration."""
    qp = pair.connect(timeout=PERFTEST, retry=7, rnr=7)
    works(pair, {qp: op})
    pair.here.stop()
    pair.post({qp: op})
    pair.waits(1)
    pair.here.cancel()
    pair.failed(qp, REM_ACCESS, 10)


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

    def case(name, host, function, *words):
        nonlocal failed, number
        number += 1
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
    for name, host in (("stock", STOCK), ("newer", NEWER)):
        case(f"{name}: 2 s Stopped and {BLACKOUT} s of nothing, rnr_retry and retry_cnt 7",
             host, is_patient)
        case(f"{name}: retry_cnt 1, which is too few", host, few_retries)
        case(f"{name}: retry_cnt 3, which is enough", host, enough_retries)
        case(f"{name}: retry_cnt 2 and a short timeout", host, short_timeout)
        case(f"{name}: rnr_retry 2", host, few_rnr_retries)
        case(f"{name}: rnr_retry 0", host, no_rnr_retry)
        for op in WRONGLY_RETRIED:
            case(f"{name}: {op}", host, retries_wrongly, op)
    sys.exit(bool(failed))


main()
