"""Containers of podman"""

import ipaddress
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import admit
import journal
import rdma
from container import Runtime, ask, delete, replace, word
from journal import Failure

# The one directory that podman has by default
HOOK = Path(os.environ.get("MIGROS_PODMAN_HOOKS", "/usr/share/containers/oci/hooks.d"),
            "migros.json")
ARCHIVE = "archive.tar"
# There once a restore at the source has begun
RESTORING = "restoring"
# A process that has our lock runs one that has not
APART = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"


class Podman(Runtime):
    """podman writes its archive when criu has killed the container: only then can it be
    carried. Until then, and if that fails, its own directory of the container at the source
    has all that a restore there needs. At the destination it has one as soon as it has
    begun to restore."""

    NAME = "podman"
    TOLD = ("cgroups", "cid", "image", "binds", "apart", "networks")
    WHOLE = False

    def knows(self, container):
        return _inspect(container) is not None

    def inspect(self, container):
        found = _inspect(container)
        if not found:
            raise Failure(f"container {container}: podman does not know it; see "
                          "'podman ps'")
        status = found["State"]["Status"]
        if status != "running":
            raise Failure(f"container {container}: it is {status}, only one that is "
                          "running can be moved")
        if found["HostConfig"]["AutoRemove"]:
            raise Failure(f"container {container}: it was started with --rm, so podman "
                          "might remove its only copy; start it without")
        oci = os.path.basename(found.get("OCIRuntime") or "runc")
        if oci != "runc":
            raise Failure(f"container {container}: podman runs it with {oci}, of which criu "
                          "would not ask before it kills; start it with '--runtime runc'")
        if found.get("Pod"):
            raise Failure(f"container {container}: it is in a pod, which podman cannot "
                          "restore elsewhere; start it without")
        for mount in found["Mounts"]:
            if mount["Type"] == "volume":
                raise Failure(f"volume {mount['Name']} of container {container}: podman "
                              "does not restore a volume where one of this name is; use "
                              "a directory of the host ('-v DIRECTORY:...')")
        mode = found["HostConfig"]["NetworkMode"]
        if mode not in ("host", "none", "bridge"):
            raise Failure(f"container {container}: its network is '{mode}', which podman does "
                          "not make anew at another host; start it with a network of podman's, "
                          "or '--network host'")
        cid = found["Id"]
        cgroups = [f"libpod-{cid}", f"libpod-{cid}.scope"]
        return {"container": found["Name"], "cid": cid, "pid": found["State"]["Pid"],
                "restart": found["HostConfig"]["RestartPolicy"]["Name"],
                "image": found["Image"], "static": found["StaticDir"],
                "binds": [mount["Source"] for mount in found["Mounts"]
                          if mount["Type"] == "bind"],
                "apart": mode != "host",
                "networks": {name: [each[word] for word in ("IPAddress", "GlobalIPv6Address")
                                    if each.get(word)]
                             for name, each in (found["NetworkSettings"]["Networks"] or {}).items()
                             if name not in ("host", "none")},
                "cgroups": cgroups, "bytes": self.memory(cgroups)}

    def expected(self, wanted):
        if wanted["apart"] and not rdma.shared():
            raise Failure("its RDMA devices are only for processes in the host's network "
                          "namespace, the container has one of its own; 'rdma system set "
                          "netns shared', before any such namespace is made")
        for name, addresses in wanted["networks"].items():
            _connects(name, addresses)
        image = wanted["image"]
        if subprocess.run(["podman", "image", "exists", image], check=False).returncode:
            raise Failure(f"image {image[:12]}: this host does not have it; 'podman pull', "
                          "or 'podman save' there and 'podman load' here")
        for each in wanted["binds"]:
            # What is copied is created.
            if not any(Path(each).is_relative_to(copy) for copy in wanted["copies"]) and \
                    not os.path.exists(each):
                raise Failure(f"{each}: the container has it mounted, and this host does "
                              "not have it; create it, or '--copy' its directory")
        store = ask("podman", "info", "--format", "json")["store"]
        return {"static": f"{store['graphRoot']}/{store['graphDriverName']}-containers/"
                          f"{wanted['cid']}/userdata"}

    def images(self, record):
        return Path(record.static, "checkpoint")

    def log(self, record, name):
        return Path(record.static, name)

    def word(self, record):
        here = word(self.images(record))
        if not here and (record.images / ARCHIVE).exists() and (
                record.role == "destination" or self._replaced(record)):
            # podman has not unpacked them: criu has not begun.
            return "complete"
        return here

    def believe(self, record):
        (record.work / RESTORING).unlink(missing_ok=True)
        if self.images(record).exists():
            super().believe(record)

    def _replaced(self, record):
        """Whether somebody has had podman remove it at the source, to run it anew ("run
        --replace"), before a restore there has begun: its archive is left."""
        return not self.images(record).exists() and \
            not (record.work / RESTORING).exists() and _whole(record.images / ARCHIVE)

    def imports(self, record):
        """Whether a restore, which begins now, takes the archive"""
        if record.role == "destination":
            return True
        found = self._replaced(record)
        (record.work / RESTORING).touch()
        journal.sync(record.work)
        return found

    def checkpoint(self, record):
        return self.begin(
            record, "podman", "container", "checkpoint", "--keep", "--tcp-established",
            "--file-locks", "--compress", "none", "--export", record.images / ARCHIVE,
            record.cid)

    def restore(self, record, limit):
        # conmon would hold our lock as long as the container lives. The flag is for
        # admit.py.
        command = ["python3", "-c", APART, "podman",
                   f"--runtime-flag=log={record.work}/oci.log", "container", "restore",
                   "--keep", "--tcp-established", "--file-locks"]
        if self.imports(record):
            return self.run(record, limit, *command, "--import", record.images / ARCHIVE)
        return self.run(record, limit, *command, record.cid)

    def environment(self, record):
        """conmon, which runs runc, gets what podman's configuration has for it."""
        found = super().environment(record)
        place = record.work / "containers.conf"
        place.write_text("[engine]\nconmon_env_vars = [" + "".join(
            f"{json.dumps(f'{name}={value}')}, "
            for name, value in self.settings(record).items()) + "{append = true}]\n", "utf-8")
        found["CONTAINERS_CONF_OVERRIDE"] = str(place)
        return found

    def forget(self, record):
        # At the source it is what podman restores; what used its images tells so.
        if record.role == "destination" and self.word(record) == "complete":
            _remove(record)
            # podman does not know what runc has of it, if its restore was killed.
            delete(record.cid)

    def complete(self, record):
        if not _whole(record.images / ARCHIVE):
            raise Failure(f"container {record.container}: podman has died before its "
                          "archive was complete, so it cannot go elsewhere")

    def has_left(self, record):
        _remove(record)

    def discard(self, record):
        super().discard(record)
        shutil.rmtree(self.images(record), ignore_errors=True)

    def guard(self, record):
        """By a hook for all containers of podman"""
        text = json.dumps({"version": "1.0.0", "hook": admit.hook(),
                           "when": {"always": True}, "stages": ["createRuntime"]},
                          indent=1) + "\n"
        try:
            if HOOK.exists() and HOOK.read_text("utf-8") == text:
                return
            HOOK.parent.mkdir(parents=True, exist_ok=True)
            replace(HOOK, text)
        except OSError as error:
            raise Failure(f"{HOOK}: it cannot be written, so that podman might start a "
                          f"second copy: {error}") from None

    def unguard(self, record):
        if any(each.runtime == self.NAME for each in journal.records()):
            return
        try:
            HOOK.unlink(missing_ok=True)
        except OSError as error:
            raise Failure(f"{HOOK}: it cannot be removed: {error}; it does no harm as long "
                          "as migros is installed") from None


def _whole(archive):
    """Whether podman has come to the end of it: it writes into the file as it is, and may
    have died."""
    try:
        with tarfile.open(archive) as tar:
            there = set(tar.getnames())
            return archive.stat().st_size >= tar.offset + 2 * tarfile.BLOCKSIZE and \
                {"config.dump", "spec.dump", "checkpoint/inventory.img"} <= there
    except (OSError, tarfile.TarError):
        return False


def _connects(name, addresses):
    """podman gives a container the addresses that it had."""
    found = ask("podman", "network", "inspect", name)
    if not found:
        raise Failure(f"network {name}: podman does not have it here; 'podman network create', "
                      "with the subnet that it has there")
    subnets = [ipaddress.ip_network(each["subnet"]) for each in found[0].get("subnets") or []]
    taken = {address["ipnet"].split("/")[0]: other["name"]
             for other in (found[0].get("containers") or {}).values()
             for interface in other["interfaces"].values()
             for address in interface["subnets"] or []}
    for each in addresses:
        if not any(ipaddress.ip_address(each) in subnet for subnet in subnets):
            raise Failure(f"network {name}: the container has {each}, which is none of its "
                          "addresses here; create it with the subnet that it has there")
        if each in taken:
            raise Failure(f"network {name}: container {taken[each]} has {each} here, which is "
                          "the address of the other one there; 'podman run --ip' gives it one "
                          "of its own")


def _inspect(container):
    found = ask("podman", "container", "inspect", container)
    return found[0] if found else None


def _remove(record):
    """podman waits for whatever else it is doing with it."""
    done = subprocess.run(["podman", "rm", "-f", "-i", "-t", "0", record.cid],
                          text=True, check=False, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        raise Failure(f"container {record.container}: podman cannot remove it: "
                      f"{done.stderr.strip()}")
