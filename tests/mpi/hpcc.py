"""HPCC: its input, what it is doing, and whether its results are right."""

import re

# N decides how much memory all parts take; the first two lines are a title.
INPUT = """\
four ranks, small enough for emulated machines

HPL.out  file
8  file
1  number of N
{n}
1  number of NB
{nb}
0  process mapping
1  number of grids
2  P
2  Q
16.0  threshold
1  number of panel factorizations
2
1  number of stopping criteria
4
1  number of panels
2
1  number of recursive factorizations
1
1  number of broadcasts
1
1  number of look-ahead depths
1
2  swapping
64  its threshold
0  L1
0  U
1  equilibration
8  alignment
--
0  more N for PTRANS
1
0  more NB
1
"""
BEGIN = re.compile(r"^Begin of (\w+) section\.$", re.M)
END = "End of HPC Challenge tests."


def configuration(n, nb):
    return INPUT.format(n=n, nb=nb)


def parts(output):
    """The parts that have begun, in their order."""
    return BEGIN.findall(output)


def faults(output):
    """What is wrong in a finished report."""
    results = dict(re.findall(r"^(\w+)=(\S+)$", output, re.M))
    found = [line for line in output.splitlines()
             if re.search("FAILED|Failed Validation|ERROR|error in process", line)]

    def want(what, good):
        if not good:
            found.append(what)
    want("no end", END in output)
    want(f"Success={results.get('Success')}", results.get("Success") == "1")
    want(f"CommWorldProcs={results.get('CommWorldProcs')}",
         results.get("CommWorldProcs") == "4")
    for name in ("MPIRandomAccess", "MPIRandomAccess_LCG"):
        want(f"{name}_Errors={results.get(f'{name}_Errors')}",
             results.get(f"{name}_Errors") == "0")
    for name in ("MPIFFT_maxErr", "HPL_RnormI", "PTRANS_residual"):
        want(f"{name}={results.get(name)}", float(results.get(name, 1)) < 1e-9)
    want("HPL is not verified", re.search(r"1 tests completed and passed residual", output))
    return found
