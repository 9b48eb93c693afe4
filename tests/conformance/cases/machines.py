"""Section 12: what requester, completer and responder do in every state."""

from clauses import clause
from pause import sent
from peer import *
from states import *


@clause("STATE-3", "| work posted | send | hold | hold | hold | |")
@clause("STATE-4", "| work posted; window, credit or fence lets more go | "
        "requester | send | hold | hold |")
def posted(setting):
    for enter in (paused, resuming, stopped):
        link = enter(setting)
        link.endpoint.post(op="SEND", id=1)
        link.silence(0.3, SEND_ONLY)


@clause("STATE-4", "| duplicate request | responder | answer again | answer again | "
        "CAP-2 |")
def duplicate_request(setting):
    def act(link):
        link.data(WRITE_ONLY, link.mine - 1, link.reth(0, 8), payload=bytes(8))

    for enter in (running, paused):
        link = enter(setting)
        link.data(WRITE_ONLY, link.mine, link.reth(0, 8), payload=bytes(8))
        link.await_(ACK, psn=link.mine)
        link.data(WRITE_ONLY, link.mine, link.reth(0, 8), payload=bytes(8))
        link.await_(ACK, psn=link.mine, syndrome=ACKED)
    each(setting, GONE, act, ACK, syndrome=NAK_STOPPED)


@clause("STATE-4", "| NAK of a sequence error, RNR NAK | completer | go back, wait | "
        "MAY – | – |")
@clause("STATE-4", "| NAK of another error | completer | fail the request | fail it, "
        "MAY – | – |")
def naks_while_held(setting):
    """None is lost for good: after RESUME the requests are asked for again."""
    for syndrome in (NAK_SEQUENCE, RNR):
        link = capable(setting)
        sent(link, 2)
        link.pause()
        link.ack(link.theirs, syndrome=syndrome)
        link.silence(0.3, SEND_ONLY)
        link.resume()
        link.await_(SEND_ONLY, psn=link.theirs)
        link.ack(link.theirs + 1)
        link.completions(1, 2)


@clause("STATE-4", "| receive posted | responder | use it | use it | keep it for "
        "CANCEL |")
def receive_posted(setting):
    for enter in (paused, stopped):
        link = enter(setting)
        link.endpoint.recv(id=9)
        if enter is stopped:
            link.endpoint.cancel()
            link.accept(link.await_(RESUME))
        link.data(SEND_ONLY, link.mine, payload=bytes(8))
        link.await_(ACK, psn=link.mine, syndrome=ACKED)
        link.completions(9)
