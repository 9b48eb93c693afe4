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


@clause("PAUSE-2", "A fresh PAUSE whose echo does not match changes nothing; the "
        "QP answers PROBE")
def wrong_echo(setting):
    link = Link(setting)
    for echo in (0, link.learn() ^ 1):
        link.send(PAUSE, epoch=5, nonce=0x77, echo=echo)
        link.expect(PROBE, echo=0x77, flags=0, nonce=link.its_challenge)
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)


@clause("PAUSE-3", "While Paused the requester sends nothing and the "
        "retransmission and RNR timers are off.")
def no_retransmission(setting):
    link = Link(setting, timeout=14, retry=1)
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)
    link.pause()
    link.drain()
    # Several times the timeout of 67 ms, with a retry count of 1
    link.silence(1, SEND_ONLY)
    link.resume()
    link.expect(SEND_ONLY, psn=link.theirs)
    link.ack(link.theirs)
    link.completions(1)


@clause("PAUSE-3", "Responder and completer run as usual.")
def responder_runs(setting):
    link = Link(setting)
    link.endpoint.fill(offset=0, len=64)
    link.pause()
    link.data(READ_REQUEST, link.mine, link.reth(0, 64))
    link.await_(READ_ONLY, psn=link.mine)
    link.endpoint.recv(id=9)
    link.data(SEND_ONLY, link.mine + 1, payload=b"x" * 64)
    link.await_(ACK, psn=link.mine + 1)
    link.completions(9)
