"""`python -m metisfl.archive.receiver`: unpacks the one archive that it was told to expect, on the volume of its pod.

It needs no secret: any other archive than the one with this size and SHA-256 is refused. Once that has been unpacked it
ends, with status 0.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from metisfl.archive.manifest import ArchiveError
from metisfl.archive.reading import Source, unpack
from metisfl.archive.writing import PIECE_BYTES

SILENCE_SECONDS = 300
"""How long a sender may say nothing."""


class Receiver(ThreadingHTTPServer):
    """GET: 200. PUT with the archive: 200 once it is durable, 422 when it is not the expected one, 507 when the disk
    fails. May be tried again after a failure."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], directory: Path, size: int, sha256: str) -> None:
        super().__init__(address, _Handler)
        self._directory = directory
        self._sha256 = sha256
        self._one = threading.Lock()
        self.size = size

    def take(self, source: Source) -> tuple[int, str]:
        """Status and what to say."""
        with self._one:
            try:
                manifest = unpack(source, self._directory, self._sha256)
            except ArchiveError as error:
                return 422, f"the archive cannot be restored: {error}"
            except OSError as error:
                return 507, f"the volume cannot be written: {error}"
        return 200, f"version {manifest.version} of {manifest.federation}"


class _Body:
    """A request's content, of a length that is known."""

    def __init__(self, file: Source, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int, /) -> bytes:
        part = self._file.read(min(size, self._left))
        self._left -= len(part)
        return part


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    timeout = SILENCE_SECONDS
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(200, "ready")

    def do_PUT(self) -> None:
        if self.headers.get("Content-Length") != str(self.server.size):
            self.close_connection = True
            self._answer(422, f"an archive of {self.server.size} bytes is expected")
            return
        body = _Body(self.rfile, self.server.size)
        code, said = self.server.take(body)
        # Who still sends does not listen.
        while body.read(PIECE_BYTES):
            pass
        self._answer(code, said)
        if code == 200:
            self.server.shutdown()

    def _answer(self, code: int, said: str) -> None:
        text = json.dumps({"detail": said}).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Probes are no news."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="metisfl.archive.receiver")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--sha256", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(arguments)
    with Receiver(("0.0.0.0", options.port), options.directory, options.bytes, options.sha256) as receiver:
        receiver.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
