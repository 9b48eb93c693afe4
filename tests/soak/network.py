"""What the network does to RoCE packets that a host sends."""

import random

# To each alone, and all at once
TROUBLES = ("loss 5%", "duplicate 5%", "corrupt 1%", "delay 50ms 40ms",
            "delay 5ms reorder 25% 50%",
            "delay 50ms 40ms loss 5% duplicate 5% corrupt 1% reorder 25%")

# Port 4791 of both IPs goes to the second band, where the trouble is.
SETUP = """modprobe -a sch_prio sch_netem cls_u32
tc qdisc add dev eth0 root handle 1: prio bands 2 \
    priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
tc filter add dev eth0 parent 1: protocol ip prio 1 u32 \
    match ip dport 4791 0xffff flowid 1:2
tc filter add dev eth0 parent 1: protocol ipv6 prio 2 u32 \
    match ip6 dport 4791 0xffff flowid 1:2
"""


def steady(trouble):
    """A shell script that lets it last until CALM"""
    return f"{SETUP}tc qdisc add dev eth0 parent 1:2 netem limit 10000 {trouble}"


def weather(draw: random.Random):
    """A shell script that goes through changing troubles until it is killed."""
    script = [SETUP, "echo $$ >/tmp/weather", "while :; do"]
    for _ in range(8):
        script.append("tc qdisc del dev eth0 parent 1:2 2>/dev/null")
        if draw.random() < 0.7:
            script.append("tc qdisc add dev eth0 parent 1:2 netem limit 10000 "
                          + draw.choice(TROUBLES))
        script.append(f"sleep {draw.uniform(0.2, 6):.2f}")
    script.append("done")
    return "\n".join(script)


# Everything arrives again.
CALM = """[ ! -e /tmp/weather ] || kill $(cat /tmp/weather)
rm -f /tmp/weather
! tc qdisc show dev eth0 root | grep -q prio || tc qdisc del dev eth0 root"""
