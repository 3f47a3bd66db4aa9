"""Tensors as a safetensors file, piece by piece from where they lie: no second copy of them is made.

The layout is that of https://github.com/huggingface/safetensors#format: the header's length in 8 bytes, the header in
JSON, the tensors' bytes one after the other. `safetensors.torch.save` makes the same, with two copies of all of it.
"""

import json
import struct
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
PIECE = 1 << 22  # bytes: smaller tensors are gathered into pieces of about this size


def pieces_of(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The bytes of the file, in order.

    Args:
        tensors: on the CPU, of the dtypes in `DTYPES`.

    Raises:
        KeyError: another dtype.
    """
    # the widest first, as the library orders them, so that each is aligned to its own size
    order = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header, end = {}, 0
    for name, tensor in order:
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    gathered = bytearray(struct.pack("<Q", len(text)) + text)
    for _, tensor in order:
        flat: NDArray[np.uint8] = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        data = flat.data
        if len(data) < PIECE:
            gathered += data
        if len(data) >= PIECE or len(gathered) >= PIECE:
            if gathered:
                yield bytes(gathered)
            gathered = bytearray()
        if len(data) >= PIECE:
            yield data
    if gathered:
        yield bytes(gathered)
