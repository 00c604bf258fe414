"""An API server that answers as Kubernetes does, with what a test gives it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

Answer = tuple[int, dict[str, str], bytes | Iterator[bytes]]


def status(code: int, message: str) -> Answer:
    body = {"kind": "Status", "status": "Failure", "code": code, "message": message}
    return code, {"Content-Type": "application/json"}, json.dumps(body).encode()


def federation(**conditions: tuple[str, str, str]) -> Answer:
    listed = [
        {"type": kind, "status": value, "reason": reason, "message": message}
        for kind, (value, reason, message) in conditions.items()
    ]
    return 200, {"Content-Type": "application/json"}, json.dumps({"status": {"conditions": listed}}).encode()


class ApiServer:
    """Answers `answers[path]`; everything else as an API server without such a resource."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.patched: list[tuple[str, bytes]] = []
        self.created: list[tuple[str, Any]] = []
        self.sent: list[tuple[str, bytes]] = []
        self.deleted: list[str] = []
        self.preconditions: list[Any] = []
        """Of each DELETE."""
        self.silent: set[tuple[str, str]] = set()
        """Methods and paths that are done, but whose answer is lost."""
        self.refused: dict[str, Answer] = {}
        """What comes of POST and PUT, by path; by default they do what they should."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                server.headers.append(dict(self.headers))
                code, headers, body = server.answers.get(unquote(self.path), (404, {}, b"404 page not found\n"))
                if isinstance(body, Iterator):
                    self.stream(body)
                    return
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def stream(self, parts: Iterator[bytes]) -> None:
                """As the API server sends a log that is followed: in chunks, each when it is there."""
                self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
                for part in parts:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.write(b"0\r\n\r\n")

            def do_PATCH(self) -> None:
                server.patched.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
                self.do_GET()

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.created.append((self.path, body))
                made = {**body, "metadata": {**body["metadata"], "uid": f"uid-{len(server.created)}"}}
                if self.path not in server.refused:
                    path = f"{self.path}/{body['metadata']['name']}"
                    server.answers.setdefault(path, (200, {}, json.dumps(made).encode()))
                self.change(made)

            def do_PUT(self) -> None:
                server.sent.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
                self.change({"detail": "done"})

            def do_DELETE(self) -> None:
                text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.preconditions.append(json.loads(text or b"{}").get("preconditions"))
                server.deleted.append(self.path)
                self.change({})

            def change(self, document: Any) -> None:
                if (self.command, self.path) in server.silent:
                    self.close_connection = True
                    return
                code, _, body = server.refused.get(self.path, (200, {}, json.dumps(document).encode()))
                assert isinstance(body, bytes)
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
