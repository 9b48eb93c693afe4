"""RoCE v2 on scapy: the headers that scapy's own layer lacks, and ours.

Opcodes, syndrome, flags and timers are read from the wire header of the driver
(rxe_mig_wire.h), the one place that defines them; nothing else is shared.
"""

import re
from pathlib import Path

from scapy.contrib.roce import AETH, BTH
from scapy.fields import (BitField, ByteField, FlagsField, IntField,
                          ShortField, XBitField, XIntField, XLongField)
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, bind_layers

PORT = 4791


def read_header(path):
    """The MIGROS_* numbers of the wire header, without that prefix."""
    return {name: int(value, 0) for name, value in re.findall(
        r"^#define\s+MIGROS_(\w+)\s+(0x[0-9a-f]+|\d+)\b",
        Path(path).read_text(encoding="utf-8"), re.M)}


HERE = Path(__file__).resolve().parent
HEADER = next(path for path in (
    HERE / "rxe_mig_wire.h",
    HERE.parent.parent / "drivers/infiniband/sw/rxe/rxe_mig_wire.h")
    if path.exists())
WIRE = read_header(HEADER)
PAUSE, PROBE, RUNNING, RESUME, RESUME_ACK, MOVED = (
    WIRE["OP_" + name] for name in
    ("PAUSE", "PROBE", "RUNNING", "RESUME", "RESUME_ACK", "MOVED"))
F_PAUSED, F_TOMBSTONE, F_SELF = (
    WIRE["F_" + name] for name in ("PAUSED", "TOMBSTONE", "SELF"))
NAK_STOPPED = WIRE["SYN_NAK_STOPPED"]
MIGRATION = range(WIRE["OP_PAUSE"], WIRE["OP_MOVED"] + 1)

# RC opcodes [IBTA 9.2]
(SEND_FIRST, SEND_MIDDLE, SEND_LAST, SEND_LAST_IMM, SEND_ONLY, SEND_ONLY_IMM,
 WRITE_FIRST, WRITE_MIDDLE, WRITE_LAST, WRITE_LAST_IMM, WRITE_ONLY,
 WRITE_ONLY_IMM, READ_REQUEST, READ_FIRST, READ_MIDDLE, READ_LAST, READ_ONLY,
 ACK, ATOMIC_ACK, COMPARE_SWAP, FETCH_ADD) = range(0x15)
SEND_LAST_INV, SEND_ONLY_INV = 0x16, 0x17
FLUSH, ATOMIC_WRITE = 0x1c, 0x1d
UD = 0x60  # plus that of RC

NAMES = {value: name for name, value in list(globals().items())
         if name.isupper() and isinstance(value, int) and
         (value < 0x20 or value in MIGRATION) and not name.startswith("F_")}

# AETH syndromes [IBTA 9.7.5.2]
ACKED, RNR = 0x1f, 0x20
NAK_SEQUENCE, NAK_REQUEST, NAK_ACCESS, NAK_OPERATION = range(0x60, 0x64)


class RETH(Packet):
    name = "RETH"
    fields_desc = [XLongField("va", 0), XIntField("rkey", 0),
                   IntField("length", 0)]


class AtomicETH(Packet):
    name = "AtomicETH"
    fields_desc = [XLongField("va", 0), XIntField("rkey", 0),
                   XLongField("swap", 0), XLongField("compare", 0)]


class AtomicAckETH(Packet):
    name = "AtomicAckETH"
    fields_desc = [XLongField("original", 0)]


class ImmDt(Packet):
    name = "ImmDt"
    fields_desc = [XIntField("data", 0)]


class IETH(Packet):
    name = "IETH"
    fields_desc = [XIntField("rkey", 0)]


class DETH(Packet):
    name = "DETH"
    fields_desc = [XIntField("qkey", 0), ByteField("reserved", 0),
                   XBitField("sqpn", 0, 24)]


class FETH(Packet):
    name = "FETH"
    fields_desc = [BitField("reserved", 0, 26), BitField("level", 0, 2),
                   BitField("type", 1, 4)]


class MIGETH(Packet):
    """[WIRE-3]"""

    name = "MIGETH"
    fields_desc = [
        ByteField("version", WIRE["VERSION"]),
        FlagsField("flags", 0, 8, ["PAUSED", "TOMBSTONE", "SELF"]),
        ShortField("reserved", 0), XIntField("src_qpn", 0),
        IntField("epoch", 0), XIntField("sq_psn", 0), XIntField("rq_psn", 0),
        IntField("reserved2", 0), XLongField("nonce", 0),
        XLongField("echo", 0), XBitField("gid", 0, 128)]


for _opcode in MIGRATION:
    bind_layers(BTH, MIGETH, opcode=_opcode)
for _opcode in (SEND_LAST_IMM, SEND_ONLY_IMM, WRITE_LAST_IMM):
    bind_layers(BTH, ImmDt, opcode=_opcode)
for _opcode in (SEND_LAST_INV, SEND_ONLY_INV):
    bind_layers(BTH, IETH, opcode=_opcode)
for _opcode in (UD + SEND_ONLY, UD + SEND_ONLY_IMM):
    bind_layers(BTH, DETH, opcode=_opcode)
bind_layers(BTH, RETH, opcode=READ_REQUEST)
for _opcode in (WRITE_FIRST, WRITE_ONLY, WRITE_ONLY_IMM):
    bind_layers(BTH, RETH, opcode=_opcode)
for _opcode in (COMPARE_SWAP, FETCH_ADD):
    bind_layers(BTH, AtomicETH, opcode=_opcode)
for _opcode in (READ_FIRST, READ_LAST, READ_ONLY, ATOMIC_ACK):
    bind_layers(BTH, AETH, opcode=_opcode)
bind_layers(BTH, FETH, opcode=FLUSH)
bind_layers(FETH, RETH)
bind_layers(BTH, RETH, opcode=ATOMIC_WRITE)

__all__ = [name for name in globals() if not name.startswith("_")]
