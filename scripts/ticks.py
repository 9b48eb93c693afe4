"""The time stamp counter of this machine, which emulated processors have, too."""

import ctypes
import functools
import mmap
import time

# rdtsc; shl rdx, 32; or rax, rdx; ret
CODE = bytes.fromhex("0f3148c1e2204809d0c3")


@functools.cache
def khz():
    """Its frequency, measured; None if that is not allowed."""
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE,
                         prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    page.write(CODE)
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(
        ctypes.addressof(ctypes.c_char.from_buffer(page)))

    def at():
        """A value of it, and when it was read; of several the most certain"""
        found = []
        for _ in range(20):
            before, ticks, after = time.monotonic_ns(), read(), time.monotonic_ns()
            found.append((after - before, ticks, (before + after) / 2))
        return min(found)[1:]
    begin = at()
    time.sleep(0.1)
    end = at()
    return round((end[0] - begin[0]) * 1e6 / (end[1] - begin[1]))
