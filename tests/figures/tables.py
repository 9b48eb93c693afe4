"""The tables of docs/evaluation.md: lines of Markdown from the rows of a figure."""

import papers
from figure import interval, median


def number(value):
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def cell(values, divisor=1):
    """The median, and the interval if it is not that alone"""
    low, high, _ = interval(values)
    middle, low, high = (number(value / divisor) for value in (median(values), low, high))
    return middle if low == high else f"{middle} ({low} to {high})"


def times(runs):
    if runs == 1:
        return "counted, once"
    return (f"{runs} runs" + " in place of 20" * (runs < 20) + ", median (" +
            ("its 95 % interval)" if runs >= 6 else "range)"))


def table(head, lines):
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for line in lines:
        yield "| " + " | ".join(line) + " |"


def find(rows, **wanted):
    return next(row["values"] for row in rows
                if all(row.get(key) == value for key, value in wanted.items()))


def dump_size(rows):
    return table(("Object", "MigrOS, Table 1", "Here"), (
        (row["name"], number(papers.DUMP_SIZE[row["name"]])
         if row["name"] in papers.DUMP_SIZE else "–", cell(row["values"])) for row in rows))


def changes(rows):
    return table(("Component", "MigrOS", "MigrRDMA", "Here"), (
        (row["name"], papers.CHANGES.get(row["name"], "–"),
         papers.CHANGES_MIGRRDMA.get(row["name"], "–"), cell(row["values"]))
        for row in rows))


def objects(rows):
    kinds = list(dict.fromkeys(row["object"] for row in rows if "object" in row))
    yield from table(
        ("", "made by a program", "dumped", "restored", "calls: made", "restored"), (
            (kind.upper(), *(cell(find(rows, object=kind, step=step, unit="instructions"))
                             for step in ("made", "dumped", "restored")),
             *(cell(find(rows, object=kind, step=step, unit="calls"))
               for step in ("made", "restored"))) for kind in kinds))
    yield ""
    sizes = list(dict.fromkeys(row["bytes"] for row in rows if row.get("bytes")))
    yield from table(("MR of", "made by a program", "restored"), (
        (f"{size >> 10:,} KiB", *(cell(find(rows, bytes=size, step=step))
                                  for step in ("made", "restored"))) for size in sizes))


def qps(rows):
    for depth in sorted({row["depth"] for row in rows}, reverse=True):
        yield f"Queues of {depth} requests:"
        yield ""
        counts = sorted({row["qps"] for row in rows if row["depth"] == depth})

        def of(count, step, unit, depth=depth):
            return find(rows, step=step, unit=unit, qps=count, depth=depth)
        yield from table(
            ("QPs", "instructions for a QP: dump", "restore and RESUME", "calls: dump",
             "restore, for a QP", "metadata, bytes for an object"), (
                (str(count), cell(of(count, "dump", "instructions"), count),
                 cell(of(count, "restore", "instructions"), count),
                 cell(of(count, "dump", "calls")),
                 cell(of(count, "restore", "calls"), count),
                 number(median(of(count, "metadata", "bytes")) /
                        median(of(count, "records", "objects")))) for count in counts))
        yield ""


def migrrdma_adds(count):
    """What RDMA adds there"""
    if count not in papers.BLACKOUT:
        return "–"
    without, having = papers.BLACKOUT[count]
    return f"{having - without:.1f} ({100 * (having / without - 1):.1f})"


def frozen(rows):
    counts = sorted({row["qps"] for row in rows})
    times_of = ("dump frozen_time", "restore restore_time")

    def of(count, kind, what):
        return find(rows, qps=count, kind=kind, what=what)

    def adds(count):
        return sum(median(of(count, "with", what)) - median(of(count, "without", what))
                   for what in times_of) / 1000
    yield from table(
        ("QPs", "frozen, without RDMA", "with", "restored, without", "with", "RDMA adds",
         "in percent", "MigrRDMA: adds, ms (percent)"), (
            (str(count), *(cell(of(count, kind, what), 1000) for what in times_of
                           for kind in ("without", "with")), number(adds(count)),
             number(100000 * adds(count) / sum(median(of(count, "without", what))
                                               for what in times_of)),
             migrrdma_adds(count)) for count in counts))
    yield ""
    yield from table(
        ("QPs", "calls of dump, without RDMA", "with", "of restore, without", "with",
         "RDMA adds to restore, for a QP", "ioctls among them"), (
            (str(count), *(cell(of(count, kind, what)) for what in
                           ("dump calls", "restore calls") for kind in ("without", "with")),
             *(number((of(count, "with", what)[0] - of(count, "without", what)[0]) / count)
               for what in ("restore calls", "restore ioctl"))) for count in counts))


def hotpath(rows):
    names = list(dict.fromkeys(row["operation"] for row in rows if "operation" in row))
    yield from table(("64 bytes", "stock", "here", "ratio of the medians"), (
        (name, *(cell(find(rows, operation=name, driver=driver))
                 for driver in ("stock", "ours")),
         "{:.4f}".format(median(find(rows, operation=name, driver="ours")) /
                         median(find(rows, operation=name, driver="stock"))))
        for name in names))
    yield ""
    yield from table(("Machine code", "functions"), (
        (row["name"], cell(row["values"])) for row in rows if "operation" not in row))


def pairs(rows):
    return table(("Program", "unit", "stock", "here", "ratio, in pairs"), (
        (f"`{name}`", find_unit(rows, name),
         *(cell(find(rows, program=name, driver=driver)) for driver in
           ("stock", "ours", "ratio")))
        for name in dict.fromkeys(row["program"] for row in rows)))


def find_unit(rows, program):
    return next(row["unit"] for row in rows if row["program"] == program)


def in_flight(rows):
    cells = list(dict.fromkeys((row["requests"], row["bytes"]) for row in rows))
    return table(("Requests under way", "of bytes", "dump, thousands of instructions",
                  "restore"), (
        (number(count), number(size), *(cell(find(rows, requests=count, bytes=size, what=what))
                                        for what in ("dump frozen_time",
                                                     "restore restore_time")))
        for count, size in cells))


TITLES = {"runc": "runc, tar and ssh", "podman": "podman, tar and ssh",
          "criu": "criu (no container), tar and ssh", "migros": "`migros`, runc",
          "migros-podman": "`migros`, podman"}


def blackout(rows):
    ratios = {row["ratio"]: row for row in rows if "ratio" in row}
    yield from table(("Moved by", "a partner's QPs are Paused, ms", "ratio, in pairs"), (
        (TITLES[row["kind"]], cell(row["values"]),
         *(["–"] if row["kind"] not in ratios else
           [f"{cell(ratios[row['kind']]['values'])} of {TITLES[ratios[row['kind']]['of']]}"]))
        for row in rows if row.get("kind") in TITLES))
    yield ""
    yield from table(("Who", "what", "ms from the beginning of the checkpoint"), (
        (row["who"], row["step"], cell(row["values"])) for row in rows if "step" in row))
    yield ""
    yield f"Times of different hosts are known to {cell(find(rows, clocks=True))} ms."


def partners(rows):
    return table(("Partners", "their QPs are Paused, ms", "longest time without a completion, ms",
                  "another connection, completions per second: before", "meanwhile", "after"), (
        (str(count), *(cell(find(rows, partners=count, what=what)) for what in (
            "paused", "gap", "bystander before", "bystander meanwhile", "bystander after")))
        for count in dict.fromkeys(row["partners"] for row in rows)))


TABLES = {"dump-size": dump_size, "changes": changes, "objects": objects, "qps": qps,
          "frozen": frozen, "hotpath": hotpath, "pairs": pairs, "blackout": blackout,
          "in-flight": in_flight, "partners": partners}
