#!/usr/bin/env python3
"""One RC or UC QP on the driver under test, controlled over TCP by peer.py.

Reads one request a line, [NAME, {ARGUMENT...}], and answers each with a line.
"""

import json
import socket
import sys
import time

from pyverbs.addr import GID, AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.mr import MR, MW, MWBindInfo
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPEx, QPInitAttr, QPInitAttrEx
from pyverbs.wr import SGE, RecvWR, SendWR
import pyverbs.enums as e

SIZE = 1 << 18
ACCESS = (e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE |
          e.IBV_ACCESS_REMOTE_READ | e.IBV_ACCESS_REMOTE_ATOMIC)
FLUSH_GLOBAL = 1 << 8


def mapped(address):
    number = socket.inet_aton(address).hex()
    return f"0000:0000:0000:0000:0000:ffff:{number[:4]}:{number[4:]}"


class Victim:
    def setup(self, local, remote, psn, peer_psn, timeout=17, retry=7,
              rd_atomic=8, extended=False, reliable=True):
        """Make a QP that is connected to QP 0x77 of the peer."""
        self.context = Context(name="rxe0")
        index = next(i for i in range(16) if
                     str(self.context.query_gid(1, i)) == mapped(local))
        self.pd = PD(self.context)
        self.cq = CQ(self.context, 128)
        self.flags = {}
        try:
            self.mr = MR(self.pd, SIZE, ACCESS | e.IBV_ACCESS_MW_BIND |
                         FLUSH_GLOBAL)
        except Exception:
            self.mr = MR(self.pd, SIZE, ACCESS | e.IBV_ACCESS_MW_BIND)
        cap = QPCap(max_send_wr=64, max_recv_wr=64)
        kind = e.IBV_QPT_RC if reliable else e.IBV_QPT_UC
        common = {"qp_type": kind, "scq": self.cq, "rcq": self.cq,
                  "cap": cap}
        if extended:
            self.qp = QPEx(self.context, QPInitAttrEx(
                pd=self.pd, comp_mask=e.IBV_QP_INIT_ATTR_PD |
                e.IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
                send_ops_flags=e.IBV_QP_EX_WITH_FLUSH |
                e.IBV_QP_EX_WITH_ATOMIC_WRITE | e.IBV_QP_EX_WITH_SEND,
                **common))
        else:
            self.qp = QP(self.pd, QPInitAttr(**common))
        attr = QPAttr(port_num=1)
        attr.qp_access_flags = ACCESS | FLUSH_GLOBAL
        attr.path_mtu = e.IBV_MTU_1024
        attr.dest_qp_num = 0x77
        attr.rq_psn = peer_psn
        attr.max_dest_rd_atomic = rd_atomic
        attr.min_rnr_timer = 12
        self.index = index
        attr.ah_attr = self.path(remote)
        attr.timeout = timeout
        attr.retry_cnt = retry
        attr.rnr_retry = 7
        attr.sq_psn = psn
        attr.max_rd_atomic = 8
        self.attr = attr
        self.connect()
        for number in range(16):
            self.qp.post_recv(RecvWR(wr_id=1000 + number, num_sge=1, sg=[
                SGE(self.mr.buf, 4096, self.mr.lkey)]))
        return {"qpn": self.qp.qp_num, "va": self.mr.buf,
                "rkey": self.mr.rkey}

    def path(self, remote):
        return AHAttr(port_num=1, is_global=1, gr=GlobalRoute(
            dgid=GID(mapped(remote)), sgid_index=self.index))

    def connect(self):
        self.qp.to_init(self.attr)
        self.qp.to_rtr(self.attr)
        self.qp.to_rts(self.attr)

    def reset(self, remote=None):
        """And connect it as it was, or to another address."""
        self.modify("RESET")
        if remote:
            self.attr.ah_attr = self.path(remote)
        self.connect()

    def post(self, opcode, ident, offset=0, length=0):
        """Post a request; remote address and key do not matter."""
        request = SendWR(wr_id=ident, opcode=getattr(e, "IBV_WR_" + opcode),
                         num_sge=1, send_flags=e.IBV_SEND_SIGNALED, sg=[
                             SGE(self.mr.buf + offset, length, self.mr.lkey)])
        if opcode.startswith("ATOMIC"):
            request.set_wr_atomic(0x1234, 0x1000, 1, 2)
        elif opcode.startswith("RDMA"):
            request.set_wr_rdma(0x1234, 0x1000)
        self.qp.post_send(request)

    def post_extended(self, opcode, ident, va):
        """Post a FLUSH or ATOMIC_WRITE to an address, or a SEND."""
        self.qp.wr_start()
        self.qp.wr_id = ident
        self.qp.wr_flags = e.IBV_SEND_SIGNALED
        if opcode == "FLUSH":
            self.qp.wr_flush(0x1234, va, 64, 1, 0)
        elif opcode == "SEND":
            self.qp.wr_send()
            self.qp.wr_set_sge(SGE(self.mr.buf, 64, self.mr.lkey))
        else:
            self.qp.wr_atomic_write(0x1234, va, bytes(8))
        self.qp.wr_complete()

    def bind(self, offset, length):
        """A zero-based memory window of type 2."""
        self.mw = MW(self.pd, e.IBV_MW_TYPE_2)
        request = SendWR(wr_id=1, opcode=e.IBV_WR_BIND_MW,
                         send_flags=e.IBV_SEND_SIGNALED)
        request.set_bind_wr(self.mw, MWBindInfo(
            self.mr, self.mr.buf + offset, length,
            e.IBV_ACCESS_REMOTE_READ | e.IBV_ACCESS_ZERO_BASED))
        self.qp.post_send(request)
        return request.rkey

    def unbind(self):
        """A QP with a bound memory window cannot be destroyed."""
        self.mw.close()

    def modify(self, state):
        self.qp.modify(QPAttr(qp_state=getattr(e, "IBV_QPS_" + state)),
                       e.IBV_QP_STATE)

    def destroy(self):
        self.qp.close()

    def poll(self, seconds):
        """Completions, as soon as there are some: [[wr_id, status]...]"""
        end = time.monotonic() + seconds
        while True:
            count, found = self.cq.poll(16)
            self.flags.update((wc.wr_id, wc.wc_flags) for wc in found or [])
            if count or time.monotonic() > end:
                return [[wc.wr_id, wc.status] for wc in found or []]
            time.sleep(0.005)

    def flags_of(self, ident):
        """wc_flags of a completion that has been polled"""
        return self.flags[ident]

    def write(self, offset, data):
        self.mr.write(bytes.fromhex(data), len(data) // 2, offset)

    def read(self, offset, length):
        return bytes(self.mr.read(length, offset)).hex()

    def state(self):
        return self.qp.query(e.IBV_QP_STATE)[0].qp_state


def main():
    server = socket.create_server(("", 4000))
    print("ready", flush=True)
    stream = server.accept()[0].makefile("rw")
    victim = Victim()
    for line in stream:
        name, arguments = json.loads(line)
        try:
            answer = [True, getattr(victim, name)(**arguments)]
        except Exception as failure:  # for the peer to report
            answer = [False, f"{name}: {failure!r}"]
        print(json.dumps(answer), file=stream, flush=True)


sys.exit(main())
