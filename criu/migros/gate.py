"""Between criu and a migration: criu asks whether the container may die.

criu runs "hook" as its action script. After the images are written, and before a
process is killed, it asks the migration whose container this is, at a socket named by
the pid of the container's init. If that migration is not there any more, or says no, the
hook fails, and the container runs on. Without a socket there is no migration: somebody
else makes a checkpoint.
"""

import os
import select
import socket
import sys

CONF = os.environ.get("MIGROS_CRIU_CONF", "/etc/criu/runc.conf")
HOOK = os.path.join(os.path.dirname(os.path.realpath(__file__)), "hook")
# What does not outlive a boot
RUN = os.environ.get("MIGROS_RUNDIR", "/run/migros")
GO = b"go\n"


def path(pid):
    return f"{RUN}/gate-{pid}"


def installed():
    """Whether criu will ask, when a runtime runs it"""
    try:
        with open(CONF, encoding="utf-8") as file:
            lines = [line.split() for line in file]
    except FileNotFoundError:
        return False
    return any(words[:1] == ["action-script"] and os.path.realpath(words[1]) == HOOK
               for words in lines if len(words) == 2)


def hook():
    """The action script, for a container that migrates; its exit status"""
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(path(os.environ["CRTOOLS_INIT_PID"]))
            while data := line.recv(4096):
                answer += data
    except OSError as error:
        answer = f"its migration has died: {error.strerror}".encode()
    if answer == GO:
        return 0
    print("migros: the container runs on:",
          answer.decode(errors="replace").strip() or "its migration has died",
          file=sys.stderr)
    return 1


class Gate:
    """The other side: waits for the hook of one container."""

    def __init__(self, pid):
        os.makedirs(RUN, mode=0o700, exist_ok=True)
        self.place = path(pid)
        self.open()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.place)
        self.listener.listen(1)
        self.line = None

    def asked(self, checkpoint, limit=None):
        """Wait for criu to ask; False if the checkpoint comes to its end instead, None if
        neither happens for so many seconds."""
        ready, _, _ = select.select([self.listener, checkpoint], [], [], limit)
        if not ready:
            return None
        if self.listener not in ready:
            return False
        self.line, _ = self.listener.accept()
        return True

    def _answer(self, text):
        with self.line:
            self.line.sendall(text)
        self.line = None

    def go(self):
        """Let criu kill the container."""
        self._answer(GO)

    def shut(self, reason):
        """Whatever criu asks from now on, the container runs on."""
        self.listener.close()
        if self.line:
            try:
                self._answer(" ".join(str(reason).split()).encode() + b"\n")
            except OSError:
                pass

    def open(self):
        """criu need not ask any more."""
        try:
            os.unlink(self.place)
        except FileNotFoundError:
            pass


# Nothing else is loaded: the container is frozen.
if __name__ == "__main__":
    sys.exit(hook())
