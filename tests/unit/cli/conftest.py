"""A kubeconfig that leads to an API server of the test's own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from metisfl.cli.main import main
from tests.unit.cli.api_server import ApiServer


@pytest.fixture
def server() -> Iterator[ApiServer]:
    api = ApiServer()
    thread = threading.Thread(target=api.http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield api
    api.http.shutdown()
    api.http.server_close()
    thread.join()


@pytest.fixture
def metisfl(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command, with a kubeconfig for `server`: context `here` of namespace `lab`, and `plain` without one."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "clusters": [{"name": "here", "cluster": {"server": server.url}}],
                "users": [{"name": "me", "user": {"token": "secret"}}],
                "contexts": [
                    {"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "lab"}},
                    {"name": "plain", "context": {"cluster": "here", "user": "me"}},
                ],
            }
        )
    )
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(main, list(arguments))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run
