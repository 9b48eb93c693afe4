#!/usr/bin/env python3
"""Runs cases against the endpoint in h1, from another host without the driver.

run.py [-l] [-4|-6] [--mtu MTU] [--psn PSN] [--peer-psn PSN] [-o DIRECTORY]
       [--first NUMBER] [PATTERN...]

A pattern is that of a clause (PAUSE-1, 'RESUME-*') or of a case
(PAUSE-1/accepted); an argument may be several, with commas or spaces between them.
Prints lines of TAP, of which the first has this number, and no plan; DIRECTORY gets
a capture of each case and junit.xml, which says how many there were.
"""

import argparse
import fnmatch
import importlib
import os
import re
import sys
import time
import traceback
from pathlib import Path
from xml.sax.saxutils import quoteattr

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "cases")]

from clauses import CASES  # noqa: E402
from peer import EndpointError, Failure, Setting, Skip, Wire  # noqa: E402


def wanted(case, pattern):
    return any(fnmatch.fnmatchcase(text, pattern)
               for text in (case.name, *(name for name, _ in case.clauses)))


def run(case, setting):
    """None, or why it failed, or Skip."""
    setting.wire.begin()
    try:
        case.function(setting)
        return None
    except Failure as failure:
        where = traceback.extract_tb(sys.exc_info()[2])
        line = next(frame for frame in reversed(where)
                    if frame.name == case.function.__name__)
        return f"{failure} ({Path(line.filename).name}:{line.lineno})"
    except Skip as reason:
        return reason
    except EndpointError as failure:
        return str(failure)
    except Exception:  # a mistake in the case
        return traceback.format_exc()
    finally:
        setting.close()


def junit(path, suite, results):
    failed = sum(isinstance(reason, str) for _, _, reason in results)
    lines = ['<?xml version="1.0" encoding="utf-8"?>',
             f'<testsuite name={quoteattr(suite)} tests="{len(results)}" '
             f'failures="{failed}">']
    for case, seconds, reason in results:
        lines.append(f'  <testcase classname={quoteattr(suite)} '
                     f'name={quoteattr(case.name)} time="{seconds:.2f}">')
        if reason is not None:
            what = "skipped" if isinstance(reason, Skip) else "failure"
            lines.append(f'    <{what} message={quoteattr(str(reason))}/>')
        lines.append('    <system-out>'
                     + "; ".join(f"{c}: {quoteattr(r)[1:-1]}"
                                 for c, r in case.clauses)
                     + '</system-out>\n  </testcase>')
    path.write_text("\n".join([*lines, "</testsuite>", ""]), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-l", "--list", action="store_true")
    parser.add_argument("-4", dest="family", action="store_const", const=4,
                        default=4)
    parser.add_argument("-6", dest="family", action="store_const", const=6)
    parser.add_argument("--mtu", type=int, default=1024)
    for option, psn in (("--psn", 0x1000), ("--peer-psn", 0x5000)):
        parser.add_argument(option, type=lambda text: int(text, 0), default=psn)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("patterns", nargs="*")
    args = parser.parse_args()
    patterns = re.split(r"[,\s]+", " ".join(args.patterns or "*").strip(", "))

    for path in sorted((HERE / "cases").glob("*.py")):
        importlib.import_module(path.stem)
    unknown = [pattern for pattern in patterns
               if not any(wanted(case, pattern) for case in CASES)]
    if unknown:
        sys.exit(f"run.py: no case matches {' '.join(unknown)}")
    cases = [case for case in CASES
             if any(wanted(case, pattern) for pattern in patterns)]
    if args.list:
        print("\n".join(case.name for case in cases))
        return 0

    setting = Setting(Wire("eth0"), args.family, args.mtu, args.psn, args.peer_psn)
    suite = (f"IPv{args.family}, MTU {args.mtu}, first PSNs {args.psn:#x} and "
             f"{args.peer_psn:#x}")
    results = []
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(cases, args.first):
        start = time.monotonic()
        reason = run(case, setting)
        seconds = time.monotonic() - start
        results.append((case, seconds, reason))
        if args.output:
            setting.wire.save(args.output /
                              (case.name.replace("/", ".") + ".pcap"))
        skipped = isinstance(reason, Skip)
        failed = isinstance(reason, str)
        print(f"{'not ' if failed else ''}ok {number} - {case.name}, {suite}"
              + (f" # SKIP {reason}" if skipped else ""), flush=True)
        if failed:
            for clause, requirement in case.clauses:
                print(f"# {clause}: {requirement}")
            print("# " + reason.replace("\n", "\n# "), flush=True)
    if args.output:
        junit(args.output / "junit.xml", suite, results)
    # The thread that listens never ends.
    sys.stdout.flush()
    os._exit(any(isinstance(reason, str) for _, _, reason in results))


sys.exit(main())
