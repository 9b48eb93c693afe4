"""The other host of a migration: commands over ssh, each a request and a reply.

The request is JSON on standard input of "migros agent VERB ID", the reply JSON on its
standard output. An answer of the agent is final; a lost connection says nothing, so every
verb can be sent again.
"""

import json
import os
import shlex
import subprocess
import sys

from journal import Failure
from gate import RUN

VERSION = 6


class Lost(Failure):
    """No answer: what the other host has done is not known."""


class Refused(Failure):
    """The other host says no; reply is all it said."""

    def __init__(self, text, reply):
        super().__init__(text)
        self.reply = reply


def ssh():
    """The options share one connection, and notice when it is dead."""
    return (f"ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=3 "
            f"-o ServerAliveCountMax=6 -o ControlMaster=auto -o ControlPersist=60 "
            f"-o ControlPath={RUN}/ssh-%C")


class Peer:
    """Another host"""

    def __init__(self, name, rsh=None, remote=None):
        self.name = name
        self.rsh = rsh or os.environ.get("MIGROS_RSH") or ssh()
        self.remote = remote or os.environ.get("MIGROS_REMOTE") or "migros"

    def _command(self, *words):
        line = shlex.join(words)
        return [*shlex.split(self.rsh), self.name,
                f'if [ "$(id -u)" = 0 ]; then {self.remote} {line}; '
                f"else sudo -n {self.remote} {line}; fi"]

    def call(self, verb, ident, wait=None, **request):
        """The reply of "migros agent VERB ID", which has so many seconds for it."""
        os.makedirs(RUN, mode=0o700, exist_ok=True)
        try:
            done = subprocess.run(self._command("agent", verb, ident), timeout=wait,
                                  input=json.dumps(request).encode(), check=False,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except subprocess.TimeoutExpired:
            raise Lost(f"host {self.name}: no answer for {wait:g} s", 3) from None
        return self._reply(done.stdout, done.stderr)

    def agree(self):
        """Refuse one that speaks another version."""
        version = self.call("hello", "-")["version"]
        if version != VERSION:
            raise Failure(f"host {self.name}: its migros speaks version {version}, this one "
                          f"{VERSION}; install the same on both")

    def send(self, ident, directory, verb="receive"):
        """Let it have a directory: the images of a migration, or another."""
        tar = subprocess.Popen(["tar", "-C", directory, "-c", "."],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        done = subprocess.run(self._command("agent", verb, ident),
                              stdin=tar.stdout, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        tar.stdout.close()
        failed = tar.wait()
        reply = self._reply(done.stdout, done.stderr)
        if failed:
            raise Failure(f"images {directory}: tar cannot read them")
        return reply

    def _reply(self, output, errors):
        try:
            reply = json.loads(output)
        except ValueError:
            said = errors.decode(errors="replace").strip().splitlines()
            raise Lost(f"host {self.name}: no answer"
                       f"{': ' + said[-1] if said else ''}", 3) from None
        if "error" in reply:
            raise Refused(f"host {self.name}: {reply['error']}", reply)
        return reply


def answer(function):
    """Run the agent's side; the exit status."""
    try:
        reply = function()
        status = 0
    except Failure as error:
        reply, status = {"error": str(error), **getattr(error, "reply", {})}, error.status
    except OSError as error:
        reply, status = {"error": str(error)}, 1
    print(json.dumps(reply), flush=True)
    return status


def request():
    return json.loads(sys.stdin.read() or "{}")
