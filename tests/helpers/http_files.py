"""Files served by HTTP from this process: with parts, failures, delays, and counts of requests."""

import contextlib
import http.server
import re
import threading

PATIENCE = 10
IMAGE = re.compile(r"\.(png|tar)$")


class Files(http.server.ThreadingHTTPServer):
    """Serves `contents`, name → bytes, at `url`; folders as links to what is in them.

    fail: (number from 1; method, path and part of a request) → None, a status to answer with, or 0 to drop
    the connection in the middle of the answer. requests, failed: numbers of requests so far.
    wait_for: "GET image" or "HEAD image" → such requests, of images or archives, that have to be there at the
    same time before one is answered; where they are not within `PATIENCE` seconds, all are answered.
    most_at_once: the largest number of requests that waited for an answer at the same time.
    ranges: whether parts of files are served. headers: of every answer.
    """

    daemon_threads = True

    def __init__(self, contents):
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents, self.headers, self.fail, self.ranges = contents, {}, lambda n, request: None, True
        self.requests = self.failed = self.at_once = self.most_at_once = 0
        self.wait_for = {}
        self.changed = threading.Condition()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Says nothing of clients that have gone."""

    @contextlib.contextmanager
    def counted(self, request):
        """Counts a request; gives how it fails, if it does."""
        with self.changed:
            self.requests += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            failure = self.fail(self.requests, request)
            self.failed += failure is not None
            self.changed.notify_all()
            method, path, _ = request.split(" ", 2)
            kind = f"{method} {'image' if IMAGE.search(path) else 'other'}"
            enough = lambda: self.most_at_once >= self.wait_for.get(kind, 0)
            if not self.changed.wait_for(enough, PATIENCE):
                self.wait_for.clear()
        try:
            yield failure
        finally:
            with self.changed:
                self.at_once -= 1


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers HEAD and GET."""

    protocol_version = "HTTP/1.1"
    server: Files

    def do_GET(self):
        with self.server.counted(f"{self.command} {self.path} {self.headers.get('Range', '')}") as status:
            data = self.server.contents.get(self.path.lstrip("/"), self.index())
        if status or data is None:
            self.answer(status or 404, b"no")
            return
        part = self.server.ranges and re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, stop = (int(part[1]), min(int(part[2]) + 1, len(data))) if part else (0, len(data))
        place = [("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")] if part else []
        self.answer(206 if part else 200, data[start:stop], *place, dropped=status == 0)

    do_HEAD = do_GET

    def answer(self, status, body, *headers, dropped=False):
        self.send_response(status)
        for name, value in (("Content-Length", str(len(body))), *self.server.headers.items(), *headers):
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if dropped else body)
        self.close_connection |= dropped

    def index(self):
        """A page of links to the files and folders of a folder; None for another path."""
        folder = f"{self.path.strip('/')}/"
        inside = [n.removeprefix(folder) for n in self.server.contents if n.startswith(folder)]
        links = dict.fromkeys(f"{n.partition('/')[0]}{'/' * ('/' in n)}" for n in inside)
        return "".join(f'<a href="{link}">{link}</a>\n' for link in links).encode() or None

    def log_message(self, format, *args):
        """Says nothing."""


@contextlib.contextmanager
def running(server):
    """Lets a server answer while the block runs."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def serving(contents):
    """Serves files while a block runs."""
    return running(Files(contents))
