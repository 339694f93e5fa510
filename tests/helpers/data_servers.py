"""A dispatcher and data workers as real processes."""

import subprocess
import sys
import time
from pathlib import Path

IMAGE = 1500  # bytes of the smallest image file in these tests


class Server:
    """A process of `python -m simsiam_tf.data_service`."""

    def __init__(self, *flags):
        command = [sys.executable, "-m", "simsiam_tf.data_service", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.pid = self.process.pid

    def address(self):
        """Waits until it listens; returns its address."""
        for line in self.process.stdout:
            if "listens at" in line:
                return f"localhost:{line.strip().rpartition(':')[2]}"
        raise AssertionError(self.process.stderr.read())

    def read(self):
        """Bytes that the process has read from files."""
        return int(Path(f"/proc/{self.pid}/io").read_text().split()[1])

    def kill(self):
        self.process.kill()
        self.process.communicate()


class Service:
    """A dispatcher and two data workers."""

    def __init__(self, *flags):
        self.dispatcher = Server("--role=dispatcher", *flags)
        self.address = self.dispatcher.address()
        self.workers = [Server("--role=worker", f"--dispatcher={self.address}") for _ in range(2)]
        for worker in self.workers:
            worker.address()

    def wait_until_each_reads(self, views):
        """Yields the first of `views`, waits until both data workers have read images, yields the rest."""
        before = [worker.read() for worker in self.workers]
        yield next(views)
        end = time.monotonic() + 60
        while min(w.read() - b for w, b in zip(self.workers, before, strict=True)) < 2 * IMAGE:
            assert time.monotonic() < end, "one data worker has done nothing"
            time.sleep(0.1)
        yield from views

    def restart_dispatcher(self, *flags):
        self.dispatcher.kill()
        port = self.address.rpartition(":")[2]
        self.dispatcher = Server("--role=dispatcher", f"--port={port}", *flags)
        self.dispatcher.address()

    def end(self):
        for server in (self.dispatcher, *self.workers):
            server.kill()
