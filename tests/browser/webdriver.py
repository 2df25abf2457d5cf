"""A headless Chromium for tests, driven by Debian's chromedriver: WebDriver is JSON over HTTP and needs no library.

Only what the tests use. Chromium itself gets no network at all: every request to a host fails.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "Right": "\ue014", "Left": "\ue012", "End": "\ue010"}
HANG_S = 300.0  # only what hangs takes longer, however busy the machine
_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def missing() -> str:
    """What is not installed here; "" if nothing is missing."""
    if not any(map(shutil.which, BROWSERS)):
        return "no Chromium here (tests/browser/install.sh)"
    return "" if shutil.which("chromedriver") else "no chromedriver here (tests/browser/install.sh)"


class Browser:
    """One browser; a context manager."""

    def __init__(self, folder: Path, *, is_dark: bool = False, size: tuple[int, int] = (1440, 1000)) -> None:
        self._folder, self._is_dark, self._size = folder, is_dark, size

    def __enter__(self) -> Browser:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        command = ["chromedriver", f"--port={port}"]
        self._driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self._wait_for_driver()
            wishes = {"capabilities": {"alwaysMatch": self._wishes()}}
            self._session = self._send("POST", "/session", wishes)["sessionId"]
            self.open("about:blank")
            self.requests()  # those of the browser's own first page
        except BaseException:
            self._driver.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._call("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(HANG_S)

    def _wishes(self) -> dict[str, Any]:
        width, height = self._size
        arguments = [*_ARGUMENTS, f"--window-size={width},{height}", f"--user-data-dir={self._folder / 'profile'}"]
        if self._is_dark:
            arguments.append("--blink-settings=preferredColorScheme=0")
        return {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments, "binary": next(filter(None, map(shutil.which, BROWSERS)))},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }

    def _wait_for_driver(self) -> None:
        end = time.monotonic() + HANG_S
        while time.monotonic() < end:
            try:
                if self._send("GET", "/status")["ready"]:
                    return
            except (OSError, urllib.error.URLError):
                pass
            time.sleep(0.05)
        raise RuntimeError("chromedriver does not answer")

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"}, method=method)
        # A proxy of the machine is not meant for the loopback address.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=HANG_S) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        return self._send(method, f"/session/{self._session}{path}", body)

    def open(self, url: str) -> None:
        """Load a page; returns when it has loaded."""
        self._call("POST", "/url", {"url": url})

    def resize(self, width: int, height: int) -> None:
        """Show pages this wide and high, also where no window can be so narrow."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("POST", "/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": size})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a script that says `return`; it may use `arguments`."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def until(self, script: str) -> Any:
        """The first true value of a script; AssertionError if it stays false for HANG_S."""
        end = time.monotonic() + HANG_S
        while time.monotonic() < end:
            if value := self.run(script):
                return value
            time.sleep(0.02)
        raise AssertionError(f"still not: {script}")

    def _find(self, selector: str) -> str:
        found = self._call("POST", "/element", {"using": "css selector", "value": selector})
        return next(iter(found.values()))

    def click(self, selector: str) -> None:
        """A real click on the first such element, which must be there to be seen."""
        self._call("POST", f"/element/{self._find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        self._call("POST", f"/element/{self._find(selector)}/value", {"text": text})

    def press(self, *names: str) -> None:
        """Keys, by name, to whatever has the focus."""
        keys = [KEYS.get(name, name) for name in names]
        strokes = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": strokes}]})

    def texts(self, selector: str) -> list[str]:
        """The text of every such element."""
        return self.run("return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)", selector)

    def screenshot(self) -> bytes:
        """What the window shows now, as PNG."""
        return base64.b64decode(self._call("GET", "/screenshot"))

    def console(self) -> list[str]:
        """What the console said since it was last asked."""
        return [f"{entry['level']}: {entry['message']}" for entry in self._log("browser")]

    def requests(self) -> list[str]:
        """The addresses asked for since last asked, the page's own and what it holds in itself included."""
        events = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        return [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        return self._call("POST", "/se/log", {"type": kind})
