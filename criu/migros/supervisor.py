"""Who starts a container again when it has gone: at its source, where it has left."""

import subprocess
from pathlib import Path

from findings import Mind

PROC = Path("/proc")


def _unit(pid):
    """The service of systemd that has this process, None if none has"""
    names = (PROC / str(pid) / "cgroup").read_text("utf-8").strip().split("/")
    return next((name for name in reversed(names) if name.endswith(".service")), None)


def _parent(pid):
    """The runtime in the foreground, or podman's conmon"""
    return int((PROC / str(pid) / "stat").read_text("utf-8").rsplit(")", 1)[1].split()[1])


def _restart(unit):
    """When systemd restarts it, "no" without systemd"""
    try:
        done = subprocess.run(["systemctl", "show", "-P", "Restart", unit], text=True,
                              check=False, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        return "no"
    return done.stdout.strip() or "no"


def look(policy, pid):
    """policy: the runtime's own; pid: of the container's init"""
    found = [f"its runtime (restart policy {policy})"] if policy not in ("", "no") else []
    parent = _parent(pid)
    # That of init, or of systemd's own, says nothing of the container.
    unit = _unit(pid) or (_unit(parent) if parent > 1 else None)
    restart = _restart(unit) if unit else "no"
    if restart != "no":
        found.append(f"{unit} (Restart={restart})")
    if not found:
        return "nobody is known to start it again"
    raise Mind(f"{' and '.join(found)} would start it again when it has gone; that is refused "
               "here until 'migros forget', so stop that when it has moved")
