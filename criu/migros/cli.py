"""migros: moves containers that use RDMA to another host."""

import argparse
import json
import signal
import sys

import admit as admission
import belongings
import check as checks
import connections
import destination
import device
import differences
import hosts
import images
import journal
import recovery
import show
import source
from findings import NO
from journal import Failure
from runtimes import RUNTIMES

EPILOG = """exit status: 0 it is done; 1 it failed, and the container runs on, or images differ;
2 wrong use, or an image that cannot be read; 3 the container is an image, "migros recover"
finishes; 4 somebody has to look; 130 a signal came, and the container runs on"""


def connect(options):
    return lambda name: hosts.Peer(name, options.rsh, options.remote)


def migrate(options):
    if options.dry_run:
        return check(options)
    source.migrate(options, connect(options)(options.host))
    return 0


def check(options):
    found = checks.check(options, connect(options))
    if options.json:
        print(json.dumps([each._asdict() for each in found], indent=1))
    else:
        for each in found:
            print(each.line())
    return int(any(each.state == NO for each in found))


def recover(options):
    recovery.recover(options, connect(options))


def held(options):
    found = connections.connections(options.all)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    for each in found:
        print(connections.line(each))


def status(options):
    if options.connections:
        held(options)
        return
    found = [{"id": record.id, **record.fields} for record in journal.records()
             if options.all or not record.ended]
    if options.json:
        print(json.dumps(found, indent=1))
        return
    for each in found:
        print(f"{each['id']}  {each['role']:11}  {each['state']:11}  "
              f"{each['container']}  {each.get('peer', '')}".rstrip())


def _load(name):
    """diff has 1 for another purpose."""
    try:
        return images.load(name)
    except Failure as error:
        raise Failure(str(error), 2) from None
    except OSError as error:
        raise Failure(f"{error.filename or name}: {error.strerror or error}", 2) from None


def _print(lines):
    # Whoever reads them may have seen enough.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for each in lines:
        print(each)


def inspect(options):
    found = _load(options.image)
    if options.json:
        _print([json.dumps(show.json(found), indent=1)])
    else:
        _print(show.lines(found, options.verbose))


def diff(options):
    found = differences.differences(_load(options.image), _load(options.other))
    if options.json:
        _print([json.dumps(found, indent=1)])
    else:
        _print(map(differences.line, found))
    return int(bool(found))


def devices(options):
    if options.act == "add":
        print(device.add(options.name, options.address, options.on))
    elif options.act == "del":
        device.delete(options.name)
    elif options.act == "up":
        errors = device.up()
        try:
            for each in belongings.stay_away():
                source.tell(f": {each}")
        except (Failure, OSError) as error:
            errors.append(str(error))
        if errors:
            raise Failure("\nmigros: ".join(errors))
    elif options.json:
        print(json.dumps(device.state(), indent=1))
    else:
        for each in device.state():
            print(device.line(each))


def forget(options):
    recovery.forget(options.id)


def admit(_):
    return admission.main()


def agent(options):
    return hosts.answer(lambda: destination.act(options.verb, options.ident))


def seconds(text):
    """As an argument: more than none, and an end"""
    value = float(text)
    if not 0 < value <= 1e6:
        raise ValueError
    return value


def parse(words):
    parser = argparse.ArgumentParser(prog="migros", description=__doc__, epilog=EPILOG)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    def remote(sub):
        sub.add_argument("--rsh", metavar="COMMAND", help="instead of ssh")
        sub.add_argument("--remote", metavar="PATH", help="of migros at the other host")
        sub.add_argument("--timeout", metavar="SECONDS", type=seconds, default=120,
                         help="how long the checkpoint, and the restore, may take (120)")

    def move(sub):
        sub.add_argument("--runtime", choices=list(RUNTIMES),
                         help="the one that has a container of this name, unless both do")
        way = sub.add_mutually_exclusive_group()
        way.add_argument("--keep-ip", metavar="ADDRESS", action="append", default=[],
                         help="an address of this host that moves along")
        way.add_argument("--new-ip", action="store_true",
                         help="its connections take an address of the other host")
        sub.add_argument("--copy", metavar="DIRECTORY", action="append", default=[],
                         help="what the container has written, unless the hosts share it")
        remote(sub)

    sub = verbs.add_parser("check", help="can it be moved, and why not? Of this host, a "
                           "container, and another host, whatever is given")
    sub.add_argument("container", nargs="?", metavar="CONTAINER|PID")
    sub.add_argument("host", nargs="?")
    sub.add_argument("--json", action="store_true")
    move(sub)
    sub.set_defaults(run=check)

    sub = verbs.add_parser("migrate", help="move a container to another host")
    sub.add_argument("container")
    sub.add_argument("host", help="where ssh gets to as root, or as a user with sudo")
    sub.add_argument("--dry-run", action="store_true", help="do as check does")
    move(sub)
    sub.set_defaults(run=migrate, json=False)

    sub = verbs.add_parser("recover", help="finish or abandon a migration")
    sub.add_argument("id", nargs="?", help="the only one, if it is not given")
    way = sub.add_mutually_exclusive_group()
    way.add_argument("--back", action="store_true", help="to this host, its source")
    way.add_argument("--to", metavar="HOST", help="to a third host")
    way.add_argument("--source-is-gone", action="store_true",
                     help="the other host will never restore it")
    sub.add_argument("--believe-images", action="store_true",
                     help="nothing of the container is alive on any host")
    remote(sub)
    sub.set_defaults(run=recover)

    sub = verbs.add_parser("status", help="migrations that have not ended")
    sub.add_argument("--connections", action="store_true", help="instead: connections of "
                     "this host that a migration holds, its own or their partner's")
    sub.add_argument("--all", action="store_true", help="the others, too")
    sub.add_argument("--json", action="store_true")
    sub.set_defaults(run=status)

    sub = verbs.add_parser("inspect", help="what is in an image, and what a destination needs")
    sub.add_argument("image", help="a directory of criu's images, an archive of podman, or "
                     "the ID of a migration")
    sub.add_argument("-v", "--verbose", action="store_true", help="each object, too")
    sub.add_argument("--json", action="store_true")
    sub.set_defaults(run=inspect)

    sub = verbs.add_parser("diff", help="what two images of a container differ in")
    sub.add_argument("image")
    sub.add_argument("other")
    sub.add_argument("--json", action="store_true")
    sub.set_defaults(run=diff)

    sub = verbs.add_parser("forget", help="remove what is known of a migration that has "
                           "ended: the container may be started here again")
    sub.add_argument("id")
    sub.set_defaults(run=forget)

    sub = verbs.add_parser("device", help="RDMA devices of their own for containers")
    acts = sub.add_subparsers(required=True, metavar="ACT", dest="act")
    act = acts.add_parser("add", help="make one, and print its device file")
    act.add_argument("name")
    act.add_argument("--address", metavar="ADDRESS/PREFIX", action="append", required=True)
    act.add_argument("--on", metavar="NETDEV", required=True,
                     help="the network device through which it sends")
    act = acts.add_parser("del", help="remove it")
    act.add_argument("name")
    act = acts.add_parser("list", help="all, and who has them open")
    act.add_argument("--json", action="store_true")
    acts.add_parser("up", help="after a boot: make them again, and "
                    "give up the addresses of containers that have left")
    sub.set_defaults(run=devices)

    sub = verbs.add_parser("admit", help="for runtimes: may a container be created here?")
    sub.set_defaults(run=admit)

    sub = verbs.add_parser("agent", help="for the other host")
    sub.add_argument("verb")
    sub.add_argument("ident")
    sub.set_defaults(run=agent)
    return parser.parse_args(words)


def main():
    options = parse(sys.argv[1:])
    try:
        return options.run(options) or 0
    except Failure as error:
        source.tell(f": {error}")
        return error.status
    except OSError as error:
        source.tell(f": {error}")
        return 1
    except KeyboardInterrupt:
        return source.INTERRUPTED
