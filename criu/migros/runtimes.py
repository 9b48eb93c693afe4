"""Container runtimes: what a migration wants from them."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import admit
import journal
from journal import Failure

STATE = "rdma-state.img"


def word(images):
    """What criu's plugin says about images: "stopped", "complete", "resumed", or None
    (docs/failures.md)."""
    try:
        return (images / STATE).read_text("ascii").strip()
    except FileNotFoundError:
        return None


def complain(record, log):
    """What criu said first about a failure, or the runtime last if criu did not begin"""
    path = record.work / log
    if path.exists():
        # A kernel without tun is none.
        errors = [line.split("Error", 1)[1].strip()
                  for line in path.read_text(errors="replace").splitlines()
                  if "Error" in line and "(criu/tun.c" not in line]
        if errors:
            return f"{errors[0]}; see {path}"
    path = record.work / "runc.log"
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return f"{lines[-1] if lines else 'no reason is known'}; see {record.work}"


def admitted(record, *command):
    """A command that may create the container, see admit.py: its pid is written first."""
    record.restorer.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', record.restorer, *command]


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

    def wait(self):
        os.read(self.ended, 1)
        self.process.wait()


class Runc:
    """Containers of runc"""

    name = "runc"

    def state(self, container):
        """What runc says of it, None if there is no such container"""
        done = subprocess.run(["runc", "state", container], text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def inspect(self, container):
        """The pid of its init, its bundle, the bytes of its memory"""
        state = self.state(container)
        if not state:
            raise Failure(f"container {container}: runc does not know it; see "
                          "'runc list'")
        if state["status"] != "running":
            raise Failure(f"container {container}: it is {state['status']}, only one "
                          "that is running can be moved")
        return {"pid": state["pid"], "bundle": state["bundle"],
                "bytes": sum(_resident(pid) for pid in self.processes(container))}

    def processes(self, container):
        """All processes in its cgroup: also those that runc has forgotten, or does
        not know yet."""
        names = {container, f"runc-{container}.scope"}
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
                    names & set(text.strip().replace("\n", "/").split("/")):
                found.append(int(entry))
        return found

    def checkpoint(self, record):
        """Begin"""
        return Checkpoint(
            ["runc", "checkpoint", "--image-path", record.images, "--work-path",
             record.work, "--tcp-established", "--file-locks", record.container],
            record.work / "runc.log")

    def restore(self, record):
        """Whether runc says that it went well. It holds the lock, too."""
        with open(record.work / "runc.log", "wb") as log:
            done = subprocess.run(
                admitted(record, "runc", "restore", "-d", "-b", record.bundle,
                         "--image-path", record.images, "--work-path", record.work,
                         "--tcp-established", "--file-locks", record.container),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False,
                start_new_session=True, pass_fds=[journal.held.fileno()])
        record.restorer.unlink(missing_ok=True)
        return done.returncode == 0

    def guard(self, record):
        """Whoever creates the container from its bundle has to ask, from now on."""
        wanted = admit.hook()
        try:
            config, hooks = _hooks(record.bundle)
            if wanted in hooks:
                return
            hooks.append(wanted)
            _configure(record.bundle, config)
        except (OSError, ValueError) as error:
            raise Failure(f"bundle {record.bundle}: no hook can be added to its "
                          f"config.json, so that a supervisor might start a second copy: "
                          f"{error}") from None

    def unguard(self, record):
        """Nobody has to ask any more."""
        try:
            config, hooks = _hooks(record.bundle)
            kept = [each for each in hooks if each.get("args") != admit.hook()["args"]]
            if kept == hooks:
                return
            hooks[:] = kept
            _configure(record.bundle, config)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            raise Failure(f"bundle {record.bundle}: the hook 'migros admit' cannot be "
                          f"removed from its config.json: {error}; it does no harm as "
                          "long as migros is installed") from None

    def bundle_here(self, bundle):
        if not Path(bundle, "config.json").exists():
            raise Failure(f"bundle {bundle}: this host does not have it; copy it, "
                          "with its root file system")

    def tidy(self, record):
        """Remove what is left of a container that shall not run here: dead ones,
        tasks of a restore that was not finished, mounts of criu."""
        subprocess.run(["runc", "delete", "-f", record.container], check=False,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(50):
            pids = self.processes(record.container)
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
                          "does not die; see 'dmesg'", 4)
        with open("/proc/self/mounts", encoding="utf-8") as file:
            mounts = [line.split()[1] for line in file]
        for mount in sorted(mounts, reverse=True):
            if mount.startswith(f"{record.dir}/"):
                subprocess.run(["umount", "-l", mount], check=False)


def _hooks(bundle):
    """The configuration of a bundle, and the list in it of what runs before a container is
    created"""
    config = json.loads(Path(bundle, "config.json").read_text("utf-8"))
    return config, config.setdefault("hooks", {}).setdefault("createRuntime", [])


def _configure(bundle, config):
    path = Path(bundle, "config.json")
    new = path.with_suffix(".migros")
    new.write_text(json.dumps(config, indent=1) + "\n", "utf-8")
    shutil.copystat(path, new)
    journal.sync(new)
    new.rename(path)
    journal.sync(path.parent)


def _resident(pid):
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGESIZE")


RUNTIMES = {"runc": Runc}


def runtime(name):
    return RUNTIMES[name]()
