"""Section 9: which address a QP has when it is back."""

import time

from clauses import clause
from peer import *


def refused(link, **flags):
    try:
        link.endpoint.resume(**flags)
    except EndpointError:
        return
    raise Failure("activation was not refused")


def other_family(setting):
    """Addresses of both hosts in the family that the connection has not"""
    prefix = "fd77::" if setting.family == 4 else "10.77.0."
    return prefix + "2", prefix + "1"


def source(packet):
    return gid((packet[IP] if IP in packet else packet[IPv6]).src)


@clause("ADDR-1", "*Address change*: the restored QP has another GID. It sends from "
        "it, AV taken from the snapshot")
def changed(setting):
    with setting.address() as address:
        link = Link(setting, local=address.text)
        link.their = address.text
        link.endpoint.recv(id=9)
        link.endpoint.post(op="SEND", id=1)
        check(source(link.expect(SEND_ONLY, psn=link.theirs)) ==
              gid(address.text), "it does not send from its address")
        link.stop()
        link.introduce()
        link.endpoint.leave()
        address.remove()
        link.endpoint.restore()
        link.drain()
        link.endpoint.resume(new_addr=1)
        packet = link.await_(RESUME, to=setting.own, gid=gid(setting.their),
                             nonce=link.its_secret)
        check(source(packet) == gid(setting.their), "RESUME from elsewhere")
        link.silence(0.2, SEND_ONLY)
        link.accept(packet)
        packet = link.expect(SEND_ONLY, psn=link.theirs, to=setting.own)
        check(source(packet) == gid(setting.their), "SEND from elsewhere")
        link.ack(link.theirs, msn=1)
        link.completions(1)
        link.request(link.mine)
        check(source(link.expect(ACK, psn=link.mine)) == gid(setting.their),
              "ACK from elsewhere")
        link.completions(9)


@clause("ADDR-1", "the partner learns it by RESUME-5. IPv4 and IPv6 work alike")
def partner_changed(setting):
    """Ours: it sends to the new address, and hears it only from there."""
    link = Link(setting)
    link.pause()
    link.endpoint.recv(id=9)
    link.endpoint.post(op="SEND", id=1)
    link.send(RESUME, nonce=link.secret, source=setting.other)
    link.await_(RESUME_ACK, to=setting.other, echo=link.secret)
    link.expect(SEND_ONLY, psn=link.theirs, to=setting.other)
    link.ack(link.theirs, msn=1)
    check(link.endpoint.poll(ms=200)["wc"] == "",
          "an ACK from the old address completed")
    link.ack(link.theirs, msn=1, source=setting.other)
    link.completions(1)
    link.request(link.mine, source=setting.other)
    link.expect(ACK, psn=link.mine, to=setting.other)
    link.completions(9)


@clause("ADDR-1", "a change of family is refused (RESUME-4).")
def other_family_refused(setting):
    link = Link(setting)
    link.pause()
    own, their = other_family(setting)
    link.drain()
    link.send(RESUME, nonce=link.secret, source=own, to=their)
    link.silence(0.3, RESUME_ACK)
    link.resume()
    link.endpoint.post(op="SEND", id=1)
    link.expect(SEND_ONLY, psn=link.theirs, to=setting.own)


@clause("ADDR-3", "Activation checks first, for every QP of the context, that its "
        "GID exists and the port's MTU carries its path MTU, and activates none if "
        "one fails.")
def one_without_address(setting):
    with setting.address() as address:
        first = Link(setting)
        second = first.another(local=address.text)
        second.their = address.text
        third = first.another()
        links = first, second, third
        first.stop()
        first.endpoint.leave()
        address.remove()
        first.endpoint.restore()
        first.drain()
        refused(first)
        refused(first, check=1)
        for link in links:
            link.silence(0.3, RESUME, SEND_ONLY)
        address.add()
        first.endpoint.resume()
        for link in links:
            link.accept(link.await_(RESUME))


@clause("ADDR-3", "and the port's MTU carries its path MTU, and activates none if "
        "one fails.")
def one_with_large_mtu(setting):
    first = Link(setting, mtu=MTUS[256])
    second = first.another(mtu=MTUS[4096])
    first.stop()
    first.endpoint.leave()
    first.endpoint.restore()
    first.drain()
    first.endpoint.shell("cp /sys/class/net/eth0/mtu /tmp/mtu && "
                         "ip link set eth0 mtu 1500")
    try:
        time.sleep(0.1)
        refused(first)
        first.silence(0.3, RESUME)
        second.silence(0.2, RESUME)
    finally:
        first.endpoint.shell("ip link set eth0 mtu $(cat /tmp/mtu)")
    time.sleep(0.1)
    first.endpoint.resume()
    for link in (first, second):
        link.accept(link.await_(RESUME))


@clause("ADDR-4", "The GID *index* an application knows SHOULD be kept.")
def index_kept(setting):
    """With the address moved away and back, too"""
    with setting.address() as address:
        first = Link(setting)
        second = first.another(local=address.text)
        second.their = address.text
        links = first, second
        before = [link.endpoint.query(qp=link.index)["sgid_index"]
                  for link in links]
        check(before[0] != before[1], "two addresses have one index")
        first.stop()
        first.endpoint.leave()
        address.remove()
        address.add()
        first.endpoint.restore()
        first.endpoint.resume()
        after = [link.endpoint.query(qp=link.index)["sgid_index"]
                 for link in links]
        check(before == after, f"GID indices were {before} and are {after}")


@clause("ADDR-5", "Until the network has learned the move, packets may reach the "
        "old host and its answers the partner. They are late packets in the sense "
        "of EPOCH-2 and STOP-3.")
def late_migration_packets(setting):
    """Our old host's, at the old address and at the same one"""
    for moved in (setting.own, setting.other):
        link = Link(setting)
        link.pause()
        old = link.its_challenge
        link.send(RESUME, nonce=link.secret, source=moved)
        new = link.await_(RESUME_ACK, to=moved)[MIGETH].nonce
        check(new != old, "the challenge is the old one")
        link.drain()
        for opcode, fields in (
                (PAUSE, {"nonce": link.secret, "echo": old}),
                (PAUSE, {"nonce": link.secret, "echo": new}),
                (PAUSE, {"nonce": link.secret, "epoch": 0, "echo": new}),
                (MOVED, {"echo": old, "gid": gid(setting.nowhere)}),
                (RUNNING, {"echo": old})):
            link.send(opcode, source=setting.own, **fields)
        link.silence(0.3)
        link.endpoint.post(op="SEND", id=1)
        link.expect(SEND_ONLY, psn=link.theirs, to=moved)
        # A late NAK_STOPPED has a token that is none any more.
        link.ack(link.theirs, syndrome=NAK_STOPPED, source=moved,
                 msn=old & WIRE["TOKEN_MASK"])
        link.drain()
        link.endpoint.post(op="SEND", id=2)
        link.await_(SEND_ONLY, psn=(link.theirs + 1) & 0xffffff, to=moved)


@clause("ADDR-5", "They are late packets in the sense of EPOCH-2 and STOP-3.")
@clause("STOP-3", "*Reason:* then every late packet of the old host equals a "
        "retransmission")
def late_data(setting):
    """What our old host sent before the Stop comes after our RESUME."""
    link = Link(setting)
    link.endpoint.recv(id=9, count=2)
    link.endpoint.post(op="SEND", id=1, count=2)
    link.await_(SEND_ONLY, psn=(link.theirs + 1) & 0xffffff)
    link.request(link.mine)
    link.await_(ACK, psn=link.mine)
    link.pause()
    link.resume()
    link.drain()
    # A SEND that was executed, and the ACK of one that was not acknowledged
    link.request(link.mine)
    link.ack(link.theirs, msn=1)
    link.await_(ACK, psn=link.mine)
    link.completions(9, 1)
    check(link.endpoint.poll(ms=100)["wc"] == "", "executed twice")
    link.request(link.mine + 1)
    link.await_(ACK, psn=(link.mine + 1) & 0xffffff)
    link.completions(10)


def meet(link, partner):
    """Two QPs of the endpoint's host become each other's partner."""
    for one, other in ((link, partner), (partner, link)):
        one.endpoint.modify(qp=one.index, anew=1, state="RTS",
                            **{**one.attributes, "dest": other.their_qpn})


def exchange(link, partner):
    for one, other in ((link, partner), (partner, link)):
        other.endpoint.recv(qp=other.index, id=9)
        one.endpoint.post(qp=one.index, op="SEND", id=1)
        one.completions(1)
        other.completions(9)


@clause("ADDR-7", "Two instances on one host (migration onto the partner's host) "
        "need a route that leaves the addresses as they are; else ADDR-3 refuses.")
def both_here(setting):
    """Partners with an address each, both of this host: one migrates."""
    with setting.address() as address:
        common = {"mine": setting.psn, "theirs": setting.psn, "state": "RESET"}
        link = Link(setting, remote=address.text, **common)
        partner = Link(setting, local=address.text, remote=setting.their,
                       **common)
        for one in (link, partner):
            one.attributes.pop("state")
        meet(link, partner)
        exchange(link, partner)
        for moving in (link, partner, link):
            moving.stop()
            moving.endpoint.leave()
            moving.endpoint.restore()
            moving.endpoint.resume()
            exchange(link, partner)


@clause("ADDR-7", "else ADDR-3 refuses.")
def partner_here(setting):
    """The address that its partner has here is not one for it: without its
    own, it is not activated as if it had moved."""
    with setting.address() as address:
        link = Link(setting, local=address.text, remote=setting.their)
        link.stop()
        link.endpoint.leave()
        address.remove()
        link.endpoint.restore()
        refused(link)
