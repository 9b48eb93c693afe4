"""The files of an archive of podman, or of any tar of criu's images. The memory in it may be
large, so it is passed over."""

import gzip
import os
import re
import shutil
import subprocess
import tarfile
import zlib
from contextlib import contextmanager

from journal import Failure

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
WANTED = re.compile(r"(?:rdma|rdma-files|rdma-state|rdma-context-\d+|core-\d+)\.img")


class _Counted:
    """Counts what is read: a tar may end before its end."""

    def __init__(self, file):
        self.file = file
        self.count = 0

    def read(self, length):
        data = self.file.read(length)
        self.count += len(data)
        return data


@contextmanager
def _unzstd(path):
    if not shutil.which("zstd"):
        raise Failure(f"{path}: it is compressed by zstd, which is not in the PATH; install "
                      "zstd")
    with subprocess.Popen(["zstd", "-dcq", "--", path], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process.stdout
        except BaseException:
            process.kill()
            raise
        said = process.stderr.read().decode(errors="replace").strip()
    if process.returncode:
        raise EOFError(said or f"zstd: exit status {process.returncode}")


def _wanted(tar):
    """{directory: {name: bytes}}, and where the archive ends at the earliest"""
    found = {}
    for member in tar:
        place, _, name = member.name.rpartition("/")
        if member.isreg() and WANTED.fullmatch(name):
            found.setdefault(place, {})[name] = tar.extractfile(member).read()
    return found, tar.offset + 2 * tarfile.BLOCKSIZE


def _packed(stream):
    counted = _Counted(stream)
    with tarfile.open(fileobj=counted, mode="r|") as tar:
        found, end = _wanted(tar)
    while counted.read(1 << 20):
        pass
    return found, end, counted.count


def _any(path):
    with open(path, "rb") as file:
        start = file.read(4)
    if start.startswith(GZIP) or start == ZSTD:
        with gzip.open(path) if start != ZSTD else _unzstd(path) as stream:
            return _packed(stream)
    with tarfile.open(path, "r:") as tar:
        return *_wanted(tar), os.path.getsize(path)


def read(path):
    """{name: bytes} of the directory that has images of RDMA; empty if none has"""
    try:
        found, end, length = _any(path)
        if length < end:
            raise EOFError("it is cut off")
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError,
            OverflowError) as error:
        raise Failure(f"{path}: it is neither a directory of images, nor a whole archive: "
                      f"{error}; was it copied to its end?") from None
    found = {place: files for place, files in found.items() if "rdma.img" in files}
    if len(found) > 1:
        raise Failure(f"{path}: images are in {', '.join(sorted(found))}; unpack it, and name "
                      "one of them")
    return found.popitem()[1] if found else {}
