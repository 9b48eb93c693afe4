"""The files of an archive of podman, or of any tar of criu's images. The memory in it may be
large, so it is passed over."""

import gzip
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
                      "zstd", 2)
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


def _opened(path):
    with open(path, "rb") as file:
        start = file.read(4)
    if start.startswith(GZIP):
        return gzip.open(path)
    return _unzstd(path) if start == ZSTD else open(path, "rb")


def _read(path):
    """{directory: {name: bytes}}"""
    found = {}
    with _opened(path) as plain:
        counted = _Counted(plain)
        with tarfile.open(fileobj=counted, mode="r|") as tar:
            for member in tar:
                place, _, name = member.name.rpartition("/")
                if member.isreg() and WANTED.fullmatch(name):
                    found.setdefault(place, {})[name] = tar.extractfile(member).read()
            end = tar.offset + 2 * tarfile.BLOCKSIZE
        while counted.read(1 << 20):
            pass
    if counted.count < end:
        raise EOFError
    return found


def read(path):
    """{name: bytes} of the directory that has images of RDMA; empty if none has"""
    try:
        found = {place: files for place, files in _read(path).items() if "rdma.img" in files}
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError,
            OverflowError) as error:
        raise Failure(f"{path}: it is neither a directory of images, nor a whole archive"
                      f"{f': {error}' if str(error) else ''}; was it copied to its end?",
                      2) from None
    if len(found) > 1:
        raise Failure(f"{path}: images are in {', '.join(sorted(found))}; unpack it, and name "
                      "one of them", 2)
    return found.popitem()[1] if found else {}
