"""Hosts change between the driver of the distribution and ours, without a reboot.

VARIANT: another build than "migros", a word or a directory of scripts/module.
"""

import os
import subprocess
from pathlib import Path

TOP = Path(os.environ["TOP"])
LOAD = """\
[ ! -d /sys/module/rdma_rxe ] || modprobe -r rdma_ucm rdma_rxe || exit
modprobe -a ib_uverbs ip6_udp_tunnel udp_tunnel crc32_generic &&
{load} && rdma link add rxe0 type rxe netdev eth0
"""


def testbed(*words):
    return subprocess.run([TOP / "scripts" / "testbed", *words], check=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          text=True).stdout


def prepare(*hosts):
    """They can load ours afterwards."""
    variant = os.environ.get("VARIANT", "migros")
    built = subprocess.run([TOP / "scripts" / "module", variant], check=True,
                           stdout=subprocess.PIPE, text=True).stdout.strip()
    for host in hosts:
        testbed("copy", f"{built}/rdma_rxe.ko", f"{host}:/tmp/rdma_rxe.ko")


def load(driver, *hosts):
    """driver is "stock" or "ours"."""
    command = "modprobe rdma_rxe" if driver == "stock" else \
        "insmod /tmp/rdma_rxe.ko"
    for host in hosts:
        testbed("exec", host, LOAD.format(load=command))


def turns(number):
    """Neither is always the first."""
    return ("stock", "ours")[::-1 if number % 2 else 1]
