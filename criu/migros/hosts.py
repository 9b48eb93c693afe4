"""The other host of a migration: commands over ssh, each a request and a reply.

The request is JSON on standard input of "migros agent VERB ID", the reply JSON on its
standard output. An answer of the agent is final; a lost connection says nothing, so every
verb can be sent again. Agents for what comes while the container is frozen are started before
("prepare"), and wait: one that hears nothing before its connection ends does nothing.
"""

import contextlib
import json
import os
import shlex
import subprocess
import sys

from journal import Failure
from gate import RUN

VERSION = 8
# In front of what is no request but a tar
GO = b"go\n"


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
        self.prepared = {}

    def _command(self, *words):
        line = shlex.join(words)
        return [*shlex.split(self.rsh), self.name,
                f'if [ "$(id -u)" = 0 ]; then {self.remote} {line}; '
                f"else sudo -n {self.remote} {line}; fi"]

    def _agent(self, verb, ident):
        """One that waits for its input"""
        found = self.prepared.pop((verb, ident), None)
        if found and found.poll() is None:
            return found
        os.makedirs(RUN, mode=0o700, exist_ok=True)
        return subprocess.Popen(self._command("agent", verb, ident), stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def prepare(self, ident, *verbs):
        """Let agents start that are wanted later."""
        for verb in verbs:
            self.prepared[verb, ident] = self._agent(verb, ident)

    def call(self, verb, ident, wait=None, **request):
        """The reply of "migros agent VERB ID", which has so many seconds for it."""
        agent = self._agent(verb, ident)
        try:
            output, errors = agent.communicate(json.dumps(request).encode(), wait)
        except subprocess.TimeoutExpired:
            agent.kill()
            agent.communicate()
            raise Lost(f"host {self.name}: no answer for {wait:g} s", 3) from None
        return self._reply(output, errors)

    def agree(self):
        """Refuse one that speaks another version."""
        version = self.call("hello", "-")["version"]
        if version != VERSION:
            raise Failure(f"host {self.name}: its migros speaks version {version}, this one "
                          f"{VERSION}; install the same on both")

    def send(self, ident, directory, verb="receive"):
        """Let it have a directory: the images of a migration, or another."""
        agent = self._agent(verb, ident)
        with contextlib.suppress(BrokenPipeError):
            os.write(agent.stdin.fileno(), GO)
        tar = subprocess.Popen(["tar", "-C", directory, "-c", "."],
                               stdin=subprocess.DEVNULL, stdout=agent.stdin)
        agent.stdin.close()
        agent.stdin = None
        output, errors = agent.communicate()
        failed = tar.wait()
        reply = self._reply(output, errors)
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
    text = sys.stdin.read()
    if not text:
        raise Failure("agent: whoever has asked has gone")
    return json.loads(text)


def go():
    """A tar follows, of which nothing has been read."""
    said = b""
    while len(said) < len(GO):
        more = os.read(0, len(GO) - len(said))
        if not more:
            raise Failure("agent: whoever has asked has gone")
        said += more
    if said != GO:
        raise Failure("agent: this is no answer to it; do both hosts have the same migros?")
