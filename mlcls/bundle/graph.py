"""Owns the look into `model.onnx` before any runtime opens it: all of it is in the file, and of ONNX's own operators.

An ONNX model may name other files that its weights lie in, and, to ONNX Runtime, addresses in memory; it may use
operators of other makers than ONNX. A bundle comes from anywhere, so a model that does any of this is refused. What
the bytes mean is read here, from the messages of onnx.proto: the `onnx` package takes longer to import than a
prediction takes, and older runtimes follow what newer ones refuse.
"""

from collections.abc import Iterator
from typing import Final

# kinds of messages by the numbers of their fields, as far as a tensor or an operator may lie within
_MODEL: Final = {7: "graph", 20: "training", 25: "function"}
_GRAPH: Final = {1: "node", 5: "tensor", 15: "sparse"}
_FIELDS: Final[dict[str, dict[int, str]]] = {
    "model": _MODEL,
    "graph": _GRAPH,
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse",
        23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
# the field ir_version, which every writer puts first; other formats begin otherwise
_FIRST_BYTE: Final = 0x08
_DEEPEST: Final = 100  # messages in messages, as protobuf's own readers have it
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
# the fields that say which operator a node is of, or a function defines: domain and name
_OPERATOR: Final = {"node": (7, 4), "function": (10, 1)}
_OWN_DOMAINS: Final = (b"", b"ai.onnx")
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5

Operator = tuple[bytes, bytes]


def check_graph(model: bytes) -> None:
    """Make sure that a model is ONNX, whole in itself, and made of ONNX's own operators and functions of these.

    Raises:
        ValueError: it is not; in half a sentence what was found.
    """
    if model[:1] != bytes([_FIRST_BYTE]):
        raise ValueError("it does not begin as an ONNX model does")
    used: set[Operator] = set()
    defined: set[Operator] = set()
    _walk(memoryview(model), "model", 0, used, defined)
    foreign = {one for one in used if one[0] not in _OWN_DOMAINS} - defined
    if foreign:
        domain, operator = (part.decode("utf-8", "replace") for part in sorted(foreign)[0])
        raise ValueError(f"it uses the operator {operator!r} of {domain!r}, which is not one of ONNX's own")


def _walk(message: memoryview, kind: str, depth: int, used: set[Operator], defined: set[Operator]) -> None:
    """Look at a message and those within it; note the operators that are used, and those that it defines itself."""
    if depth > _DEEPEST:
        raise ValueError("its graphs lie within each other without end")
    inner, naming = _FIELDS[kind], _OPERATOR.get(kind, ())
    named = dict.fromkeys(naming, b"")
    for number, value in _fields(message):
        if kind == "tensor":
            if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0):
                raise ValueError("it keeps weights outside of itself, and a bundle's model is one file")
        elif isinstance(value, memoryview):
            if number in inner:
                _walk(value, inner[number], depth + 1, used, defined)
            elif number in named:
                named[number] = bytes(value)
    if naming:
        domain, name = (named[number] for number in naming)
        (used if kind == "node" else defined).add((domain, name))


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The number and the value of each field of a message: a number, or the bytes of all else."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(message, at)
        elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if wire == _EIGHT_BYTES else 4
        else:
            raise ValueError("its bytes are no ONNX model")
        if length > end - at or not number:
            raise ValueError("its bytes are no ONNX model, or not all of one")
        yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A whole number of one to ten bytes, and where the next field's bytes begin."""
    value = shift = 0
    for byte in message[at : at + 10]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("its bytes are no ONNX model, or not all of one")
