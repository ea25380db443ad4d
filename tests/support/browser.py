"""A page in headless Chromium, driven by the DevTools protocol over a pipe."""

import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

CHROMIUM = shutil.which("chromium")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
)
SECONDS = 60


class Browser:
    """One page. `problems` holds what its console and its scripts complained about."""

    def __init__(self, to_browser, from_browser):
        self._to, self._from, self._ids = to_browser, from_browser, itertools.count(1)
        self._rest, self._session, self._events, self.problems = b"", None, [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        message = {"id": next(self._ids), "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == message["id"]:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self):
        limit = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], limit - time.monotonic())
            assert ready, "the browser does not answer"
            self._rest += os.read(self._from, 1 << 16)
        first, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(first)
        method = message.get("method", "")
        self._events.append(method)
        is_log = method == "Runtime.consoleAPICalled"
        if is_log or method in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.problems.append(json.dumps(message["params"]))
        return message

    def open(self, path, width=1280, height=900):
        """Load a file at a width, until it is there."""
        self.resize(width, height)
        self._events.clear()
        self.problems.clear()
        self.call("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in self._events:
            self._read()

    def resize(self, width, height=900):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def media(self, kind="", scheme="light"):
        """Emulate "print" or "screen", and the preferred colour scheme."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", media=kind, features=[feature])

    def evaluate(self, expression):
        """The value of an expression of JavaScript, awaited."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")


@contextlib.contextmanager
def browser():
    """A browser with a page, ended afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        (from_us, to_browser), (from_browser, from_it) = os.pipe(), os.pipe()
        # The browser reads from descriptor 3 and writes to 4.
        command = f'exec "$0" "$@" 3<&{from_us} 4>&{from_it}'
        done = subprocess.Popen(
            ("bash", "-c", command, CHROMIUM, *OPTIONS, f"--user-data-dir={profile}"),
            pass_fds=(from_us, from_it),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(from_us)
        os.close(from_it)
        try:
            yield Browser(to_browser, from_browser)
        finally:
            os.close(to_browser)
            os.close(from_browser)
            done.terminate()
            done.wait(SECONDS)
