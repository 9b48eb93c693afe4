"""What pairs of values of perftest, with the stock driver and with ours, say.

Ours is worse if three quarters of the ratios are: if the half of them in the middle lies
beyond WORSE as a whole. A tenth is what others pay at most (MigrRDMA, Table 2: 3 to 9 %
more cycles), and less is lost in the noise of virtual machines. Seven of ten ratios at
least have to be beyond it: if noise alone put a fifth of them there, that would be so in
one of a thousand programs. Fewer than ENOUGH pairs are not judged.
"""

import statistics

WORSE = 0.1
ENOUGH = 10


def unit(row):
    return "MB/s" if "_bw" in row else "us"


def quarters(ratios):
    return statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 \
        else [ratios[0]] * 3


def judge(row, stock, ours):
    """Is ours as good, and the line that says so; row: a program with its options"""
    low, middle, high = quarters([b / a for a, b in zip(stock, ours, strict=True)])
    good = len(stock) < ENOUGH or \
        (high >= 1 - WORSE if "_bw" in row else low <= 1 + WORSE)
    return good, (
        f"{row}: stock {statistics.median(stock):.4g} {unit(row)}, ours "
        f"{statistics.median(ours):.4g} {unit(row)}, ratio {middle:.3f} "
        f"({low:.3f} to {high:.3f}"
        f"{'' if len(stock) >= ENOUGH else f'; {len(stock)} of {ENOUGH}: not judged'})")
