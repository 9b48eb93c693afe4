"""Images for inspect.test: the stored one of tests/restore, and images of whole containers
made of it. Where a member is comes from the header that the driver is built with."""

import os
import re
import struct
import zlib
from pathlib import Path

TOP = Path(os.environ["TOP"])
STORED = TOP / "tests/restore/images/v1.img"
HEADER = TOP / "drivers/infiniband/sw/rxe/rxe_mig_uapi.h"
TYPES = {"__u8": "B", "__u32": "I", "__s32": "i", "__aligned_u64": "Q", "__be64": "Q",
         "char": "B"}
QP, MR = 9, 5
# struct rxe_send_wqe: where its members are
WQE = {"wr_id": (0, "Q"), "opcode": (12, "I"), "flags": (16, "I"), "state": (148, "I"),
       "first_psn": (164, "I"), "last_psn": (168, "I"), "length": (184, "I"),
       "remaining": (188, "I"), "payload": (208, "Q")}
TASK, OTHER = 628, 629


def structures():
    """{structure: ({member: (offset, format)}, length)}, as a C compiler lays them out"""
    found = {}
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text("utf-8"), flags=re.S)
    for name, body in re.findall(r"struct (\w+) \{(.*?)\n\};", text, re.S):
        members, offset = {}, 0
        for kind, member, number in re.findall(
                r"(?:struct )?(\w+)\s+(\w+)(\[\d*\])?;", body):
            inner = found.get(kind)
            size = inner[1] if inner else struct.calcsize(TYPES[kind])
            offset += -offset % (8 if inner else size)
            form = f"{size}s" if inner else TYPES[kind]
            if number not in ("", "[]"):
                form = f"{size * int(number[1:-1])}s"
            # Those of unknown number follow the structure.
            if number != "[]":
                members[member] = offset, form
                offset += struct.calcsize(form)
        found[name] = members, offset + -offset % 8
    return found


LAYOUT = structures()


class Snapshot:
    """One that can be changed"""

    def __init__(self, path=STORED):
        data = path.read_bytes()
        self.header, self.records, pos = bytearray(data[:64]), [], 64
        while pos < len(data):
            length, = struct.unpack_from("<Q", data, pos + 8)
            self.records.append(bytearray(data[pos:pos + length]))
            pos += length

    def of(self, kind, number=0):
        """The record that is the number-th of its type, or all"""
        found = [each for each in self.records if struct.unpack_from("<I", each)[0] == kind]
        return found if number is None else found[number]

    def bytes(self):
        """With the right checksum and lengths"""
        for each in self.records:
            struct.pack_into("<Q", each, 8, len(each))
        body = b"".join(self.records)
        header = bytearray(self.header)
        put(header, "hdr", hdr_len=len(header), count=len(self.records),
            total_len=len(header) + len(body), crc=zlib.crc32(body))
        return bytes(header + body)


def put(record, name, at=0, **values):
    """Set members of a structure"""
    members = LAYOUT[f"rxe_mig_{name}"][0]
    for member, value in values.items():
        offset, form = members[member]
        struct.pack_into("<" + form, record, at + offset, value)


def inside(name, *path):
    """Where a structure in another begins"""
    return sum(LAYOUT[f"rxe_mig_{each}"][0][member][0]
               for each, member in zip((name, *path[1::2]), path[::2]))


def connect(record, partner=26, sends=()):
    """Make a QP of the stored image a connection with work under way."""
    put(record, "qp_rec", type=2, state=3, dest_qpn=partner, path_mtu=4, req_psn=0x10,
        comp_psn=0xFFFFFA, resp_psn=77, num_res=0)
    put(record, "av", inside("qp_rec", "pri_av"), network_type=1, port_num=1,
        sgid=bytes(10) + b"\xff\xff\x0a\x4d\x00\x01", dgid=bytes(10) + b"\xff\xff\x0a\x4d\x00\x03")
    put(record, "proto", inside("qp_rec", "proto"), epoch=3, secret=SECRETS[0],
        challenge=SECRETS[1], peer_secret=SECRETS[2], peer_challenge=SECRETS[3], flags=1)
    put(record, "ring", inside("qp_rec", "sq"), producer=(6 + len(sends)) & 7, consumer=6)
    for number, each in enumerate(sends):
        at = LAYOUT["rxe_mig_qp_rec"][1] + (6 + number & 7) * 256
        for name, value in {**each, "payload": SECRETS[4]}.items():
            offset, form = WQE[name]
            struct.pack_into("<" + form, record, at + offset, value)


# Four nonces, and what a program sends
SECRETS = [0x5EC0_0001_AAAA_0101, 0x5EC0_0002_BBBB_0202, 0x5EC0_0003_CCCC_0303,
           0x5EC0_0004_DDDD_0404, 0x5EC0_0005_EEEE_0505]


def busy(**more):
    """A snapshot with a connection that has two send requests under way"""
    snap = Snapshot()
    connect(snap.of(QP), **{"sends": [
        {"wr_id": 0x71, "opcode": 2, "flags": 2 | 8, "state": 2, "first_psn": 0xFFFFFA,
         "last_psn": 5, "length": 9000, "remaining": 0},
        {"wr_id": 0x72, "opcode": 4, "flags": 2, "state": 0, "first_psn": 0, "last_psn": 0,
         "length": 64, "remaining": 64}], **more})
    return snap


# ---- the other images, rdma.proto ----

def _number(value):
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(found) + bytes([value])


def message(*fields):
    """(number, int or bytes) each"""
    found = b""
    for number, value in fields:
        if isinstance(value, int):
            found += _number(number << 3) + _number(value)
        else:
            found += _number(number << 3 | 2) + _number(len(value)) + value
    return found


def entries(magic, *messages):
    return struct.pack("<I", magic) + b"".join(
        struct.pack("<I", len(each)) + each for each in messages)


def core(name):
    """criu's image of a process, as far as its name goes"""
    return struct.pack("<I", 0x54564319) + entries(
        0x55053847, message((1, 1), (3, message((1, 1), (6, name.encode())))))


def files(snapshots, word="complete        \n", version=1, ring=91140096,
          holders=(1, 7)):
    """{name: bytes} of the images of two processes: 1, which has the contexts, and 7"""
    contexts = [message((1, number), (2, b"rxe0"), (3, len(each)), *((4, pid) for pid in holders),
                        (5, message((1, 1), (2, 0x7F0000000000), (3, ring))))
                for number, each in enumerate(snapshots)]
    found = {"rdma.img": entries(0x52444D41, message(
        (1, version), (2, message((1, TASK), (2, 1))), (2, message((1, OTHER), (2, 7))),
        *((3, each) for each in contexts)))}
    found["rdma-files.img"] = entries(0x52444D46, *(
        message((1, 16 + number), (2, 1), (3, 0o2), (4, number))
        for number in range(len(snapshots))), message((1, 99), (2, 4), (3, 0)))
    found["rdma-state.img"] = word.encode()
    found["core-1.img"], found["core-7.img"] = core("checker"), core("sh")
    for number, each in enumerate(snapshots):
        found[f"rdma-context-{number}.img"] = each
    return found


def store(directory, **images):
    """A directory of images: files(), and what is changed of them"""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in images.items():
        (directory / name).write_bytes(data)
    return directory
