"""A headless Chromium driven over a pipe (DevTools protocol), with the standard library alone."""

import base64
import json
import os
import select
import shutil
import signal
import time
from pathlib import Path

CANDIDATES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def chromium():
    """The path of a browser, or None."""
    return next((path for name in CANDIDATES if (path := shutil.which(name))), None)


class Browser:
    """One page: `problems` collects errors of the console and of scripts, `requests` all addresses asked for."""

    def __init__(self, profile: Path, size=(1300, 900), patience=240.0):
        self.patience = patience
        self.problems, self.requests = [], []
        self._number, self._pending, self._events, self._rest = 0, {}, [], b""
        to_child, self._write = os.pipe()
        self._read, from_child = os.pipe()
        quiet = os.open(os.devnull, os.O_RDWR)
        own = (f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}")
        arguments = [chromium(), *FLAGS, *own, "about:blank"]
        # high numbers first, so that no descriptor is overwritten before it is copied
        moves = [(os.POSIX_SPAWN_DUP2, fd, 100 + k) for k, fd in enumerate((to_child, from_child, quiet))]
        moves += [(os.POSIX_SPAWN_DUP2, 100, 3), (os.POSIX_SPAWN_DUP2, 101, 4)]
        moves += [(os.POSIX_SPAWN_DUP2, 102, fd) for fd in (0, 1, 2)]
        self._pid = os.posix_spawn(arguments[0], arguments, os.environ, file_actions=moves, setpgroup=0)
        for fd in (to_child, from_child, quiet):
            os.close(fd)
        self._session = None
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for fd in (self._write, self._read):
            os.close(fd)
        for kill in (signal.SIGTERM, signal.SIGKILL):
            for _ in range(50):
                if os.waitpid(self._pid, os.WNOHANG)[0]:
                    return
                time.sleep(0.1)
            os.killpg(self._pid, kill)
        os.waitpid(self._pid, 0)

    def call(self, method, **params):
        """Send a command and wait for its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + self.patience
        while self._number not in self._pending:
            self._receive(end, method)
        answer = self._pending.pop(self._number)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def wait_for(self, event):
        """Wait for an event that has not been waited for."""
        end = time.monotonic() + self.patience
        while event not in self._events:
            self._receive(end, event)
        self._events.remove(event)

    def _receive(self, end, what):
        assert select.select([self._read], [], [], max(0.0, end - time.monotonic()))[0], f"no answer to {what}"
        chunk = os.read(self._read, 1 << 20)
        assert chunk, f"the browser ended during {what}"
        *messages, self._rest = (self._rest + chunk).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._pending[message["id"]] = message
            else:
                self._note(message["method"], message.get("params", {}))

    def _note(self, event, params):
        self._events.append(event)
        if event == "Runtime.exceptionThrown":
            self.problems.append(params["exceptionDetails"].get("exception", {}).get("description", "an exception"))
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(str([a.get("value", a.get("description")) for a in params["args"]]))
        elif event == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(params["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    # --- what a reader does ---

    def open(self, path: Path, dark=False):
        """Load a file."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait_for("Page.loadEventFired")

    def run(self, script):
        """The value of an expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def type(self, text):
        self.call("Input.insertText", text=text)

    def press(self, key, text=""):
        code = {"Enter": 13, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38, "Tab": 9}.get(key, 0)
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                **({"text": text} if text and kind == "keyDown" else {}),
            )  # fmt: skip

    def click(self, selector):
        """Press the left button on the middle of an element."""
        x, y = self.run(
            f"(() => {{ const r = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
