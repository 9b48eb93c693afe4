#!/usr/bin/env python3
"""migros that stops before or after it writes a state in its journal.

/tmp/halt-migros has the point, ROLE:before-STATE or ROLE:after-STATE; at its first time
the pid is written to /tmp/halted-migros, and it waits there as long as the first file
exists.
"""

import os
import runpy
import sys
import time

TOOL = "/tmp/kill/migros"
WANTED, HALTED = "/tmp/halt-migros", "/tmp/halted-migros"

sys.path.insert(0, TOOL)
import journal  # noqa: E402


def halt(point):
    try:
        with open(WANTED, encoding="utf-8") as file:
            if file.read().strip() != point or os.path.exists(HALTED):
                return
    except FileNotFoundError:
        return
    with open(HALTED + ".new", "w", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    os.rename(HALTED + ".new", HALTED)
    while os.path.exists(WANTED):
        time.sleep(0.05)


def halting(function):
    def wrapped(self, state, **more):
        role = more.get("role") or self.role
        halt(f"{role}:before-{state}")
        function(self, state, **more)
        halt(f"{role}:after-{state}")
    return wrapped


journal.Record.set = halting(journal.Record.set)
sys.argv[0] = TOOL
runpy.run_path(TOOL, run_name="__main__")
