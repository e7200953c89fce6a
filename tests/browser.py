"""A headless Chromium for tests, driven through chromedriver's own protocol: JSON over HTTP, so nothing to install."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
)
MORE = "--no-first-run --disable-dev-shm-usage --hide-scrollbars --force-color-profile=srgb --window-size=1280,900"


def why_not() -> str | None:
    """Why no browser can be had here; None where one can."""
    missing = [
        name for name, path in (("chromium", _browser()), ("chromedriver", shutil.which("chromedriver"))) if not path
    ]
    return (
        f"no {' and no '.join(missing)} on this machine (apt-get install chromium chromium-driver)" if missing else None
    )


def _browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Browser:
    """One window."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.session = ""

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        content = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self.address + self.session + path, content, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(json.load(error)["value"]["message"]) from None

    def open(self, address: str | Path) -> None:
        """Show a page, and wait until all its charts are drawn."""
        self.ask("POST", "/url", {"url": address.as_uri() if isinstance(address, Path) else address})
        self.wait("return document.documentElement.dataset.ready !== undefined")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str, seconds: float = 60) -> Any:
        until = time.monotonic() + seconds
        while not (value := self.run(script)):
            if time.monotonic() > until:
                raise AssertionError(f"not within {seconds} s: {script}; the console says {self.console()}")
            time.sleep(0.05)
        return value

    def command(self, name: str, **parameters: Any) -> Any:
        """One command of the DevTools protocol."""
        return self.ask("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def console(self) -> list[str]:
        """What stands in the console since the last call: errors, warnings, refused requests."""
        return [line["message"] for line in self.ask("POST", "/se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """All addresses that the page asked for since the last call."""
        logged = [
            json.loads(line["message"])["message"] for line in self.ask("POST", "/se/log", {"type": "performance"})
        ]
        return [m["params"]["request"]["url"] for m in logged if m["method"] == "Network.requestWillBeSent"]

    def screen(self, width: int = 1280, height: int = 900, dark: bool = False, pixels: float = 1) -> None:
        phone = width < 600
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=pixels, mobile=phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str, code: int = 0) -> None:
        """A key of the keyboard, by its name in the DOM."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        keys = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
        self.command("Input.dispatchKeyEvent", type="keyDown", text=text, **keys)
        self.command("Input.dispatchKeyEvent", type="keyUp", **keys)

    def picture(self, path: Path, whole: bool = False, clip: dict[str, float] | None = None) -> None:
        options: dict[str, Any] = {"captureBeyondViewport": whole or clip is not None}
        if whole:
            size = self.command("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"]}
        if clip:
            options["clip"] = clip | {"scale": 1}
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png", **options)["data"]))


@contextmanager
def browser() -> Iterator[Browser]:
    """A new browser with an empty profile, ended with everything that it started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = shutil.which("chromedriver")
    assert driver, why_not()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        arguments = [*QUIET.split(), *MORE.split(), f"--user-data-dir={profile}"]
        process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        window = Browser(port)
        try:
            wanted = {
                "goog:chromeOptions": {"binary": _browser(), "args": arguments},
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
            window.session = f"/session/{_begin(window, {'capabilities': {'alwaysMatch': wanted}})}"
            yield window
        finally:
            if window.session:
                window.ask("DELETE", "")
            process.terminate()
            process.wait()


def _begin(window: Browser, wanted: dict[str, Any]) -> str:
    until = time.monotonic() + 30
    while True:
        try:
            return window.ask("POST", "/session", wanted)["sessionId"]
        except urllib.error.URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
