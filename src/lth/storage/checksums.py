"""Checksums inside files, so that a changed bit is noticed when the file is read. This module imports nothing of lth.

The checksum ("seal" in the files) is the SHA-256 of the whole file with 64 zeros in place of the checksum. It is stored
in the first lines of a TOML file, in a key of a JSON object, or in the metadata of a safetensors file. Old files have
none.
"""

from __future__ import annotations

import hashlib
import re

KEY = "seal"
BLANK = "0" * 64
BROKEN = "its bytes have changed since it was written"
_SEAL = re.compile(rb"seal\W{1,6}([0-9a-f]{64})")
_DIGEST = re.compile(rb"[0-9a-f]{32}")  # half of a checksum: a single changed bit breaks at most one of the two halves


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sealed(content: bytes, head: int | None = None) -> bytes:
    """Return `content` with its checksum filled in, in place of the blank one in its first `head` bytes (default:
    anywhere).
    """
    front, rest = content[:head], content[head:] if head else b""
    return front.replace(BLANK.encode(), digest(content).encode(), 1) + rest


def holds(content: bytes, head: int | None = None) -> bool | None:
    """Return whether the checksum in the first `head` bytes matches `content`, or None if there is no checksum."""
    front, rest = content[:head], memoryview(content)[head:] if head else b""
    match = _SEAL.search(front)
    if match is None:
        return None
    whole = hashlib.sha256(front[: match.start(1)] + BLANK.encode() + front[match.end(1) :])
    whole.update(rest)
    return whole.hexdigest().encode() == match[1]


def tensors_fault(content: bytes) -> str | None:
    """Like `text_fault`, for a safetensors file. Its first eight bytes give the length of its header."""
    head = head_of(content)
    if head > len(content):
        return "it is truncated"
    held = holds(content, head)
    lost = held is None and rf"\"{KEY}\"".encode() in content[:head]
    return BROKEN if held is False or lost else None


def head_of(content: bytes) -> int:
    """The number of bytes of a safetensors file's header."""
    return 8 + int.from_bytes(content[:8], "little")


def text_fault(content: bytes) -> str | None:
    """Describe what is wrong with a text that contains its checksum; None if it matches or if an old file has none."""
    held = holds(content)
    front = (
        content if content.startswith(b"{") else content.partition(b"\n")[0]
    )  # TOML files have other digests further down
    lost = held is None and _DIGEST.search(front)  # a digest without a checksum: a bit of its key has changed
    return BROKEN if held is False or lost else None
