"""Section 12: what else happens to a QP, in every state."""

import time

from clauses import clause
from peer import *
from states import *


@clause("STATE-3", "| Stop | →S, epoch+1, PAUSE | the same | the same, secret kept | "
        "error | |")
def stop(setting):
    for enter in (running, paused):
        link = enter(setting)
        link.drain(0.05)
        check(link.stop()["epoch"] == 1, f"{enter.__name__}: epoch")
        link.await_(PAUSE, epoch=1)
    link = resuming(setting)
    secret = link.its_secret
    image = link.stop()
    check(image["epoch"] == 2 and image["secret"] == secret,
          "resuming: epoch or secret")
    try:
        link.stop()
    except EndpointError as error:
        check("ok" not in str(error), "a Stopped context was stopped again")


@clause("STATE-3", "| CANCEL | error | error | error | →Z, unless committed | |")
def cancel(setting):
    for enter in LIVE:
        link = enter(setting)
        try:
            link.endpoint.cancel()
        except EndpointError:
            continue
        raise Failure(f"{enter.__name__}: CANCEL without a dump")
    link = stopped(setting)
    link.endpoint.cancel()
    link.await_(RESUME, epoch=1, nonce=link.its_secret)


@clause("STATE-3", "| modify to ERR | stock | →ERR | →ERR | refused | |")
@clause("STATE-2", "Modify to ERR, and any transition to ERR, MUST end Paused and "
        "Resuming.")
@clause("STATE-2", "A QP in ERR drops migration packets.")
def modify_to_error(setting):
    for enter in (paused, resuming):
        link = enter(setting)
        link.endpoint.post(op="SEND", id=1)
        link.endpoint.modify(state="ERR")
        check(link.endpoint.poll(ms=2000)["wc"] == "1:5", "work is not flushed")
        link.drain()
        link.send(PROBE, nonce=NONCE)
        link.send(PAUSE, epoch=link.epoch + 1, nonce=NONCE, echo=1)
        link.silence(1.3)
    link = stopped(setting)
    refused_modify(link, "ERR")


@clause("STATE-3", "| modify to RESET | clear all | clear all | clear all | refused | |")
@clause("STATE-2", "Modify to RESET MUST return the QP to Running, stop the timers of "
        "this protocol and clear every variable of section 3.")
@clause("CAP-1", "It is kept in the snapshot and cleared at RESET.")
def modify_to_reset(setting):
    for enter in LIVE:
        link = enter(setting)
        challenge = link.its_challenge
        link.endpoint.modify(**{**link.attributes, "state": "RTS", "anew": 1})
        link.drain()
        link.silence(1.2)
        link.endpoint.post(op="SEND", id=1)
        link.expect(SEND_ONLY, psn=link.theirs)
        link.epoch = 0
        check(link.learn() != challenge, f"{enter.__name__}: the challenge is kept")
        image = link.stop()
        for name in ("capable", "peer_stopped", "peer_epoch", "peer_secret",
                     "peer_challenge"):
            check(image[name] == 0, f"{enter.__name__}: {name} is kept")
    link = stopped(setting)
    refused_modify(link, "RESET")


def refused_modify(link, state):
    try:
        link.endpoint.modify(state=state)
    except EndpointError:
        return
    raise Failure(f"a Stopped QP was modified to {state}")


@clause("STATE-1", "`ibv_modify_qp` works as if the QP were Running")
@clause("STATE-4", "| modify to SQD, send queue empty | requester | drained | "
        "drained | refused |")
def modify_paused(setting):
    link = paused(setting)
    link.endpoint.modify(state="SQD")
    check(link.endpoint.query()["qp_state"] == 4, "not in SQD")
    link.endpoint.modify(state="RTS")
    check(link.endpoint.query()["qp_state"] == 3, "not in RTS")
    link.resume()
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs)


@clause("STATE-1", "An implementation MUST NOT show these states in any verb, event or "
        "attribute.")
def invisible(setting):
    link = Link(setting)
    before = link.endpoint.query()
    link.pause()
    check(link.endpoint.query() == before, "ibv_query_qp shows Paused")
    link.resume()
    link.stop()
    check(link.endpoint.query() == before, "ibv_query_qp shows Stopped")
    link.introduce()
    link.back()
    check(link.endpoint.query() == before, "ibv_query_qp shows Resuming")


@clause("STATE-3", "| GID or route gone | stock | stay | stay, retry | stay | stay, mute |")
def without_address(setting):
    """It says nothing, and fails nothing, until the address is back. (What it sends then is
    stock: the GID has another place in the port's table.)"""
    with setting.address() as address:
        def gone(link, act):
            link.drain()
            address.remove()
            act(link)
            time.sleep(0.3)
            link.drain()
            link.silence(1)
            check(link.endpoint.query()["qp_state"] == 3, "the QP has failed")
            address.add()

        def link_to_it():
            link = Link(setting, local=address.text, timeout=14, retry=1)
            link.their = address.text
            link.pause()
            link.resume()
            return link

        link = link_to_it()
        link.pause()
        gone(link, lambda link: link.endpoint.post(op="SEND", id=1))
        link.resume()

        link = link_to_it()
        link.stop()
        link.back()
        gone(link, lambda link: link.endpoint.post(op="SEND", id=1))
        link.await_(RESUME)

        link = link_to_it()
        link.stop()
        link.introduce()
        gone(link, lambda link: link.request(link.mine))
        link.request(link.mine)
        link.expect_nak(link.mine)
