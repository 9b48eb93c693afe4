"""migros with runtimes that are none: a container is a process that sleeps, its images
a file. For owner.test, which runs both hosts in two directories.

fakehost.py WORD...                    migros WORD...
fakehost.py -c PID IMAGES [ARCHIVE]    what runc (podman) and criu do in a checkpoint
fakehost.py -r IMAGES [ARCHIVE]        and in a restore

FAKE_HOST is the directory of the host. Points, written to FAKE_HOST/points as they are
passed, are before and after each change of the journal and of the container. At that of
FAKE_HALT (HOST:POINT) something dies: FAKE_VICTIM is "command", "host" (with all its
processes), "parent" (the command, while its restore goes on), "network", "both" (the
command and the network), "disk" (full: the journal has only its reserve), "journal" (it
cannot be written as long as FAKE_HOST/broken exists) or "container" (what podman has of it is
removed). FAKE_FAIL (HOST:restore, HOST:resumed when partners may have heard of it,
HOST:checkpoint; or several) fails, FAKE_HANG (one of the same, and source:asked, source:killed)
does nothing for as long as it is not ended, or for FAKE_HANGS seconds. FAKE_KEEPER is the
host in which criu is killed when it has marked the images. FAKE_SLOW is how long a checkpoint takes, and FAKE_ASKS how long a host
that does not answer is asked again, in seconds; FAKE_PLAIN
is a container without RDMA. FAKE_STOCK is the name of a host with the stock driver, FAKE_BARE of one without criu.
FAKE_HOST/address has the addresses of the host. FAKE_QP (RC, UC, UD) is what the container
has with 10.9.9.9, and FAKE_SOCKET an address that a socket of it is bound to; its restore
fails without the address if criu's plugin is not told that it may change. FAKE_UNREACHED is a
host that does not reach its partner. FAKE_HOST/devices.d has the devices of containers,
FAKE_HOST/made those that are there.
"""

import errno
import ipaddress
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "criu/migros"
HOST = Path(os.environ["FAKE_HOST"])
APP = HOST / "app"
sys.path.insert(0, str(TOOL))

import address  # noqa: E402
import device  # noqa: E402
import driver  # noqa: E402
import inventory  # noqa: E402
import journal  # noqa: E402
import overdue  # noqa: E402
import partners  # noqa: E402
import podman  # noqa: E402
import rdma  # noqa: E402
import runc  # noqa: E402
import runtimes  # noqa: E402
import sockets  # noqa: E402
import source  # noqa: E402
import thishost  # noqa: E402
from container import STATE, word  # noqa: E402

ADDRESSES = HOST / "address"


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    while alive(pid):
        pass


def point(name):
    name = f"{HOST.name}:{name}"
    with open(HOST / "points", "a", encoding="utf-8") as file:
        file.write(f"{name}\n")
    wanted = os.environ.get("FAKE_HALT")
    if wanted != name or (HOST / "struck").exists():
        return
    (HOST / "struck").touch()
    victim = os.environ["FAKE_VICTIM"]
    if victim in ("disk", "journal"):
        (HOST / ("full" if victim == "disk" else "broken")).touch()
        return
    if victim == "container":
        # As "podman run --replace" does
        shutil.rmtree(HOST / "static")
        return
    if victim in ("network", "both"):
        (HOST.parent / "cut").touch()
    if victim == "network":
        return
    if victim == "host":
        # It boots with the addresses that it always had.
        ADDRESSES.write_text("10.9.9.9/24\n" if HOST.name == "source" else "")
        # All that runs there, this last
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environ = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"FAKE_HOST={HOST}".encode() in environ and \
                    int(entry.name) != os.getpid():
                kill(int(entry.name))
    if sys.argv[1] == "-r" and victim in ("command", "parent", "both"):
        kill(int(os.environ["FAKE_AGENT"]))
    if victim == "parent":
        # The next call, which finds no agent, comes to its end, if nothing holds it up.
        before, until = calls(), time.monotonic() + 20
        while calls() < before + 2 and time.monotonic() < until:
            time.sleep(0.05)
        point("went-on")
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def hang(name):
    if os.environ.get("FAKE_HANG") == f"{HOST.name}:{name}":
        point("hangs")
        time.sleep(float(os.environ.get("FAKE_HANGS", 1000)))


def calls():
    """Of the other host"""
    return (HOST / "calls").stat().st_size


class Fake:
    """What both have"""

    def _pid(self):
        try:
            pid = int(APP.read_text())
        except FileNotFoundError:
            return None
        return pid if alive(pid) else None

    def knows(self, container):
        return self._pid() is not None

    def inspect(self, container):
        return {"container": container, "pid": self._pid(), "cgroups": [], "bytes": 0,
                "bundle": "/bundle", "cid": "0123", "image": "", "binds": [], "apart": False,
                "networks": {},
                "static": str(HOST / "static")}

    def expected(self, wanted):
        return {"static": str(HOST / "static")}

    def processes(self, cgroups):
        pid = self._pid()
        return [pid] if pid else []

    def guard(self, record):
        pass

    def unguard(self, record):
        (HOST / "unguarded").touch()

    def unmoor(self, record):
        (HOST / "unmoored").touch()

    def tidy(self, record):
        self.forget(record)
        for pid in self.processes(record.cgroups):
            kill(pid)

    def again(self, record, limit, *words):
        """-r"""
        if f"{HOST.name}:restore" in os.environ.get("FAKE_FAIL", "").split():
            return False
        os.environ["FAKE_AGENT"] = str(os.getpid())
        return self.run(record, limit, *self.before, sys.executable, __file__, "-r", *words)


class FakeRunc(Fake, runc.Runc):
    before = ()

    def checkpoint(self, record):
        return self.begin(record, sys.executable, __file__, "-c", str(record.pid),
                          record.images)

    def restore(self, record, limit):
        return self.again(record, limit, record.images)

    def forget(self, record):
        pass


class FakePodman(Fake, podman.Podman):
    before = (sys.executable, "-c", podman.APART)

    def checkpoint(self, record):
        return self.begin(record, sys.executable, __file__, "-c", str(record.pid),
                          self.images(record), record.images / podman.ARCHIVE)

    def restore(self, record, limit):
        if self.imports(record):
            return self.again(record, limit, self.images(record),
                              record.images / podman.ARCHIVE)
        # As the flag of podman
        return self.again(record, limit, self.images(record), "", record.work)


podman._remove = lambda record: subprocess.run(["rm", "-rf", record.static], check=True)
podman.delete = lambda ident: None


def run():
    # It has an environment of its own.
    os.environ.pop(overdue.MARK, None)
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    APP.write_text(str(process.pid))


def checkpoint(pid, images, archive=None):
    if os.environ.get("FAKE_FAIL") == f"{HOST.name}:checkpoint":
        sys.exit(1)
    point("frozen")
    hang("checkpoint")
    images.mkdir(parents=True, exist_ok=True)
    time.sleep(float(os.environ.get("FAKE_SLOW", 0)))
    (images / "inventory.img").write_text("memory")
    if not os.environ.get("FAKE_PLAIN"):
        (images / STATE).write_text("stopped")
    # Twice, as criu does it for a runtime
    refused = [subprocess.run([TOOL / "hook"], check=False, env={
        **os.environ, "CRTOOLS_SCRIPT_ACTION": "post-dump",
        "CRTOOLS_INIT_PID": pid}).returncode for _ in range(2)]
    point("asked")
    hang("asked")
    if any(refused):
        (images / STATE).unlink(missing_ok=True)
        sys.exit(1)
    # From here to the kill it is one step for criu (PTRACE_O_EXITKILL).
    kill(int(pid))
    (images / STATE).write_text("complete")
    point("killed")
    hang("killed")
    if archive:
        pack(images, archive)
        point("packed")


def pack(images, archive):
    with tarfile.open(archive, "w") as tar:
        tar.add(images, "checkpoint")
        for name in ("config.dump", "spec.dump"):
            tar.addfile(tarfile.TarInfo(name))
        # Nothing of it is on the disk before.
        tar.fileobj.flush()
        point("packing")


def addresses():
    return ADDRESSES.read_text().split() if ADDRESSES.exists() else []


def leave(text):
    ADDRESSES.write_text("\n".join(each for each in addresses() if each != text))


def arrive(text, _=None):
    if text not in addresses():
        ADDRESSES.write_text("\n".join([*addresses(), text]))


def make(made):
    if os.environ.get("FAKE_FAIL") == f"{HOST.name}:device":
        raise journal.Failure("no device")
    (HOST / "made" / made.name).mkdir(parents=True, exist_ok=True)
    for each in made.addresses:
        arrive(each)
    point("made")


def unmake(made):
    if (HOST / "made" / made.name).exists():
        (HOST / "made" / made.name).rmdir()
        for each in made.addresses:
            leave(each)


def find(text):
    """It may be on a device that moves along."""
    return f"{text}/24", next((each.name for each in device.devices()), "lo")


def holder(text):
    return "lo" if any(each.split("/")[0] == text.split("/")[0] for each in addresses()) \
        else None


def resources(kind):
    """A QP, if the container has one"""
    name = os.environ.get("FAKE_QP")
    if kind != "qp" or not name:
        return []
    far = {} if name == "UD" else {"drv_mig_address": "::ffff:10.9.9.9",
                                   "drv_mig_partner": "::ffff:10.9.9.1"}
    return [{"ifname": "rxe0", "lqpn": 17, "type": name, "pid": int(APP.read_text()), **far}
            ] if APP.exists() else []


def greet(_):
    if os.environ.get("FAKE_UNREACHED") == HOST.name:
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))


def criu():
    if os.environ.get("FAKE_BARE") == HOST.name:
        raise journal.Failure("criu: it is not in the PATH; install it")
    return "4.1.1"


def may_change():
    """What criu's plugin is told, by podman's conmon too"""
    told = Path(os.environ.get("CONTAINERS_CONF_OVERRIDE", os.devnull)).read_text()
    return os.environ.get("CRIU_RDMA_NEW_ADDRESS") == "1" or \
        '"CRIU_RDMA_NEW_ADDRESS=1"' in told


def writes(function):
    def wrapped(self, text):
        if (HOST / "broken").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if (HOST / "full").exists() and (self.dir / "reserve").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        function(self, text)
    return wrapped


def restore(images, archive=None):
    if archive:
        images.mkdir(parents=True)
        with tarfile.open(archive) as tar:
            tar.extractall(images.parent)
        point("unpacked")
    if word(images) != "complete":
        sys.exit(1)
    if os.environ.get("FAKE_QP") and not holder("10.9.9.9") and not may_change():
        sys.exit(1)
    point("restore")
    hang("restore")
    # The hook that a guard has added
    subprocess.run([sys.executable, __file__, "admit"], input='{"id": "app"}', text=True,
                   check=True)
    (images / STATE).write_text("resumed")
    if os.environ.get("FAKE_KEEPER") == HOST.name:
        keeper(images)
    if os.environ.get("FAKE_FAIL") == f"{HOST.name}:resumed":
        sys.exit(1)
    hang("resumed")
    run()
    point("restored")


def keeper(images):
    """criu is killed, and its keeper finds the processes dead after a while."""
    run()
    if os.fork():
        sys.exit(1)
    Path("/proc/self/comm").write_text("criu-keeper", "ascii")
    time.sleep(2)
    kill(int(APP.read_text()))
    (images / STATE).write_text("complete")
    os._exit(0)


def watched(function):
    def wrapped(self, state, **more):
        point(f"before-{state}")
        function(self, state, **more)
        point(f"after-{state}")
    return wrapped


if sys.argv[1] == "-c":
    checkpoint(sys.argv[2], *map(Path, sys.argv[3:]))
elif sys.argv[1] == "-r":
    restore(Path(sys.argv[2]), sys.argv[3] if sys.argv[3:] else None)
elif sys.argv[1] == "run":
    run()
else:
    runtimes.RUNTIMES.update(runc=FakeRunc, podman=FakePodman)
    device.DIR = HOST / "devices.d"
    device.make, device.unmake = make, unmake
    address.find = find
    address.device = lambda _: "lo"
    inventory.look = lambda *_: []
    if not os.environ.get("FAKE_RDMA"):
        rdma.resources = resources
        rdma.links = lambda: [("rxe0", "lo")]
    address.holder = holder
    address.of = lambda _: [ipaddress.ip_address("10.9.9.2")]
    address.towards = lambda _: "lo"
    sockets.bound = lambda _: os.environ.get("FAKE_SOCKET", "").split()
    partners._greet, partners._ping = greet, lambda *_: True
    address.leave, address.arrive = leave, arrive
    thishost._library = thishost._runtimes = lambda: "as ever"
    thishost._criu = criu
    driver.MODULE = HOST / "module"
    if os.environ.get("FAKE_STOCK") != HOST.name:
        (driver.MODULE / "parameters").mkdir(parents=True, exist_ok=True)
        (driver.MODULE / "parameters/mig_pause_limit_ms").touch()
    source.ASKS = float(os.environ.get("FAKE_ASKS", source.ASKS))
    journal.Record._write = writes(journal.Record._write)
    journal.Record.set = watched(journal.Record.set)
    sys.argv[0] = str(TOOL)
    runpy.run_path(str(TOOL), run_name="__main__")
