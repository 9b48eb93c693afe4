"""What "migros inspect" says of images: for people, and as JSON (migros.8). No nonces, and
nothing that programs send."""

from collections import Counter

from fits import HEADERS
from snapshot import TYPES

CONNECTED = ("RTR", "RTS", "SQD", "SQE")
WORDS = {
    "stopped": "the processes ran on after the checkpoint, or criu died when it decided that. "
               "They cannot be restored; if nothing of them is alive on any host: {believe}",
    "complete": "nothing of the processes is alive, these images are them. Restore them, once: "
                "{restore}",
    "resumed": "they have been restored, and their connections live on there. They cannot be "
               "restored again; if nothing of them is alive on any host: {believe}"}


def advice(images):
    """What the word of images means, and the next step"""
    if not images.state:
        return "the snapshot of one context: whether it may be restored is told by the others"
    if images.record and not images.record.ended:
        restore = f"'migros recover {images.record.id}'"
        believe = f"'migros recover --believe-images {images.record.id}'"
    else:
        restore = "on a host that has what they need"
        believe = "write 'complete' into rdma-state.img"
    return f"{images.state}: " + WORDS[images.state].format(restore=restore, believe=believe)


def _of(context, kind):
    return [each for each in context.snapshot.objects if each.kind == kind]


def needs(context):
    """What a destination must have, or have free: MR and MW are the number of a key, which
    is all of it but the low byte"""
    found = context.snapshot.objects
    addresses = [each.shown["address"]["sgid"] for each in found if each.shown.get("address")
                 and each.kind in ("QP", "AH")]
    mtu = max((each.shown["path_mtu"] for each in _of(context, "QP")
               if each.shown["transport"] != "UD" and each.shown["state"] in CONNECTED),
              default=0)
    return {"addresses": sorted(set(addresses)), "path_mtu": mtu or None,
            "device_mtu": mtu + HEADERS if mtu else None,
            "page_size": context.snapshot.page_size,
            "locked_bytes": sum(each.shown["length"] for each in _of(context, "MR")),
            "free": {kind: sorted(each.key[1] for each in _of(context, kind))
                     for kind in ("QP", "MR", "MW", "SRQ", "AH")}}


def flight(context):
    """What is under way, of all objects"""
    qps = [each.shown for each in _of(context, "QP")]
    events = [each for each in context.snapshot.objects if "events" in each.shown]
    return {"sends": sum(len(each["sends"]) for each in qps),
            "send_bytes": sum(send["length"] for each in qps for send in each["sends"]),
            "unacknowledged": sum(each["unacknowledged"] for each in qps),
            "receiving": sum(each["receiving"] for each in qps),
            "receives": sum(each["receives"] for each in qps)
            + sum(each.shown["receives"] for each in _of(context, "SRQ")),
            "completions": sum(each.shown["unread"] for each in _of(context, "CQ")),
            "events": sum(len(each.shown["events"]) for each in events)}


def types(context):
    """Objects by type"""
    every = [context.snapshot.context, *context.snapshot.objects]
    counts = Counter(each.kind for each in every)
    return [{"type": kind, "count": counts[kind],
             "bytes": sum(each.bytes for each in every if each.kind == kind)}
            for kind in TYPES if counts[kind]]


def json(images):
    """For programs"""
    return {"path": images.path, "migration": images.record.id if images.record else None,
            "version": images.version, "state": images.state, "advice": advice(images),
            "processes": images.processes,
            "contexts": [{
                "context": each.number, "device": each.device, "processes": each.processes,
                "mappings": each.mappings, "version": each.snapshot.version,
                "bytes": each.snapshot.bytes, "types": types(each), "needs": needs(each),
                "in_flight": flight(each),
                "objects": [plain(item) for item in
                            (each.snapshot.context, *each.snapshot.objects)]}
                for each in images.contexts],
            "files": images.files}


def plain(item):
    """An object"""
    return {"type": item.kind, "number": item.number, "handle": item.handle,
            "bytes": item.bytes, **item.shown}


def _size(number):
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if number >= 10 << shift:
            return f"{number >> shift} {unit}"
    return f"{number} bytes"


def _count(number, what):
    return f"{number} {what}{'' if number == 1 else 's'}"


def ranges(numbers, form="d"):
    """1-3 5"""
    found = []
    for each in numbers:
        if found and found[-1][1] == each - 1:
            found[-1][1] = each
        else:
            found.append([each, each])
    form = "#x" if form == "x" else form
    return " ".join(f"{one:{form}}" if one == last else f"{one:{form}}-{last:{form}}"
                    for one, last in found)


def _more(context, kind):
    """What a line of a type says beside number and bytes"""
    found = [each.shown for each in _of(context, kind)]
    if kind == "MR":
        return f"{_size(sum(each['length'] for each in found))} of memory"
    if kind == "QP":
        states = Counter(f"{each['transport']} {each['state']}" for each in found)
        return ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    return ""


def _flight(found):
    parts = [(f"{_count(found['sends'], 'send request')} of {_size(found['send_bytes'])}",
              found["sends"]),
             (f"{_count(found['unacknowledged'], 'packet')} not acknowledged",
              found["unacknowledged"]),
             (f"{_count(found['receiving'], 'message')} received in part",
              found["receiving"]),
             (_count(found["receives"], "receive request"), found["receives"]),
             (_count(found["completions"], "unread completion"), found["completions"]),
             (_count(found["events"], "unread event"), found["events"])]
    return ", ".join(text for text, number in parts if number) or "nothing"


def _partners(context):
    found = Counter(each.shown["address"]["dgid"] for each in _of(context, "QP")
                    if each.shown["address"])
    return ", ".join(f"{address} ({_count(number, 'QP')})"
                     for address, number in sorted(found.items()))


def _needs(found):
    """Lines"""
    yield "addresses", " ".join(found["addresses"]) or "any"
    if found["path_mtu"]:
        yield "MTU", f"{found['device_mtu']}, for a path MTU of {found['path_mtu']}"
    if found["locked_bytes"]:
        yield "memlock", _size(found["locked_bytes"])
    yield "page size", str(found["page_size"])
    for kind, numbers in found["free"].items():
        if numbers:
            yield f"free {kind}s", ranges(numbers, "x" if kind in ("MR", "MW") else "d")


def _place(address):
    return f"{address['sgid']} -> {address['dgid']}" if address else "no address"


def _qp(shown):
    parts = [f"{shown['transport']} {shown['state']}"]
    if shown["address"]:
        parts.append(f"{_place(shown['address'])} QP {shown['partner']}, path MTU "
                     f"{shown['path_mtu']}")
    if shown["state"] not in ("RESET", "INIT"):
        parts.append(f"PSN {shown['requester']['psn']} is next, {shown['completer']['psn']} to "
                     f"be acknowledged, {shown['responder']['psn']} expected")
    parts += [_count(len(shown["sends"]), "send"), _count(shown["receives"], "receive")]
    if shown["receiving"]:
        parts.append("a message received in part")
    if shown["protocol"]["partner_stopped"]:
        parts.append("its partner is stopped, too")
    yield ", ".join(parts)
    for each in shown["sends"]:
        psns = "" if each["state"] == "posted" else \
            f", PSN {each['first_psn']}-{each['last_psn']}"
        yield (f"  send {each['opcode']}, {each['state']}{psns}, {each['length']} bytes, "
               f"{each['remaining']} to be sent, wr_id {each['wr_id']:#x}")
    for each in shown["replies"]:
        yield (f"  reply {each['type']}, PSN {each['first_psn']}-{each['last_psn']}, "
               f"{each['length']} bytes, {each['remaining']} to be sent")


def _object(item):
    """Lines about it"""
    shown, kind = item.shown, item.kind
    if kind == "QP":
        yield from _qp(shown)
    elif kind == "MR":
        yield (f"{shown['length']} bytes at {shown['start']:#x} of process "
               f"{shown['process']}, {' '.join(shown['access']) or 'local-read'}")
    elif kind == "MW":
        bound = "" if shown["mr"] is None else \
            f", {shown['length']} bytes of MR with handle {shown['mr']}"
        yield f"type {shown['mw_type']}, {shown['state']}{bound}"
    elif kind == "CQ":
        armed = f", armed ({shown['armed']})" if shown["armed"] else ""
        yield f"{shown['cqe']} entries, {shown['unread']} unread{armed}"
    elif kind == "SRQ":
        limit = f", limit {shown['limit']}" if shown["limit"] else ""
        yield f"{shown['max_wr']} entries, {_count(shown['receives'], 'receive')}{limit}"
    elif kind == "AH":
        yield _place(shown["address"])
    elif kind == "PD":
        yield "no state"
    elif "events" in shown:
        yield f"{_count(len(shown['events']), 'unread event')}"


def _details(context):
    for item in context.snapshot.objects:
        first, *more = _object(item)
        yield f"  {item.name}: {first}"
        yield from (f"    {each}" for each in more)


def lines(images, verbose):
    """For people"""
    form = f", format {images.version}" if images.version else ""
    yield f"images     {images.path}{form}"
    yield f"state      {advice(images)}"
    for each in images.processes:
        at_dump = "" if each["pid"] == each["pid_at_dump"] else \
            f", {each['pid_at_dump']} at the checkpoint"
        yield f"process    {each['pid']} ({each['command'] or '?'}){at_dump}"
    for each in images.contexts:
        snap = each.snapshot
        holders = f", processes {' '.join(map(str, each.processes))}" if each.processes else ""
        yield (f"context {each.number:<2} device {each.device}{holders}, format "
               f"{snap.version}, {_count(len(snap.objects), 'object')}, {_size(snap.bytes)}")
        for entry in types(each):
            yield (f"  {entry['type']:19} {entry['count']:6} {_size(entry['bytes']):>12}  "
                   f"{_more(each, entry['type'])}").rstrip()
        partners = _partners(each)
        if partners:
            yield f"  partners   {partners}"
        yield f"  in flight  {_flight(flight(each))}"
        for name, text in _needs(needs(each)):
            yield f"  needs      {name}: {text}"
        if verbose:
            yield from _details(each)
