"""JSON for people that carries its own SHA-256, so that a damaged or edited file is known for one."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

DIGEST = "digest"


def digest_of(data: bytes | memoryview) -> str:
    """SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def seal(content: Mapping[str, Any]) -> bytes:
    """JSON of `content` with the SHA-256 of its canonical form as the last field.

    Raises:
        ValueError: a NaN or an infinity, for which JSON has no form.
    """
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    sealed = {**content, DIGEST: digest_of(canonical)}
    return (json.dumps(sealed, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def unseal(data: bytes) -> dict[str, Any]:
    """What `seal` was given, from its bytes.

    Raises:
        ValueError: the bytes are not exactly those that `seal` writes; the message says what is wrong.
    """
    try:
        content = json.loads(data.decode("utf-8"))
        digest = content.pop(DIGEST)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"damaged, not the JSON that was written ({error})") from error
    try:
        again = seal(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"damaged, not the JSON that was written ({error})") from error
    # byte by byte: an `e` in a number that became `E` leaves the content, and its digest, as they were
    if json.loads(again)[DIGEST] != digest or again != data:
        raise ValueError("damaged or edited (its digest does not fit its content)")
    return dict(content)
