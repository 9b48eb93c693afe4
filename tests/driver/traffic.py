#!/usr/bin/env python3
"""traffic.py [SERVER]: packets between two hosts that are the same each time.

The client has an argument. Requests of each kind; one whose acknowledgement is lost, one
that is lost itself, wholly or in its middle; one that finds no receive, one that nobody
answers.
"""

import json
import socket
import subprocess
import sys
import time

from pyverbs.addr import GID, AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR, SendWR
import pyverbs.enums as e

ACCESS = (e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE |
          e.IBV_ACCESS_REMOTE_READ | e.IBV_ACCESS_REMOTE_ATOMIC)
KINDS = ("SEND", "RDMA_WRITE", "RDMA_READ", "ATOMIC_FETCH_AND_ADD")
TIMES = 10
LENGTH = 3000       # of three packets
SEND_MIDDLE, SEND_ONLY, ACKNOWLEDGE = 0x01, 0x04, 0x11
SUCCESS, RETRY_EXCEEDED, RNR_EXCEEDED = 0, 12, 13
# Nothing is late by 4 s, but what is lost shall come again soon, and nobody even sooner.
PATIENT, SOON, SOONEST = 20, 19, 14
NOBODY = 0x7ffff0
LOSE = """\
table inet traffic {{
	chain in {{
		type filter hook input priority 0;
		udp dport 4791 @th,64,8 {opcode} numgen inc mod 100000 == 0 drop
	}}
}}
"""


def lose(opcode):
    """The first packet that comes in with it"""
    subprocess.run(["nft", "-f", "-"], input=LOSE.format(opcode=opcode), text=True,
                   check=True)


def lose_nothing():
    subprocess.run(["nft", "delete", "table", "inet", "traffic"], check=True)


class End:
    def __init__(self, stream):
        self.stream = stream
        self.context = Context(name="rxe0")
        self.pd = PD(self.context)
        self.cq = CQ(self.context, 64)
        self.mr = MR(self.pd, 4096, ACCESS)

    def exchange(self, mine=None):
        print(json.dumps(mine), file=self.stream, flush=True)
        return json.loads(self.stream.readline())

    def connect(self, timeout, retries=3, nobody=False):
        """A QP each, to the other's or to nobody's"""
        self.qp = QP(self.pd, QPInitAttr(
            qp_type=e.IBV_QPT_RC, scq=self.cq, rcq=self.cq,
            cap=QPCap(max_send_wr=16, max_recv_wr=16)))
        self.other = self.exchange([self.qp.qp_num, str(self.context.query_gid(1, 1)),
                                    self.mr.buf, self.mr.rkey])
        number, gid = self.other[:2]
        attr = QPAttr(port_num=1)
        attr.qp_access_flags = ACCESS
        attr.path_mtu = e.IBV_MTU_1024
        attr.dest_qp_num = NOBODY if nobody else number
        attr.max_dest_rd_atomic = attr.max_rd_atomic = 1
        attr.min_rnr_timer = 12
        attr.ah_attr = AHAttr(port_num=1, is_global=1, gr=GlobalRoute(
            dgid=GID(gid), sgid_index=1))
        attr.timeout = timeout
        attr.retry_cnt = retries
        attr.rnr_retry = 1
        self.qp.to_init(attr)
        self.qp.to_rtr(attr)
        self.qp.to_rts(attr)
        self.exchange()

    def receives(self, number):
        for _ in range(number):
            self.qp.post_recv(RecvWR(num_sge=1, sg=[
                SGE(self.mr.buf, 4096, self.mr.lkey)]))

    def post(self, kind, length):
        request = SendWR(opcode=getattr(e, f"IBV_WR_{kind}"), num_sge=1,
                         send_flags=e.IBV_SEND_SIGNALED,
                         sg=[SGE(self.mr.buf, length, self.mr.lkey)])
        if kind.startswith("RDMA"):
            request.set_wr_rdma(self.other[3], self.other[2])
        elif kind.startswith("ATOMIC"):
            request.set_wr_atomic(self.other[3], self.other[2], 1, 0)
        self.qp.post_send(request)

    def completes(self, number=1, status=SUCCESS):
        end = time.monotonic() + 20
        while number:
            count, found = self.cq.poll(1)
            number -= count
            if count and found[0].status != status:
                sys.exit(f"status {found[0].status}, not {status}")
            if time.monotonic() > end:
                sys.exit("no completion")


def each_kind(end, client):
    end.connect(PATIENT)
    if not client:
        end.receives(TIMES)
    end.exchange()
    for kind in KINDS if client else ():
        for _ in range(TIMES):
            end.post(kind, 8 if kind.startswith("ATOMIC") else LENGTH)
            end.completes()
    if not client:
        end.completes(TIMES)
    end.exchange()


def lost(end, client, opcode, number, length=64):
    """Of so many SENDs the first packet with this opcode"""
    end.connect(SOON)
    loses = client == (opcode == ACKNOWLEDGE)
    if loses:
        lose(opcode)
    if not client:
        end.receives(number)
    end.exchange()
    for _ in range(number if client else 0):
        end.post("SEND", length)
    end.completes(number)
    end.exchange()
    if loses:
        lose_nothing()


def fails(end, client, status, timeout, nobody=False):
    end.connect(timeout, 1, nobody)
    if client:
        end.post("SEND", 64)
        end.completes(1, status)
    end.exchange()


def main():
    client = len(sys.argv) == 2
    if client:
        end = socket.create_connection((sys.argv[1], 4001))
    else:
        end = socket.create_server(("", 4001)).accept()[0]
    end = End(end.makefile("rw"))
    each_kind(end, client)
    lost(end, client, ACKNOWLEDGE, 1)
    lost(end, client, SEND_ONLY, 2)
    lost(end, client, SEND_MIDDLE, 1, LENGTH)
    fails(end, client, RNR_EXCEEDED, PATIENT)
    fails(end, client, RETRY_EXCEEDED, SOONEST, nobody=True)


main()
