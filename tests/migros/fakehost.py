"""migros with a runtime that is not one: a container is a process that sleeps, its images
a file. For owner.test, which runs both hosts in two directories.

fakehost.py WORD...          migros WORD...
fakehost.py -c PID IMAGES    what runc and criu do in a checkpoint
fakehost.py -r IMAGES        and in a restore

FAKE_HOST is the directory of the host. Points, written to FAKE_HOST/points as they are
passed, are before and after each change of the journal and of the container. At that of
FAKE_HALT (HOST:POINT) something dies: FAKE_VICTIM is "command", "host" (with all its
processes), "parent" (the command, while its restore goes on), "network", "both" (the
command and the network), "disk" (full: the journal has only its reserve) or "journal" (it
cannot be written as long as FAKE_HOST/broken exists). FAKE_FAIL (HOST:restore,
HOST:checkpoint) fails. FAKE_SLOW is how long a checkpoint takes, in seconds; FAKE_PLAIN
is a container without RDMA. FAKE_STOCK is the name of a host with the stock driver.
FAKE_HOST/address has the addresses of the host.
"""

import errno
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "criu/migros"
HOST = Path(os.environ["FAKE_HOST"])
APP = HOST / "app"
sys.path.insert(0, str(TOOL))

import address  # noqa: E402
import driver  # noqa: E402
import journal  # noqa: E402
import runtimes  # noqa: E402

ADDRESSES = HOST / "address"


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
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
        kill(os.getppid())
    if victim == "parent":
        time.sleep(2)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


class Fake(runtimes.Runc):
    def _pid(self):
        try:
            pid = int(APP.read_text())
        except FileNotFoundError:
            return None
        return pid if alive(pid) else None

    def state(self, container):
        pid = self._pid()
        return pid and {"pid": pid, "status": "running", "bundle": "/bundle"}

    def processes(self, container):
        pid = self._pid()
        return [pid] if pid else []

    def checkpoint(self, record):
        return runtimes.Checkpoint(
            [sys.executable, __file__, "-c", str(record.pid), record.images],
            record.work / "runc.log")

    def restore(self, record):
        if runtimes.word(record.images) != "complete" or \
                os.environ.get("FAKE_FAIL") == f"{HOST.name}:restore":
            return False
        return subprocess.run(
            runtimes.admitted(record, sys.executable, __file__, "-r", record.images),
            check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, pass_fds=[journal.held.fileno()]).returncode == 0

    def guard(self, record):
        pass

    def unguard(self, record):
        (HOST / "unguarded").touch()

    def bundle_here(self, bundle):
        pass

    def tidy(self, record):
        for pid in self.processes(record.container):
            kill(pid)


def run():
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    APP.write_text(str(process.pid))


def checkpoint(pid, images):
    if os.environ.get("FAKE_FAIL") == f"{HOST.name}:checkpoint":
        sys.exit(1)
    point("frozen")
    time.sleep(float(os.environ.get("FAKE_SLOW", 0)))
    (images / "pages").write_text("memory")
    if not os.environ.get("FAKE_PLAIN"):
        (images / runtimes.STATE).write_text("stopped")
    # Twice, as criu does it for a runtime
    refused = [subprocess.run([TOOL / "hook"], check=False, env={
        **os.environ, "CRTOOLS_SCRIPT_ACTION": "post-dump",
        "CRTOOLS_INIT_PID": pid}).returncode for _ in range(2)]
    point("asked")
    if any(refused):
        (images / runtimes.STATE).unlink(missing_ok=True)
        sys.exit(1)
    # From here to the kill it is one step for criu (PTRACE_O_EXITKILL).
    kill(int(pid))
    (images / runtimes.STATE).write_text("complete")
    point("killed")


def addresses():
    return ADDRESSES.read_text().split() if ADDRESSES.exists() else []


def leave(text):
    ADDRESSES.write_text("\n".join(each for each in addresses() if each != text))


def arrive(text, _=None):
    if text not in addresses():
        ADDRESSES.write_text("\n".join([*addresses(), text]))


def writes(function):
    def wrapped(self, text):
        if (HOST / "broken").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if (HOST / "full").exists() and (self.dir / "reserve").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        function(self, text)
    return wrapped


def restore(images):
    point("restore")
    # The hook of the bundle
    subprocess.run([sys.executable, __file__, "admit"], input='{"id": "app"}', text=True,
                   check=True)
    (images / runtimes.STATE).write_text("resumed")
    run()
    point("restored")


def watched(function):
    def wrapped(self, state, **more):
        point(f"before-{state}")
        function(self, state, **more)
        point(f"after-{state}")
    return wrapped


if sys.argv[1] == "-c":
    checkpoint(sys.argv[2], Path(sys.argv[3]))
elif sys.argv[1] == "-r":
    restore(Path(sys.argv[2]))
elif sys.argv[1] == "run":
    run()
else:
    runtimes.RUNTIMES["runc"] = Fake
    address.find = lambda text: (f"{text}/24", "fake0")
    address.device = lambda _: "fake0"
    address.here = lambda text: text in addresses()
    address.leave, address.arrive = leave, arrive
    driver.MODULE = HOST / "module"
    if os.environ.get("FAKE_STOCK") != HOST.name:
        (driver.MODULE / "parameters").mkdir(parents=True, exist_ok=True)
        (driver.MODULE / "parameters/mig_pause_limit_ms").touch()
    journal.Record._write = writes(journal.Record._write)
    journal.Record.set = watched(journal.Record.set)
    sys.argv[0] = str(TOOL)
    runpy.run_path(str(TOOL), run_name="__main__")
