"""What is known of each migration, on the disk of each of its two hosts.

A migration has the same ID on both. Its directory DIR/ID holds record.json, the images
and criu's logs. A record changes as a whole, and is on the disk when set() returns:
each decision about who may run the container is written before it is acted upon.

States at the source            at the destination
  begun      nothing has happened      expected   it may come
  stopping   criu is at work           received   images are here; they are not ours
  committing criu may kill it          granted    ours: nobody else restores them
  committed  the image is ours         running    restored
  handed     the image is theirs       returned   never restored here again
  done                                 dropped
  rolled-back
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import time
from pathlib import Path

DIR = Path(os.environ.get("MIGROS_DIR", "/var/lib/migros"))
# In these the migration needs nobody any more.
ENDED = {"done", "rolled-back", "running", "returned", "dropped"}
# The lock of the container that this process is about, see lock().
held = None
# Room that is given up when the disk is full, so that a decision can be written.
RESERVE = 1 << 16


# Exit statuses after a failure: nothing is lost, and somebody has to decide.
UNFINISHED = 3
DOUBT = 4


class Failure(Exception):
    """An error for the user: object, cause, next step. status is the exit status."""

    def __init__(self, text, status=1):
        super().__init__(text)
        self.status = status


def sync(path):
    """What a file or the names in a directory are now survives a crash."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(top):
    for directory, _, files in os.walk(top):
        for name in files:
            full = os.path.join(directory, name)
            if not os.path.islink(full):
                sync(full)
        sync(directory)


class Record:
    """One migration, as this host knows it."""

    def __init__(self, ident, fields):
        self.id = ident
        self.fields = fields

    def __getattr__(self, name):
        try:
            return self.__dict__["fields"][name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def dir(self):
        return DIR / self.id

    @property
    def images(self):
        return self.dir / "images"

    @property
    def work(self):
        return self.dir / "work"

    @property
    def ended(self):
        return self.state in ENDED

    def set(self, state, **more):
        """Change the state, and other fields with it."""
        now = round(time.time(), 3)
        fields = {**self.fields, **more, "state": state, "since": now}
        fields["history"] = [*self.fields.get("history", []), [state, now]]
        text = json.dumps(fields, indent=1) + "\n"
        try:
            self._write(text)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            (self.dir / "reserve").unlink(missing_ok=True)
            self._write(text)
        self.fields = fields

    def drop_images(self):
        """They are nobody's any more, and have memory and nonces of the container."""
        for path in self.images.iterdir():
            if not path.is_dir():
                path.unlink()

    def _write(self, text):
        new = self.dir / "record.new"
        with open(new, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.rename(self.dir / "record.json")
        sync(self.dir)


def create(ident=None, **fields):
    """A new record, with the state among its fields."""
    record = Record(ident or secrets.token_hex(4), {})
    record.images.mkdir(mode=0o700, parents=True, exist_ok=True)
    record.work.mkdir(mode=0o700, exist_ok=True)
    with open(record.dir / "reserve", "wb") as file:
        file.write(bytes(RESERVE))
        os.fsync(file.fileno())
    record.set(**fields)
    sync(DIR)
    return record


def load(ident):
    if not re.fullmatch("[0-9a-f]{8}", ident):
        raise Failure(f"migration {ident}: not an ID, which has 8 hexadecimal digits", 2)
    try:
        text = (DIR / ident / "record.json").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise Failure(f"migration {ident}: not known on this host; "
                      "'migros status' lists them") from None
    try:
        record = Record(ident, json.loads(text))
        _ = record.container, record.state, record.history[0][1]
    except (ValueError, AttributeError, LookupError, TypeError) as error:
        raise Failure(f"migration {ident}: {DIR / ident}/record.json is damaged ({error}); find "
                      f"out where its container is ('migros inspect {DIR / ident}/images', and "
                      f"'migros status' on the other host), then move {DIR / ident} away"
                      ) from None
    return record


def records():
    """All records, the oldest first"""
    if not DIR.exists():
        return []
    found = [load(path.parent.name) for path in DIR.glob("*/record.json")]
    return sorted(found, key=lambda record: record.history[0][1])


def unfinished(container):
    for record in records():
        if record.container == container and not record.ended:
            return record
    return None


def check_name(container):
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", container):
        raise Failure(f"container {container!r}: not a name of a container", 2)


def lock(container):
    """An open file that holds this container until it is closed, here and in the
    processes that inherit it: what runs a checkpoint or a restore may outlive this one.
    Who wants it meanwhile is told who has it."""
    global held
    check_name(container)
    DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    (DIR / "lock").mkdir(mode=0o700, exist_ok=True)
    handle = open(DIR / "lock" / container, "a+", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.seek(0)
        holder = handle.read().strip()
        handle.close()
        raise Failure(f"container {container}: {holder or 'somebody'} is moving it; "
                      "wait for that") from None
    # On a full disk others are not told who it is.
    with contextlib.suppress(OSError):
        os.ftruncate(handle.fileno(), 0)
        os.write(handle.fileno(), f"process {os.getpid()}".encode())
    held = handle
    return handle
