"""Whether a container may be created on this host.

A container that migrates has a hook, in its bundle or in podman's configuration, which asks
here: no supervisor that finds it gone starts a second copy, nor does the boot of a host
that it has left.
"""

import json
import os
import sys
from pathlib import Path

import journal
from journal import Failure

PROGRAM = os.path.join(os.path.dirname(os.path.realpath(__file__)), "migros")


def hook():
    """For the hooks createRuntime of OCI"""
    env = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    env += [f"{name}={os.environ[name]}" for name in ("MIGROS_DIR", "MIGROS_RUNDIR")
            if name in os.environ]
    return {"path": PROGRAM, "args": ["migros", "admit"], "env": env}


def _names(state):
    """What podman calls it: one that it has created anew has another ID, but the name."""
    for file in ("containers.json", "volatile-containers.json"):
        try:
            text = Path(state["bundle"], "../..", file).read_text("utf-8")
            for each in json.loads(text):
                if each["id"] == state["id"]:
                    return each.get("names") or []
        except (OSError, KeyError, ValueError):
            pass
    return []


def _by_us(record):
    """Whether it is a runtime that we have started who asks: it names our directory."""
    words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    return os.fsencode(record.dir) in words


def admit(state):
    """Refuse it unless it is nowhere else, or a restore of ours creates it. The state is
    what a runtime tells its hooks."""
    known = {state["id"], *_names(state)}
    found = [each for each in journal.records()
             if known & {each.container, each.fields.get("cid")}]
    if not found:
        return
    last = found[-1]
    container = last.container
    if last.state in ("begun", "stopping", "rolled-back", "running", "returned", "dropped"):
        return
    if last.state in ("committed", "granted") and _by_us(last):
        return
    if last.state == "done":
        raise Failure(f"container {container}: migration {last.id} has moved it to "
                      f"{last.peer}. To start it anew here, when it is over there: 'migros "
                      f"forget {last.id}'")
    raise Failure(f"container {container}: migration {last.id} has not ended "
                  f"({last.state}); 'migros recover {last.id}'")


def main():
    """The exit status for the runtime"""
    try:
        admit(json.load(sys.stdin))
    except (Failure, OSError) as error:
        print(f"migros: {error}", file=sys.stderr)
        return getattr(error, "status", 1)
    return 0
