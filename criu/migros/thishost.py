"""What this host is, and whether migrations can begin or end here."""

import functools
import gzip
import lzma
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import driver
import gate
import journal
import objects
from findings import Mind, examine
from journal import Failure
from runtimes import RUNTIMES

PLUGIN = "rdma_plugin.so"


@functools.cache
def _output(*words):
    """What a program prints, nothing if it fails"""
    try:
        done = subprocess.run(words, text=True, check=False, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return ""
    return done.stdout.strip()


def _driver():
    driver.check()
    path = _output("modinfo", "-n", "rdma_rxe")
    how = {".xz": lzma.open, ".gz": gzip.open}.get(Path(path).suffix, open)
    try:
        with how(path, "rb") as file:
            same = (driver.MODULE / "notes/.note.gnu.build-id").read_bytes() in file.read()
    except OSError as error:
        raise Mind(f"it is loaded; whether it is the one that the next boot loads is not "
                   f"known: {error}") from None
    if not same:
        raise Mind(f"it is loaded, but the next boot loads another, {path}")
    return f"{path} is loaded"


def _library():
    objects.library()
    return "it has ibv_dump_context()"


def _version(program):
    """What a program says of itself, in its first line"""
    if not shutil.which(program):
        raise Failure(f"{program}: it is not in the PATH; install it")
    return (_output(program, "--version").splitlines() or ["?"])[0].removeprefix("Version: ")


def _plugin():
    """(criu's plugin, None if there is none; where it could be)"""
    top = Path(shutil.which("criu") or "/usr/sbin/criu").resolve().parent.parent
    places = [Path(os.environ["CRIU_LIBS_DIR"])] if "CRIU_LIBS_DIR" in os.environ else [
        top / "lib/criu", top / "usr/lib/criu", Path("/usr/lib/criu"),
        *Path("/usr/lib").glob("*-linux-gnu/criu")]
    return next((place / PLUGIN for place in places if (place / PLUGIN).exists()), None), places


def _criu():
    version = _version("criu")
    plugin, places = _plugin()
    if not plugin:
        raise Failure(f"its plugin {PLUGIN} is not in "
                      f"{', '.join(map(str, places))}; install that of migros")
    return version


def _images():
    """The version of images that criu's plugin writes, the newest it reads; None without"""
    plugin, _ = _plugin()
    found = plugin and re.search(rb"rdma_plugin images (\d+);", plugin.read_bytes())
    return int(found[1]) if found else None


def _asks():
    if not gate.installed():
        raise Failure(f"criu would kill a container without asking; add the line "
                      f"'action-script {gate.HOOK}'")
    return "criu asks before it kills"


def _runtimes():
    found = [_version(name) for name in RUNTIMES if shutil.which(name)]
    if not found:
        raise Failure(f"none of {', '.join(RUNTIMES)} is in the PATH; install one")
    return ", ".join(found)


def _journal():
    if not os.access(_place(), os.W_OK):
        raise Failure("it cannot be written; run migros as root")
    return f"{room() >> 20} MiB are free"


def findings():
    """All that does not depend on a container"""
    return [examine("driver rdma_rxe", _driver),
            examine("libibverbs", _library),
            examine("criu", _criu),
            examine(gate.CONF, _asks),
            examine("runtimes", _runtimes),
            examine(str(journal.DIR), _journal)]


def _first(path, start):
    """What follows in the first line of a file that begins so"""
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                if line.startswith(start):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return ""


def facts(kind):
    """What the destination compares with its own; kind: the runtime"""
    return {"kernel": os.uname().release,
            "page": os.sysconf("SC_PAGESIZE"), "machine": os.uname().machine,
            "flags": _first("/proc/cpuinfo", "flags"),
            "monotonic": time.monotonic(), "criu": _output("criu", "--version"),
            "runtime": _output(kind.NAME, "--version") if kind.NAME in RUNTIMES else "",
            "snapshots": objects.version(), "images": _images()}


def _place():
    """Where the journal is, or will be made"""
    place = journal.DIR
    while not place.exists():
        place = place.parent
    return place


def room():
    """Bytes that are free for images"""
    stat = os.statvfs(_place())
    return stat.f_bavail * stat.f_frsize


def memory():
    """Bytes that a container could have"""
    return int(_first("/proc/meminfo", "MemAvailable").split()[0]) << 10


def profiles():
    """AppArmor profiles that are loaded, None without AppArmor"""
    try:
        text = Path("/sys/kernel/security/apparmor/profiles").read_text("utf-8")
    except OSError:
        return None
    return {line.rsplit(" ", 1)[0] for line in text.splitlines()}
