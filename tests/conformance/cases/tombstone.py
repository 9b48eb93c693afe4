"""Section 8: what answers for a QP that has left."""

import time

from clauses import clause
from peer import *

LIFE = "/sys/module/rdma_rxe/parameters/mig_tombstone_ms"


def leave(setting, introduced=False, **attributes):
    """A tombstone is there. Returns what the image says, too."""
    link = Link(setting, **attributes)
    image = link.stop()
    if introduced:
        link.introduce()
    link.endpoint.leave()
    link.drain()
    return link, image


def stopped_or_gone(setting):
    """A Stopped QP that knows us, and then the tombstone of another."""
    link = Link(setting)
    image = link.stop()
    link.introduce()
    link.drain()
    yield link, image
    yield leave(setting, introduced=True)


def probe(link, nonce=0x55, **fields):
    """The endpoint is asked whether it is Stopped."""
    link.send(PROBE, **{"nonce": nonce, "echo": 0, **fields})


def f_self(link, image, **fields):
    """What an instance that lives elsewhere tells the old one [TOMB-4]."""
    link.send(RESUME, **{"flags": F_SELF, "src_qpn": link.their_qpn,
                         "nonce": image["secret"], "epoch": image["epoch"],
                         **fields})
    time.sleep(0.1)


def nobody_answers(link, seconds=0.3):
    probe(link)
    link.send(RESUME, nonce=0x55)
    link.request(link.mine)
    link.silence(seconds)


class Life:
    """How long tombstones live, for a while."""

    def __init__(self, setting, ms):
        self.endpoint, self.ms = Endpoint(setting.control), ms

    def __enter__(self):
        self.endpoint.shell(f"cp {LIFE} /tmp/tombstone_ms && "
                            f"echo {self.ms} >{LIFE}")

    def __exit__(self, *_):
        self.endpoint.shell(f"cat /tmp/tombstone_ms >{LIFE}")
        self.endpoint.close()


@clause("TOMB-1", "When a Stopped RC QP in RTR, RTS or SQD is destroyed, the device "
        "keeps a tombstone")
def answers(setting):
    for state in ("RTR", "RTS", "SQD"):
        link, image = leave(setting, state=state)
        probe(link)
        link.expect(PAUSE, to=setting.own, flags=F_TOMBSTONE, echo=0x55,
                    nonce=image["secret"], epoch=image["epoch"],
                    src_qpn=link.their_qpn, rq_psn=image["resp_psn"],
                    sq_psn=image["comp_psn"], gid=gid(setting.their),
                    pkey=0xffff)


@clause("TOMB-1", "`rq_psn`, `sq_psn`.")
@clause("WIRE-3", "a tombstone those saved).")
def holds_numbers(setting):
    """Those of a QP that has sent and received"""
    link = Link(setting)
    link.endpoint.recv(id=9)
    link.request(link.mine)
    link.expect(ACK, psn=link.mine)
    link.endpoint.post(op="SEND", id=1, count=2)
    link.await_(SEND_ONLY, psn=(link.theirs + 1) & 0xffffff)
    link.ack(link.theirs, msn=1)
    link.completions(9, 1)
    link.stop()
    link.endpoint.leave()
    link.drain()
    probe(link)
    link.expect(PAUSE, sq_psn=(link.theirs + 1) & 0xffffff,
                rq_psn=(link.mine + 1) & 0xffffff)


@clause("TOMB-1", "When a Stopped RC QP in RTR, RTS or SQD is destroyed")
def after_destroy(setting):
    """By the verb, too"""
    link = Link(setting)
    image = link.stop()
    link.endpoint.commit()
    link.endpoint.destroy(qp=link.index)
    link.drain()
    probe(link)
    link.expect(PAUSE, flags=F_TOMBSTONE, nonce=image["secret"])


@clause("TOMB-1", "When a Stopped RC QP in RTR, RTS or SQD is destroyed")
def only_then(setting):
    """Not of a QP that was Running, in another state or of another type"""
    first = Link(setting)
    first.endpoint.destroy(qp=first.index)
    nobody_answers(first)
    links = [Link(setting)]
    links += [links[0].another(state="INIT"), links[0].another(state="ERR"),
              links[0].another(type="UC")]
    links[0].stop()
    links[0].endpoint.leave()
    links[0].await_(PAUSE)
    for link in links[1:]:
        nobody_answers(link)


@clause("TOMB-1", "AV, forward, self_forward, epoch")
def holds_forward(setting):
    """The endpoint hears that we moved, then leaves itself. A PROBE from there
    is answered like one from the AV [PAUSE-9]."""
    link = Link(setting)
    link.pause()
    link.send(MOVED, echo=link.its_challenge, gid=gid(setting.other))
    link.await_(PROBE, to=setting.other)
    link.stop()
    link.introduce()
    link.drain()
    probe(link, source=setting.other)
    link.expect(PAUSE, to=setting.other, echo=0x55, flags=0)
    link.endpoint.leave()
    link.drain()
    probe(link, source=setting.other)
    link.expect(PAUSE, to=setting.other, echo=0x55, flags=F_TOMBSTONE)


@clause("TOMB-1", "AV, forward, self_forward, epoch")
def holds_self_forward(setting):
    link = Link(setting)
    image = link.stop()
    f_self(link, image, source=setting.other)
    link.endpoint.destroy(qp=link.index)
    link.drain()
    probe(link)
    link.expect(MOVED, gid=gid(setting.other), echo=0x55)


@clause("TOMB-1", "secret, `peer_challenge`, `peer_capable`")
def holds_partner(setting):
    link, image = leave(setting, introduced=True)
    link.request(image["resp_psn"])
    link.expect_nak(image["resp_psn"])
    link.send(RESUME, nonce=0x1)
    link.expect(PAUSE, echo=link.challenge)


@clause("TOMB-1", "It holds neither the QPN nor memory of the process.")
def process_gone(setting):
    """It answers without the process."""
    link, image = leave(setting)
    setting.close()
    link.drain(0.3)
    probe(link)
    link.expect(PAUSE, flags=F_TOMBSTONE, nonce=image["secret"])


@clause("TOMB-1", "It holds neither the QPN nor memory of the process.")
def number_is_free(setting):
    """Another QP can have it, here one that is never activated."""
    link, image = leave(setting)
    link.endpoint.restore()
    link.endpoint.destroy(qp=link.index)
    link.drain()
    probe(link)
    link.expect(PAUSE, flags=F_TOMBSTONE, nonce=image["secret"])


@clause("TOMB-2", "a migration packet also if that QP has another `dest_qp_num` or "
        "has been restored and is not yet live")
def not_if_restored(setting):
    link, _ = leave(setting)
    link.endpoint.restore()
    link.endpoint.resume()
    link.accept(link.await_(RESUME))
    link.drain()
    probe(link)
    link.expect(RUNNING, echo=0x55)
    link.endpoint.recv(id=9)
    link.request(link.mine)
    link.expect(ACK, psn=link.mine, syndrome=ACKED)
    link.silence(0.2)


def beside_another(setting):
    """A tombstone that answers, beside a live QP with its number and another partner"""
    link, image = leave(setting)
    link.endpoint.edit(dest=link.qpn ^ 1)
    link.endpoint.restore()
    link.endpoint.resume()
    link.drain(0.3)
    probe(link)
    link.expect(PAUSE, flags=F_TOMBSTONE, nonce=image["secret"], echo=0x55)
    return link


@clause("TOMB-3", "when a QP with this QPN and this destination QPN goes live on the "
        "device (adoption)")
def another_connection(setting):
    """A QP with that number, and another partner"""
    beside_another(setting)


@clause("TOMB-2", "A request goes to a tombstone only if no QP with that QPN exists on the "
        "device")
def request_to_qp(setting):
    """One that is not yet live is silent, and one with another partner executes it: to
    the data path, it is its partner's."""
    link, image = leave(setting, introduced=True)
    link.request(link.mine)
    link.expect_nak(link.mine)
    link.endpoint.edit(dest=link.qpn ^ 1)
    link.endpoint.restore()
    link.drain()
    link.request(link.mine)
    link.silence(0.3)
    link.endpoint.resume()
    link.endpoint.recv(id=9)
    link.drain(0.3)
    link.request(link.mine)
    link.completions(9)
    link.silence(0.2, ACK)
    probe(link)
    link.expect(PAUSE, flags=F_TOMBSTONE, nonce=image["secret"], echo=0x55)


@clause("TOMB-2", "A tombstone answers requests (STOP-6) and migration packets like the "
        "Stopped QP, PAUSE with F_TOMBSTONE.")
def like_stopped(setting):
    """The same packets to both: the answers differ in that flag only."""
    for number, (link, image) in enumerate(stopped_or_gone(setting)):
        flags = F_TOMBSTONE if number else 0
        probe(link)
        link.expect(PAUSE, flags=flags, echo=0x55, nonce=image["secret"])
        link.send(RESUME, nonce=0x1)
        link.expect(PAUSE, flags=flags, echo=link.challenge)
        # What answered an announcement is not answered again [PAUSE-9].
        link.introduce()
        for opcode in (PAUSE, RUNNING, RESUME_ACK, MOVED):
            link.send(opcode, epoch=5, nonce=0x1, echo=image["challenge"],
                      gid=gid(setting.other))
        link.silence(0.2)
        link.request(link.mine)
        link.expect_nak(link.mine)


@clause("TOMB-2", "a migration packet also if that QP has another `dest_qp_num` or "
        "has been restored and is not yet live")
@clause("ACC-1", "`src_qpn` equals that QP's `dest_qp_num`")
def other_partner(setting):
    link, _ = leave(setting)
    probe(link, src_qpn=link.qpn ^ 1)
    link.send(RESUME, nonce=0x1, src_qpn=link.qpn ^ 1)
    probe(link, bth={"dqpn": link.their_qpn ^ 0x8000})
    link.silence(0.3)


@clause("TOMB-2", "A tombstone answers requests (STOP-6) and migration packets like the "
        "Stopped QP")
@clause("TOMB-1", "QPN, destination QPN, P_Key, own GID")
def wrong_key(setting):
    """A packet with another P_Key is not for it."""
    for link, _ in stopped_or_gone(setting):
        link.request(link.mine, pkey=0x1234)
        probe(link, bth={"pkey": 0x1234})
        link.silence(0.3)


@clause("TOMB-2", "A tombstone answers requests (STOP-6) and migration packets like the "
        "Stopped QP")
def own_address(setting):
    """The data path drops what comes to another address of the port than that
    of the QP; a tombstone has it, too [TOMB-1]."""
    with setting.address() as address:
        for link, _ in stopped_or_gone(setting):
            packet = BTH(opcode=SEND_ONLY, dqpn=link.their_qpn, psn=link.mine,
                         ackreq=1) / (b"x" * 64)
            link.transmit(link.frame(packet, to=address.text))
            link.silence(0.3)
            link.transmit(link.frame(packet))
            link.expect_nak(link.mine)


@clause("TOMB-2", "A tombstone answers requests (STOP-6) and migration packets like the "
        "Stopped QP")
def drops_replies(setting):
    for link, _ in stopped_or_gone(setting):
        link.ack(link.theirs)
        link.data(READ_ONLY, link.theirs, AETH(syndrome=ACKED),
                  payload=b"x" * 64, ack=False)
        link.silence(0.3)


@clause("TOMB-3", "It ends after `TOMBSTONE` (300 s)")
@clause("STATE-3", "| TOMBSTONE timer | | | | | gone |")
def ends_in_time(setting):
    with Life(setting, 1000):
        link, _ = leave(setting)
        ends = time.monotonic() + 1
        probe(link)
        link.expect(PAUSE, flags=F_TOMBSTONE)
        time.sleep(max(0, ends + 0.1 - time.monotonic()))
        nobody_answers(link)


@clause("TOMB-3", "when a QP with this QPN and this destination QPN goes live on the "
        "device (adoption)")
@clause("STATE-3", "| restore and activate here | | | | | tombstone ends |")
def ends_with_adoption(setting):
    link, _ = leave(setting)
    link.endpoint.restore()
    link.endpoint.resume()
    link.accept(link.await_(RESUME))
    # This one leaves no tombstone.
    link.endpoint.destroy(qp=link.index)
    link.drain()
    nobody_answers(link)


@clause("TIME-1", "0 = no limit, for `TOMBSTONE` and `LEASE_GRACE` none at all)")
def ends_at_once(setting):
    with Life(setting, 0):
        link, _ = leave(setting)
        nobody_answers(link)


@clause("TOMB-3", "when another tombstone with this QPN is made;")
def another_tombstone(setting):
    """Of a QP with that number, and another partner"""
    link = beside_another(setting)
    link.stop()
    link.endpoint.leave()
    link.drain()
    nobody_answers(link)
    link.qpn ^= 1
    probe(link)
    link.await_(PAUSE, flags=F_TOMBSTONE, echo=0x55)


@clause("TOMB-3", "with the device.")
def ends_with_device(setting):
    """Another one of that name comes."""
    link, _ = leave(setting)
    probe(link)
    link.expect(PAUSE, flags=F_TOMBSTONE)
    setting.close()
    endpoint = Endpoint(setting.control)
    endpoint.shell("rdma link delete rxe0 && rdma link add rxe0 type rxe netdev eth0")
    endpoint.close()
    link.drain()
    nobody_answers(link)
    # It works.
    link = Link(setting)
    probe(link)
    link.expect(RUNNING, echo=0x55)


@clause("TOMB-3", "Without its GID it is mute.")
def mute_without_address(setting):
    """Also to what reaches the port by another address"""
    with setting.address() as address:
        link = Link(setting, local=address.text)
        link.stop()
        link.endpoint.leave()
        link.drain()
        probe(link, to=address.text)
        link.expect(PAUSE, flags=F_TOMBSTONE)
        address.remove()
        for their in (address.text, setting.their):
            link.their = their
            nobody_answers(link)


@clause("TOMB-3", "when a QP with this QPN and this destination QPN goes live on the "
        "device (adoption)")
def ends_only_with_life(setting):
    """A restored QP that is not activated is none."""
    link, _ = leave(setting, introduced=True)
    link.endpoint.restore()
    link.drain()
    probe(link)
    link.expect(PAUSE, flags=F_TOMBSTONE)


@clause("TOMB-3", "*Reason:* src → dst → src must not be blocked by what the QP "
        "itself left behind.")
def back_and_forth(setting):
    link = Link(setting)
    for number in range(3):
        link.stop()
        link.accept(link.back())
        link.request(link.mine)
    link.stop()
    link.endpoint.leave()
    link.drain()
    probe(link)
    link.expect(PAUSE, epoch=4, nonce=link.its_secret)
