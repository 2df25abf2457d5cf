"""A headless Firefox with the same face as webdriver.Browser. It speaks Marionette, which Firefox itself answers to:
WebDriver's commands as JSON over a socket, so that no geckodriver is needed (Debian has none).

Only what the tests use. It has no list of requests: Firefox gets a proxy that is not there, so that every request to a
host fails and says so on the console.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from typing import Any

from webdriver import HANG_S, Browser

BROWSERS = ("firefox-esr", "firefox")
_COMMANDS = {
    ("POST", "/url"): "Navigate",
    ("POST", "/execute/sync"): "ExecuteScript",
    ("POST", "/element"): "FindElement",
    ("POST", "/actions"): "PerformActions",
    ("GET", "/screenshot"): "TakeScreenshot",
}
# What scripts, styles and refused requests of pages do wrong.
_ERRORS = """
const said = Services.console.getMessageArray().filter((one) => one instanceof Ci.nsIScriptError);
Services.console.reset();
return said.filter((one) => /^(file|data|blob):/.test(one.sourceName)).map((one) => one.errorMessage);
"""
# As WebDriver BiDi sets a viewport: a headless window itself does not get narrower than about 500 pixels.
_RESIZE = """
const [width, height] = arguments;
for (const [name, value] of [["width", width], ["height", height]])
  for (const end of ["", "min-", "max-"])
    gBrowser.selectedBrowser.style.setProperty(end + name, value + "px", "important");
"""


def missing() -> str:
    """What is not installed here; "" if nothing is missing."""
    return "" if any(map(shutil.which, BROWSERS)) else "no Firefox here (tests/browser/install.sh)"


class Firefox(Browser):
    """One browser; a context manager."""

    def __enter__(self) -> Firefox:
        self._num_read = 0
        profile = self._folder / "firefox"
        profile.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in self._settings(port)]
        (profile / "user.js").write_text("".join(lines))
        binary = next(filter(None, map(shutil.which, BROWSERS)))
        width, height = map(str, self._size)
        flags = ["--headless", "--marionette", "--remote-allow-system-access", "--width", width, "--height", height]
        command = [binary, *flags, "--no-remote", "--profile", str(profile)]
        self._said = (profile / "said.txt").open("w+", encoding="utf-8", errors="replace")
        self._driver = subprocess.Popen(command, stdout=self._said, stderr=subprocess.DEVNULL)
        try:
            self._connect(port)
            self._ask("NewSession", {"capabilities": {"alwaysMatch": {}}})
            self.resize(*self._size)
            self.open("about:blank")
            self.console()
        except BaseException:
            self._driver.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._ask("Quit", {"flags": ["eForceQuit"]}, "Marionette")
        finally:
            self._socket.close()
            self._driver.wait(HANG_S)
            self._said.close()

    def _settings(self, port: int) -> list[tuple[str, Any]]:
        return [
            ("marionette.port", port),
            ("layout.css.prefers-color-scheme.content-override", 0 if self._is_dark else 1),
            ("devtools.console.stdout.content", True),  # console.log and its like, as lines of standard output
            ("devtools.console.stdout.chrome", False),
            ("network.proxy.type", 1),
            ("network.proxy.http", "127.0.0.1"),
            ("network.proxy.http_port", 9),
            ("network.proxy.ssl", "127.0.0.1"),
            ("network.proxy.ssl_port", 9),
        ]

    def _connect(self, port: int) -> None:
        end = time.monotonic() + HANG_S
        while time.monotonic() < end and self._driver.poll() is None:
            try:
                self._socket = socket.create_connection(("127.0.0.1", port), HANG_S)
            except OSError:
                time.sleep(0.1)
                continue
            self._read()  # its greeting
            return
        raise RuntimeError("Firefox does not answer")

    def _read(self) -> Any:
        """One message: its length in bytes, a colon, JSON."""
        size = b""
        while not size.endswith(b":"):
            size += self._socket.recv(1)
        left, parts = int(size[:-1]), []
        while left:
            parts.append(self._socket.recv(min(left, 1 << 16)))
            left -= len(parts[-1])
        return json.loads(b"".join(parts))

    def _ask(self, command: str, body: Any = None, group: str = "WebDriver") -> Any:
        message = json.dumps([0, 1, f"{group}:{command}", body or {}]).encode()
        self._socket.sendall(b"%d:%s" % (len(message), message))
        _, _, error, value = self._read()
        if error:
            raise RuntimeError(error["message"])
        return value["value"] if isinstance(value, dict) and set(value) == {"value"} else value

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        _, kind, *element = path.split("/")
        if len(element) == 2:  # /element/ID/click and /element/ID/value
            command = {"click": "ElementClick", "value": "ElementSendKeys"}[element[1]]
            return self._ask(command, {**(body or {}), "id": element[0]})
        return self._ask(_COMMANDS[method, path], {**(body or {}), **({"full": False} if kind == "screenshot" else {})})

    def _system(self, script: str, *arguments: Any) -> Any:
        """The value of a script that sees the browser itself and not the page."""
        self._ask("SetContext", {"value": "chrome"}, "Marionette")
        try:
            return self.run(script, *arguments)
        finally:
            self._ask("SetContext", {"value": "content"}, "Marionette")

    def resize(self, width: int, height: int) -> None:
        """Show pages this wide and high, also where no window can be so narrow."""
        self._system(_RESIZE, width, height)
        self.until(f"return innerWidth === {width}")

    def console(self) -> list[str]:
        """What pages said on the console since it was last asked. RSLoader is Firefox's own: it misses its servers."""
        errors = list(self._system(_ERRORS))
        with open(self._said.name, encoding="utf-8", errors="replace") as said:
            said.seek(self._num_read)
            lines = said.read().splitlines()
            self._num_read = said.tell()
        return errors + [line for line in lines if line.startswith("console.") and "RSLoader" not in line]

    def requests(self) -> list[str]:
        """None are known here."""
        return []
