"""The RDMA driver of this host."""

from pathlib import Path

from journal import Failure

MODULE = Path("/sys/module/rdma_rxe")


def check():
    """Refuse one that cannot restore what a container has, or is not there."""
    if any(MODULE.glob("parameters/mig_*")):
        return
    if not MODULE.exists():
        raise Failure("driver rdma_rxe: it is not loaded; 'modprobe rdma_rxe', and add "
                      "the device")
    raise Failure("driver rdma_rxe: the one that is loaded does not know migrations; "
                  "'modinfo -n rdma_rxe' tells which one the next 'modprobe' takes")
