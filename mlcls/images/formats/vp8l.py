"""Owns the beginning of lossless WebP data (RFC 9649, 3.4 to 3.6): how many groups of code tables they ask for.

A group's tables take kilobytes for as little as 20 bits of the file, and there may be 65,536 of them. Their number is
the largest value of a small picture that stands before the pixels; it is read here, and nothing after it.
"""

_ORDER = (
    17,
    18,
    0,
    1,
    2,
    3,
    4,
    5,
    16,
    6,
    7,
    8,
    9,
    10,
    11,
    12,
    13,
    14,
    15,
)  # of the lengths of the lengths' codes
_LITERALS, _LENGTHS, _DISTANCES = 256, 24, 40
_PREDICTOR, _COLOUR, _SUBTRACT_GREEN = 0, 1, 2  # transforms; 3 is the palette
MOST_SYMBOLS = 1_000_000  # of the small pictures: a writer's have a few thousand

_Code = dict[tuple[int, int], int]  # length and bits -> symbol


class _Reader:
    """Bits, the lowest of a byte first."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data, self.position, self.symbols = data, 0, 0

    def bits(self, count: int) -> int:
        value = 0
        for place in range(count):
            value |= (self.data[self.position >> 3] >> (self.position & 7) & 1) << place
            self.position += 1
        return value

    def symbol(self, code: _Code) -> int:
        self.symbols += 1
        if self.symbols > MOST_SYMBOLS:
            raise ValueError("the WebP has larger tables before its pixels than any writer makes")
        if len(code) == 1:
            return next(iter(code.values()))
        length = value = 0
        while length < 16:
            value = value << 1 | self.bits(1)
            length += 1
            found = code.get((length, value))
            if found is not None:
                return found
        raise ValueError("the WebP is damaged: a code in it stands for nothing")


def count_groups(data: bytes | memoryview, width: int, height: int) -> int:
    """How many groups of code tables the data ask for, 1 to 65,536.

    Args:
        data: of a VP8L chunk after its header of 5 bytes, or of an alpha chunk after its first.
        width, height: of the picture.

    Raises:
        ValueError, IndexError: the data are damaged, cut off, or larger before the pixels than any writer makes them.
    """
    reader = _Reader(data)
    while reader.bits(1):
        transform = reader.bits(2)
        if transform in (_PREDICTOR, _COLOUR):
            _largest_literal(reader, *_tiles(reader, width, height))
        elif transform != _SUBTRACT_GREEN:
            colours = reader.bits(8) + 1
            _largest_literal(reader, colours, 1)
            width = -(-width // (8 if colours <= 2 else 4 if colours <= 4 else 2 if colours <= 16 else 1))
    if reader.bits(1):  # a cache of colours
        reader.bits(4)
    if not reader.bits(1):
        return 1
    return _largest_literal(reader, *_tiles(reader, width, height)) + 1


def _tiles(reader: _Reader, width: int, height: int) -> tuple[int, int]:
    side = 1 << reader.bits(3) + 2
    return -(-width // side), -(-height // side)


def _largest_literal(reader: _Reader, width: int, height: int) -> int:
    """The largest red and green, as one number, of a small picture's pixels: copies repeat what literals brought."""
    cached = 1 << reader.bits(4) if reader.bits(1) else 0
    sizes = (_LITERALS + _LENGTHS + cached, _LITERALS, _LITERALS, _LITERALS, _DISTANCES)
    green, red, blue, alpha, distance = (_read_code(reader, size) for size in sizes)
    largest = done = 0
    while done < width * height:
        symbol = reader.symbol(green)
        if symbol < _LITERALS:
            largest = max(largest, reader.symbol(red) << 8 | symbol)
            reader.symbol(blue)
            reader.symbol(alpha)
            done += 1
        elif symbol < _LITERALS + _LENGTHS:
            done += _prefixed(reader, symbol - _LITERALS)
            _prefixed(reader, reader.symbol(distance))
        else:
            done += 1
    return largest


def _prefixed(reader: _Reader, prefix: int) -> int:
    """A length or a distance."""
    if prefix < 4:
        return prefix + 1
    extra = (prefix - 2) >> 1
    return ((2 + (prefix & 1)) << extra) + reader.bits(extra) + 1


def _read_code(reader: _Reader, size: int) -> _Code:
    if reader.bits(1):  # one symbol or two
        two, wide = reader.bits(1), reader.bits(1)
        symbols = [reader.bits(8 if wide else 1)]
        if two:
            symbols.append(reader.bits(8))
        return {(len(symbols) - 1, place): symbol for place, symbol in enumerate(symbols)}
    lengths = [0] * 19
    for place in range(4 + reader.bits(4)):
        lengths[_ORDER[place]] = reader.bits(3)
    code = _canonical(lengths)
    left = 2 + reader.bits(2 + 2 * reader.bits(3)) if reader.bits(1) else size
    found: list[int] = []
    previous = 8
    while len(found) < size and left:
        left -= 1
        length = reader.symbol(code)
        if length < 16:
            found.append(length)
            previous = length or previous
        elif length == 16:
            found += [previous] * (3 + reader.bits(2))
        else:
            found += [0] * (3 + reader.bits(3) if length == 17 else 11 + reader.bits(7))
    return _canonical(found[:size])


def _canonical(lengths: list[int]) -> _Code:
    """The codes in the order of their lengths and symbols, each the number after the one before."""
    used = sorted((length, symbol) for symbol, length in enumerate(lengths) if length)
    if not used:
        raise ValueError("the WebP is damaged: a code in it is empty")
    code: _Code = {}
    value, before = 0, used[0][0]
    for length, symbol in used:
        value <<= length - before
        code[length, value] = symbol
        value, before = value + 1, length
    return code
