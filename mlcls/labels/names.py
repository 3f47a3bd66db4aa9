"""Owns which characters a name may hold: of an image, an attribute, a column."""

import re
from typing import Final

# Control characters but for tabs and line breaks: what a terminal would obey when the name is shown, and NUL, which
# ends a name for the system. Halves of surrogate pairs, as JSON may have them: no file in UTF-8 can hold these.
_REFUSED: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def find_refused(name: str) -> str | None:
    """The first character that no name may hold, as people write it (`\\x1b`); None where all are fine."""
    if name.isprintable():  # nearly all are: much quicker
        return None
    found = _REFUSED.search(name)
    return None if found is None else ascii(found[0])[1:-1]


def shown(name: str) -> str:
    """The name as it may stand in a message, with what it may not hold written out."""
    return _REFUSED.sub(lambda found: ascii(found[0])[1:-1], name)
