"""Messages and states as bytes: tensors in safetensors, all else in JSON.

What is encoded is a nesting of mappings, lists, tuples, strings, numbers, booleans, ``None`` and
tensors, and comes back as it was: tuples as tuples, numbers as keys as numbers, NaN as NaN. The
bytes are one safetensors file whose metadata hold the JSON, so that nothing that is read can run
code and any tool of the field can open it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from federatedscope.core.errors import UserError
from federatedscope.core.message import Message, payload_bytes

__all__ = ["decode", "decode_message", "encode", "encode_message", "overhead"]

# One key marks what JSON has no form for; a mapping with such a key is written as pairs.
_TENSOR, _TUPLE, _PAIRS, _FLOAT = "$tensor", "$tuple", "$pairs", "$float"
_MARKS = (_TENSOR, _TUPLE, _PAIRS, _FLOAT)
# safetensors' names, for their lengths.
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.bool: "BOOL",
}
_FIELDS = ("msg_type", "sender", "receiver", "state", "timestamp", "strategy", "serial_num")
# What NumPy, PyTorch, safetensors and json say of contents that they have no form for.
_NO_FORM = (
    KeyError,
    NotImplementedError,
    RecursionError,
    RuntimeError,
    SafetensorError,
    ValueError,
)


def encode(content: Any) -> bytes:
    """A content as bytes.

    Parameters
    ----------
    content : object
        Tensors may be on any device and of any strides; NumPy's scalars become numbers, its arrays
        tensors.

    Raises
    ------
    TypeError
        Something in it is neither a tensor nor JSON; the message says where.
    """
    tensors: list[Tensor] = []
    try:
        text = json.dumps(_packed(content, tensors, "content"), allow_nan=False)
        # Copies: safetensors refuses tensors that share memory, as slices of one state do.
        copies = [t.detach().to("cpu", copy=True).contiguous() for t in tensors]
        return save({str(i): t for i, t in enumerate(copies)}, metadata={"content": text})
    except _NO_FORM as error:
        raise TypeError(f"something in the content cannot be encoded ({error})") from error


def decode(data: bytes) -> Any:
    """What :func:`encode` wrote; tensors are on the CPU.

    Raises
    ------
    UserError
        The bytes are damaged, or something else.
    """
    try:
        text = _header(data)["__metadata__"]["content"]
        return _unpacked(json.loads(text), load(data))
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{len(data)} bytes cannot be read as a message or a state ({error}). They were cut "
            "off, changed on the way, or written by something else."
        ) from error


def encode_message(message: Message) -> bytes:
    """A message with its addresses as bytes."""
    return encode({field: getattr(message, field) for field in (*_FIELDS, "content")})


def decode_message(data: bytes) -> Message:
    """What :func:`encode_message` wrote."""
    fields = decode(data)
    if not isinstance(fields, dict) or not {*_FIELDS, "content"} <= fields.keys():
        raise UserError("The bytes hold no message, but something else in the same format.")
    return Message(**{field: fields[field] for field in (*_FIELDS, "content")})


def overhead(message: Message) -> int:
    """Bytes that encoding adds to those of a message's tensors; the tensors are not copied.

    Exact where all tensors have one dtype, else to a few bytes.
    """
    tensors: list[Tensor] = []
    fields = {field: getattr(message, field) for field in (*_FIELDS, "content")}
    try:
        text = json.dumps(_packed(fields, tensors, "message"), allow_nan=False)
    except _NO_FORM as error:
        raise TypeError(f"something in {message} cannot be encoded ({error})") from error
    header: dict[str, Any] = {"__metadata__": {"content": text}}
    end = 0
    # In the order in which safetensors writes tensors of one dtype.
    for name in sorted(map(str, range(len(tensors)))):
        tensor = tensors[int(name)]
        start, end = end, end + payload_bytes(tensor)
        header[name] = {
            "dtype": _DTYPES.get(tensor.dtype, "F32"),
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    written = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + math.ceil(written / 8) * 8


def _header(data: bytes) -> dict[str, Any]:
    """The JSON that a safetensors file begins with."""
    header: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header


def _packed(value: Any, tensors: list[Tensor], where: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else {_FLOAT: str(value)}
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value.copy())
    if isinstance(value, Tensor):
        tensors.append(value)
        return {_TENSOR: len(tensors) - 1}
    if isinstance(value, Mapping):
        return _packed_mapping(value, tensors, where)
    if isinstance(value, list | tuple):
        items = [_packed(item, tensors, f"{where}[{i}]") for i, item in enumerate(value)]
        return items if isinstance(value, list) else {_TUPLE: items}
    raise TypeError(
        f"{where} is a {type(value).__name__}, which is neither a tensor nor JSON; send mappings, "
        "lists, strings, numbers and tensors"
    )


def _packed_mapping(value: Mapping[Any, Any], tensors: list[Tensor], where: str) -> Any:
    items = [(key, _packed(item, tensors, f"{where}[{key!r}]")) for key, item in value.items()]
    if all(isinstance(key, str) and key not in _MARKS for key, _ in items):
        return dict(items)
    return {_PAIRS: [[_packed(key, tensors, f"a key of {where}"), item] for key, item in items]}


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpacked(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[str(value[_TENSOR])]
    if _TUPLE in value:
        return tuple(_unpacked(item, tensors) for item in value[_TUPLE])
    if _FLOAT in value:
        return float(value[_FLOAT])
    if _PAIRS in value:
        return {_unpacked(k, tensors): _unpacked(item, tensors) for k, item in value[_PAIRS]}
    return {key: _unpacked(item, tensors) for key, item in value.items()}
