"""The runtimes whose containers can be moved"""

import shutil

import podman
import runc
from process import Process
from journal import Failure

RUNTIMES = {"runc": runc.Runc, "podman": podman.Podman}


def runtime(name):
    return {**RUNTIMES, Process.NAME: Process}[name]()


def that_knows(container):
    """The runtime of a container"""
    found = [kind for kind in map(runtime, RUNTIMES)
             if shutil.which(kind.NAME) and kind.knows(container)]
    if len(found) != 1:
        raise Failure(f"container {container}: "
                      f"{'both have one' if found else 'neither has one'} of this name: "
                      f"{' and '.join(RUNTIMES)}; see '--runtime'")
    return found[0]
