"""Download a dataset's files over HTTP with pooch, with time limits for every step."""

from __future__ import annotations

import threading
import time
from io import BytesIO

from lth.data.rawfiles import Absent, Damaged, most_bytes, unpack
from lth.data.registry import DatasetInfo, RawFile

PATIENCE_S = 4.0  # seconds to wait for a first answer and in every pause
_SLOWEST = 2_000  # bytes per second on average; a slower connection counts as lost
_LOOK_S = 0.05


def read_mirror(url: str, info: DatasetInfo) -> dict[str, bytes]:
    """The uncompressed, verified content of each of the dataset's files from a mirror, by name.

    Raises `Absent` if the mirror cannot be reached or does not have them (also if another page is returned instead of
    the file, as public networks do).
    """
    contents: dict[str, bytes] = {}
    # the smallest first, so that a missing network is noticed at once
    for file in sorted(info.files, key=lambda file: file.size):
        packed = download(f"{url}{file.name}.gz", limit=most_bytes(file), begun=bool(contents))
        contents[file.name] = _checked(packed, file)
    return contents


def download(url: str, limit: int, begun: bool = False) -> bytes:
    """Download at most `limit` bytes from an address. `begun` marks a failure as a loss after the start.

    It runs in a thread that is abandoned if nothing arrives, because name lookups and attempts at several addresses
    have no time limit that a caller could set.
    """
    import pooch  # noqa: F401  (in the thread, importing would count as waiting)
    import requests  # noqa: F401

    buffer = BytesIO()
    failure: list[Exception] = []
    thread = threading.Thread(target=_receive, args=(url, buffer, failure), daemon=True)
    started = time.monotonic()
    thread.start()
    received = 0
    while thread.is_alive():
        thread.join(_LOOK_S)
        received = buffer.tell()
        waited = time.monotonic() - started
        if received > limit:
            raise Absent(_give_up(buffer, f"sends more than the {limit:,} bytes expected"))
        if waited > PATIENCE_S and received < waited * _SLOWEST:
            raise Absent(_give_up(buffer, f"no answer within {PATIENCE_S:g} s"), lost=begun or received > 0)
    if failure:
        raise Absent(_reason(failure[0]), lost=begun or received > 0)
    return buffer.getvalue()


def _receive(url: str, buffer: BytesIO, failure: list[Exception]) -> None:
    import pooch
    import requests
    import urllib3.exceptions

    answers: list[requests.Response] = []
    fetch = pooch.HTTPDownloader(
        chunk_size=65_536,
        timeout=(PATIENCE_S, PATIENCE_S),
        hooks={"response": lambda answer, **_: answers.append(answer)},
    )
    try:
        fetch(url, buffer, None)
    except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
        failure.append(error)
    finally:
        for answer in answers:  # pooch leaves the connection of a refused request open
            answer.close()


def _give_up(buffer: BytesIO, reason: str) -> str:
    buffer.close()  # the thread's next write fails on it, and the thread ends
    return reason


def _reason(error: Exception) -> str:
    """The reason why a request failed in a few words; messages of HTTP libraries have several lines."""
    import requests

    match error:
        case requests.HTTPError() if error.response is not None:
            return f"it answered {error.response.status_code} {error.response.reason}".rstrip()
        case requests.exceptions.SSLError():
            return "its certificate was not accepted"
        case requests.exceptions.ProxyError():
            return "the proxy cannot be reached"
        case requests.Timeout():
            return f"no answer within {PATIENCE_S:g} s"
        case requests.exceptions.ChunkedEncodingError():
            return "the connection was lost"
        case requests.ConnectionError():
            return "it cannot be reached"
    return f"{type(error).__name__}: {error}"


def _checked(packed: bytes, file: RawFile) -> bytes:
    try:
        return unpack(packed, file)
    except Damaged as damage:
        raise Absent(f"what it sent for {file.name} {damage}; not used") from None
