"""Migrations at random until there were enough, and what was wrong with them.

MIGRATIONS says how many, SEED where to begin (at random). What "make soak" has found in all
its runs is kept (totals.py). One that makes no progress any more is stuck.

Connections retry without end (retry_cnt 7): with fewer, such a network ends them without any
migration. That of seed 1003 did with retry_cnt 6, and does without its migrations, after 14 s.
Its messages have up to 64 packets, and rxe counts each timeout until an acknowledgment comes,
which it asks for with a message's last packet; where every 20th packet is lost and every 4th
comes too early, the packets that a NAK acknowledges are progress, but do not end the count.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from network import CALM, weather
from totals import FAULTS, Run, text

TOP = Path(os.environ["TOP"])


def host(name, command, seconds=60):
    """Run a command in a host; its output."""
    done = subprocess.run(
        [TOP / "scripts/testbed", "exec", "-t", str(seconds), name, command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout


def library(function):
    """A function of the tests' shell libraries"""
    subprocess.run(["bash", "-ec", '. "$TOP/tests/lib.sh"\n'
                    '. "$TOP/tests/verbs/lib.sh"\n' + function], check=True)


class Weather:
    """Trouble in what hosts send, for as long as it is entered."""

    def __init__(self, draw, hosts):
        self.scripts = {name: weather(draw) for name in hosts}

    def __enter__(self):
        for name, script in self.scripts.items():
            with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
                file.write(script)
                file.flush()
                subprocess.run([TOP / "scripts/testbed", "copy", file.name,
                                f"{name}:/tmp/weather.sh"], check=True)
            host(name, "setsid sh /tmp/weather.sh >/dev/null 2>&1 </dev/null &")

    def __exit__(self, *_):
        for name in self.scripts:
            host(name, CALM)


def parsed(lines):
    """A checker's, if that is what there is."""
    try:
        found = json.loads("".join(lines))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


class Ends:
    """Both ends of a checker, each in a thread."""

    def __init__(self):
        self.reports, self.threads = {}, []

    def start(self, name, place, command, seconds):
        def run():
            output = host(place, command, seconds)
            lines = output.strip().splitlines()
            self.reports[name] = parsed(lines[-1:])
            if self.reports[name]:
                lines.pop()
            # What it has to say when something is wrong
            for line in lines:
                print(f"# {name}: {line}", flush=True)
        thread = threading.Thread(target=run)
        thread.start()
        self.threads.append(thread)

    def finish(self):
        for thread in self.threads:
            thread.join()
        return self.reports


def faults(reports):
    """What both ends have to say, by kind"""
    count = dict.fromkeys(FAULTS, 0)
    for report in reports.values():
        if report is None:
            count["stuck"] += 1
            continue
        for kind in FAULTS[:4]:
            count[kind] += report[kind]
        # A connection that failed
        count["stuck"] += report["errors"]
    return count


def build():
    """Which driver the hosts have: the build ID of the module"""
    return host("h1", "od -An -v -tx1 -j16 /sys/module/rdma_rxe/notes/.note.gnu.build-id | "
                "tr -d ' \\n'").strip()


def wanted(sample):
    """How many migrations there shall be: a sample, always the same, unless it is said"""
    if not os.environ.get("MIGRATIONS"):
        os.environ.setdefault("SEED", "1")
    return int(os.environ.get("MIGRATIONS") or sample)


def soak(kind, enough, do_round):
    """do_round(draw) returns how many migrations there were, and the reports."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 30))
    run = Run(kind, seed, build())
    mine = run.record
    while mine["migrations"] < enough:
        # Each round can be had again by its own seed.
        number = seed + mine["rounds"]
        moved, reports = do_round(random.Random(number))
        count = faults(reports)
        run.add(number, moved, count)
        # The sample of "make test" is always the same.
        if os.environ.get("MIGRATIONS"):
            run.save()
        good = moved and not any(count.values())
        print(f"{'' if good else 'not '}ok {mine['rounds']} - seed {number}, {moved} "
              f"migrations, {text(count)}", flush=True)
        if not moved:
            break
    print(f"# {mine['migrations']} migrations, seed {seed}\n# {text(mine)}")
    sys.exit(mine["migrations"] < enough or any(mine[kind] for kind in FAULTS))
