"""Whether the partners of a container's connections can be reached, without a word to the
connections themselves"""

import ipaddress
import re
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

from findings import Mind, examine
from journal import Failure

ROCE_PORT = 4791
# The most that is behind the UDP header of a packet of an RC connection beside its payload:
# BTH, RETH, ImmDt, ICRC
RC_HEADERS = 12 + 16 + 4 + 4


def _all(function, partners):
    """At the same time: one that does not answer takes seconds."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(function, partners))


def _greet(partner):
    """OSError if its host refuses RoCE or cannot be reached: one byte, which rxe drops"""
    family = socket.AF_INET6 if ipaddress.ip_address(partner).version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as line:
        line.settimeout(0.3)
        line.connect((partner, ROCE_PORT))
        line.send(b"\0")
        try:
            line.recv(1)
        except TimeoutError:
            pass


def _refuses(partner):
    try:
        _greet(partner)
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False


def refusing(partners):
    """Those whose host refuses RoCE from here"""
    return [each for each, no in zip(partners, _all(_refuses, partners)) if no]


def _ping(partner, size):
    done = subprocess.run(["ping", "-n", "-q", "-c", "2", "-i", "0.2", "-W", "2", "-M", "do",
                           "-s", str(size), partner], check=False, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    match = re.search(r"(\d+) received", done.stdout)
    return bool(match and int(match[1]))


def _look(partner, has, told):
    try:
        _greet(partner)
    except ConnectionRefusedError:
        if partner in has["refusing"]:
            raise Mind(f"its host refuses UDP port {ROCE_PORT} from here, as from the source: "
                       "whether RoCE gets there is not known") from None
        raise Failure(f"its host refuses UDP port {ROCE_PORT} from here, not from the source: "
                      "look for a firewall") from None
    except OSError as error:
        if told:
            raise Failure(f"it cannot be reached from here: {error.strerror}; it has to be told "
                          "of a new address: look for a route") from None
        # It may be moving itself.
        raise Mind(f"it cannot be reached from here: {error.strerror}") from None
    size = (has["mtu"] or 1024) + RC_HEADERS
    small = False
    # Twice: a busy host may lose something.
    for _ in range(2):
        if _ping(partner, size):
            return f"{size} bytes get there"
        small = small or _ping(partner, 8)
    if small:
        raise Failure(f"packets with {size} bytes do not get there from here, small ones do; "
                      "look for a smaller MTU on the way")
    raise Mind("it does not answer to a ping from here; whether packets of full size get "
               "there is not known")


def findings(partners, has, told):
    """Of each partner, from the destination; has: inventory.take() of the source; told:
    whether they have to be told of another address"""
    return _all(lambda each: examine(f"partner {each}", _look, each, has, told), partners)
