"""An HTTP proxy that tunnels by CONNECT, and cuts tunnels in which nothing is said, as load balancers do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

_BLOCK = 1 << 16


@dataclass
class Tunnel:
    """`said` is when a byte last went through it, in either direction."""

    target: str
    opened: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)
    cut: bool = False

    @property
    def age(self) -> float:
        return time.monotonic() - self.opened


@dataclass
class Proxy:
    """Tunnels in the order in which they were opened."""

    idle_seconds: float
    url: str = ""
    tunnels: list[Tunnel] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, OSError):
            await self._tunnel(reader, writer)
        writer.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.decode().split(" ", 2)
        if method != "CONNECT":
            writer.write(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n")
            return
        host, _, port = target.rpartition(":")
        upstream_reader, upstream_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.tunnels.append(tunnel := Tunnel(target))
        ways = [
            asyncio.create_task(self._copy(tunnel, reader, upstream_writer)),
            asyncio.create_task(self._copy(tunnel, upstream_reader, writer)),
        ]
        try:
            while not any(way.done() for way in ways):
                await asyncio.wait(ways, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
                if time.monotonic() - tunnel.said > self.idle_seconds:
                    tunnel.cut = True
                    return
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            upstream_writer.close()

    async def _copy(self, tunnel: Tunnel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await reader.read(_BLOCK):
            tunnel.said = time.monotonic()
            writer.write(block)
            await writer.drain()


@asynccontextmanager
async def proxying(idle_seconds: float = 3600.0) -> AsyncIterator[Proxy]:
    proxy = Proxy(idle_seconds)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
