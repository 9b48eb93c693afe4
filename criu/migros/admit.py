"""Whether a container may be created on this host.

The bundle of a container that migrates gets a hook, which asks here: no supervisor that
finds it gone starts a second copy, nor does the boot of a host that it has left.
"""

import os

import journal
from journal import Failure

PROGRAM = os.path.join(os.path.dirname(os.path.realpath(__file__)), "migros")


def hook():
    """What the configuration of a bundle has for it (createRuntime of OCI)"""
    env = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    env += [f"{name}={os.environ[name]}" for name in ("MIGROS_DIR", "MIGROS_RUNDIR")
            if name in os.environ]
    return {"path": PROGRAM, "args": ["migros", "admit"], "env": env}


def admit(container):
    """Refuse it unless it is nowhere else, or a restore of ours creates it."""
    found = [each for each in journal.records() if each.container == container]
    if not found:
        return
    last = found[-1]
    if last.state in ("begun", "stopping", "rolled-back", "running", "returned", "dropped"):
        return
    if last.state in ("committed", "granted") and last.restoring == os.getppid():
        return
    if last.state == "done":
        raise Failure(f"container {container}: migration {last.id} has moved it to "
                      f"{last.peer}. To start it anew here, when it is over there: 'migros "
                      f"forget {last.id}'")
    raise Failure(f"container {container}: migration {last.id} has not ended "
                  f"({last.state}); 'migros recover {last.id}'")
