"""The other end of a connection, made by hand: packets, checks, and the words
in which the cases are written.
"""

import ipaddress
import re
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

from roce import *  # noqa: F403 the vocabulary of the cases
from roce import (ACK, AETH, ATOMIC_ACK, BTH, F_PAUSED, FETH, FLUSH, IP, MIGETH,
                  MIGRATION, NAK_STOPPED, NAMES, PAUSE, PORT, PROBE, RESUME, RESUME_ACK,
                  RETH, SEND_ONLY, UDP, WIRE, Ether, IPv6)

SO_RCVBUFFORCE = 33
# How much longer than usual everything takes here (scripts/testbed --slow)
SLOW = int((re.search(r"\bmigros\.slow=(\d+)",
                      Path("/proc/cmdline").read_text("ascii")) or [0, 1])[1])
MTUS = {256: 1, 512: 2, 1024: 3, 2048: 4, 4096: 5}


class Failure(Exception):
    """The implementation under test does not do what it must."""


class Skip(Exception):
    """Why this case does not apply here."""


def check(good, text):
    if not good:
        raise Failure(text)


def gid(address):
    """An address as a number of 128 bits."""
    number = ipaddress.ip_address(address)
    return int(number) | (0xffff << 32 if number.version == 4 else 0)


def pattern(offset, length, seed=1):
    """What the endpoint's "fill" writes"""
    return bytes((i * 7 + (i >> 8) + seed) & 0xff
                 for i in range(offset, offset + length))


def describe(packet):
    if packet is None:
        return "nothing"
    bth = packet[BTH]
    text = f"{NAMES.get(bth.opcode, hex(bth.opcode))} psn {bth.psn:#x}"
    if MIGETH in packet:
        eth = packet[MIGETH]
        text += f" epoch {eth.epoch} flags {eth.flags} echo {eth.echo:#x}"
    elif AETH in packet:
        text += f" syndrome {packet[AETH].syndrome:#x}"
    return text


def header(packet):
    """(opcode, PSN) of what came in"""
    data = packet[1]
    start = 42 if data[12:14] == b"\x08\x00" else 62
    return data[start], int.from_bytes(data[start + 9:start + 12], "big")


class Wire:
    """All packets of RoCE on the interface of this host."""

    def __init__(self, interface):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW,
                                    socket.htons(3))
        self.socket.bind((interface, 0))
        # READ replies come faster than they are looked at.
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
        self.mac = self.socket.getsockname()[4]
        # Nobody answers with "port unreachable".
        self.sinks = [socket.socket(family, socket.SOCK_DGRAM)
                      for family in (socket.AF_INET, socket.AF_INET6)]
        self.sinks[1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        for sink in self.sinks:
            sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            sink.bind(("", PORT))
        self.capture = []
        self.queue = []
        self.arrived = threading.Condition()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            data = self.socket.recv(65536)
            now = time.monotonic()
            if not self.roce(data):
                continue
            with self.arrived:
                self.capture.append((time.time(), data))
                self.queue.append((now, data))
                self.arrived.notify_all()

    def send(self, frame):
        with self.arrived:
            self.capture.append((time.time(), frame))
        self.socket.send(frame)

    @staticmethod
    def roce(data):
        """UDP to our port, over either IP, without options"""
        if data[12:14] == b"\x08\x00":
            return data[23] == 17 and data[36:38] == b"\x12\xb7"
        return data[12:14] == b"\x86\xdd" and data[20] == 17 and \
            data[56:58] == b"\x12\xb7"

    def begin(self):
        """A new case: forget what came before."""
        with self.arrived:
            self.capture, self.queue = [], []

    def take(self, deadline):
        """The next packet that came in, or None: (time, packet)"""
        with self.arrived:
            while not self.queue:
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self.arrived.wait(left)
            when, data = self.queue.pop(0)
        return when, Ether(data)

    def take_headers(self, seconds, *opcodes):
        """(opcode, PSN) of all that comes until nothing came for so long; with opcodes: of
        those with one of them."""
        found = []
        with self.arrived:
            deadline = time.monotonic() + seconds
            while True:
                if self.queue:
                    queue, self.queue = self.queue, []
                    new = [each for each in map(header, queue)
                           if not opcodes or each[0] in opcodes]
                    found += new
                    if new:
                        deadline = time.monotonic() + seconds
                left = deadline - time.monotonic()
                if left <= 0:
                    return found
                self.arrived.wait(left)

    def put_back(self, packets):
        with self.arrived:
            self.queue[:0] = packets

    def save(self, path):
        """What was sent and received, as a capture file."""
        with self.arrived, open(path, "wb") as file:
            file.write(struct.pack("=IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
            for when, data in self.capture:
                file.write(struct.pack("=IIII", int(when), int(when % 1 * 1e6),
                                       len(data), len(data)) + data)


class Endpoint:
    """The driver's end: every method is a command of endpoint.c."""

    def __init__(self, address):
        self.link = socket.create_connection((address, 4000), 30)
        self.stream = self.link.makefile("rw", encoding="ascii")

    def close(self):
        self.stream.close()
        self.link.close()

    def __getattr__(self, name):
        def command(*texts, **words):
            request = " ".join([name, *texts, *(f"{key}={value}"
                                        for key, value in words.items())])
            self.stream.write(request + "\n")
            self.stream.flush()
            status, *answer = self.stream.readline().split(" ", 1) or [""]
            answer = answer[0].strip() if answer else ""
            if status.strip() != "ok":
                raise EndpointError(f"{request}: {status} {answer}")
            return {key: self.value(value) for key, value in (
                word.split("=", 1) for word in answer.split())}
        return command

    @staticmethod
    def value(text):
        try:
            return int(text, 0)
        except ValueError:
            return text


class EndpointError(Exception):
    """What a verb has refused."""


class Setting:
    """Where and with which numbers the cases run."""

    def __init__(self, wire, family=4, mtu=1024, psn=0x1000, peer_psn=0x5000):
        self.wire, self.family, self.mtu = wire, family, mtu
        # The first PSNs of the endpoint and of this host
        self.psn, self.peer_psn = psn, peer_psn
        self.endpoints = []
        prefix = "10.77.0." if family == 4 else "fd77::"
        self.control = "10.77.0.1"
        self.their = prefix + "1"
        # Addresses of the peer, all on this host
        self.own = prefix + "2"
        self.other = prefix + ("32" if family == 4 else "20")
        # Nobody's
        self.nowhere = prefix + "99"

    def mac(self):
        """That of the endpoint's host, which TCP has found out by now"""
        for line in Path("/proc/net/arp").read_text("ascii").splitlines()[1:]:
            address, _, _, mac, *_ = line.split()
            if address == self.control:
                return mac
        raise OSError(f"no MAC address of {self.control}")

    def address(self):
        return Address(self)

    def close(self):
        """The case is over: its processes in the endpoint's host end."""
        for endpoint in self.endpoints:
            endpoint.close()
        self.endpoints = []


class Address:
    """One more address of the endpoint's host, for as long as a case needs it."""

    DEVICE = "eth0"

    def __init__(self, setting):
        self.text = setting.own[:-1] + "11"
        self.length = 24 if setting.family == 4 else 64
        # A process of its own, which no end of a case's process takes away
        self.endpoint = Endpoint(setting.control)
        self.taken = False

    def __enter__(self):
        self.add()
        return self

    def __exit__(self, *_):
        self.give_back()
        self.endpoint.shell(f"{self.command('del')} 2>/dev/null || true")
        self.endpoint.close()

    def command(self, verb):
        text = f"ip address {verb} {self.text}/{self.length} dev {self.DEVICE}"
        return text + " nodad" * (":" in self.text and verb == "add")

    def await_gid(self, loop):
        """until or while it is in the port's table"""
        digits = f"{gid(self.text):032x}"
        name = ":".join(digits[i:i + 4] for i in range(0, 32, 4))
        self.endpoint.shell(
            f"timeout 5 sh -c '{loop} grep -qs {name} "
            f"/sys/class/infiniband/*/ports/1/gids/*; do sleep 0.05; done'")

    def add(self):
        self.endpoint.shell(self.command("add"))
        self.await_gid("until")

    def remove(self):
        self.endpoint.shell(self.command("del"))
        self.await_gid("while")

    def take(self):
        """It is this host's now: what is sent there comes here."""
        self.taken = True
        subprocess.run(self.command("add"), shell=True, check=True)

    def give_back(self):
        if self.taken:
            subprocess.run(self.command("del"), shell=True, check=True)
        self.taken = False


class Link:
    """One connection, between this host by hand and a QP of the endpoint.

    `mine` and `theirs` are the next PSNs of the two requesters, `secret` and
    `challenge` nonces of ours. What the endpoint has told is in `its_secret`
    and `its_challenge`. `epoch` is of our stops.
    """

    numbers = 0x77

    def __init__(self, setting, endpoint=None, **attributes):
        self.setting, self.wire = setting, setting.wire
        self.own, self.their = setting.own, setting.their
        self.endpoint = endpoint or Endpoint(setting.control)
        if endpoint is None:
            setting.endpoints.append(self.endpoint)
            self.memory = self.endpoint.open()
        self.qpn = Link.numbers
        Link.numbers = Link.numbers % 0xffff + 0x11
        self.mine = attributes.pop("mine", setting.peer_psn)
        self.theirs = attributes.pop("theirs", setting.psn)
        self.attributes = {
            "local": self.their, "remote": self.own, "dest": self.qpn,
            "mtu": MTUS[setting.mtu], "rq_psn": self.mine,
            "sq_psn": self.theirs, **attributes}
        self.connect()
        self.secret, self.challenge = 0x5ec0de0000000001, 0xc4a11e0000000001
        self.epoch = 0
        self.its_secret = self.its_challenge = 0
        self.mac = setting.mac()

    def connect(self):
        made = self.endpoint.setup(**self.attributes)
        self.index, self.their_qpn = made["qp"], made["qpn"]

    def another(self, **attributes):
        """A second connection with the same process."""
        link = Link(self.setting, self.endpoint, **attributes)
        link.memory = self.memory
        return link

    # -- sending --

    def frame(self, bth, source=None, to=None, mac=None):
        """Addresses in front of a BTH, the ICRC behind it."""
        source, to = source or self.own, to or self.their
        if ipaddress.ip_address(to).version == 4:
            ip = IP(src=source, dst=to, ttl=64, flags="DF", id=1)
        else:
            ip = IPv6(src=source, dst=to, hlim=64)
        udp = UDP(sport=0xc077, dport=PORT, chksum=0)
        if isinstance(ip, IPv6):
            # It is not optional there.
            udp = UDP(sport=0xc077, dport=PORT)
        return bytes(Ether(src=self.wire.mac, dst=mac or self.mac) / ip / udp /
                     bth)

    def transmit(self, frame):
        self.wire.send(frame)

    def migration(self, opcode, source=None, to=None, bth=None, **fields):
        """A migration packet, by default right in all that is not given."""
        header = {"opcode": opcode, "dqpn": self.their_qpn,
                  "psn": self.mine, **(bth or {})}
        values = {"src_qpn": self.qpn, "epoch": self.epoch,
                  "sq_psn": self.mine, "rq_psn": self.theirs,
                  "gid": gid(source or self.own), **fields}
        return self.frame(BTH(**header) / MIGETH(**values), source, to)

    def send(self, opcode, **arguments):
        self.transmit(self.migration(opcode, **arguments))

    def packet(self, opcode, psn, *headers, payload=b"", ack=True, source=None,
               **bth):
        """A packet of the data path."""
        pad = -len(payload) % 4
        packet = BTH(**{"opcode": opcode, "dqpn": self.their_qpn,
                        "psn": psn & 0xffffff, "ackreq": int(ack),
                        "padcount": pad, **bth})
        for header in headers:
            packet /= header
        if payload:
            packet /= payload + bytes(pad)
        return self.frame(packet, source)

    def data(self, *arguments, **options):
        self.transmit(self.packet(*arguments, **options))

    def ack(self, psn, syndrome=0x1f, msn=0, **options):
        self.data(ACK, psn, AETH(syndrome=syndrome, msn=msn), ack=False,
                  **options)

    def request(self, psn, **options):
        """A SEND of one packet"""
        self.data(SEND_ONLY, psn, payload=b"x" * 64, **options)

    def reth(self, offset, length, **fields):
        return RETH(**{"va": self.memory["va"] + offset,
                       "rkey": self.memory["rkey"], "length": length, **fields})

    # -- receiving --

    def receive(self, seconds=2.0, mine=True):
        """The next packet to our QP, or None."""
        deadline = time.monotonic() + seconds
        while (got := self.wire.take(deadline)) is not None:
            self.at, packet = got
            if not mine or packet[BTH].dqpn == self.qpn:
                return packet
        return None

    def expect(self, opcode, seconds=2.0, to=None, skip=(), **fields):
        """The next packet, but for those to skip, must be this one."""
        skip = set(skip) | ({PROBE, PAUSE, RESUME} - {opcode})
        seconds *= SLOW
        deadline = time.monotonic() + seconds
        wanted = NAMES.get(opcode, hex(opcode))
        while True:
            packet = self.receive(deadline - time.monotonic())
            check(packet is not None, f"no {wanted} came in {seconds} s")
            if packet[BTH].opcode == opcode:
                break
            check(packet[BTH].opcode in skip,
                  f"{describe(packet)} came, not {wanted}")
        self.compare(packet, to, fields)
        return packet

    def await_(self, opcode, seconds=2.0, to=None, **fields):
        """Some packet like this comes. Other migration packets may come
        before; packets of the data path stay there for what follows."""
        seconds *= SLOW
        deadline = time.monotonic() + seconds
        seen, data = [], []
        try:
            while (packet := self.receive(deadline - time.monotonic())) \
                    is not None:
                if packet[BTH].opcode == opcode:
                    try:
                        self.compare(packet, to, fields)
                        return packet
                    except Failure as failure:
                        seen.append(str(failure))
                if packet[BTH].opcode not in MIGRATION:
                    data.append((self.at, bytes(packet)))
        finally:
            self.wire.put_back(data)
        raise Failure(f"no such {NAMES.get(opcode, opcode)} in {seconds} s: "
                      f"{fields} {seen[:3]}")

    def compare(self, packet, to, fields):
        ip = packet[IP] if IP in packet else packet[IPv6]
        if to is not None:
            check(gid(ip.dst) == gid(to),
                  f"{describe(packet)} went to {ip.dst}, not to {to}")
        for name, value in fields.items():
            got = self.field(packet, name)
            check(got == value, f"{describe(packet)}: {name} is {got:#x}, "
                  f"not {value:#x}")

    @staticmethod
    def field(packet, name):
        for layer in (MIGETH, AETH, RETH, BTH, FETH):
            if layer in packet and name in packet[layer].fields:
                return int(packet[layer].fields[name])
        raise Failure(f"{describe(packet)} has no {name}")

    def silence(self, seconds, *opcodes, to=None):
        """No packet comes; with opcodes: none with one of them."""
        deadline = time.monotonic() + seconds
        while (packet := self.receive(deadline - time.monotonic())) is not None:
            ip = packet[IP] if IP in packet else packet[IPv6]
            check((opcodes and packet[BTH].opcode not in opcodes) or
                  (to is not None and gid(ip.dst) != gid(to)),
                  f"{describe(packet)} came to {ip.dst}")

    def drain(self, seconds=0.1):
        """Let all that is on the way arrive, and forget it."""
        while self.receive(seconds) is not None:
            pass

    # -- what most cases need --

    def learn(self, source=None):
        """Its challenge, which it tells who speaks with its partner's address.

        A PAUSE that is fresh and has a wrong echo changes nothing [PAUSE-2].
        """
        self.send(PAUSE, epoch=self.epoch + 1000, nonce=0x1, echo=0xbad,
                  source=source)
        self.its_challenge = self.await_(PROBE, echo=0x1)[MIGETH].nonce
        return self.its_challenge

    def pause(self, **fields):
        """We stop: it becomes Paused. Returns its PROBE."""
        self.learn()
        self.epoch += 1
        self.secret += 1
        self.send(PAUSE, nonce=self.secret, echo=self.its_challenge, **fields)
        return self.await_(PROBE, echo=self.secret, flags=F_PAUSED)

    def resume(self, **fields):
        """We are back: it learns where. Returns its RESUME_ACK."""
        self.send(RESUME, nonce=self.secret, echo=0, **fields)
        packet = self.await_(RESUME_ACK, echo=self.secret, epoch=self.epoch)
        self.its_challenge = packet[MIGETH].nonce
        return packet

    def stop(self):
        """It stops. Returns what its image says; the PAUSE is awaited."""
        image = self.endpoint.stop()
        self.its_secret = image.get("secret", 0)
        return image

    def introduce(self, **fields):
        """Show the Stopped endpoint that we speak the protocol [CAP-1]."""
        self.send(PROBE, nonce=self.challenge, echo=self.its_secret,
                  flags=F_PAUSED, **fields)
        time.sleep(0.1)

    def back(self, **flags):
        """It is restored on its host and resumes; the RESUME is returned."""
        self.endpoint.leave()
        self.endpoint.restore()
        self.drain()
        self.endpoint.resume(**flags)
        return self.await_(RESUME)

    def accept(self, packet, **fields):
        """Answer its RESUME."""
        self.challenge += 1
        ip = packet[IP] if IP in packet else packet[IPv6]
        self.their = ip.src
        self.send(RESUME_ACK, nonce=self.challenge, echo=packet[MIGETH].nonce,
                  epoch=packet[MIGETH].epoch, **fields)
        time.sleep(0.1)

    def expect_nak(self, psn):
        """NAK_STOPPED, as a partner gets it that was introduced"""
        return self.expect(ACK, syndrome=NAK_STOPPED, psn=psn & 0xffffff,
                           msn=self.challenge & WIRE["TOKEN_MASK"])

    def runs(self, ident=1):
        """Nothing holds it, and its AV is as before."""
        self.endpoint.post(op="SEND", id=ident)
        self.expect(SEND_ONLY, psn=self.theirs, to=self.own)
        self.ack(self.theirs)
        self.theirs = (self.theirs + 1) & 0xffffff
        self.completions(ident)

    def completions(self, *idents, seconds=3.0):
        """These requests complete, in order, without error."""
        found = self.endpoint.poll(ms=int(seconds * 1000), count=len(idents))
        wanted = ",".join(f"{ident}:0" for ident in idents)
        check(found["wc"] == wanted,
              f"completions (id:status) {found['wc'] or 'none'}, not {wanted}")

    def shell(self, command):
        """Run a command in this host."""
        return subprocess.run(command, shell=True, check=True, text=True,
                              stdout=subprocess.PIPE).stdout


def with_limit(link, name, milliseconds, act):
    """With another limit of the driver's for as long as act() runs."""
    path = f"/sys/module/rdma_rxe/parameters/mig_{name}_ms"
    default = WIRE[f"{name.upper()}_MS"]
    link.endpoint.shell(f"echo {milliseconds} >{path}")
    try:
        act()
    finally:
        link.endpoint.shell(f"echo {default} >{path}")
