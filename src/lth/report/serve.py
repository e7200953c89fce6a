"""Serve the report on 127.0.0.1 and update it as trainings finish.

The server listens on the loopback interface, has three paths, and reads no files by name. It answers only requests for
its own host name, so that no web page can reach it. With a token, it answers only requests that contain it, so that no
other user of the machine can read the report.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from lth.errors import LthError, UsageError
from lth.measures import anatomy, tables
from lth.report import page, words
from lth.report.explorer import Tickets
from lth.results import tables as results
from lth.results.records import Records
from lth.storage import layout, runs

if TYPE_CHECKING:
    from pandas import DataFrame

HOST = "127.0.0.1"
SHARE = 20  # an update takes at most this fraction of the time
IDLE = 30.0  # seconds until a silent connection is closed
LINGER = 4.0  # seconds for the browser to fetch the last state


class Live:
    """The state of `folders`: updated on request if something is new, but not too often."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = list(folders)
        self.ended = False
        self.seen = threading.Event()  # whether a browser has the last state
        self.asked = 0.0
        self._lock = threading.Lock()
        self._due, self._stamp, self._line, self._runs = 0.0, "", "", list[Records]()
        self._anatomy: dict[Path, DataFrame] = {}  # computed so far; nothing is stored while a run is active

    def state(self, seen: str = "") -> dict[str, object]:
        """The content of `state.json`: the current version, a line about it, and whether it is the last."""
        with self._lock:
            self.asked = time.monotonic()
            ended = self.ended  # before reading, so that what is written until then is in the last state
            self._update(ended)
            if ended and seen == self._stamp:
                self.seen.set()
            return {"version": self._stamp, "said": self._line, "ended": ended}

    def html(self, whole: bool) -> str:
        """The whole page, or the part that is updated."""
        with self._lock:
            self._update(self.ended)
            began = time.monotonic()
            tickets = [self._tickets(run) for run in self._runs]
            if whole:
                made = page.render(self._runs, True, self._stamp, tickets)
            else:
                made = page.main(self._runs, self._stamp, tickets=tickets)
            self._due += SHARE * (time.monotonic() - began)
            return made

    def _tickets(self, run: Records) -> Tickets:
        """The anatomy of a run's tickets; that of new tickets is computed but not stored."""
        known = self._anatomy.get(run.folder)
        known = tables.read("anatomy", run.folder) if known is None else known
        table = anatomy.compute(run.folder, run.experiment, known)
        self._anatomy[run.folder] = table
        return anatomy.of_table(table, run.folder)

    def _update(self, at_once: bool) -> None:
        stamp = "/".join(stamp_of(folder) for folder in self.folders)
        began = time.monotonic()
        if not self._runs or (stamp != self._stamp and (at_once or began >= self._due)):
            self._runs = [current(folder) for folder in self.folders]
            self._stamp = stamp
            self._due = began + max(1.0, SHARE * (time.monotonic() - began))
        self._line = format_progress(self._runs, self.ended)


def stamp_of(folder: Path) -> str:
    """A value that changes when a training or table of the run is stored."""
    stored = sum((path / layout.SUMMARY).exists() for _, path in layout.training_folders(folder))
    table = folder / layout.SUMMARY_TABLE
    return f"{stored}" if stored or not table.exists() else f"t{table.stat().st_mtime_ns}"


def current(folder: Path) -> Records:
    """The present tables of a run; nothing is written, because another process may be writing."""
    records = results.collect(folder)
    return records if len(records.summary) or not (folder / layout.SUMMARY_TABLE).exists() else results.load(folder)


def format_progress(runs: Sequence[Records], ended: bool) -> str:
    """One line on how many trainings are stored."""
    done, expected = map(sum, zip(*(words.progress(run) for run in runs), strict=True))
    what = f"{done} of {expected} trainings are stored"
    return f"The run has ended: {what}. This page stays as it is." if ended else f"Live: {what}."


# ------------------------------------------------------------------------------------------------------------- serving


@contextmanager
def serving(live: Live, port: int = 0, token: str = "") -> Iterator[str]:
    """Serve in a background thread inside the context. Yields the address, including the token if there is one.

    At the end, a browser can still fetch the last state.
    """
    try:
        server = ThreadingHTTPServer((HOST, port), _handler(live, token))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--port {port} cannot be used: {reason}; give another port, or leave it out") from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}/" + (f"?token={token}" if token else "")
        live.ended = True
        if time.monotonic() - live.asked < LINGER:
            live.seen.wait(LINGER)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def serve(
    folders: Sequence[Path], port: int, say: Callable[[str], None], pause: float = 0.5, *, with_token: bool = False
) -> None:
    """Serve until Ctrl-C or, if a run is active in one of `folders`, until none is active any more."""
    live = Live(folders)
    live.state()  # raises now if a folder is damaged
    try:
        with serving(live, port, secrets.token_urlsafe() if with_token else "") as address:
            going = any(map(runs.in_use, folders))
            say(f"{address} until {'the run ends, or ' if going else ''}Ctrl-C")
            while True:
                time.sleep(pause)
                before, going = going, any(map(runs.in_use, folders))
                if before and not going:
                    break
    except KeyboardInterrupt:
        pass
    say("the server has stopped; `lth report` writes the same page into a file")


def _handler(live: Live, token: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = IDLE

        def do_GET(self) -> None:
            with suppress(OSError):  # a browser that left, reloads, or stopped reading
                self.answer()

        def answer(self) -> None:
            try:
                asked = urlsplit(self.path)
                query = parse_qs(asked.query, max_num_fields=8)
            except ValueError:  # for example http://[
                self.send_error(400)
                return
            port = self.connection.getsockname()[1]
            if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
                self.send_error(403)
                return
            if token and not _knows(token, query, port, self.headers.get("Cookie", "")):
                self.send_error(401, "Open the address that lth printed: it has the token")
                return
            answers: dict[str, tuple[str, Callable[[], str]]] = {
                "/": ("text/html", lambda: live.html(whole=True)),
                "/main.html": ("text/html", lambda: live.html(whole=False)),
                "/state.json": ("application/json", lambda: json.dumps(live.state(query.get("seen", [""])[0]))),
            }
            if asked.path not in answers:
                self.send_error(404)
                return
            kind, answer = answers[asked.path]
            try:
                content = answer().encode()
            except LthError as error:  # for example a file that is being replaced; the page asks again
                self.send_error(503, str(error).partition("\n")[0].encode("ascii", "replace").decode())
                return
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            if token:  # the page requests its parts without the token
                self.send_header("Set-Cookie", f"{_cookie(port)}={token}; HttpOnly; SameSite=Strict; Path=/")
                self.send_header("Referrer-Policy", "no-referrer")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def _knows(token: str, query: dict[str, list[str]], port: int, cookies: str) -> bool:
    """Return whether a request has the token, in its address or in the cookie that was sent with the page."""
    try:
        cookie = SimpleCookie(cookies).get(_cookie(port))
    except CookieError:
        cookie = None
    given = [*query.get("token", []), *([cookie.value] if cookie else [])]
    return any(secrets.compare_digest(one.encode(), token.encode()) for one in given)


def _cookie(port: int) -> str:
    return f"lth-{port}"  # cookies of a host are valid for all its ports
