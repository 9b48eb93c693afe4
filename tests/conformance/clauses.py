"""How a case names what it tests."""

CASES = []


class Case:
    """A function that speaks to the endpoint, and the clauses it tests."""

    def __init__(self, function):
        self.function, self.clauses = function, []

    @property
    def name(self):
        return f"{self.clauses[0][0]}/{self.function.__name__}"


def clause(name, requirement):
    """The case below tests this clause of docs/protocol.md, which has that
    sentence (white space apart). A case can test several."""
    def register(function):
        if not CASES or CASES[-1].function is not function:
            CASES.append(Case(function))
        CASES[-1].clauses.insert(0, (name, requirement))
        return function
    return register
