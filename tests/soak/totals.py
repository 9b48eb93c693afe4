"""What all runs of "make soak" have found, in a file that "make clean" does not remove.

Each run is there with its figures, its seeds and the build of the driver. It is written
after each round, so a run that is killed has counted until then.
"""

import fcntl
import json
import os
from datetime import datetime, timezone
from pathlib import Path

FAULTS = ("lost", "duplicated", "reordered", "corrupted", "stuck")


def path():
    """~/.local/state/migros/soak.json, or what MIGROS_SOAK says"""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(os.environ.get("MIGROS_SOAK") or f"{state}/migros/soak.json")


def text(count):
    return " ".join(f"{kind}: {count[kind]}" for kind in FAULTS)


def runs():
    """The runs so far, by the moment of their begin"""
    try:
        return json.loads(path().read_text("utf-8"))
    except FileNotFoundError:
        return {}


class Run:
    """One that goes on: rounds are added to it."""

    def __init__(self, kind, seed, driver):
        self.name = f"{datetime.now(timezone.utc).isoformat()} {kind}"
        self.record = {"kind": kind, "driver": driver, "seed": seed, "rounds": 0,
                       "migrations": 0, **dict.fromkeys(FAULTS, 0), "bad_seeds": []}

    def add(self, seed, migrations, count):
        """Another round, with its own seed"""
        self.record["rounds"] += 1
        self.record["migrations"] += migrations
        for kind in FAULTS:
            self.record[kind] += count[kind]
        if any(count.values()):
            self.record["bad_seeds"].append(seed)

    def save(self):
        file = path()
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{file}.lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = runs()
            found[self.name] = self.record
            new = file.with_suffix(".new")
            new.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
            new.rename(file)


def total(kind=None):
    """Sums over all runs, or those of a kind; also "runs" and "migrations" """
    records = [each for each in runs().values() if kind in (None, each["kind"])]
    sums = {name: sum(each[name] for each in records) for name in (*FAULTS, "migrations")}
    return {**sums, "runs": len(records)}
