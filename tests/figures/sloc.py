"""Source lines: not those that are empty, or comments only."""

import re

C = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|/\*.*?\*/|//[^\n]*', re.S)


def filled(text):
    return sum(bool(line.strip()) for line in text.splitlines())


def in_c(text):
    return filled(C.sub(lambda m: " " if m[0].startswith("/") else m[0], text))


def in_script(text):
    """Python, shell and make"""
    text = re.sub(r'^[ \t]*"""(?:[^"]|"(?!""))*"""', "", text, flags=re.M)
    return filled("".join(line for line in text.splitlines(True)
                          if not line.lstrip().startswith("#")))


def count(path, text=None):
    """Those of a file"""
    text = path.read_text() if text is None else text
    return in_c(text) if re.search(r"\.([chyl]|proto)$", path.name) else in_script(text)


def added(patch):
    """{file: text of the lines that a patch adds}; a changed line is an added one"""
    texts, name = {}, None
    for line in patch.read_text().splitlines():
        if line.startswith("+++ "):
            name = line[4:].split("\t")[0].removeprefix("b/")
        elif line.startswith("diff "):
            name = None
        elif name and line.startswith("+"):
            texts[name] = texts.get(name, "") + line[1:] + "\n"
    return texts
