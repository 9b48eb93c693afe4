"""Reads the snapshot of a context: docs/image-format.md, rxe_mig_uapi.h. It may be damaged,
or made by somebody. The nonces of connections, and what programs send, are not shown; they
can be compared, though (Object.hidden)."""

import functools
import ipaddress
import struct
import zlib

from messages import Damaged

MAGIC = b"IGR1"
VERSION = 1
NONE = 0xFFFFFFFF
PSNS = 0xFFFFFF
TYPES = ("context", "asynchronous events", "completion channel", "PD", "MR", "CQ", "SRQ",
         "AH", "QP", "MW")
KINDS = dict(enumerate(TYPES, 1))
TRANSPORTS = {2: "RC", 3: "UC", 4: "UD"}
QP_STATES = ("RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR")
MW_STATES = ("invalid", "free", "valid")
PATHS = ("migrated", "rearm", "armed")
ARMED = (None, "solicited", "next", "next")
ACCESS = ("local-write", "remote-write", "remote-read", "remote-atomic", "mw-bind",
          "zero-based", "on-demand", "huge-pages", "flush-global", "flush-persistent")
OPCODES = ("WRITE", "WRITE_IMM", "SEND", "SEND_IMM", "READ", "CMP_SWP", "FETCH_ADD",
           "LOCAL_INV", "BIND_MW", "SEND_INV", "TSO", "DRIVER1", None, None, "FLUSH",
           "ATOMIC_WRITE")
SEND_FLAGS = ("fence", "signaled", "solicited", "inline", "checksum")
SEND_STATES = ("posted", "processing", "pending", "done", "error")
# RXE_READ_MASK and so on
REPLIES = {1 << 17: "READ", 1 << 18: "atomic", 1 << 19: "FLUSH", 1 << 27: "ATOMIC_WRITE"}
EVENTS = ("CQ error", "QP fatal", "QP request error", "QP access error",
          "communication established", "SQ drained", "path migrated", "path migration error",
          "device fatal", "port active", "port error", "LID change", "PKEY change",
          "SM change", "SRQ error", "SRQ limit reached", "QP last WQE reached",
          "client reregister", "GID change")


# Members are u32, unless NAME:FORMAT. "-" is reserved, which is zero.
HEADER = "magic:4s version hdr_len count total_len:Q page_size crc features:Q -:24s"
RECORD = "type handle len:Q user_handle:Q"
RING = "mmap_offset:Q mmap_size log2_elem_size index_mask producer consumer index data_len:Q"
AV = "network:B port:B sgid_index:B hop_limit:B traffic_class:B -:3s flow_label - " \
     "dgid:16s sgid:16s"
CONTEXT = "device:64s node_guid:8s next_qpn next_mr next_mw next_srq next_ah gids " \
          "max_handle -"
GID = "index - gid:16s"
EVENT = "element:Q event type handle -"
EVENT_COUNT = "events -"
MR = "pd key start:Q length:Q iova:Q access process:i"
CQ = "cqe channel armed comp_events_reported async_events_reported -"
SRQ = "pd number max_wr max_sge limit error async_events_reported -"
AH = "pd number new_provider -"
MW = "pd key mw_type state access mr qp - address:Q length:Q"
QP = """pd send_cq recv_cq srq number transport signal_all max_send_wr max_send_sge max_inline
max_recv_wr max_recv_sge state path_mtu path_migration qkey rq_psn sq_psn partner access
pkey_index alternate_pkey_index drained_event draining max_rd_atomic max_dest_rd_atomic
min_rnr_timer port timeout retry_count rnr_retry alternate_port alternate_timeout
source_port"""
REQUESTER = "psn opcode:i wqe_index read_credits ssn"
COMPLETER = "psn opcode:i"
RESPONDER = "psn ack_psn msn opcode:i drop_message status remaining key length va:Q offset:Q"
RESOURCES = "head tail count receiving async_events_reported -"
NONCES = 32
PROTOCOL = "stops partner_stops nonces:32s flags -"
RESOURCE = "type replay first_psn last_psn psn state original_va:Q va:Q key length " \
           "remaining flush"
# struct rxe_send_wqe, whose wr is 144 bytes
SEND = "wr_id:Q unused opcode flags rest:124s status state iova:Q mask first_psn last_psn " \
       "ack_length ssn has_rd_atomic length remaining"


@functools.cache
def _layout(members):
    """struct.Struct, and the names"""
    parts = [each.partition(":") for each in members.split()]
    return struct.Struct("<" + "".join(form or "I" for _, _, form in parts)), \
        [name for name, _, _ in parts]


class Reader:
    """Takes one structure after the other."""

    def __init__(self, data):
        self.data = data
        self.pos = 0

    def raw(self, length):
        found = self.data[self.pos:self.pos + length]
        if len(found) != length:
            raise Damaged("a record is too short for what it says that it has")
        self.pos += length
        return found

    def take(self, members):
        layout, names = _layout(members)
        found = {}
        for name, value in zip(names, layout.unpack(self.raw(layout.size))):
            if name != "-":
                found[name] = value
            elif value not in (0, bytes(24), bytes(3)):
                raise Damaged("reserved space is in use: a later version wrote it, or it is "
                              "damaged")
        return found

    def end(self):
        """What is longer is of a later version: zero means "as before"."""
        if any(self.data[self.pos:]):
            raise Damaged("a record has more than is known: a later version wrote it, or it "
                          "is damaged")


def _name(names, value, what):
    known = value in names if isinstance(names, dict) else value < len(names)
    if not known:
        raise Damaged(f"{what} {value} is not known")
    return names[value]


def _bits(names, value):
    found = [name for bit, name in enumerate(names) if value >> bit & 1]
    rest = value >> len(names) << len(names)
    return found + ([f"{rest:#x}"] if rest else [])


def _handle(value):
    return None if value == NONE else value


def _opcode(value):
    return None if value < 0 else value


def _address(raw):
    address = ipaddress.IPv6Address(bytes(raw))
    return str(address.ipv4_mapped or address)


def behind(psn, other):
    """How many packets are from one PSN to the next"""
    return (psn - other) & PSNS


class Object:
    """A record. number is what people call it, shown what is known of it, hidden what may
    be compared but not shown; name is None for what there is once."""

    def __init__(self, kind, record, shown, hidden):
        self.kind = kind
        self.bytes = record["len"]
        self.number = shown.pop("number", record["handle"])
        self.handle = record["handle"]
        self.shown = {"user_handle": record["user_handle"], **shown}
        self.hidden = hidden

    @property
    def key(self):
        """By this it is the same object in another image: the low byte of a key changes."""
        keyed = self.kind in ("MR", "MW")
        return self.kind, self.shown["key"] >> 8 if keyed else self.number

    @property
    def name(self):
        if self.kind in TYPES[:2]:
            return self.kind
        number = f"{self.shown['key']:#x}" if self.kind in ("MR", "MW") else self.number
        return f"{self.kind} {number}"


def _ring(reader):
    ring = reader.take(RING)
    mask, shift, length = (ring[name] for name in ("index_mask", "log2_elem_size",
                                                   "data_len"))
    if length and (shift > 16 or mask & mask + 1 or length != mask + 1 << shift) or \
            max(ring["producer"], ring["consumer"], ring["index"]) > mask:
        raise Damaged("the sizes of a ring contradict each other")
    return ring


def _used(ring):
    return ring["producer"] - ring["consumer"] & ring["index_mask"]


def _av(reader):
    av = reader.take(AV)
    if not av.pop("network"):
        return None
    return {**av, "dgid": _address(av["dgid"]), "sgid": _address(av["sgid"])}


def _context(reader):
    shown = reader.take(CONTEXT)
    gids = [reader.take(GID) for _ in range(shown["gids"])]
    shown["device"] = bytes(shown["device"]).split(b"\0")[0].decode(errors="replace")
    shown["node_guid"] = bytes(shown["node_guid"]).hex()
    shown["max_handle"] = _handle(shown["max_handle"])
    shown["gids"] = [{"index": each["index"], "address": _address(each["gid"])}
                     for each in gids]
    return shown, {}


def _async(reader):
    events = [reader.take(EVENT) for _ in range(reader.take(EVENT_COUNT)["events"])]
    for each in events:
        each["event"] = EVENTS[each["event"]] if each["event"] < len(EVENTS) else each["event"]
        each["type"] = _name(KINDS, each["type"], "object type") if each["type"] else None
        each["handle"] = _handle(each["handle"])
    return {"events": events}, {}


def _channel(reader):
    number = reader.take(EVENT_COUNT)["events"]
    events = list(struct.unpack(f"<{number}I", reader.raw(4 * number)))
    reader.raw(4 * (number & 1))
    return {"events": events}, {}


def _pd(_):
    return {}, {}


def _mr(reader):
    shown = reader.take(MR)
    shown["access"] = _bits(ACCESS, shown["access"])
    return shown, {}


def _cq(reader):
    shown = reader.take(CQ)
    shown["channel"] = _handle(shown["channel"])
    shown["armed"] = _name(ARMED, shown["armed"], "armed state")
    shown["ring"] = _ring(reader)
    shown["unread"] = _used(shown["ring"])
    return shown, {"completions": reader.raw(shown["ring"]["data_len"])}


def _srq(reader):
    shown = reader.take(SRQ)
    shown["ring"] = _ring(reader)
    shown["receives"] = _used(shown["ring"])
    return shown, {"receive requests": reader.raw(shown["ring"]["data_len"])}


def _ah(reader):
    return {**reader.take(AH), "address": _av(reader)}, {}


def _mw(reader):
    shown = reader.take(MW)
    shown["state"] = _name(MW_STATES, shown["state"], "MW state")
    shown["access"] = _bits(ACCESS, shown["access"])
    shown["mr"], shown["qp"] = _handle(shown["mr"]), _handle(shown["qp"])
    return shown, {}


def _replies(reader, count):
    """Responder resources: what is answered, or was and may be asked again"""
    found = []
    for index in range(count):
        each = reader.take(RESOURCE)
        if not each["type"]:
            continue
        found.append({"index": index, "type": _name(REPLIES, each["type"], "reply"),
                      **{name: each[name] for name in (
                          "first_psn", "last_psn", "psn", "state", "replay", "va", "key",
                          "length", "remaining")}})
    return found


def _sends(ring, data):
    """Send requests that are not completed, the oldest first"""
    layout, names = _layout(SEND)
    size = 1 << ring["log2_elem_size"]
    if _used(ring) and size < layout.size:
        raise Damaged("a send ring has slots that are too small")
    found = []
    for number in range(_used(ring)):
        at = (ring["consumer"] + number & ring["index_mask"]) * size
        each = dict(zip(names, layout.unpack_from(data, at)))
        opcode = each["opcode"]
        found.append({
            "wr_id": each["wr_id"],
            "opcode": OPCODES[opcode] if opcode < len(OPCODES) else opcode,
            "flags": _bits(SEND_FLAGS, each["flags"]),
            # User space can write anything there.
            "state": SEND_STATES[each["state"]] if each["state"] < len(SEND_STATES)
            else each["state"],
            **{name: each[name] for name in ("first_psn", "last_psn", "length",
                                             "remaining")}})
    return found


def _machines(reader):
    found = {"requester": reader.take(REQUESTER), "completer": reader.take(COMPLETER),
             "responder": reader.take(RESPONDER)}
    for each in found.values():
        each["opcode"] = _opcode(each["opcode"])
    return found


def _qp(reader):
    shown = reader.take(QP)
    shown["srq"] = _handle(shown["srq"])
    shown["transport"] = _name(TRANSPORTS, shown["transport"], "QP type")
    shown["state"] = _name(QP_STATES, shown["state"], "QP state")
    shown["path_migration"] = _name(PATHS, shown["path_migration"], "path migration state")
    if not 1 <= shown["path_mtu"] <= 5:
        raise Damaged(f"path MTU {shown['path_mtu']} is not known")
    shown["path_mtu"] = 128 << shown["path_mtu"]
    shown["access"] = _bits(ACCESS, shown["access"])
    shown["address"], shown["alternate_address"] = _av(reader), _av(reader)
    shown.update(_machines(reader))
    more = reader.take(RESOURCES)
    shown["async_events_reported"] = more["async_events_reported"]
    protocol = reader.take(PROTOCOL)
    hidden = {"nonces": protocol.pop("nonces")}
    flags = protocol.pop("flags")
    shown["protocol"] = {**protocol, "partner_capable": bool(flags & 1),
                         "partner_stopped": bool(flags & 2)}
    shown["sq"], shown["rq"] = _ring(reader), _ring(reader)
    shown["responder"]["resources"] = {"head": more["head"], "tail": more["tail"]}
    shown["replies"] = _replies(reader, more["count"])
    # A receive request in progress
    shown["receiving"] = bool(more["receiving"])
    hidden["receive request in progress"] = reader.raw(more["receiving"] + 7 & ~7)
    hidden["send requests"] = reader.raw(shown["sq"]["data_len"])
    hidden["receive requests"] = reader.raw(shown["rq"]["data_len"])
    shown["sends"] = _sends(shown["sq"], hidden["send requests"])
    shown["receives"] = _used(shown["rq"])
    shown["unacknowledged"] = behind(shown["requester"]["psn"], shown["completer"]["psn"]) \
        if shown["transport"] == "RC" else 0
    return shown, hidden


DECODERS = (_context, _async, _channel, _pd, _mr, _cq, _srq, _ah, _qp, _mw)


class Snapshot:
    """version, page_size, bytes; context, an Object, and objects, all others"""

    def __init__(self, data):
        self.bytes = len(data)
        header = self._header(data)
        self.version, self.page_size = header["version"], header["page_size"]
        found = list(_objects(data, header))
        if not found or found[0].kind != TYPES[0] or \
                any(each.kind == TYPES[0] for each in found[1:]):
            raise Damaged("it does not begin with the one context")
        self.context, *self.objects = found
        if len({each.key for each in found}) != len(found):
            raise Damaged("two objects have the same number")

    @staticmethod
    def _header(data):
        if bytes(data[:4]) != MAGIC:
            raise Damaged("it is not the snapshot of a context")
        if len(data) < 64:
            raise Damaged("it is cut off")
        # Reserved space tells nothing before the version is known.
        version, = struct.unpack_from("<I", data, 4)
        if version != VERSION:
            raise Damaged(f"it has version {version}, known is {VERSION}; take the release "
                          "that wrote it")
        features, = struct.unpack_from("<Q", data, 32)
        if features:
            raise Damaged(f"it needs features {features:#x}, none are known; take the release "
                          "that wrote it")
        header = Reader(data).take(HEADER)
        start, page = header["hdr_len"], header["page_size"]
        if header["total_len"] != len(data):
            raise Damaged(f"it has {len(data)} bytes, and says that it has "
                          f"{header['total_len']}: it is cut off, or damaged")
        if start < 64 or start % 8 or start > len(data) or any(data[64:start]) or \
                page < 4096 or page & page - 1:
            raise Damaged("its header is damaged, or a later version wrote it")
        if zlib.crc32(data[start:]) != header["crc"]:
            raise Damaged("its checksum is wrong: it is damaged")
        return header


def _objects(data, header):
    pos, last = header["hdr_len"], 0
    for _ in range(header["count"]):
        record = Reader(data[pos:pos + 24]).take(RECORD)
        length = record["len"]
        if length < 24 or length % 8 or length > len(data) - pos:
            raise Damaged("a record has an impossible length")
        kind = _name(KINDS, record["type"], "object type")
        if record["type"] < last:
            raise Damaged("its records are in the wrong order")
        last = record["type"]
        reader = Reader(data[pos:pos + length])
        reader.pos = 24
        shown, hidden = DECODERS[record["type"] - 1](reader)
        reader.end()
        yield Object(kind, record, shown, hidden)
        pos += length
    if pos != len(data):
        raise Damaged("there is something behind its last record")
