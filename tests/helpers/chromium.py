"""Chromium without a window, driven by its DevTools protocol over a pipe, with the standard library alone."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TIMEOUT = 120.0  # seconds that a page may take to answer
KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, ""), " ": (32, " "), "ArrowLeft": (37, ""),
        "ArrowUp": (38, ""), "ArrowRight": (39, ""), "ArrowDown": (40, "")}  # fmt: skip


class Chromium:
    """A browser with one page. Use as a context.

    events: what the page reported, as (method, parameters). profile: a folder for the browser's files, and
    for downloads.
    """

    def __init__(self, profile, width=1400, height=1000):
        self.events, self.profile, self._buffer, self._last = [], profile, b"", 0
        ends = [*os.pipe(), *os.pipe()]
        # The browser's ends become its descriptors 3 and 4: none of ours may be one of them.
        moved = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in ends]
        from_here, self._write, self._read, from_browser = moved
        for end in ends:
            os.close(end)
        options = ["--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--no-first-run",
                   "--enable-unsafe-swiftshader", "--disable-background-networking",
                   "--disable-dev-shm-usage", f"--user-data-dir={profile}", "about:blank"]  # fmt: skip
        shell = f'exec "$0" "$@" 3<&{from_here} 4>&{from_browser} {from_here}<&- {from_browser}>&-'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, CHROMIUM, *options], pass_fds=(from_here, from_browser),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(from_here)
        os.close(from_browser)
        self._session = None
        (target,) = (t for t in self("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")
        self.resize(width, height)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def __call__(self, method, **params):
        """The result of a command of the protocol."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._last:
            pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _receive(self):
        """The next message, of which events are kept."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], TIMEOUT)
            data = os.read(self._read, 2**20) if ready else b""
            assert data, "Chromium does not answer"
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(line)
        if "method" in message:
            self.events.append((message["method"], message["params"]))
        return message

    def open(self, path):
        """Opens a file, and waits until it is loaded."""
        self("Page.navigate", url=path.as_uri())
        self.wait_for("document.readyState == 'complete'")

    def run(self, script):
        """The value of an expression, or of a promise, in the page."""
        given = self("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in given, given["exceptionDetails"]
        return given["result"].get("value")

    def wait_for(self, script, seconds=TIMEOUT):
        """The value of an expression, once it is true."""
        until = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < until, f"never true: {script}"
            time.sleep(0.05)
        return value

    def resize(self, width, height, mobile=False):
        """Sets the size of the page in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self("Emulation.setDeviceMetricsOverride", **size)

    def mouse(self, kind, x, y, **options):
        """kind: "mouseMoved", "mousePressed", "mouseReleased" or "mouseWheel"."""
        pressed = {} if kind in ("mouseMoved", "mouseWheel") else {"button": "left", "clickCount": 1}
        self("Input.dispatchMouseEvent", type=kind, x=x, y=y, **{**pressed, **options})

    def click(self, x, y):
        """Moves to a place and clicks."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, x, y)

    def drag(self, path):
        """Presses at the first place, moves over the others, and releases at the last."""
        self.mouse("mouseMoved", *path[0])
        self.mouse("mousePressed", *path[0])
        for place in path[1:]:
            self.mouse("mouseMoved", *place, button="left", buttons=1)
        self.mouse("mouseReleased", *path[-1])

    def press(self, key):
        """Presses and releases a key."""
        code, text = KEYS.get(key, (ord(key.upper()) if len(key) == 1 else 0, key if len(key) == 1 else ""))
        for kind in ("keyDown", "keyUp"):
            shown = {"text": text} if text and kind == "keyDown" else {}
            self("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **shown)

    def screenshot(self, path, whole=False):
        """Writes a PNG of the window, or of the whole page."""
        data = self("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def problems(self):
        """Errors and warnings of the console, exceptions, and requests of anything but files and data."""
        bad = []
        for method, params in self.events:
            if method == "Runtime.exceptionThrown":
                bad.append(params["exceptionDetails"])
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                bad.append(params["args"])
            elif method == "Log.entryAdded" and _is_bad(params["entry"]):
                bad.append(params["entry"])
            elif method == "Network.requestWillBeSent":
                url = params["request"]["url"]
                bad += [] if url.startswith(("file:", "data:", "blob:", "about:")) else [url]
            elif method == "Network.loadingFailed":
                bad.append(params)
        return bad


def _is_bad(entry):
    """Whether a line of the log is an error or warning, other than those of drawing without a GPU."""
    return entry["level"] in ("error", "warning") and "GPU stall due to ReadPixels" not in entry["text"]
