"""Settings from the environment, and how many CPUs there really are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from metisfl_controller.cpus import available_cpus
from metisfl_controller.settings import Address, Settings, SettingsError

NEEDED = {"METISFL_FEDERATION_FILE": "/f.yaml", "METISFL_STATE_DIR": "/state"}


def test_defaults() -> None:
    settings = Settings.parse(NEEDED)
    assert (settings.federation_file, settings.state_dir) == (Path("/f.yaml"), Path("/state"))
    assert settings.grpc_address == Address("0.0.0.0", 50051)
    assert settings.http_address == Address("0.0.0.0", 8080)
    assert settings.threads == available_cpus()
    assert settings.lease_seconds == 20
    assert (settings.log_format, settings.log_level) == ("json", "INFO")
    assert settings.partition_plan is settings.federation_uid is settings.endpoint_file is None


def test_everything_set() -> None:
    settings = Settings.parse(
        {
            **NEEDED,
            "METISFL_PARTITION_PLAN": "/plan.json",
            "METISFL_FEDERATION_UID": "u-1",
            "METISFL_GRPC_ADDRESS": "127.0.0.1:0",
            "METISFL_HTTP_ADDRESS": "[::1]:65535",
            "METISFL_ENDPOINT_FILE": "/ep.json",
            "METISFL_THREADS": "1",
            "METISFL_LEASE_SECONDS": "2",
            "METISFL_CHECKPOINTS": "false",
            "METISFL_LOG_FORMAT": "text",
            "METISFL_LOG_LEVEL": "debug",
        }
    )
    assert settings == Settings(
        federation_file=Path("/f.yaml"),
        state_dir=Path("/state"),
        grpc_address=Address("127.0.0.1", 0),
        http_address=Address("::1", 65535),
        threads=1,
        lease_seconds=2,
        checkpoints=False,
        partition_plan=Path("/plan.json"),
        federation_uid="u-1",
        endpoint_file=Path("/ep.json"),
        log_format="text",
        log_level="DEBUG",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("METISFL_FEDERATION_FILE", ""),
        ("METISFL_STATE_DIR", ""),
        ("METISFL_GRPC_ADDRESS", "50051"),
        ("METISFL_GRPC_ADDRESS", "host:"),
        ("METISFL_GRPC_ADDRESS", "host:http"),
        ("METISFL_GRPC_ADDRESS", "host:65536"),
        ("METISFL_HTTP_ADDRESS", "host:-1"),
        ("METISFL_HTTP_ADDRESS", "host:²"),
        ("METISFL_HTTP_ADDRESS", "host:" + "9" * 5000),
        ("METISFL_THREADS", "0"),
        ("METISFL_THREADS", "two"),
        ("METISFL_THREADS", "²"),
        ("METISFL_LEASE_SECONDS", "1"),
        ("METISFL_LEASE_SECONDS", "0.5"),
        ("METISFL_CHECKPOINTS", "no"),
        ("METISFL_LOG_FORMAT", "xml"),
        ("METISFL_LOG_LEVEL", "loud"),
    ],
)
def test_bad_settings_are_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.parse({**NEEDED, name: value})


def test_threads_are_at_most_the_cpus_there_are() -> None:
    assert Settings.parse({**NEEDED, "METISFL_THREADS": "999"}).threads == available_cpus()


@pytest.mark.parametrize("text", ["0.0.0.0:1", "[::]:50051", "localhost:80"])
def test_an_address_reads_as_it_was_written(text: str) -> None:
    assert str(Address.parse("X", text)) == text


# ---- CPUs, from cgroup files as kernels write them


@pytest.fixture
def cpus(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return 8


def cgroup(folder: Path, membership: str, files: Mapping[str, str]) -> tuple[Path, Path]:
    """Folders like /sys/fs/cgroup and /proc."""
    root, proc = folder / "cgroup", folder / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text(membership)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root, proc


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("0::/\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/\n", {"cpu.max": "250000 100000"}, 3),
        ("0::/\n", {"cpu.max": "5000 100000"}, 1),
        ("0::/\n", {"cpu.max": "1600000 100000"}, 8),
        ("0::/\n", {"cpu.max": "nonsense"}, 8),
        # The smallest of nested limits counts, whether it is the group's own or a parent's.
        ("0::/pod/main\n", {"pod/main/cpu.max": "max 100000", "pod/cpu.max": "300000 100000"}, 3),
        ("0::/pod/main\n", {"pod/main/cpu.max": "200000 100000", "pod/cpu.max": "300000 100000"}, 2),
        # In a container the host's path is out of sight, and the root is the container's own group.
        ("0::/kubepods/pod1/abc\n", {"cpu.max": "100000 100000"}, 1),
    ],
)
def test_cgroup_version_2(tmp_path: Path, cpus: int, membership: str, files: Mapping[str, str], expected: int) -> None:
    assert available_cpus(*cgroup(tmp_path, membership, files)) == expected


@pytest.mark.parametrize(
    ("path", "quota", "expected"),
    [("", "-1", 8), ("", "400000", 4), ("a/b", "150000", 2), ("a", "1000", 1), ("a", "x", 8), ("other", "1000", 8)],
)
def test_cgroup_version_1(tmp_path: Path, cpus: int, path: str, quota: str, expected: int) -> None:
    folder = f"cpu/{path}"
    files = {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": "100000"}
    membership = "4:memory:/other\n1:cpu,cpuacct:/a/b\n0::/\n"
    assert available_cpus(*cgroup(tmp_path, membership, files)) == expected


def test_without_cgroups_affinity_decides(tmp_path: Path, cpus: int) -> None:
    assert available_cpus(tmp_path / "none", tmp_path / "none") == 8
