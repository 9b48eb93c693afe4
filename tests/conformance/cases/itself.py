"""Section 8: a QP that comes to where its partner was, and has the same number."""

import time

from clauses import clause
from pause import with_limit
from peer import *
from tombstone import f_self


def places_exchanged(setting):
    """Both ends had the same QP number. One has left a tombstone here, and the other,
    which was at our address, comes here, too. Returns its connection, and the image of
    the one that left."""
    link = Link(setting)
    link.qpn = link.their_qpn
    link.attributes["dest"] = link.qpn
    link.endpoint.modify(qp=link.index, anew=1, state="RTS", **link.attributes)
    image = link.stop()
    link.endpoint.leave()
    link.endpoint.edit(local=setting.own, remote=setting.their)
    link.endpoint.restore()
    link.drain()
    return link, image


@clause("TOMB-2", "a RESUME with F_SELF also if that QP does not accept it")
@clause("TOMB-2", "a PROBE or RESUME also if that QP *meets itself* and has sent it.")
@clause("TOMB-2", "A QP meets itself when its QPN and its `dest_qp_num` are the same number "
        "and it has come, by a change of address, to the address of its AV: there its "
        "packets reach itself instead of its partner's tombstone.")
@clause("TOMB-3", "(adoption), unless that QP meets itself: then it is the partner's")
@clause("STATE-3", "| PROBE or RESUME of its own, meets itself (TOMB-2) | | | to the "
        "tombstone | | |")
def meets_itself(setting):
    """It hears from the tombstone where we are now."""
    link, image = places_exchanged(setting)
    link.endpoint.post(op="SEND", id=1)
    link.endpoint.recv(id=9)
    link.endpoint.resume(new_addr=1)
    link.await_(RESUME, flags=F_SELF, to=setting.own)
    link.silence(0.3, RESUME, to=setting.other)
    f_self(link, image, source=setting.other)
    link.await_(RESUME, to=setting.other, flags=0)
    link.send(RESUME, epoch=5, nonce=0x77, echo=0, source=setting.other)
    packet = link.await_(PROBE, to=setting.other)
    link.send(RESUME, epoch=5, nonce=0x77, echo=packet[MIGETH].nonce,
              source=setting.other)
    link.await_(RESUME_ACK, to=setting.other, echo=0x77)
    link.accept(link.await_(RESUME, to=setting.other), source=setting.other)
    link.expect(SEND_ONLY, to=setting.other, psn=link.theirs)
    link.ack(link.theirs, msn=1, source=setting.other)
    link.completions(1)


@clause("RESUME-9", "The requester of a QP that meets itself (TOMB-2) MUST NOT run: "
        "outstanding work fails as in PAUSE-10")
@clause("STATE-3", "| RESUME_LIMIT, meets itself | | | ERR if work outstanding, RESUME "
        "| | |")
def executes_nothing_of_itself(setting):
    link, _ = places_exchanged(setting)
    link.endpoint.recv(id=9)
    link.endpoint.post(op="SEND", id=1)

    def act():
        link.endpoint.resume(new_addr=1)
        found = link.endpoint.poll(ms=4000, count=2)["wc"]
        check(found.split(",")[0] == "1:12" and "9:0" not in found,
              f"completions (id:status) {found}")
    with_limit(link, "resume_limit", 500, act)


@clause("RESUME-9", "and RESUME is repeated.")
@clause("STATE-3", "| RESUME_LIMIT, meets itself | | | ERR if work outstanding, RESUME "
        "| | |")
def repeats_to_itself(setting):
    """Without work: where it was before, we hear it."""
    link, _ = places_exchanged(setting)

    def act():
        link.endpoint.resume(new_addr=1)
        time.sleep(1.5)
        link.drain(0.02)
        link.await_(RESUME, flags=F_SELF, to=setting.own)
        check(link.endpoint.query()["qp_state"] == 3, "an idle QP left RTS")
    with_limit(link, "resume_limit", 500, act)


@clause("TOMB-8", "A QP that meets itself (TOMB-2) MUST NOT be stopped")
def not_stopped_where_it_meets_itself(setting):
    """RESUME_LIMIT changes nothing about that."""
    link, _ = places_exchanged(setting)

    def act():
        link.endpoint.resume(new_addr=1)
        for _ in range(2):
            try:
                link.stop()
            except EndpointError as error:
                check("temporarily unavailable" in str(error), str(error))
            else:
                raise Failure("it was stopped")
            time.sleep(1)
    with_limit(link, "resume_limit", 500, act)
