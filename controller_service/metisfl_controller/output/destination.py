"""Where models go: S3, Google Cloud Storage, Azure, or a folder. The only import of obstore."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Protocol

_PART_BYTES = 8 << 20
_PARTS_AT_ONCE = 4
_MAX_WORDS = 300


class DestinationError(Exception):
    """The destination does not take, or give, what it should; the message is one line without secrets."""


class Destination(Protocol):
    """A folder of objects. An object appears whole or not at all. All methods raise DestinationError."""

    async def read(self, name: str) -> bytes | None:
        """What an object holds; None when there is none of this name."""
        ...

    async def write(self, name: str, content: Path | bytes) -> None:
        """Make or replace an object."""
        ...


class ObjectStore:
    """`Destination` by obstore; credentials come from the environment."""

    def __init__(self, url: str, folder: str) -> None:
        """Raises DestinationError when the URL or the environment make no sense."""
        try:
            import obstore
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError as error:
            raise DestinationError("obstore is not installed: pip install 'metisfl-operator[output]'") from error
        self._obstore = obstore
        self._errors = (BaseError, OSError, ValueError)
        self._folder = folder
        try:
            if url.startswith("file:"):
                self._store = from_url(url, mkdir=True)
            else:
                # Short: what fails for longer is tried again by the delivery, which says so.
                self._store = from_url(
                    url,
                    retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=20)},
                    client_options={
                        "connect_timeout": timedelta(seconds=10),
                        "timeout": timedelta(seconds=60),
                        # Whoever names an endpoint with http:// means it: a store inside the cluster.
                        "allow_http": True,
                    },
                )
        except self._errors as error:
            raise DestinationError(_words(error)) from error

    async def read(self, name: str) -> bytes | None:
        try:
            found = await self._obstore.get_async(self._store, f"{self._folder}/{name}")
            return bytes(await found.bytes_async())
        except FileNotFoundError:
            return None
        except self._errors as error:
            raise DestinationError(_words(error)) from error

    async def write(self, name: str, content: Path | bytes) -> None:
        try:
            await self._obstore.put_async(
                self._store,
                f"{self._folder}/{name}",
                content,
                chunk_size=_PART_BYTES,
                max_concurrency=_PARTS_AT_ONCE,
            )
        except self._errors as error:
            raise DestinationError(_words(error)) from error


def _words(error: BaseException) -> str:
    """The first line of what went wrong; signed URLs carry their secret behind the question mark."""
    text = re.sub(r"\?\S+", "?…", str(error).strip().partition("\n\n")[0])
    text = re.sub(r"\s+", " ", text) or type(error).__name__
    return text if len(text) <= _MAX_WORDS else f"{text[:_MAX_WORDS]}…"
