"""An S3 that checks signatures: enough of the protocol to be written to and read from, on a port of its own.

Signatures are recomputed as AWS documents them (Signature Version 4), so that a client with the wrong key is refused
as S3 would refuse it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

KEY, SECRET = "test-key", "test-secret"


@dataclass
class ObjectStore:
    """`objects` by "bucket/key". While `broken` is positive, that many requests get a 503."""

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    broken: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def environment(self, secret: str = SECRET) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
        }


@contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[ObjectStore]:
    """`host`: the address to listen on, and to be reached at."""
    store = ObjectStore()

    class Handler(_Handler):
        objects = store

    server = ThreadingHTTPServer((host, 0), Handler)
    server.daemon_threads = True
    store.url = f"http://{host}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: ObjectStore

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._allowed(body):
            return
        name, query = self._asked()
        with self.objects.lock:
            if "uploadId" in query:
                self.objects.uploads[query["uploadId"]][int(query["partNumber"])] = body
            else:
                self.objects.objects[name] = body
        self._answer(200, etag=hashlib.md5(body).hexdigest())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._allowed(body):
            return
        name, query = self._asked()
        bucket, _, key = name.partition("/")
        with self.objects.lock:
            if "uploads" in query:
                upload = f"upload-{len(self.objects.uploads)}"
                self.objects.uploads[upload] = {}
                inner = f"<Bucket>{bucket}</Bucket><Key>{key}</Key><UploadId>{upload}</UploadId>"
                text = f"<InitiateMultipartUploadResult>{inner}</InitiateMultipartUploadResult>"
            else:
                parts = self.objects.uploads.pop(query["uploadId"])
                wanted = [int(number) for number in re.findall(rb"<PartNumber>(\d+)</PartNumber>", body)]
                self.objects.objects[name] = b"".join(parts[number] for number in wanted)
                inner = f"<Bucket>{bucket}</Bucket><Key>{key}</Key><ETag>etag</ETag>"
                text = f"<CompleteMultipartUploadResult>{inner}</CompleteMultipartUploadResult>"
        self._answer(200, text.encode())

    def do_GET(self) -> None:
        if not self._allowed(b""):
            return
        name, _ = self._asked()
        content = self.objects.objects.get(name)
        if content is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self._answer(200, content, etag=hashlib.md5(content).hexdigest())

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def _asked(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        return unquote(parts.path).lstrip("/"), dict(parse_qsl(parts.query, keep_blank_values=True))

    def _allowed(self, body: bytes) -> bool:
        with self.objects.lock:
            if self.objects.broken > 0:
                self.objects.broken -= 1
                self._answer(503, b"<Error><Code>SlowDown</Code></Error>")
                return False
        if not self._signed(body):
            self._answer(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
            return False
        return True

    def _signed(self, body: bytes) -> bool:
        """Signature Version 4 of the request, with the secret that this server knows."""
        found = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d+)/([^/]+)/s3/aws4_request, ?"
            r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]+)",
            self.headers.get("Authorization", ""),
        )
        if found is None or found[1] != KEY:
            return False
        _, day, region, signed, signature = found.groups()
        hashed = self.headers["x-amz-content-sha256"]
        if hashed not in ("UNSIGNED-PAYLOAD", hashlib.sha256(body).hexdigest()):
            return False
        parts = urlsplit(self.path)
        query = sorted(parse_qsl(parts.query, keep_blank_values=True))
        canonical = "\n".join(
            [
                self.command,
                parts.path,
                "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in query),
                *(f"{name}:{' '.join(self.headers[name].split())}" for name in signed.split(";")),
                "",
                signed,
                hashed,
            ]
        )
        scope = f"{day}/{region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{self.headers['x-amz-date']}\n{scope}\n{digest}"
        key = f"AWS4{SECRET}".encode()
        for part in (day, region, "s3", "aws4_request", text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return hmac.compare_digest(key.hex(), signature)

    def _answer(self, code: int, body: bytes = b"", etag: str = "") -> None:
        self.send_response(code)
        if etag:
            self.send_header("ETag", f'"{etag}"')
            self.send_header("Last-Modified", "Wed, 01 May 2024 10:00:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
