"""A real Chromium without a window, driven by its DevTools protocol over a WebSocket."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

SECONDS = 60.0


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol."""
        answer = self._ask(method, **parameters)
        assert "error" not in answer, answer
        return answer["result"]  # type: ignore[no-any-return]

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a command; events that come meanwhile are passed over."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=SECONDS))
            if answer.get("id") == self._number:
                return answer  # type: ignore[no-any-return]

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page; None while the page changes."""
        answer = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        if "error" in answer:
            assert any(word in answer["error"]["message"] for word in ("navigated", "context")), answer
            return None
        return answer["result"]["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + SECONDS
        while not self.evaluate(expression):
            assert time.monotonic() < until, f"{expression}\n{self.text}"
            time.sleep(0.05)

    def open(self, url: str) -> None:
        """Go to an address, as a person who types it."""
        self.call("Page.navigate", url=url, transitionType="typed")
        self.wait("document.readyState == 'complete' && location.href != 'about:blank'")

    @property
    def text(self) -> str:
        """What a person reads on the page."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    @property
    def address(self) -> str:
        """What the address bar shows."""
        return str(self.evaluate("location.href"))

    def type(self, selector: str, text: str) -> None:
        """Type into a field, in place of what is in it."""
        self.evaluate(f"document.querySelector({selector!r}).focus()")
        self.evaluate(f"document.querySelector({selector!r}).select?.()")
        self.call("Input.insertText", text=text)

    def choose(self, selector: str, value: str) -> None:
        """Choose an option of a select."""
        self.evaluate(f"document.querySelector({selector!r}).value = {value!r}")
        assert self.evaluate(f"document.querySelector({selector!r}).value") == value

    def attach(self, selector: str, path: Path) -> None:
        """Choose a file."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def click(self, selector: str) -> None:
        """Click an element with the mouse, and wait for the page that follows."""
        self.evaluate("window.isOld = true")
        self.evaluate(f"document.querySelector({selector!r}).scrollIntoView()")
        box = self.evaluate(
            f"(r => [r.x + r.width / 2, r.y + r.height / 2])"
            f"(document.querySelector({selector!r}).getClientRects()[0])"  # a link may go on in the next line
        )
        for what in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=what, x=box[0], y=box[1], button="left", clickCount=1)
        self.wait("!window.isOld && document.readyState == 'complete'")


@contextmanager
def chromium(binary: str, profile: Path) -> Iterator[Page]:
    """A browser with an empty profile, and its one tab."""
    command = [
        *(binary, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--no-first-run", "--disable-extensions", "--disable-background-networking", "--no-proxy-server"),
        *("--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        said = profile / "DevToolsActivePort"
        until = time.monotonic() + SECONDS
        while not (said.is_file() and said.read_text().strip()):
            assert process.poll() is None, "Chromium ended"
            assert time.monotonic() < until, "Chromium does not start"
            time.sleep(0.05)
        port = said.read_text().split()[0]
        here = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with here.open(f"http://127.0.0.1:{port}/json/list", timeout=SECONDS) as answer:
            (tab, *_) = [t for t in json.load(answer) if t["type"] == "page"]
        with connect(tab["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
            page = Page(socket)
            page.call("Page.enable")
            yield page
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
