"""A runtime and its criu that do not come to their end: who they are, and their end."""

import contextlib
import os
import signal
import time
from pathlib import Path

from journal import DOUBT, Failure

# In the environment of what a restore of this migration runs
MARK = "MIGROS_RESTORE"


def restoring(ident):
    """The pids of those: also what has another parent by now, or no file of ours."""
    wanted = os.fsencode(f"{MARK}={ident}")
    return _those(lambda entry: wanted in
                  Path(entry, "environ").read_bytes().split(b"\0"))


def outlast(ident):
    """Until criu and its keeper, which decides when criu was killed, have ended"""
    end = time.monotonic() + 60
    while pids := [pid for pid in restoring(ident) if _name(pid) in ("criu", "criu-keeper")]:
        if time.monotonic() > end:
            raise Failure(f"process {pids[0]}: a restore by it has not come to its end; "
                          "see 'dmesg'", DOUBT)
        time.sleep(0.05)


def _name(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return None


def holding(handle):
    """The pids of those that have an end of this pipe, but this process"""
    wanted = f"pipe:[{os.fstat(handle).st_ino}]"
    return _those(lambda entry: any(
        os.readlink(each) == wanted for each in Path(entry, "fd").iterdir()))


def _those(condition):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            # It may end meanwhile.
            with contextlib.suppress(OSError):
                if condition(f"/proc/{entry}"):
                    found.append(int(entry))
    return found


def _signal(pids, number):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _halted(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return True
    return state in "TtZX"


def freeze(find):
    """None of those that find() finds does anything more, if that can be had within 5 s:
    one that waits for the kernel cannot be stopped, nor does it anything."""
    end = time.monotonic() + 5
    while not all(map(_halted, pids := find())) and time.monotonic() < end:
        _signal(pids, signal.SIGSTOP)
        time.sleep(0.05)


def thaw(find):
    _signal(find(), signal.SIGCONT)


def kill(find):
    """All of them, and what they run meanwhile"""
    end = time.monotonic() + 10
    while pids := find():
        if time.monotonic() > end:
            raise Failure(f"process {pids[0]}: it does not die; see 'dmesg'", DOUBT)
        _signal(pids, signal.SIGKILL)
        time.sleep(0.05)
