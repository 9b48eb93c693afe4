"""What moves along with a container: addresses, and RDMA devices of its own."""

import address
import device
import journal


def _devices(record):
    return [device.Device(**each) for each in record.fields.get("made", [])]


def leave(record):
    """They are not of this host any more, or not yet."""
    for each in _devices(record):
        device.leave(each)
    for each in record.addresses:
        address.leave(each)


def stay_away():
    """A boot gives a host all addresses that it is configured to have, those of containers
    that have left, too: until the migration is forgotten they are elsewhere. What was taken
    from it, and how it gets that back"""
    last = {each: record for record in journal.records() for each in record.addresses}
    for each, record in last.items():
        if record.role == "source" and record.state in ("handed", "done") and \
                address.here(each):
            address.leave(each)
            yield f"address {each}: container {record.container} has left with it, so it was " \
                  f"removed here; 'migros forget {record.id}' lets this host have it"


def arrive(record):
    for each in _devices(record):
        device.arrive(each)
    # At the source there may be no other address of a network: it knows the device.
    names = {other: each.name for each in _devices(record) for other in each.addresses}
    if record.role == "source":
        names = dict(zip(record.addresses, record.devices))
    for each in record.addresses:
        address.arrive(each, names.get(each))
