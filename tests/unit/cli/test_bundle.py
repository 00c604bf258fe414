"""Bundles as files, and what `metisfl join` makes of one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from metisfl.bundle import (
    Bundle,
    BundleError,
    BundleSpec,
    BundleTls,
    bundle_yaml,
    make_bundle,
    read_bundle,
    write_bundle,
)
from metisfl.site import Site, SiteError, environment
from metisfl_learner.settings import Settings

TLS = BundleTls(
    ca="-----BEGIN CERTIFICATE-----\nca\n",
    certificate="-----BEGIN CERTIFICATE-----\nbootstrap\n",
    key="-----BEGIN PRIVATE KEY-----\nkey\n",
    server_name="controller.u-1.metisfl.internal",
)


def bundle(**changes: Any) -> Bundle:
    values = {
        "federation": "digits",
        "group": "hospital-b",
        "max_learners": 4,
        "endpoint": "fl.example.org:443",
        "entrypoint": "pkg.mod:Class",
        "tls": TLS,
    }
    return make_bundle(BundleSpec(**{**values, **changes}))


def site(folder: Path, **changes: Any) -> Site:
    values = {
        "entrypoint": "mine:Mine",
        "parameters": {"data": "/data"},
        "state_dir": folder / "state",
        "ordinal": None,
        "patience": 60.0,
        "import_path": folder,
    }
    return Site(**{**values, **changes})


@given(
    st.from_regex(r"[a-z][a-z0-9-]{0,15}[a-z0-9]", fullmatch=True),
    st.integers(1, 10_000),
    st.one_of(
        st.ip_addresses(v=4), st.ip_addresses(v=6).map(lambda address: f"[{address}]"), st.just("fl.example.org")
    ),
    st.integers(1, 65_535),
    st.booleans(),
)
def test_a_bundle_survives_its_file(name: str, most: int, host: Any, port: int, tls: bool) -> None:
    import tempfile

    made = bundle(federation=name, max_learners=most, endpoint=f"{host}:{port}", tls=TLS if tls else None)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bundle.yaml"
        write_bundle(file, made)
        assert read_bundle(file) == made
        assert file.stat().st_mode & 0o777 == 0o600


def test_a_bundle_shows_its_certificates_as_blocks() -> None:
    assert "    key: |\n      -----BEGIN PRIVATE KEY-----\n" in bundle_yaml(bundle())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "Federation"}, "this is no bundle"),
        ({"spec": {"endpoint": "no port"}}, "spec.endpoint"),
        ({"spec": {"maxLearners": "4"}}, "spec.maxLearners"),
        ({"spec": {"surprise": 1}}, "spec.surprise: unknown field"),
        ({"spec": {"tls": {"ca": "nonsense"}}}, "spec.tls.ca"),
    ],
)
def test_what_is_no_bundle_is_told(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    document = yaml.safe_load(bundle_yaml(bundle()))
    for key, value in change.items():
        document[key] = {**document[key], **value} if isinstance(value, dict) else value
    file = tmp_path / "bundle.yaml"
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(BundleError, match=words):
        read_bundle(file)


def test_a_learner_understands_what_a_bundle_becomes(tmp_path: Path) -> None:
    around = {
        "PATH": "/bin",
        "https_proxy": "http://proxy:3128",
        "METISFL_CONTROLLER": "other:1",
        "PYTHONPATH": "/mine",
    }
    settings = Settings.from_environment(variables := environment(bundle(), site(tmp_path), around))
    assert (settings.controller, settings.entrypoint) == ("fl.example.org:443", "mine:Mine")
    assert (settings.group, settings.ordinal) == ("hospital-b", None)
    assert dict(settings.parameters) == {"data": "/data"}
    assert settings.connect_deadline_seconds == 60
    assert variables["https_proxy"] == "http://proxy:3128"
    assert variables["PYTHONPATH"] == f"{tmp_path}{os.pathsep}/mine"
    assert settings.tls_dir is not None
    files = {file.name: file.read_text() for file in settings.tls_dir.iterdir()}
    assert files == {
        "ca.crt": TLS.ca,
        "tls.crt": TLS.certificate,
        "tls.key": TLS.key,
        "server-name": f"{TLS.server_name}\n",
    }
    assert {file.stat().st_mode & 0o777 for file in settings.tls_dir.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("ordinal", "pod", "tls", "expected"),
    [
        (None, "", None, 0),
        (None, "hospital-b-2", None, 2),
        (3, "hospital-b-2", None, 3),
        (None, "hospital-b-2", TLS, None),
        (1, "", TLS, 1),
    ],
)
def test_the_controller_chooses_the_ordinal_where_it_can(
    tmp_path: Path, ordinal: int | None, pod: str, tls: BundleTls | None, expected: int | None
) -> None:
    around = {"METISFL_POD_NAME": pod} if pod else {}
    found = environment(bundle(tls=tls), site(tmp_path, ordinal=ordinal), around)
    assert Settings.from_environment(found).ordinal == expected


def test_two_learners_cannot_share_a_folder(tmp_path: Path) -> None:
    environment(bundle(), site(tmp_path), {})
    with pytest.raises(SiteError, match="another learner uses"):
        environment(bundle(), site(tmp_path), {})


def test_join_becomes_the_learner(
    metisfl: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: called.append(arguments))
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "bundle.yaml"
    write_bundle(file, bundle())
    result = metisfl("join", str(file), "-p", "data=/d=1", "--state-dir", "s")
    assert result.exit_code == 0, result.output
    ((program, arguments, variables),) = called
    assert (program, arguments[1:]) == (arguments[0], ["-P", "-m", "metisfl_learner"])
    assert variables["METISFL_ENTRYPOINT"] == "pkg.mod:Class"
    assert json.loads(variables["METISFL_PARAMETERS"]) == {"data": "/d=1"}
    assert variables["METISFL_STATE_DIR"] == str(tmp_path / "s")
    assert result.output == ""


def test_a_bundle_that_others_can_read_is_told(
    metisfl: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "execve", lambda *arguments: None)
    file = tmp_path / "bundle.yaml"
    file.write_text(bundle_yaml(bundle()))
    file.chmod(0o644)
    assert "others can read this file" in metisfl("join", str(file), "--state-dir", str(tmp_path / "s")).output


def test_wrong_parameters_are_told(metisfl: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "bundle.yaml"
    write_bundle(file, bundle())
    result = metisfl("join", str(file), "-p", "data")
    assert result.exit_code == 2
    assert "--parameters data: expected KEY=VALUE" in result.output
