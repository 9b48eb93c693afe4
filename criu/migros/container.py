"""A container, as a migration sees it: what runs it, and what criu leaves of it."""

import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

import journal
import overdue
from journal import DOUBT, Failure

STATE = "rdma-state.img"


def ask(*words):
    """What a program says as JSON, None if it fails"""
    done = subprocess.run(words, text=True, check=False, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout) if done.returncode == 0 else None


def word(images):
    """What criu's plugin says about images: "stopped", "complete", "resumed", or None
    (docs/failures.md)."""
    try:
        return (images / STATE).read_text("ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def settings(record):
    """What criu's plugin is told in the environment: at the source the container has the
    address that it always had."""
    if record.role == "source" or not record.fields.get("new_ip"):
        return {}
    return {"CRIU_RDMA_NEW_ADDRESS": "1",
            **({"CRIU_RDMA_DEVICE": record.rdma} if record.rdma else {})}


class Checkpoint:
    """A runtime and the criu that it runs. It outlives us, and holds the lock of the
    container until both have ended."""

    def __init__(self, command, log):
        self.ended, inherited = os.pipe()
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, pass_fds=[journal.held.fileno(), inherited])
        os.close(inherited)

    def fileno(self):
        """It can be read, at its end, when both have ended: somebody may kill the
        runtime while criu is at work."""
        return self.ended

    def wait(self, limit):
        """For the end of both; after so many seconds they are killed."""
        if not select.select([self.ended], [], [], limit)[0]:
            overdue.kill(lambda: overdue.holding(self.ended))
        os.read(self.ended, 1)
        self.process.wait()


class Runtime:
    """What runs containers. Each has

    knows(container)      whether it has one of this name
    inspect(container)    about one that runs, for its record: the name, the pid of init,
                          the names of its cgroups, the bytes of its memory, ...
    TOLD                  which of that the destination has to know
    expected(wanted)      there: refuse what cannot be restored; more for its record
    guard(record), unguard(record)
                          whoever creates the container from now on has to ask admit.py
    checkpoint(record)    begin
    restore(record, limit)
                          whether the runtime says that it went well; refused if it has not
                          begun to use the images after so many seconds
    """

    # criu's images are all that is carried, so they can be carried while it waits.
    WHOLE = True

    def images(self, record):
        """The directory of criu's images"""
        return record.images

    def log(self, record, name):
        return record.work / name

    def word(self, record):
        return word(self.images(record))

    def believe(self, record):
        """Nothing of the container is alive: these images are it."""
        (self.images(record) / STATE).write_text("complete\n", "ascii")
        journal.sync_tree(self.images(record))

    def complete(self, record):
        """Refuse to carry images that lack something."""

    def has_left(self, record):
        """It runs elsewhere."""

    def discard(self, record):
        """The container runs, and its images are nobody's, nor those of the runtime."""
        record.drop_images()

    def begin(self, record, *command):
        return Checkpoint(command, record.work / "runtime.log")

    def settings(self, record):
        """What a restore has in its environment, whoever runs criu"""
        return {overdue.MARK: record.id, **settings(record)}

    def environment(self, record):
        """Of a restore"""
        return {**os.environ, **self.settings(record)}

    def run(self, record, limit, *command):
        """For a restore: it outlives us and holds the lock, too. Whether it went well"""
        with open(record.work / "runtime.log", "wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.environment(record), start_new_session=True,
                pass_fds=[journal.held.fileno()])
        try:
            return process.wait(limit) == 0
        except subprocess.TimeoutExpired:
            self._overdue(record, limit)
        return process.wait() == 0

    def _overdue(self, record, limit):
        """A restore that takes too long ends, unless it uses the images: partners may be
        ahead of them then, and it is the only one that can go on."""
        def find():
            return overdue.restoring(record.id)

        # Or it might begin to, after the look.
        overdue.freeze(find)
        if self.word(record) != "complete":
            overdue.thaw(find)
            return
        overdue.kill(find)
        raise Failure(f"it had not come to its end after {limit:g} s (--timeout); see "
                      f"{record.work}")

    def complain(self, record, name):
        """What criu said first about a failure, or the runtime last if criu did not
        begin"""
        path = self.log(record, name)
        if path.exists():
            # A kernel without tun is none.
            errors = [line.split("Error", 1)[1].strip()
                      for line in path.read_text(errors="replace").splitlines()
                      if "Error" in line and "(criu/tun.c" not in line]
            if errors:
                return f"{errors[0]}; see {path}"
        path = record.work / "runtime.log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return f"{lines[-1] if lines else 'no reason is known'}; see {record.work}"

    def processes(self, cgroups):
        """All processes in cgroups of these names: also those that the runtime has
        forgotten, or does not know yet."""
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                text = Path(f"/proc/{entry}/cgroup").read_text()
                state = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1]
            except OSError:
                continue
            if state.split()[0] not in "ZX" and \
                    set(cgroups) & set(text.strip().replace("\n", "/").split("/")):
                found.append(int(entry))
        return found

    def memory(self, cgroups):
        """Bytes that its processes have of it"""
        return sum(resident(pid) for pid in self.processes(cgroups))

    def lives(self, record):
        """Whether a restore has come to its end: the tasks of one that has not live, too."""
        overdue.outlast(record.id)
        return self.word(record) == "resumed" and bool(self.processes(record.cgroups))

    def forget(self, record):
        """Let the runtime forget a container that shall not run here."""

    def unmoor(self, record):
        """runc has the root file system mounted in its own directory of the container during
        a restore. If it was killed there, it would not forget the container: or it would, and
        remove all files below that mount first."""
        names = (record.container, record.fields.get("cid"))
        _unmount(lambda path: path.name == "criu-root" and path.parent.name in names)

    def tidy(self, record):
        """Remove what is left of a container that shall not run here: dead ones,
        tasks of a restore that was not finished, mounts of criu and runc."""
        self.unmoor(record)
        self.forget(record)
        for _ in range(50):
            pids = self.processes(record.cgroups)
            if not pids:
                break
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.1)
        else:
            raise Failure(f"container {record.container}: process {pids[0]} of it "
                          "does not die; see 'dmesg'", DOUBT)
        ours = (record.dir, self.log(record, ""))
        _unmount(lambda path: path.name.startswith(".criu.cgyard.") and
                 any(path.is_relative_to(each) for each in ours))


def _unmount(condition):
    """Those whose path fulfils it"""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        mounts = [line.split()[1] for line in file]
    for mount in sorted(mounts, reverse=True):
        if condition(Path(mount)):
            subprocess.run(["umount", "-l", mount], check=False)


def delete(ident):
    """runc forgets a container, if it knows it."""
    subprocess.run(["runc", "delete", "-f", ident], check=False,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def replace(path, text):
    """A file that others read changes as a whole."""
    new = path.with_suffix(".migros")
    new.write_text(text, "utf-8")
    if path.exists():
        shutil.copystat(path, new)
    journal.sync(new)
    new.rename(path)
    journal.sync(path.parent)


def resident(pid):
    """Bytes of memory that a process has"""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGESIZE")
