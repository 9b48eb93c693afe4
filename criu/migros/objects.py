"""RDMA contexts of processes, as libibverbs sees them: whether each of their objects can be
moved. Nothing is stopped."""

import ctypes
import errno
import os
import platform
import stat
import struct

from findings import Mind
from journal import Failure
from snapshot import TYPES

# syscall(2), where Python has no function
GETFD = 438
KCMP = {"x86_64": 312, "aarch64": 272}
KCMP_FILE = 0
# struct rxe_mig_hdr as far as total_len, struct ibv_dump_refusal
HEADER = struct.Struct("=IIIIQ")
REFUSAL = struct.Struct("=IIII112s")


def library():
    """libibverbs with ibv_dump_context(); criu's plugin loads the same one, if it runs in
    the same environment."""
    try:
        lib = ctypes.CDLL("libibverbs.so.1", use_errno=True)
        lib.ibv_dump_context.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_int),
                                         ctypes.c_char_p, ctypes.c_size_t]
        lib.ibv_import_device.restype = ctypes.c_void_p
        lib.ibv_get_device_list.restype = ctypes.POINTER(ctypes.c_void_p)
        lib.ibv_free_device_list.argtypes = [ctypes.POINTER(ctypes.c_void_p)]
        lib.ibv_open_device.argtypes = [ctypes.c_void_p]
        lib.ibv_open_device.restype = ctypes.c_void_p
        lib.ibv_close_device.argtypes = [ctypes.c_void_p]
    except OSError as error:
        raise Mind(f"it cannot be loaded: {error}; criu needs it, too") from None
    except AttributeError:
        raise Mind("the one that is found has no ibv_dump_context(): objects cannot be "
                   "looked at before the stop. Run migros in the environment that criu has "
                   "(LD_LIBRARY_PATH)") from None
    return lib


class Context:
    """A file of a process that is an RDMA context"""

    def __init__(self, pid, number, device, handle):
        self.pid = pid
        self.number = number
        self.device = device
        self.handle = handle

    def __str__(self):
        try:
            with open(f"/proc/{self.pid}/comm", encoding="utf-8") as file:
                name = file.read().strip()
        except OSError:
            name = "?"
        return f"process {self.pid} ({name}), fd {self.number}, device {self.device}"


def _device(info):
    """The name of the RDMA device of a device file, None if it is another"""
    if not stat.S_ISCHR(info.st_mode):
        return None
    place = f"/sys/dev/char/{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
    if "/infiniband_verbs/" not in os.path.realpath(place):
        return None
    with open(f"{place}/ibdev", encoding="utf-8") as file:
        return file.read().strip()


def _same(libc, one, other):
    """Whether two descriptors of ours are of one open file"""
    number = KCMP.get(platform.machine())
    return number and not libc.syscall(number, os.getpid(), os.getpid(), KCMP_FILE,
                                       one, other)


def contexts(pids):
    """Each open file that is one, once. Close the handles."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = []
    for pid in pids:
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        for number in sorted(map(int, numbers)):
            try:
                device = _device(os.stat(f"/proc/{pid}/fd/{number}"))
            except OSError:
                continue
            if not device:
                continue
            handle = libc.syscall(GETFD, pidfd, number, 0)
            if handle < 0:
                error = ctypes.get_errno()
                if error in (errno.ESRCH, errno.EBADF):
                    # It has ended, or closed the file.
                    continue
                raise Failure(f"process {pid}, fd {number}: {os.strerror(error)}; "
                              "run migros as root of the host")
            if any(_same(libc, each.handle, handle) for each in found):
                os.close(handle)
            else:
                found.append(Context(pid, number, device, handle))
        os.close(pidfd)
    return found


def _event_files():
    found = set()
    for each in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{each}") == "anon_inode:[infinibandevent]":
                found.add(int(each))
        except OSError:
            pass
    return found


def look(lib, context):
    """What there is in a context; Failure if it cannot be moved"""
    before = _event_files()
    handle = os.dup(context.handle)
    imported = lib.ibv_import_device(handle)
    if not imported:
        reason = os.strerror(ctypes.get_errno())
        os.close(handle)
        raise Failure(f"libibverbs cannot import it: {reason}; use the library and the "
                      "provider that came with migros")
    # The library has opened one, which would count as the process's.
    for each in _event_files() - before:
        os.close(each)
    buffer = ctypes.create_string_buffer(REFUSAL.size)
    count = ctypes.c_int(0)
    status = lib.ibv_dump_context(imported, ctypes.byref(count), buffer, REFUSAL.size)
    # Not ibv_close_device(): it closes the other one, too.
    os.close(handle)
    if status == errno.ENOSPC:
        _, _, _, number, size = HEADER.unpack_from(buffer)
        return f"{number} objects, {size} bytes"
    if status == errno.EOPNOTSUPP and count.value != -1:
        kind, number, _, value, text = REFUSAL.unpack_from(buffer)
        name = TYPES[kind - 1] if 0 < kind <= len(TYPES) else "object"
        text = text.split(b"\0")[0].decode(errors="replace")
        raise Failure(f"{name} {value:#x} (handle {number}): {text}; see docs/limits.md"
                      if kind else f"context: {text}; see docs/limits.md")
    if status == errno.EOPNOTSUPP:
        raise Failure("the driver of the device cannot migrate; only rdma_rxe of migros can")
    raise Failure(f"its objects cannot be looked at: {os.strerror(status)}; run migros as "
                  "root of the host, and wait for other dumps to end")


def version():
    """Of the snapshots that driver and library of this host write, the newest they read; None
    if there is no device that could tell"""
    try:
        lib = library()
    except Mind:
        return None
    number = ctypes.c_int(0)
    devices = lib.ibv_get_device_list(ctypes.byref(number))
    found = None
    for each in range(number.value):
        context = lib.ibv_open_device(devices[each])
        if not context:
            continue
        buffer = ctypes.create_string_buffer(REFUSAL.size)
        # Too small for any: it gets the header.
        if lib.ibv_dump_context(context, None, buffer, REFUSAL.size) == errno.ENOSPC:
            found = HEADER.unpack_from(buffer)[1]
        lib.ibv_close_device(context)
        if found is not None:
            break
    lib.ibv_free_device_list(devices)
    return found
