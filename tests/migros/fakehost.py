"""migros with a runtime that is not one: a container is a process that sleeps, its images
a file. For owner.test, which runs both hosts in two directories.

fakehost.py WORD...          migros WORD...
fakehost.py -c PID IMAGES    what runc and criu do in a checkpoint

FAKE_HOST is the directory of the host. Points, written to FAKE_HOST/points as they are
passed, are before and after each change of the journal and of the container. At that of
FAKE_HALT (HOST:POINT) something dies: FAKE_VICTIM is "command", "host" (with all its
processes) or "network". FAKE_FAIL (HOST:restore, HOST:checkpoint) fails.
FAKE_SLOW is how long a checkpoint takes, in seconds.
"""

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

import journal  # noqa: E402
import runtimes  # noqa: E402


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
    if os.environ["FAKE_VICTIM"] == "network":
        (HOST.parent / "cut").touch()
        return
    if os.environ["FAKE_VICTIM"] == "host":
        # All that runs there, this last
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environ = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"FAKE_HOST={HOST}".encode() in environ and \
                    int(entry.name) != os.getpid():
                kill(int(entry.name))
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

    def checkpoint(self, record, keep):
        return runtimes.Checkpoint(
            [sys.executable, __file__, "-c", str(record.pid), record.images], keep,
            record.work / "runc.log")

    def restore(self, record):
        if runtimes.word(record.images) != "complete" or \
                os.environ.get("FAKE_FAIL") == f"{HOST.name}:restore":
            return False
        point("restore")
        (record.images / runtimes.STATE).write_text("resumed")
        run()
        point("restored")
        return True

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
    (images / runtimes.STATE).write_text("stopped")
    # Twice, as criu does it for a runtime
    refused = [subprocess.run([TOOL / "hook"], check=False, env={
        **os.environ, "CRTOOLS_SCRIPT_ACTION": "post-dump",
        "CRTOOLS_INIT_PID": pid}).returncode for _ in range(2)]
    point("asked")
    if any(refused):
        (images / runtimes.STATE).unlink()
        sys.exit(1)
    # From here to the kill it is one step for criu (PTRACE_O_EXITKILL).
    kill(int(pid))
    (images / runtimes.STATE).write_text("complete")
    point("killed")


def watched(function):
    def wrapped(self, state, **more):
        point(f"before-{state}")
        function(self, state, **more)
        point(f"after-{state}")
    return wrapped


if sys.argv[1] == "-c":
    checkpoint(sys.argv[2], Path(sys.argv[3]))
elif sys.argv[1] == "run":
    run()
else:
    runtimes.RUNTIMES["runc"] = Fake
    journal.Record.set = watched(journal.Record.set)
    sys.argv[0] = str(TOOL)
    runpy.run_path(str(TOOL), run_name="__main__")
