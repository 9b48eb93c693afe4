"""Messages of protobuf, and files of them as criu and its plugin write them."""

import struct


class Damaged(Exception):
    """It cannot be read; why not."""


def _number(data, pos):
    value = shift = 0
    while True:
        if pos >= len(data) or shift > 63:
            raise Damaged("a number in it has no end: it is damaged")
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, pos


def message(data):
    """Field number: list of its values, which are int or bytes"""
    fields, pos = {}, 0
    while pos < len(data):
        key, pos = _number(data, pos)
        if key & 7 == 0:
            value, pos = _number(data, pos)
        else:
            length = {1: 8, 5: 4}.get(key & 7)
            if key & 7 == 2:
                length, pos = _number(data, pos)
            if length is None or length > len(data) - pos:
                raise Damaged("a message in it is cut off, or damaged")
            value = bytes(data[pos:pos + length])
            pos += length
        fields.setdefault(key >> 3, []).append(value)
    return fields


def get(fields, number, kind=int, default=None):
    """The value of a field, which is required unless there is a default"""
    value = fields.get(number, [default])[-1]
    if value is None:
        raise Damaged(f"a message in it lacks field {number}")
    if value is not default and not isinstance(value, kind):
        raise Damaged(f"a message in it has another type of field {number}")
    return value


def each(fields, number, kind=int):
    """The values of a repeated field"""
    found = fields.get(number, [])
    if not all(isinstance(value, kind) for value in found):
        raise Damaged(f"a message in it has another type of field {number}")
    return found


def entries(data, magic):
    """The messages of a file, each behind its length"""
    if len(data) < 4 or struct.unpack_from("<I", data)[0] != magic:
        raise Damaged("it does not begin as such an image does")
    pos = 4
    while pos < len(data):
        if len(data) - pos < 4:
            raise Damaged("it is cut off")
        length, = struct.unpack_from("<I", data, pos)
        pos += 4
        if length > len(data) - pos:
            raise Damaged("it is cut off")
        yield message(data[pos:pos + length])
        pos += length
