"""Section 8: without the old host, and stopped again too soon."""

import time

from clauses import clause
from peer import *
from states import unanswered
from tombstone import Life, probe


@clause("TOMB-7", "If the old host dies before the tombstone could speak, the connection "
        "still resumes if the address moves along")
@clause("RESUME-7", "If the partner kept its address it answers with a RESUME that echoes "
        "the challenge")
def old_host_dead_same_address(setting):
    """Nothing of its Stop reached us: we verify, and it gives our challenge
    back [RESUME-7]."""
    with Life(setting, 1):
        link = Link(setting)
        link.stop()
        packet = link.back()
        check(packet[MIGETH].echo == 0, "it cannot know a challenge")
        probe(link)
        link.accept(link.await_(RESUME, echo=0x55))
        link.endpoint.post(op="SEND", id=1)
        link.expect(SEND_ONLY, psn=link.theirs)


@clause("TOMB-7", "or if the partner accepted the PAUSE (it knows the secret)")
def partner_knows_secret(setting):
    """The endpoint is the partner: we return from elsewhere, and no tombstone
    of ours says anything."""
    link = Link(setting)
    link.pause()
    link.send(RESUME, nonce=link.secret, echo=0, source=setting.other)
    link.await_(RESUME_ACK, to=setting.other, echo=link.secret)
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs, to=setting.other)


@clause("TOMB-7", "or if the snapshot holds the partner's current challenge (it was "
        "given in a RESUME_ACK or RUNNING, or in a PROBE before this Stop).")
def snapshot_holds_challenge(setting):
    """Of both sides: the endpoint returns what our RESUME_ACK gave it, and
    accepts from elsewhere what its own gave us."""
    link = Link(setting)
    link.stop()
    link.accept(link.back())
    link.stop()
    packet = link.back()
    check(packet[MIGETH].echo == link.challenge, "the challenge is not ours")
    link.accept(packet)
    link.pause()
    link.resume()
    link.epoch += 1
    link.send(RESUME, nonce=0x1, echo=link.its_challenge, source=setting.other)
    link.await_(RESUME_ACK, to=setting.other, echo=0x1)


@clause("TOMB-8", "A QP that is Resuming at a new address SHOULD NOT be stopped "
        "again before its RESUME was answered (an implementation MAY make the "
        "dump wait or fail with EAGAIN).")
@clause("TOMB-8", "Otherwise it is safe, and heals if the partner stays where it is.")
def patience(setting):
    with setting.address() as address:
        link = Link(setting, local=address.text)
        link.stop()
        link.endpoint.leave()
        address.remove()
        link.endpoint.restore()
        link.endpoint.resume(new_addr=1)
        packet = link.await_(RESUME)
        secret = packet[MIGETH].nonce
        try:
            image = link.stop()
            check(image["secret"] == secret, "it has another secret")
        except EndpointError:
            link.accept(packet)
            image = link.stop()
        check(image["epoch"] == 2, f"epoch {image['epoch']} after two Stops")
        link.accept(link.back())
        link.endpoint.post(op="SEND", id=1)
        link.expect(SEND_ONLY, psn=link.theirs)


@clause("RESUME-9", "the stock timers decide about its work, and an idle QP is left alone.")
def unanswered_for_ever(setting):
    link = unanswered(setting, timeout=14, retry=1)
    time.sleep(1)
    check(link.endpoint.query()["qp_state"] == 3, "an idle QP left RTS")
    link.endpoint.post(op="SEND", id=1)
    for _ in range(2):
        link.expect(SEND_ONLY, psn=link.theirs)
    found = link.endpoint.poll(ms=3000)["wc"]
    check(found == "1:12", f"completion {found or 'none'}, not retry-exceeded")
    check(link.endpoint.query()["qp_state"] == 6, "the QP is not in ERR")
