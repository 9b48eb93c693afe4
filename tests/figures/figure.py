"""Data of figures: measured in hosts of a bed, stored in build/figures.

A row has a name, a unit and all its values. Of them tables and plots show the median and
an interval that holds the median of all possible runs with a probability of 95 % at
least: two order statistics, by the binomial distribution. For that it takes six values;
of fewer the range is shown.
"""

import csv
import importlib.machinery
import importlib.util
import json
import math
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
BUILD = TOP / "build" / "figures"
RUNS = int(os.environ.get("RUNS") or 20)


def output(*words):
    return subprocess.run(words, check=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, text=True).stdout


def hostexec(host, command, limit=600):
    return output(TOP / "scripts" / "testbed", "exec", "-t", str(limit), host, command)


def ours(host, command, limit=600):
    """With our libibverbs, in /tmp/verbs, where build() has put the programs."""
    return hostexec(host, output("bash", "-c", 'set -e; . "$0/tests/verbs/lib.sh"; '
                                 'echo "$OURS"', TOP) + command, limit)


def build(directory, *programs, hosts=("h1",)):
    subprocess.run(["bash", "-c", '. "$TOP/tests/lib.sh"; . "$TOP/tests/verbs/lib.sh"; '
                    'build_in "$@"', "build", directory, *programs, "--", *hosts],
                   check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr,
                   env=dict(os.environ, TOP=str(TOP)))


def median(values):
    return statistics.median(values)


def interval(values):
    """The interval of the median, and whether it is one of 95 %."""
    values = sorted(values)
    n, below, rank = len(values), 0, 0
    # The chance of RANK values or fewer on one side of the median
    while below + math.comb(n, rank) / 2 ** n <= 0.025:
        below += math.comb(n, rank) / 2 ** n
        rank += 1
    rank = max(rank, 1)
    return values[rank - 1], values[-rank], n >= 6


def load(path):
    """A program as a module"""
    loader = importlib.machinery.SourceFileLoader(path.stem, str(path))
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader(path.stem, loader))
    loader.exec_module(module)
    return module


def test(name):
    """Another test, whose measuring can be used"""
    return load(TOP / "tests" / name)


def machine(host):
    """What a measurement depends on; without a host the sources alone."""
    revision = output("git", "-C", TOP, "describe", "--always", "--dirty").strip()
    if not host:
        return {"revision": revision}
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    emulator = output(*load(TOP / "scripts" / "testbed").emulator(), "--version").splitlines()[0]
    return {"cpu": cpu[1] if cpu else "?", "processors": os.cpu_count(),
            "emulator": emulator, "kernel": hostexec(host, "uname -r").strip(),
            "bed": re.search(r"^# bed: *(.*)", Path(sys.argv[0]).read_text(), re.M)[1],
            "revision": revision}


class Figure:
    """The rows of a figure, and what they are of."""

    def __init__(self, name, about, runs=RUNS, host=None):
        self.data = {"figure": name, "about": about,
                     "command": f"make bench FIGURES={name}" +
                     "".join(f' {word}="{os.environ[word]}"' for word in
                             ("RUNS", "COUNTS", "PROGRAMS", "KINDS") if os.environ.get(word)
                             and (word, os.environ[word]) != ("RUNS", "20")),
                     "runs": runs, "machine": machine(host), "rows": []}

    def add(self, name, unit, values, **more):
        self.data["rows"].append({"name": name, "unit": unit, **more,
                                  "values": list(values)})

    def store(self):
        BUILD.mkdir(parents=True, exist_ok=True)
        path = BUILD / self.data["figure"]
        rows = ",\n".join("  " + json.dumps(row) for row in self.data["rows"])
        head = json.dumps({**self.data, "rows": None}, indent=1)
        path.with_suffix(".json").write_text(
            head.replace('"rows": null', f'"rows": [\n{rows}\n ]') + "\n")
        with open(path.with_suffix(".csv"), "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("name", "unit", "run", "value"))
            for row in self.data["rows"]:
                for run, value in enumerate(row["values"], 1):
                    writer.writerow((row["name"], row["unit"], run, value))
        print(f"{path}.json", file=sys.stderr)


def measure(arguments, runs=RUNS, limit=600):
    """Of each run of "objects": {step: (ticks, times, ioctls, other calls)}"""
    text = ours("h1", f"for run in $(seq {runs}); do echo run; ./objects {arguments} "
                "|| exit; done", limit)
    return [{words[0]: tuple(map(int, words[1:]))
             for words in map(str.split, run.splitlines()) if words}
            for run in text.split("run\n")[1:]]
