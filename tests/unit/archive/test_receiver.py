"""What the pod does that unpacks an archive on a volume."""

from __future__ import annotations

import hashlib
import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from metisfl.archive.receiver import Receiver
from tests.unit.archive.test_archive import CONTENTS, archive

CONTENT = archive()
WAIT_SECONDS = 20


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """As a new file system is."""
    (tmp_path / "lost+found").mkdir()
    return tmp_path


@pytest.fixture
def receiver(volume: Path) -> Iterator[tuple[Receiver, threading.Thread]]:
    with Receiver(("127.0.0.1", 0), volume, len(CONTENT), hashlib.sha256(CONTENT).hexdigest()) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server, thread
        server.shutdown()
        thread.join()


def ask(receiver: Receiver, method: str, content: bytes = b"", length: int | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*receiver.server_address[:2], timeout=WAIT_SECONDS)
    headers = {} if length is None else {"Content-Length": str(length)}
    try:
        connection.request(method, "/archive", content or None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_the_expected_archive_is_unpacked_and_that_was_it(
    receiver: tuple[Receiver, threading.Thread], volume: Path
) -> None:
    server, thread = receiver
    assert ask(server, "GET") == (200, '{"detail": "ready"}')
    assert ask(server, "PUT", CONTENT) == (200, '{"detail": "version 7 of digits"}')
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()
    found = {str(path.relative_to(volume)): path.read_bytes() for path in volume.rglob("*") if path.is_file()}
    assert found == CONTENTS


def test_no_other_archive_is_taken(receiver: tuple[Receiver, threading.Thread], volume: Path) -> None:
    server, thread = receiver
    code, said = ask(server, "PUT", CONTENT + bytes(512))
    assert (code, f"an archive of {len(CONTENT)} bytes is expected" in said) == (422, True)
    other = CONTENT.replace(b'"1f3c"', b'"2f3c"')
    code, said = ask(server, "PUT", other)
    assert (code, "SHA-256" in said) == (422, True)
    assert [path.name for path in volume.iterdir()] == ["lost+found"]
    assert thread.is_alive()
    assert ask(server, "PUT", CONTENT)[0] == 200, "it can be tried again"


def test_a_sender_that_breaks_off_leaves_nothing(receiver: tuple[Receiver, threading.Thread], volume: Path) -> None:
    server, _ = receiver
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=WAIT_SECONDS)
    connection.putrequest("PUT", "/archive")
    connection.putheader("Content-Length", str(len(CONTENT)))
    connection.endheaders(CONTENT[:2000])
    connection.sock.shutdown(1)
    assert connection.getresponse().status == 422
    connection.close()
    assert [path.name for path in volume.iterdir()] == ["lost+found"]


def test_a_volume_that_cannot_be_written_is_told(
    receiver: tuple[Receiver, threading.Thread], volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("metisfl.archive.reading.os.fsync", full)
    code, said = ask(receiver[0], "PUT", CONTENT)
    assert (code, "the volume cannot be written" in said, "No space left" in said) == (507, True, True)
    assert [path.name for path in volume.iterdir()] == ["lost+found"]
