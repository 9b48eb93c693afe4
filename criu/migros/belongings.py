"""What moves along with a container: addresses, and RDMA devices of its own."""

import address
import device


def _devices(record):
    return [device.Device(**each) for each in record.fields.get("made", [])]


def leave(record):
    """They are not of this host any more, or not yet."""
    for each in _devices(record):
        device.leave(each)
    for each in record.addresses:
        address.leave(each)


def arrive(record):
    for each in _devices(record):
        device.arrive(each)
    # At the source there may be no other address of a network: it knows the device.
    names = {other: each.name for each in _devices(record) for other in each.addresses}
    if record.role == "source":
        names = dict(zip(record.addresses, record.devices))
    for each in record.addresses:
        address.arrive(each, names.get(each))
