"""JSON files with a checksum: written atomically and verified when they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lth.errors import Damaged, UsageError
from lth.storage import checksums
from lth.storage.atomic import read, write_file

MOST_BYTES = 16 * 2**20  # limit for a JSON file; a summary has a few kilobytes


def read_json(path: Path, instead: str = "copy it again, or give another --out") -> dict[str, Any] | None:
    """Read a JSON object and verify its checksum. Returns None if the file does not exist."""
    try:
        content = read(path, MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"it is larger than the maximum of {MOST_BYTES:,} bytes for such a file")
        value = json.loads(content.decode())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; {instead}") from None
    except (ValueError, RecursionError) as error:
        raise Damaged(path, str(error), instead) from None
    if not isinstance(value, dict):
        raise Damaged(path, "it is not a JSON object", instead)
    if fault := checksums.text_fault(content):
        raise Damaged(path, fault, instead)
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_file(path, json_bytes(value))


def json_bytes(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def sealed_json(value: Mapping[str, Any]) -> bytes:
    return checksums.sealed(json_bytes({**value, checksums.KEY: checksums.BLANK}))
