"""Containers of runc"""

import json
from pathlib import Path

import admit
from container import Runtime, ask, delete, replace
from journal import Failure


class Runc(Runtime):
    """A container is a bundle, which both hosts have at the same place."""

    NAME = "runc"
    TOLD = ("cgroups", "bundle")

    def knows(self, container):
        return ask("runc", "state", container) is not None

    def inspect(self, container):
        state = ask("runc", "state", container)
        if not state:
            raise Failure(f"container {container}: runc does not know it; see "
                          "'runc list'")
        if state["status"] != "running":
            raise Failure(f"container {container}: it is {state['status']}, only one "
                          "that is running can be moved")
        cgroups = [container, f"runc-{container}.scope"]
        return {"container": container, "pid": state["pid"], "bundle": state["bundle"],
                "cgroups": cgroups, "bytes": self.memory(cgroups)}

    def expected(self, wanted):
        bundle = wanted["bundle"]
        if not Path(bundle, "config.json").exists():
            raise Failure(f"bundle {bundle}: this host does not have it; copy it, "
                          "with its root file system")
        return {}

    def checkpoint(self, record):
        return self.begin(
            record, "runc", "checkpoint", "--image-path", record.images, "--work-path",
            record.work, "--tcp-established", "--file-locks", record.container)

    def restore(self, record, limit):
        return self.run(
            record, limit, "runc", "restore", "-d", "-b", record.bundle, "--image-path",
            record.images, "--work-path", record.work, "--tcp-established",
            "--file-locks", record.container)

    def forget(self, record):
        delete(record.container)

    def guard(self, record):
        """By a hook of the bundle"""
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


def _hooks(bundle):
    """The configuration of a bundle, and the list in it of what runs before a container is
    created"""
    config = json.loads(Path(bundle, "config.json").read_text("utf-8"))
    return config, config.setdefault("hooks", {}).setdefault("createRuntime", [])


def _configure(bundle, config):
    replace(Path(bundle, "config.json"), json.dumps(config, indent=1) + "\n")
