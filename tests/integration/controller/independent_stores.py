"""Object stores that others wrote, and their own clients, in an environment that the tests make for themselves.

Not part of `[dev]`: moto cannot be installed beside the Kubernetes client (docs/decisions/0037-object-stores.md).
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PYTHON_PACKAGES = ("moto[server]==5.2.5", "azure-storage-blob==12.31.1")
AZURITE = "azurite@3.35.0"
INSTALL_SECONDS, START_SECONDS, CLIENT_SECONDS = 600, 60, 60
BUCKET = "bucket"

# Azurite's account, the same everywhere: learn.microsoft.com, "Use the Azurite emulator".
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

_S3_USER = """
import boto3, json, sys
def client(service, key, secret):
    return boto3.client(service, endpoint_url=sys.argv[1], region_name="us-east-1",
                        aws_access_key_id=key, aws_secret_access_key=secret)
iam = client("iam", "nobody", "nothing")
iam.create_user(UserName="metisfl")
allowed = {"Effect": "Allow", "Action": ["s3:*"], "Resource": "*"}
document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
iam.put_user_policy(UserName="metisfl", PolicyName="all", PolicyDocument=document)
key = iam.create_access_key(UserName="metisfl")["AccessKey"]
client("s3", key["AccessKeyId"], key["SecretAccessKey"]).create_bucket(Bucket=sys.argv[2])
print(json.dumps([key["AccessKeyId"], key["SecretAccessKey"]]))
"""

_S3_SAVE = """
import boto3, pathlib, sys
s3 = boto3.client("s3")
for page in s3.get_paginator("list_objects_v2").paginate(Bucket=sys.argv[1]):
    for entry in page.get("Contents", []):
        target = pathlib.Path(sys.argv[2], entry["Key"])
        target.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(sys.argv[1], entry["Key"], str(target))
"""

_AZURE_CLIENT = """
import os, pathlib, sys
from azure.storage.blob import BlobServiceClient
service = BlobServiceClient(os.environ["AZURE_STORAGE_ENDPOINT"], credential=os.environ["AZURE_STORAGE_ACCOUNT_KEY"])
container = service.get_container_client(sys.argv[1])
"""

_AZURE_CONTAINER = f"{_AZURE_CLIENT}container.create_container()\n"

_AZURE_SAVE = f"""{_AZURE_CLIENT}
for entry in container.list_blobs():
    target = pathlib.Path(sys.argv[2], entry.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(container.download_blob(entry.name).readall())
"""


@dataclass(frozen=True)
class IndependentStore:
    """A server that runs. `environment`: what a controller is to be told; `secret`: which variable of it is secret."""

    url: str
    environment: Mapping[str, str]
    secret: str
    python: Path
    save: str

    def objects(self, folder: Path) -> dict[str, bytes]:
        """Everything that is in it, by name, fetched by the client of the store's maker."""
        _client(self.python, self.save, [BUCKET, str(folder)], self.environment)
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def python_with_clients(cache: Path) -> Path:
    """An interpreter that has moto and the clients. Skips the test where PyPI gives none."""
    folder = cache / "python"
    python = folder / "bin" / "python"
    with _once(folder, " ".join(PYTHON_PACKAGES)) as missing:
        if missing:
            _install([sys.executable, "-m", "venv", "--clear", str(folder)], "PyPI")
            _install([str(python), "-m", "pip", "install", "--quiet", *PYTHON_PACKAGES], "PyPI")
    return python


def azurite(cache: Path) -> Path:
    """Azurite's program. Skips the test where npm gives none."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed, and Azurite comes from there")
    folder = cache / "npm"
    with _once(folder, AZURITE) as missing:
        if missing:
            folder.mkdir(exist_ok=True)
            _install([npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--silent", AZURITE], "npm")
    return folder / "node_modules" / ".bin" / "azurite-blob"


@contextmanager
def moto_server(python: Path, log: Path) -> Iterator[IndependentStore]:
    """S3. Every request but the first three, which make a user, has to be signed with the user's key."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(python.parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, port, log, INITIAL_NO_AUTH_ACTION_COUNT="3"):
        key, secret = json.loads(_client(python, _S3_USER, [url, BUCKET], {}))
        environment = {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_ENDPOINT_URL": url,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        yield IndependentStore(f"s3://{BUCKET}/models", environment, "AWS_SECRET_ACCESS_KEY", python, _S3_SAVE)


@contextmanager
def azurite_server(program: Path, python: Path, log: Path) -> Iterator[IndependentStore]:
    """Azure's blobs. Every request has to be signed with the account's key."""
    port = _free_port()
    environment = {
        "AZURE_STORAGE_ACCOUNT_NAME": AZURE_ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY,
        "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}",
    }
    options = ["--inMemoryPersistence", "--disableTelemetry", "--silent", "--skipApiVersionCheck"]
    command = [str(program), *options, "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    with _running(command, port, log):
        _client(python, _AZURE_CONTAINER, [BUCKET], environment)
        yield IndependentStore(f"az://{BUCKET}/models", environment, "AZURE_STORAGE_ACCOUNT_KEY", python, _AZURE_SAVE)


@contextmanager
def _once(folder: Path, content: str) -> Iterator[bool]:
    """Whether to fill the folder with this; another session of tests waits meanwhile."""
    done = folder / "installed"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = not done.exists() or done.read_text() != content
        yield missing
        if missing:
            done.write_text(content)


def _install(command: Sequence[str], registry: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{registry} did not give the server within {INSTALL_SECONDS} s")
    if done.returncode:
        last = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        pytest.skip(f"{registry} does not give the server here: {last}")


def _client(python: Path, program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a program prints that uses a client of the store's maker."""
    done = subprocess.run(
        [str(python), "-c", program, *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=CLIENT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def _running(command: Sequence[str], port: int, log: Path, **environment: str) -> Iterator[None]:
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            env={"PATH": os.environ["PATH"], "HOME": str(log.parent), **environment},
            cwd=log.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            _until_listening(process, port, log)
            yield
        finally:
            process.kill()


def _until_listening(process: subprocess.Popen[Any], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"does not listen: {log.read_text()}"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
