"""Section 12: what else happens to a QP, in every state."""

import time

from clauses import clause
from pause import nak, with_limit
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
        check("a second time" not in str(error), "a Stopped context was stopped again")
    else:
        raise Failure("a Stopped context was stopped again")


@clause("STATE-3", "| CANCEL | error | error | error | →Z, unless committed | |")
def cancel(setting):
    for enter in EACH_LIVE:
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
@clause("STATE-4", "| modify to ERR | all | flush | flush | flush | refused | |")
@clause("STATE-5", "| ERR | all | flush; migration packets: – | becomes R (STATE-2) | "
        "becomes R (STATE-2) | silent (STOP-2) | none is left |")
@clause("STATE-2", "Modify to ERR, and any transition to ERR, MUST end Paused and "
        "Resuming.")
@clause("STATE-2", "A QP in ERR drops migration packets.")
def modify_to_error(setting):
    for enter in EACH_LIVE:
        link = enter(setting)
        link.endpoint.recv(id=9)
        link.endpoint.post(op="SEND", id=1)
        link.endpoint.modify(state="ERR")
        found = link.endpoint.poll(ms=2000, count=2)["wc"]
        check(sorted(found.split(",")) == ["1:5", "9:5"],
              f"completions (id:status) {found or 'none'}: work is not flushed")
        link.drain()
        every_packet(link)
        link.silence(0.3 if enter is running else 1.3)
    link.stop()
    every_packet(link)
    link.silence(0.2)
    link.endpoint.leave()
    every_packet(link)
    link.silence(0.2)
    link = stopped(setting)
    refused_modify(link, "ERR")


def every_packet(link):
    """A right one of each"""
    for opcode in MIGRATION:
        echo = link.its_secret if opcode == RESUME_ACK else link.its_challenge
        link.send(opcode, epoch=link.epoch + (opcode != RESUME_ACK), nonce=NONCE,
                  echo=echo, gid=gid(link.own))
    link.send(RESUME, flags=F_SELF, src_qpn=link.their_qpn, epoch=1,
              nonce=link.its_secret)
    nak(link, link.theirs)


@clause("STATE-3", "| modify to RESET | clear all | clear all | clear all | refused | |")
@clause("STATE-4", "| modify to RESET | all | forget all work | forget all work | forget "
        "all work | refused | |")
@clause("STATE-2", "Modify to RESET MUST return the QP to Running, stop the timers of "
        "this protocol and clear every variable of section 3 but `epoch` and `secret`; "
        "`challenge` is renewed.")
@clause("CAP-1", "It is kept in the snapshot and cleared at RESET.")
def modify_to_reset(setting):
    for enter in LIVE:
        link = enter(setting)
        challenge, link.old_secret = link.its_challenge, link.its_secret
        link.endpoint.recv(id=9)
        link.endpoint.post(op="SEND", id=8)
        link.endpoint.modify(**{**link.attributes, "state": "RTS", "anew": 1})
        link.drain()
        link.silence(1.2)
        check(not link.endpoint.poll()["wc"], f"{enter.__name__}: work has completed")
        link.endpoint.post(op="SEND", id=1)
        link.expect(SEND_ONLY, psn=link.theirs)
        link.data(SEND_ONLY, link.mine, payload=bytes(8))
        packet = link.await_(ACK, psn=link.mine)
        check(packet[AETH].syndrome & 0xe0 == RNR,
              f"{enter.__name__}: {describe(packet)}, a receive is kept")
        link.epoch = 0
        check(link.learn() != challenge, f"{enter.__name__}: the challenge is kept")
        image = link.stop()
        stops = 1 + (enter is resuming)
        check(image["epoch"] == stops and image["secret"] != link.old_secret,
              f"{enter.__name__}: epoch {image['epoch']}, not {stops}, or the old secret")
        for name in ("capable", "peer_stopped", "peer_epoch", "peer_secret",
                     "peer_challenge"):
            check(image[name] == 0, f"{enter.__name__}: {name} is kept")
    link = stopped(setting)
    refused_modify(link, "RESET")


@clause("STATE-3", "| destroy | stock | stock | stock | →T | |")
def destroy(setting):
    for enter in (*EACH_LIVE, stopped):
        link = enter(setting)
        link.endpoint.destroy(qp=link.index)
        link.drain()
        link.send(PROBE, nonce=NONCE)
        link.send(RESUME, epoch=link.epoch + 1, nonce=NONCE, echo=link.its_challenge)
        link.request(link.mine)
        if enter is stopped:
            link.await_(PAUSE, flags=F_TOMBSTONE, echo=NONCE)
            link.await_(ACK, syndrome=NAK_STOPPED)
        else:
            link.silence(0.5)


@clause("STATE-3", "| PROBE timer | | PROBE | with RESUME, if `peer_stopped` or "
        "`nak_paused` | | |")
@clause("PAUSE-6", "A Resuming QP whose partner is Stopped, too, sends it with each RESUME that it "
        "repeats.")
def probe_timer(setting):
    """Resuming, while its partner is Stopped, too, and while it is not"""
    link = paused(setting)
    link.drain()
    link.await_(PROBE, flags=F_PAUSED, echo=link.secret)
    link.stop()
    link.back()
    link.await_(PROBE, flags=F_PAUSED, echo=link.secret)
    link.await_(RESUME)
    resuming(setting).silence(1, PROBE)
    link = unanswered(setting)
    link.silence(0.5, PROBE)
    link.pause()
    link.drain()
    link.await_(PROBE, flags=F_PAUSED, echo=link.secret)


@clause("STATE-3", "| PAUSE_LIMIT | | ERR if work outstanding | the same if "
        "`peer_stopped` | | |")
def pause_limit(setting):
    def paused_and_resuming():
        link = paused(setting)
        link.stop()
        link.back()
        return link

    def paused_and_unanswered():
        link = unanswered(setting)
        link.pause()
        return link

    def act(enter):
        link = enter()
        time.sleep(0.6)
        check(link.endpoint.query()["qp_state"] == 3, "an idle QP left RTS")
        link.endpoint.post(op="SEND", id=1)
        done = link.endpoint.poll(ms=4000)["wc"]
        check(done == "1:12", f"completion {done or 'none'}, not retry-exceeded")
        check(link.endpoint.query()["qp_state"] == 6, "the QP is not in ERR")
    for enter in (paused_and_resuming, paused_and_unanswered):
        with_limit(capable(setting), "pause_limit", 500, lambda: act(enter))


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
