"""Seals: a file that says what its own bytes should be, so that a changed bit is noticed when it is read. No imports.

A seal is the sha256 of the whole file with 64 zeros in the seal's place. It stands in the first lines of a TOML file,
in a key of a JSON object, or in the metadata of a safetensors file; what was written before there were seals has none.
"""

from __future__ import annotations

import hashlib
import re

KEY = "seal"
BLANK = "0" * 64
BROKEN = "its bytes are not those that were written"
_SEAL = re.compile(rb"seal\W{1,6}([0-9a-f]{64})")
_DIGEST = re.compile(rb"[0-9a-f]{32}")  # half of one: a bit that changes breaks one of the halves at most


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sealed(content: bytes, head: int | None = None) -> bytes:
    """`content` with the blank seal in its first `head` bytes (all of them unless given) filled in."""
    front, rest = content[:head], content[head:] if head else b""
    return front.replace(BLANK.encode(), digest(content).encode(), 1) + rest


def holds(content: bytes, head: int | None = None) -> bool | None:
    """Whether the seal in the first `head` bytes is that of `content`; None where there is no seal."""
    front, rest = content[:head], memoryview(content)[head:] if head else b""
    found = _SEAL.search(front)
    if found is None:
        return None
    whole = hashlib.sha256(front[: found.start(1)] + BLANK.encode() + front[found.end(1) :])
    whole.update(rest)
    return whole.hexdigest().encode() == found[1]


def tensors_fault(content: bytes) -> str | None:
    """The same as `text_fault` for a safetensors file, whose header's length its first eight bytes tell."""
    head = head_of(content)
    if head > len(content):
        return "it is cut off"
    held = holds(content, head)
    lost = held is None and rf"\"{KEY}\"".encode() in content[:head]
    return BROKEN if held is False or lost else None


def head_of(content: bytes) -> int:
    """Bytes of a safetensors file's header."""
    return 8 + int.from_bytes(content[:8], "little")


def text_fault(content: bytes) -> str | None:
    """What is wrong with a sealed text; None where its seal holds, or it is from before there were seals."""
    held = holds(content)
    front = content if content.startswith(b"{") else content.partition(b"\n")[0]  # TOML records digests further down
    lost = held is None and _DIGEST.search(front)  # a digest, but no seal: a bit of its name has changed
    return BROKEN if held is False or lost else None
