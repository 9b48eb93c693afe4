"""The images that criu and its plugin have made of processes with RDMA: criu/plugin/README.md
has the files. What does not fit together is refused."""

import re
from pathlib import Path

import archive
import journal
import messages
import snapshot
from container import STATE
from journal import Failure
from podman import ARCHIVE
from runtimes import runtime

VERSION = 1
RDMA, FILES = "rdma.img", "rdma-files.img"
MAGIC = {RDMA: 0x52444D41, FILES: 0x52444D46}
KINDS = {1: "device", 2: "asynchronous events", 3: "completion channel", 4: "rdma_cm"}
WORDS = ("stopped", "complete", "resumed")


class Context:
    """number, device, processes, mappings, snapshot"""

    def __init__(self, number, snap, device=None, processes=(), mappings=()):
        self.number = number
        self.snapshot = snap
        self.device = device or snap.context.shown["device"]
        self.processes = list(processes)
        self.mappings = list(mappings)


class Images:
    """path; record, of the journal, if it is of a migration; version and state, None of a
    snapshot alone; processes, contexts, files"""

    def __init__(self, path, record=None):
        self.path = path
        self.record = record
        self.version = self.state = None
        self.processes, self.contexts, self.files = [], [], []


class _Directory:
    """A dict, whose files are read when they are needed"""

    def __init__(self, path):
        self.path = path

    def __contains__(self, name):
        return (self.path / name).exists()

    def __getitem__(self, name):
        return (self.path / name).read_bytes()


def _of_migration(record):
    """Where its images are, as Runtime.word() looks for them"""
    for place in (runtime(record.runtime).images(record), record.images,
                  record.images / ARCHIVE):
        if (place / RDMA).exists() or place.is_file():
            return place
    raise Failure(f"migration {record.id}: this host has no images of it; it is {record.state}"
                  + (f", and {record.peer} may have them" if "peer" in record.fields else ""))


def _find(text):
    """(path, record or None) of what somebody names"""
    path = Path(text)
    if not path.exists():
        if not re.fullmatch("[0-9a-f]{8}", text):
            raise Failure(f"{text}: there is no such file or directory, nor is it the ID of a "
                          "migration; 'migros status --all' lists them")
        record = journal.load(text)
        return _of_migration(record), record
    if path.is_dir():
        for place in (path, path / "checkpoint", path / "images", path / ARCHIVE,
                      path / "images" / ARCHIVE):
            if (place / RDMA).exists() or place.is_file():
                return place, None
    return path, None


def _parsed(name, function, *arguments):
    try:
        return function(*arguments)
    except messages.Damaged as error:
        raise Failure(f"{name}: {error}") from None


def _take(files, name, where):
    if name not in files:
        raise Failure(f"{where}/{name}: it is missing; copy all files of the directory")
    return files[name]


def _state(data, where):
    words = data.split()
    if len(words) != 1 or words[0].decode("ascii", "replace") not in WORDS:
        raise Failure(f"{where}/{STATE}: its word is none of {', '.join(WORDS)}: it is "
                      "damaged, or a later version wrote it")
    return words[0].decode()


def _together(what, good):
    if not good:
        raise messages.Damaged(f"{what}: the images do not belong together, or are damaged")


def _command(files, pid):
    """The name of a process as criu's image of it has it; None if that is not to be found"""
    try:
        core = next(messages.entries(files[f"core-{pid}.img"][4:], 0x55053847))
        task = messages.message(messages.get(core, 3, bytes))
        return messages.get(task, 6, bytes).decode(errors="replace")
    except (KeyError, OSError, StopIteration, messages.Damaged):
        return None


def _tree(data):
    """The one message of rdma.img"""
    found = list(messages.entries(data, MAGIC[RDMA]))
    if len(found) != 1:
        raise messages.Damaged("it has not one message: it is cut off, or damaged")
    version = messages.get(found[0], 1)
    if version != VERSION:
        raise messages.Damaged(f"it has version {version}, known is {VERSION}; take the "
                               "release that wrote it")
    return found[0]


def _processes(tree, files):
    for task in map(messages.message, messages.each(tree, 2, bytes)):
        pid = messages.get(task, 2)
        yield {"pid": pid, "pid_at_dump": messages.get(task, 1), "command": _command(files, pid)}


def _mappings(fields):
    for vma in map(messages.message, messages.each(fields, 5, bytes)):
        yield {"process": messages.get(vma, 1), "start": messages.get(vma, 2),
               "offset": messages.get(vma, 3)}


def _rings(snap):
    return [each.shown[name]["mmap_offset"] for each in snap.objects
            for name in ("ring", "sq", "rq") if name in each.shown]


def _fit(context, processes):
    """Does a context fit to the processes? What has the process ID at the dump gets that
    which the process has."""
    known = {each["pid"] for each in processes}
    inside = {each["pid_at_dump"]: each["pid"] for each in processes}
    what = f"context {context.number}"
    _together(f"{what} is of an unknown process", known.issuperset(context.processes))
    rings = set(_rings(context.snapshot))
    for each in context.mappings:
        _together(f"a mapping of {what} is none of its rings",
                  each["process"] in known and each["offset"] in rings)
    for each in context.snapshot.objects:
        if each.kind == "MR":
            _together(f"{each.name} is of an unknown process", each.shown["process"] in inside)
            each.shown["process"] = inside[each.shown["process"]]


def _context(fields, files, where):
    number = messages.get(fields, 1)
    name = f"rdma-context-{number}.img"
    data = memoryview(_take(files, name, where))
    _together(f"{name} has another length than {RDMA} says",
              messages.get(fields, 3) == len(data))
    return Context(number, _parsed(f"{where}/{name}", snapshot.Snapshot, data),
                   messages.get(fields, 2, bytes).decode(errors="replace"),
                   messages.each(fields, 4), _mappings(fields))


def _files(data, contexts):
    known = {each.number for each in contexts}
    for fields in messages.entries(data, MAGIC[FILES]):
        kind = messages.get(fields, 2)
        context = messages.get(fields, 4, default=-1)
        _together("a file is of an unknown kind or context",
                  kind in KINDS and (context in known or KINDS[kind] == "rdma_cm"))
        yield {"id": messages.get(fields, 1), "kind": KINDS[kind],
               "flags": messages.get(fields, 3), "context": context if context >= 0 else None,
               "handle": messages.get(fields, 5, default=-1) if 5 in fields else None}


def _all(images, files):
    where = images.path
    images.state = _state(_take(files, STATE, where), where)
    name = f"{where}/{RDMA}"
    tree = _parsed(name, _tree, _take(files, RDMA, where))
    images.version = VERSION
    images.processes = _parsed(name, lambda: list(_processes(tree, files)))
    images.contexts = _parsed(name, lambda: [
        _context(messages.message(each), files, where)
        for each in messages.each(tree, 3, bytes)])
    numbers = [each.number for each in images.contexts]
    _parsed(name, _together, "two contexts have one number", len(set(numbers)) == len(numbers))
    for each in images.contexts:
        _parsed(name, _fit, each, images.processes)
    data = _take(files, FILES, where)
    images.files = _parsed(f"{where}/{FILES}", lambda: list(_files(data, images.contexts)))
    return images


def load(text):
    """Images, by their directory, archive, or ID, or the snapshot of one context"""
    path, record = _find(text)
    images = Images(str(path), record)
    if path.is_dir():
        files = _Directory(path)
    else:
        with open(path, "rb") as file:
            start = file.read(len(snapshot.MAGIC))
        if start == snapshot.MAGIC:
            data = memoryview(path.read_bytes())
            images.contexts.append(Context(0, _parsed(path, snapshot.Snapshot, data)))
            return images
        files = archive.read(path)
    if RDMA not in files:
        raise Failure(f"{path}: no {RDMA} is in it: it is not of criu, or its processes use no "
                      "RDMA, or something is missing")
    return _all(images, files)
