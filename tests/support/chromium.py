"""A headless Chromium that a test clicks and types in, by the DevTools protocol over two pipes; no library needed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


class Tab:
    """One page, and what it complained about."""

    def __init__(self, write: int, read: int):
        self._write, self._read, self._rest, self._count = write, read, b"", 0
        self._session, self.complaints = None, []

    def call(self, method: str, **params) -> dict:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            got = self._next()
            if got.get("id") == self._count:
                assert "error" not in got, got["error"]
                return got["result"]

    def _next(self) -> dict:
        while b"\0" not in self._rest:
            block = os.read(self._read, 1 << 20)
            assert block, "Chromium ended"
            self._rest += block
        first, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(first)
        entry = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(entry["exceptionDetails"])
        elif message.get("method") == "Log.entryAdded" or (
            message.get("method") == "Runtime.consoleAPICalled" and entry["type"] in ("error", "warning")
        ):
            self.complaints.append(entry)
        return message

    def open(self, address: str, width: int = 1240, height: int = 900) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Log"):
            self.call(f"{part}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.go(address)

    def go(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def value(self, expression: str):
        """What a JavaScript expression gives."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        again = f"if ({condition}) yes(true); else if (Date.now() > end) yes(false); else setTimeout(again, 20);"
        wait = f"const end = Date.now() + 20000, again = () => {{ {again} }}; again();"
        assert self.value(f"new Promise((yes) => {{ {wait} }})"), condition

    def click(self, x: float, y: float) -> None:
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def write(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element in the window."""
        rectangle = f"document.querySelector('{selector}').getBoundingClientRect()"
        return tuple(self.value(f"((box) => [box.x, box.y, box.width, box.height])({rectangle})"))

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def chromium(downloads: Path) -> Iterator[Tab]:
    """A browser of its own; what it downloads lands in the folder. Skips the test where no Chromium is installed."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    (theirs, write), (read, answers) = os.pipe(), os.pipe()
    options = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-dev-shm-usage --remote-debugging-pipe"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # Chromium reads from descriptor 3 and writes to 4.
        command = f'exec "$0" "$@" 3<&{theirs} 4>&{answers}'
        process = subprocess.Popen(
            ["bash", "-c", command, program, *options.split(), f"--user-data-dir={profile}"],
            pass_fds=(theirs, answers),
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(answers)
        try:
            tab = Tab(write, read)
            tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads), eventsEnabled=False)
            yield tab
        finally:
            process.terminate()
            process.wait(timeout=20)
            os.close(write)
            os.close(read)
