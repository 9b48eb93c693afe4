#!/usr/bin/env python3
"""partners.py serve PORT COUNT           a process with so many QPs, which receives
partners.py ask HOST PORT COUNT FILE   so many processes, each with a QP to it, which send

What they need to know of each other goes over TCP, which is closed then. A partner sends 64
bytes and waits for their completion, PAUSE seconds later the next; into FILE it writes when
each was complete, by the monotonic clock, one line for each, after the number of the partner.
They end with SIGTERM.
"""

import json
import os
import signal
import socket
import sys
import time

from pyverbs import enums as e
from pyverbs.addr import AHAttr, GID, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR, SendWR

PAUSE = float(os.environ.get("PAUSE", 0.02))
RECEIVES = 16
ACCESS = e.IBV_ACCESS_LOCAL_WRITE


class End:
    """A context with QPs"""

    def __init__(self, count):
        self.context = Context(name="rxe0")
        self.pd = PD(self.context)
        self.cq = CQ(self.context, count * RECEIVES * 2)
        self.mr = MR(self.pd, 4096, ACCESS)
        self.sge = SGE(self.mr.buf, 64, self.mr.lkey)
        self.index = next(i for i in range(16) if self._gid(i).startswith(
            "0000:0000:0000:0000:0000:ffff:"))
        cap = QPCap(max_send_wr=4, max_recv_wr=RECEIVES)
        self.qps = [QP(self.pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=self.cq, rcq=self.cq,
                                           cap=cap)) for _ in range(count)]

    def _gid(self, index):
        return str(self.context.query_gid(1, index))

    def address(self):
        return self._gid(self.index)

    def numbers(self):
        return [qp.qp_num for qp in self.qps]

    def connect(self, address, numbers):
        for qp, number in zip(self.qps, numbers):
            route = GlobalRoute(dgid=GID(address), sgid_index=self.index, hop_limit=64)
            attr = QPAttr(port_num=1)
            attr.ah_attr = AHAttr(gr=route, is_global=1, port_num=1)
            attr.dest_qp_num, attr.path_mtu = number, e.IBV_MTU_1024
            attr.qp_access_flags, attr.min_rnr_timer = ACCESS, 12
            attr.timeout, attr.retry_cnt, attr.rnr_retry = 17, 7, 7
            attr.max_rd_atomic = attr.max_dest_rd_atomic = 1
            qp.to_rts(attr)

    def receive(self, qp):
        qp.post_recv(RecvWR(num_sge=1, sg=[self.sge]))

    def done(self):
        """The completions that are there"""
        found = self.cq.poll(64)[1]
        for each in found:
            if each.status != e.IBV_WC_SUCCESS:
                sys.exit(f"QP {each.qp_num}: status {each.status}")
        return found


def serve(port, count):
    end = End(count)
    by_number = dict(zip(end.numbers(), end.qps))
    with socket.create_server(("", port)) as server:
        line = server.accept()[0]
    with line, line.makefile("rw") as file:
        address, numbers = json.loads(file.readline())
        end.connect(address, numbers)
        for qp in end.qps:
            for _ in range(RECEIVES):
                end.receive(qp)
        print(json.dumps([end.address(), end.numbers()]), file=file, flush=True)
    while True:
        for each in end.done():
            end.receive(by_number[each.qp_num])
        time.sleep(PAUSE / 4)


def partner(number, inwards, outwards, log):
    end = End(1)
    os.write(outwards, json.dumps([end.address(), *end.numbers()]).encode())
    address, other = json.loads(os.read(inwards, 4096))
    end.connect(address, [other])
    while True:
        end.qps[0].post_send(SendWR(num_sge=1, sg=[end.sge], opcode=e.IBV_WR_SEND))
        while not end.done():
            time.sleep(PAUSE / 20)
        os.write(log, f"{number} {time.monotonic():.6f}\n".encode())
        time.sleep(PAUSE)


def ask(host, port, count, path):
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    children, told = [], []
    for number in range(count):
        there, here = os.pipe(), os.pipe()
        if not os.fork():
            partner(number, there[0], here[1], log)
        children.append(there[1])
        told.append(json.loads(os.read(here[0], 4096)))
    with socket.create_connection((host, port)) as line, line.makefile("rw") as file:
        print(json.dumps([told[0][0], [each[1] for each in told]]), file=file, flush=True)
        address, numbers = json.loads(file.readline())
    for pipe, each in zip(children, numbers):
        os.write(pipe, json.dumps([address, each]).encode())
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    os.wait()
    sys.exit("a partner has ended")


if sys.argv[1] == "serve":
    serve(*map(int, sys.argv[2:]))
else:
    ask(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
