"""A real browser, driven by its own debugging protocol over a pipe: nothing to install besides Chromium itself."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)

_PATIENCE_S = 60

needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here; Debian's package is chromium")


@dataclass
class Browser:
    """One page of a headless browser, and all that it reported: https://chromedevtools.github.io/devtools-protocol/."""

    to: int
    replies: int
    session: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    _asked: int = 0
    _received: bytearray = field(default_factory=bytearray)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; what is reported meanwhile is kept."""
        self._asked += 1
        message: dict[str, Any] = {"id": self._asked, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        with os.fdopen(self.to, "wb", closefd=False) as sending:
            sending.write(json.dumps(message).encode() + b"\0")
        reply = self._read_until(lambda message: message.get("id") == self._asked)
        assert "error" not in reply, (method, reply["error"])
        return dict(reply["result"])

    def evaluate(self, expression: str) -> Any:
        """Return what a JavaScript expression gives on the page, as a plain value."""
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, page: Path, width: int, height: int = 900) -> None:
        """Load a page in a window of that size and wait until it has loaded."""
        self.events.clear()
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.ask("Page.navigate", url=page.as_uri())
        self.await_load()

    def await_load(self) -> None:
        """Wait until the page has loaded, if it has not since its last event was looked at."""
        loaded = [event for event in self.events if event.get("method") == "Page.loadEventFired"]
        for event in loaded:
            self.events.remove(event)
        if not loaded:
            self._read_until(lambda message: message.get("method") == "Page.loadEventFired")

    def screenshot(self, path: Path) -> None:
        """Save the whole page as a picture."""
        taken = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))

    def reported(self, method: str) -> list[dict[str, Any]]:
        """Return what was reported by that name since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def _read_until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first message that is wanted; the others are kept as events."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            while (end := self._received.find(b"\0")) >= 0:
                message: dict[str, Any] = json.loads(self._received[:end])
                del self._received[: end + 1]
                if wanted(message):
                    return message
                self.events.append(message)
            ready, _, _ = select.select([self.replies], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"the browser has not answered for {_PATIENCE_S} s")
            received = os.read(self.replies, 1 << 16)
            assert received, "the browser is gone"
            self._received += received


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Give a browser with one empty page; it ends with the block."""
    commands, to = os.pipe()
    replies, answers = os.pipe()
    # The browser reads commands from descriptor 3 and answers on 4; a shell puts them there.
    script = f'exec 3<&{commands} 4>&{answers}; exec "$@"'
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
    command = ["bash", "-c", script, "bash", CHROMIUM, *flags, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        command, pass_fds=(commands, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(commands)
    os.close(answers)
    try:
        found = Browser(to, replies)
        target = found.ask("Target.createTarget", url="about:blank")["targetId"]
        found.session = found.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            found.ask(f"{domain}.enable")
        yield found
    finally:
        process.kill()
        process.wait()
        os.close(to)
        os.close(replies)
