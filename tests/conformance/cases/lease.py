"""Section 5: who may let a Stopped QP run again."""

from clauses import clause
from pause import with_limit
from peer import *
from tombstone import f_self


def refused(command, **words):
    try:
        command(**words)
    except EndpointError:
        return
    raise Failure("it was not refused")


def still_stopped(link):
    link.drain()
    link.request(link.mine)
    link.expect_nak(link.mine)
    link.silence(0.3)


@clause("STOP-9", "After COMMIT, or after an accepted F_SELF, CANCEL and every "
        "automatic resume in place MUST fail.")
def committed(setting):
    link = Link(setting)
    link.stop()
    link.introduce()
    link.endpoint.commit()
    refused(link.endpoint.cancel)
    still_stopped(link)
    try:
        link.endpoint.lose()
    except EndpointError:
        pass  # COMMIT has closed it
    still_stopped(link)


@clause("STOP-9", "After COMMIT, or after an accepted F_SELF, CANCEL and every "
        "automatic resume in place MUST fail.")
@clause("TOMB-4", "On a Stopped QP this also commits (STOP-9).")
def committed_by_self(setting):
    link = Link(setting)
    image = link.stop()
    link.introduce()
    f_self(link, image, source=setting.other)
    refused(link.endpoint.cancel)
    still_stopped(link)
    link.endpoint.lose()
    still_stopped(link)


@clause("STOP-9", "after an accepted F_SELF, CANCEL and every automatic resume in "
        "place MUST fail.")
def wrong_self_commits_not(setting):
    link = Link(setting)
    image = link.stop()
    f_self(link, image, nonce=image["secret"] ^ 1)
    f_self(link, image, epoch=image["epoch"] - 1)
    f_self(link, image, src_qpn=link.qpn)
    link.endpoint.cancel()
    link.accept(link.await_(RESUME))
    link.request(link.mine)
    link.await_(ACK, psn=link.mine)


@clause("STOP-9", "A lease that ends without either resumes the QP in place, not "
        "before `LEASE_GRACE`.")
@clause("STOP-9", "(The lease is the holder's from Stop to CANCEL or COMMIT; it ends with "
        "him.)")
def lease_ends(setting):
    link = Link(setting)

    def act():
        image = link.stop()
        link.introduce()
        link.endpoint.post(op="SEND", id=1)
        link.drain()
        link.endpoint.lose()
        link.silence(0.7 * SLOW, RESUME, SEND_ONLY)
        link.accept(link.await_(RESUME, epoch=image["epoch"],
                                nonce=image["secret"]))
        link.expect(SEND_ONLY, psn=link.theirs)
        link.ack(link.theirs, msn=1)
        link.completions(1)
    with_limit(link, "lease_grace", 1000 * SLOW, act)


@clause("STOP-9", "A lease that ends without either resumes the QP in place")
@clause("TIME-1", "for `TOMBSTONE` and `LEASE_GRACE` none at all")
def lease_ends_at_once(setting):
    link = Link(setting)

    def act():
        image = link.stop()
        link.introduce()
        link.endpoint.lose()
        link.accept(link.await_(RESUME, epoch=image["epoch"]))
    with_limit(link, "lease_grace", 0, act)


@clause("STOP-9", "not before `LEASE_GRACE`")
def cancelled_within_grace(setting):
    link = Link(setting)
    image = link.stop()
    link.introduce()
    link.endpoint.lose()
    link.endpoint.cancel()
    link.accept(link.await_(RESUME, epoch=image["epoch"]))


@clause("STOP-9", "not before `LEASE_GRACE`")
def gone_within_grace(setting):
    """Its application dies with the holder: nothing but a tombstone is left."""
    link = Link(setting)
    image = link.stop()
    link.introduce()
    link.endpoint.post(op="SEND", id=1)
    link.drain()
    link.endpoint.lose()
    link.endpoint.destroy(qp=link.index)
    link.send(PROBE, nonce=0x55, echo=0)
    link.expect(PAUSE, flags=F_TOMBSTONE, nonce=image["secret"])
    link.silence(0.3, RESUME, SEND_ONLY)


@clause("STOP-9", "The snapshot's holder MUST commit (give up CANCEL) before any "
        "instance made from the snapshot is activated.")
def not_cancelled_after_activation(setting):
    link = Link(setting)
    link.stop()
    link.endpoint.leave()
    refused(link.endpoint.cancel)
    link.endpoint.restore()
    refused(link.endpoint.cancel)
    link.silence(0.3, RESUME)


@clause("STOP-10", "CANCEL makes the QP Resuming at the same address, epoch "
        "unchanged")
def cancelled(setting):
    link = Link(setting)
    image = link.stop()
    link.introduce()
    link.endpoint.post(op="SEND", id=1)
    link.drain()
    link.endpoint.cancel()
    packet = link.expect(RESUME, to=setting.own, epoch=image["epoch"],
                         nonce=image["secret"], echo=link.challenge,
                         gid=gid(setting.their), flags=0)
    # Resuming: it repeats that, and its requester waits for the answer.
    link.silence(0.3, SEND_ONLY)
    link.accept(packet)
    link.expect(SEND_ONLY, psn=link.theirs)
    link.ack(link.theirs, msn=1)
    link.completions(1)


@clause("STOP-10", "PAUSE may have been accepted, so RESUME is needed as after a "
        "migration")
def cancel_ends_at_answer(setting):
    link = Link(setting)
    link.stop()
    link.endpoint.cancel()
    packet = link.await_(RESUME)
    link.await_(RESUME)
    link.accept(packet)
    link.drain()
    link.silence(1.5)
