"""What two images of one container differ in, object by object, in the words of "migros
inspect". What is not shown there is compared, too."""

import json

from show import plain


def _flat(value, path=""):
    """(path, value) of each field; lists are one"""
    if not isinstance(value, dict):
        yield path, value
        return
    for name, each in value.items():
        yield from _flat(each, f"{path}.{name}" if path else name)


def _change(where, name, field, one, other):
    return {"context": where, "object": name, "change": "changed", "field": field,
            "from": one, "to": other}


def _whole(where, name, change, value=None):
    """Something that only one has"""
    here, there = (value, None) if change == "removed" else (None, value)
    return {"context": where, "object": name, "change": change, "field": None,
            "from": here, "to": there}


def _fields(where, name, one, other):
    one, other = dict(_flat(one)), dict(_flat(other))
    for field in {**one, **other}:
        if one.get(field) != other.get(field):
            yield _change(where, name, field, one.get(field), other.get(field))


def _objects(where, one, other):
    ours = {each.key: each for each in (one.context, *one.objects)}
    theirs = {each.key: each for each in (other.context, *other.objects)}
    for key, item in ours.items():
        if key not in theirs:
            yield _whole(where, item.name, "removed", plain(item))
            continue
        yield from _fields(where, item.name, plain(item), plain(theirs[key]))
        for name, value in item.hidden.items():
            if value != theirs[key].hidden[name]:
                yield _change(where, item.name, name, None, None)
    for key, item in theirs.items():
        if key not in ours:
            yield _whole(where, item.name, "added", plain(item))


def _numbers(context):
    """What nobody else has on a device"""
    return {each.key for each in context.snapshot.objects
            if each.kind in ("MR", "SRQ", "AH", "QP", "MW")}


def _pairs(ours, theirs):
    """Contexts that have most objects in common; None where there is no other"""
    ours, theirs = list(ours), list(theirs)
    alike = [(len(_numbers(one) & _numbers(other)), one.number == other.number, one, other)
             for one in ours for other in theirs]
    for number, same, one, other in sorted(alike, key=lambda each: each[:2], reverse=True):
        if (number or same) and one in ours and other in theirs:
            ours.remove(one)
            theirs.remove(other)
            yield one, other
    yield from ((one, None) for one in ours)
    yield from ((None, other) for other in theirs)


def _listed(what, key, ours, theirs):
    """Of processes and files"""
    ours = {each[key]: each for each in ours}
    theirs = {each[key]: each for each in theirs}
    for name in sorted({**ours, **theirs}):
        one, other = ours.get(name), theirs.get(name)
        if one and other:
            yield from _fields(None, f"{what} {name}", one, other)
        else:
            yield _whole(None, f"{what} {name}", "removed" if one else "added", one or other)


def differences(one, other):
    """A list of them"""
    found = list(_fields(None, "images", {"version": one.version, "state": one.state},
                         {"version": other.version, "state": other.state}))
    found += _listed("process", "pid", one.processes, other.processes)
    for ours, theirs in _pairs(one.contexts, other.contexts):
        where = (ours or theirs).number
        if not (ours and theirs):
            found.append(_whole(where, "context", "removed" if ours else "added"))
            continue
        found += _fields(where, "context", *(
            {"device": each.device, "processes": each.processes, "mappings": each.mappings,
             "page_size": each.snapshot.page_size} for each in (ours, theirs)))
        found += _objects(where, ours.snapshot, theirs.snapshot)
    return found + list(_listed("file", "id", one.files, other.files))


def _text(value):
    if isinstance(value, list) and value and not isinstance(value[0], dict):
        return " ".join(map(str, value))
    if isinstance(value, list):
        return str(len(value))
    return "none" if value is None else json.dumps(value).strip('"')


def line(each):
    """For people"""
    where = "" if each["context"] is None else f"context {each['context']} "
    name = f"{where}{each['object']}" if each["object"] != "context" else where.strip()
    if not each["field"]:
        return f"{each['change']:8} {name}"
    if each["from"] is None and each["to"] is None:
        return f"{each['change']:8} {name}: {each['field']}, not shown"
    here, there = _text(each["from"]), _text(each["to"])
    if here == there:
        there += ", others"
    return f"{each['change']:8} {name}: {each['field']} {here} -> {there}"
