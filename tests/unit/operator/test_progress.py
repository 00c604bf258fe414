"""Asking a controller, over real HTTP, that may answer anything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from metisfl.api import FederationDocument, FederationState
from metisfl_operator.progress import HttpProgress, ProgressError

DOCUMENT = FederationDocument(name="demo", uid="u", incarnation=1, state=FederationState.TRAINING, max_rounds=3)


@contextmanager
def serving(status: int, body: bytes) -> Iterator[HttpProgress]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/v1/federation" else 404)
            self.end_headers()
            self.wfile.write(body)

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
        assert progress.read("127.0.0.1") == DOCUMENT


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
        progress.read("127.0.0.1")


def test_nobody_there(unused_tcp_port_factory: Callable[[], int]) -> None:
    with httpx.Client(timeout=5, trust_env=False) as client, pytest.raises(ProgressError, match=r"http://127\.0\.0\.1"):
        HttpProgress(client, unused_tcp_port_factory()).read("127.0.0.1")
