"""Messages on their way to the controller's Tasks stream."""

from __future__ import annotations

import asyncio

from metisfl.proto.v1 import controller_pb2 as pb


class Outbox:
    """A queue that outlives a broken stream. What was in it then is dropped: the next stream begins with Ready, which
    says everything anew."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[pb.LearnerMessage] = asyncio.Queue()

    def put(self, message: pb.LearnerMessage) -> None:
        self._messages.put_nowait(message)

    async def get(self, seconds: float) -> pb.LearnerMessage | None:
        """The next message, or None when there was none for this long. Say `done` once it is sent."""
        try:
            async with asyncio.timeout(seconds):
                return await self._messages.get()
        except TimeoutError:
            return None

    def done(self) -> None:
        self._messages.task_done()

    async def sent(self, seconds: float) -> bool:
        """Wait until everything is sent; False when that took too long."""
        try:
            async with asyncio.timeout(seconds):
                await self._messages.join()
        except TimeoutError:
            return False
        return True

    def clear(self) -> None:
        while not self._messages.empty():
            self._messages.get_nowait()
            self._messages.task_done()
