"""How each figure is drawn: (size, lines of gnuplot) of its rows."""

import papers
from figure import interval, median

GRID = ["set grid ytics lc rgb '#dddddd'", "set border 3", "set tics nomirror",
        "set key top left", "set style fill solid 0.8 border -1"]
OURS, THEIRS, MORE = "#1f77b4", "#bbbbbb", "#ff7f0e"


def block(name, lines):
    """Inline data"""
    return [f"${name} << EOD", *(" ".join(map(str, line)) for line in lines), "EOD"]


def point(row):
    """Median, and the ends of the interval"""
    low, high, _ = interval(row["values"])
    return median(row["values"]), low, high


def quoted(text):
    return '"' + text.replace("_", r"\\_") + '"'


def dump_size(rows):
    data = [(quoted(row["name"]), median(row["values"]),
             papers.DUMP_SIZE.get(row["name"], "NaN")) for row in rows]
    return "700,350", [
        *GRID, "set ylabel 'bytes in the dump, without rings'", "set style data histogram",
        "set style histogram clustered gap 1", "set yrange [0:*]", *block("data", data),
        f"plot $data using 3:xtic(1) lc rgb '{THEIRS}' title 'MigrOS, Table 1', "
        f"$data using 2 lc rgb '{OURS}' title 'here'"]


def changes(rows):
    data = [(quoted(row["name"]), median(row["values"])) for row in rows
            if row["name"] not in ("all", "driver")]
    return "800,350", [
        *GRID, "unset key", "set ylabel 'source lines'", "set style data histogram",
        "set xtics rotate by -15", "set yrange [0:*]", *block("data", data),
        f"plot $data using 2:xtic(1) lc rgb '{OURS}', "
        "$data using 0:2:2 with labels offset 0,0.7"]


def objects(rows):
    kinds = list(dict.fromkeys(row["object"] for row in rows if "object" in row))

    def of(kind, step):
        return next(point(row) for row in rows if row.get("object") == kind and
                    row["step"] == step and row["unit"] == "instructions")
    bars = [(quoted(kind.upper()), *(value for step in ("made", "dumped", "restored")
                                     for value in of(kind, step))) for kind in kinds]
    sizes = {step: [(row["bytes"], *point(row)) for row in rows
                    if row.get("bytes") and row["step"] == step]
             for step in ("made", "restored")}
    return "900,380", [
        *GRID, "set multiplot layout 1,2", "set logscale y", "set format y '10^{%T}'",
        "set ylabel 'instructions for an object'", "set style data histogram",
        "set style histogram errorbars gap 1 lw 1", "set key top left",
        *block("bars", bars),
        f"plot $bars using 2:3:4:xtic(1) lc rgb '{THEIRS}' title 'made by the program', "
        f"$bars using 5:6:7 lc rgb '{MORE}' title 'dumped', "
        f"$bars using 8:9:10 lc rgb '{OURS}' title 'restored'",
        *block("made", sizes["made"]), *block("restored", sizes["restored"]),
        "set logscale x 2", "set format x '%.0b%B'", "set xlabel 'size of an MR, bytes'",
        "set ylabel 'instructions'",
        f"plot $made using 1:2:3:4 with yerrorlines lc rgb '{THEIRS}' lw 2 "
        "title 'made by the program', $restored using 1:2:3:4 with yerrorlines "
        f"lc rgb '{OURS}' lw 2 title 'restored'", "unset multiplot"]


def series(rows, unit, **wanted):
    """Of each number of QPs: it, median, interval"""
    return [(row["qps"], *point(row)) for row in rows if row["unit"] == unit and
            all(row[key] == value for key, value in wanted.items())]


def qps(rows):
    depths = sorted({row["depth"] for row in rows}, reverse=True)
    lines, calls, data = [], [], []
    for number, depth in enumerate(depths):
        for step, color in (("dump", MORE), ("restore", OURS)):
            name = f"{step}{number}"
            data += block(name, [(n, *(value / n for value in values)) for n, *values in
                                 series(rows, "instructions", step=step, depth=depth)])
            lines.append(f"${name} using 1:2:3:4 with yerrorlines lc rgb '{color}' lw 2 "
                         f"dt {number + 1} title '{step}, queues of {depth}'")
    for step, color in (("dump", MORE), ("restore", OURS)):
        data += block(f"calls{step}", series(rows, "calls", step=step, depth=depths[0]))
        calls.append(f"$calls{step} using 1:2 with linespoints lc rgb '{color}' lw 2 "
                     f"title '{step}'")
    return "900,380", [
        *GRID, "set multiplot layout 1,2", "set logscale xy", "set logscale x 2",
        "set format y '10^{%T}'", "set xlabel 'QPs'", "set key top right",
        "set ylabel 'instructions for a QP'", *data, "plot " + ", ".join(lines),
        "set key top left", "set ylabel 'calls of the kernel, all'",
        "plot " + ", ".join(calls), "unset multiplot"]


def in_flight(rows):
    data, lines = [], []
    for what, title, color in (("dump frozen_time", "frozen by the dump", MORE),
                               ("restore restore_time", "restored", OURS)):
        name = what.split()[0]
        data += block(name, sorted((row["requests"] * row["bytes"], *(
            value / 1000 for value in point(row))) for row in rows if row["what"] == what))
        lines.append(f"${name} using 1:2:3:4 with yerrorlines lc rgb '{color}' lw 2 "
                     f"title '{title}'")
    return "700,350", [
        *GRID, "set logscale x 2", "set format x '%.0b%B'", "set xlabel 'bytes under way'",
        "set ylabel 'millions of instructions'", "set yrange [0:*]", *data,
        "plot " + ", ".join(lines)]


def frozen(rows):
    data, lines = [], []
    for what, title, color in (("dump frozen_time", "frozen by the dump", MORE),
                               ("restore restore_time", "restored", OURS)):
        for number, kind in enumerate(("with", "without")):
            name = what.split()[0] + kind
            data += block(name, [(n, *(value / 1000 for value in values)) for n, *values in
                                 series(rows, "us", kind=kind, what=what)])
            lines.append(f"${name} using 1:2:3:4 with yerrorlines lc rgb '{color}' lw 2 "
                         f"dt {number + 1} title '{title}, {kind} RDMA'")
    added = [(n, theirs[1] - theirs[0]) for n, theirs in papers.BLACKOUT.items()]
    found = {(row["qps"], row["kind"], row["what"]): median(row["values"])
             for row in rows if row["unit"] == "us"}
    counts = sorted({n for n, *_ in found})
    ours = [(n, sum(found[n, "with", what] - found[n, "without", what]
                    for what in ("dump frozen_time", "restore restore_time")) / 1000)
            for n in counts]
    return "900,380", [
        *GRID, "set multiplot layout 1,2", "set logscale xy", "set logscale x 2",
        "set xlabel 'QPs'", "set ylabel 'millions of instructions'", *data,
        "plot " + ", ".join(lines), *block("ours", ours), *block("theirs", added),
        "set ylabel 'what RDMA adds'",
        f"plot $ours using 1:2 with linespoints lc rgb '{OURS}' lw 2 "
        "title 'here, millions of instructions', $theirs using 1:2 with linespoints "
        f"lc rgb '{THEIRS}' lw 2 title 'MigrRDMA, Table 1, ms'", "unset multiplot"]


def hotpath(rows):
    names = list(dict.fromkeys(row["operation"] for row in rows if "operation" in row))

    def of(name, driver):
        return next(point(row) for row in rows if row.get("operation") == name and
                    row["driver"] == driver)
    data = [(quoted(name), *of(name, "stock"), *of(name, "ours")) for name in names]
    return "700,350", [
        *GRID, "set ylabel 'instructions for 64 bytes'", "set style data histogram",
        "set style histogram errorbars gap 1 lw 1", "set yrange [0:*]", "set key bottom right",
        *block("data", data),
        f"plot $data using 2:3:4:xtic(1) lc rgb '{THEIRS}' title 'stock', "
        f"$data using 5:6:7 lc rgb '{OURS}' title 'here'"]


def pairs(rows):
    data = [(quoted(row["program"]), *point(row)) for row in rows if row["driver"] == "ratio"]
    return "800,400", [
        *GRID, "unset key", "set ylabel 'ours / stock, one run'", "set yrange [0:2]",
        "set xtics rotate by -30", "set xrange [-0.5:*]", *block("data", data),
        f"plot $data using 0:2:3:4:xtic(1) with yerrorbars lc rgb '{OURS}' lw 2 pt 7, "
        "1 lc rgb 'black' dt 2"]


def blackout(rows):
    steps = [(number, *(value / 1000 for value in point(row)),
              quoted(f"{row['who']}: {row['step']}"))
             for number, row in enumerate(row for row in rows if "step" in row)]
    bars = [(quoted(row["kind"]), *point(row)) for row in rows if row.get("kind")]
    return "900,420", [
        *GRID, "unset key", "set multiplot", "set size 0.68,1",
        "set yrange [*:*] reverse", "set xlabel 's from the beginning of the checkpoint'",
        "set lmargin 30", *block("steps", steps),
        f"plot $steps using 2:1:3:4:ytic(5) with xerrorbars lc rgb '{OURS}' lw 2 pt 7",
        "set origin 0.68,0", "set size 0.32,1", "set lmargin 9", "set xtics rotate by -30",
        "set yrange [0:*] noreverse",
        "set ytics autofreq", "set xlabel ''", "set ylabel 'partner Paused, ms'",
        "set style data histogram", "set style histogram errorbars gap 1 lw 1",
        *block("bars", bars), f"plot $bars using 2:3:4:xtic(1) lc rgb '{OURS}'",
        "unset multiplot"]


def partners(rows):
    def of(what):
        return [(row["partners"], *point(row)) for row in rows if row["what"] == what]
    beside = (("before", THEIRS), ("meanwhile", MORE), ("after", OURS))
    return "900,380", [
        *GRID, "set multiplot layout 1,2", "set logscale x 2", "set xlabel 'partners'",
        "set yrange [0:*]", "set ylabel 'ms'", *block("paused", of("paused")),
        *block("gap", of("gap")),
        f"plot $paused using 1:2:3:4 with yerrorlines lc rgb '{OURS}' lw 2 title 'Paused', "
        f"$gap using 1:2:3:4 with yerrorlines lc rgb '{MORE}' lw 2 "
        "title 'without a completion'",
        *(line for when, _ in beside for line in block(when, of(f"bystander {when}"))),
        "set ylabel 'completions of another connection, 1/s'",
        "plot " + ", ".join(f"${when} using 1:2:3:4 with yerrorlines lc rgb '{color}' lw 2 "
                            f"title '{when}'" for when, color in beside), "unset multiplot"]


DRAWINGS = {"dump-size": dump_size, "changes": changes, "objects": objects, "qps": qps,
            "frozen": frozen, "hotpath": hotpath, "pairs": pairs, "blackout": blackout,
            "in-flight": in_flight, "partners": partners}
