"""What a check says of one thing: it is good, it will fail, or somebody should know."""

from collections import namedtuple

from journal import Failure

OK = "ok"
MIND = "mind"
NO = "no"


class Mind(Exception):
    """A migration works, but not as everybody would expect."""


class Finding(namedtuple("Finding", "subject state text host", defaults=[None])):
    """host is None for the one that asks."""

    def line(self):
        where = f"{self.host}: " if self.host else ""
        return f"{self.state:5} {where}{self.subject}: {self.text}"


def examine(subject, function, *arguments):
    """A finding by a function that returns a text, or raises Mind or Failure."""
    try:
        return Finding(subject, OK, function(*arguments) or "good")
    except Mind as error:
        return Finding(subject, MIND, str(error))
    except (Failure, OSError) as error:
        text = str(error)
        # The subject need not be said twice.
        return Finding(subject, NO, text.removeprefix(f"{subject}: "))
