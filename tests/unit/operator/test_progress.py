"""Asking a controller, over real HTTP, that may answer anything."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from metisfl.api import FederationDocument, FederationState
from metisfl.api.access import TOKEN_HEADER
from metisfl_operator.progress import HttpProgress, ProgressError

DOCUMENT = FederationDocument(name="demo", uid="u", incarnation=1, state=FederationState.TRAINING, max_rounds=3)


@contextmanager
def serving(status: int, body: bytes) -> Iterator[HttpProgress]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/v1/federation" else 404)
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            right = self.path == "/v1/instances" and self.headers[TOKEN_HEADER] == "secret" and told == {"a-0": "u"}
            self.send_response(status if right else 404)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with httpx.Client(timeout=5, trust_env=False) as client:
            yield HttpProgress(client, server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_document() -> None:
    with serving(200, DOCUMENT.model_dump_json(by_alias=True).encode()) as progress:
        assert progress.read("127.0.0.1", None) == DOCUMENT


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (503, b"starting", "503"),
        (200, b"<html>", "not a federation document"),
        (200, b"{}", "not a federation document"),
        (200, b"\xff\xfe", "not a federation document"),
    ],
    ids=["busy", "html", "empty", "bytes"],
)
def test_anything_else(status: int, body: bytes, words: str) -> None:
    with serving(status, body) as progress, pytest.raises(ProgressError, match=words):
        progress.read("127.0.0.1", None)


def test_nobody_there(unused_tcp_port_factory: Callable[[], int]) -> None:
    with httpx.Client(timeout=5, trust_env=False) as client, pytest.raises(ProgressError, match=r"http://127\.0\.0\.1"):
        HttpProgress(client, unused_tcp_port_factory()).read("127.0.0.1", None)


def test_pods_are_announced_with_the_token() -> None:
    with serving(204, b"") as progress:
        progress.announce("127.0.0.1", "secret", {"a-0": "u"})
        with pytest.raises(ProgressError, match="404"):
            progress.announce("127.0.0.1", "other", {"a-0": "u"})
