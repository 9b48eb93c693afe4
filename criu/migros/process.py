"""A process and its descendants, which criu moves without a runtime. "migros check" looks at
them as at a container; nothing else here moves them."""

from container import Runtime, resident
from journal import Failure


def tree(pid):
    """A process and its descendants, none if it has ended"""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [pid, *(each for child in file.read().split()
                           for each in tree(int(child)))]
    except (FileNotFoundError, ProcessLookupError):
        return []


class Process(Runtime):
    """At the destination there is none yet."""

    NAME = "process"
    TOLD = ("cgroups",)

    def __init__(self, pid=None):
        self.pids = tree(pid) if pid else []
        if pid and not self.pids:
            raise Failure(f"process {pid}: there is none")

    def inspect(self, container):
        return {"container": container, "pid": self.pids[0], "cgroups": [],
                "bytes": sum(map(resident, self.pids))}

    def processes(self, _):
        return self.pids
