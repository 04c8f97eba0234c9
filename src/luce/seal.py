"""A checksum at the end of an ONNX file that notices any changed byte.

The seal is one more metadata entry in the protobuf encoding of ONNX (concatenated messages merge), so a sealed file
is still a plain ONNX file. It covers every byte before it, and must itself be exactly as it is written here.
"""

from __future__ import annotations

import hashlib

from luce.errors import ModelError

KEY = "luce.sha256"
_FIELD = bytes([14 << 3 | 2])  # ModelProto.metadata_props


def _seal(body: bytes) -> bytes:
    value = hashlib.sha256(body).hexdigest().encode()
    entry = b"\x0a" + bytes([len(KEY)]) + KEY.encode() + b"\x12" + bytes([len(value)]) + value
    return _FIELD + bytes([len(entry)]) + entry


_LENGTH = len(_seal(b""))
_HEAD = _seal(b"")[: _LENGTH - 64]


def seal(body: bytes) -> bytes:
    """The serialised model with its seal."""
    return body + _seal(body)


def check(data: bytes) -> None:
    """Check the seal of a whole file.

    Raises:
        ModelError: without a path: there is no seal, or the bytes before it have changed.
    """
    body, found = data[:-_LENGTH], data[-_LENGTH:]
    if not found.startswith(_HEAD):
        raise ModelError("it was not written by Luce, or its end is missing or changed")
    if found != _seal(body):
        raise ModelError("it is damaged: its bytes do not match its checksum")
