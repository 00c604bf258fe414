"""`metisfl model get` against an API server that answers as Kubernetes does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.unit.cli.api_server import Answer, ApiServer, federation, status

MODEL = b"\x01\x02weights" * 50_000
OBJECT = "/apis/metisfl.dev/v1alpha1/namespaces/{}/federations/digits"
PROXY = "/api/v1/namespaces/{}/services/http:digits-controller:http/proxy/v1/models/{}"


def model(digest: str = hashlib.sha256(MODEL).hexdigest()) -> Answer:
    return 200, {"Content-Type": "application/octet-stream", "X-Metisfl-Sha256": digest}, MODEL


@pytest.fixture
def get(metisfl: Callable[..., Result], tmp_path: Path) -> Callable[..., Result]:
    return lambda *options: metisfl("model", "get", "digits", "-o", str(tmp_path / "model"), *options)


def test_the_latest_model_is_fetched_through_the_service_proxy(
    server: ApiServer, get: Callable[..., Result], tmp_path: Path
) -> None:
    server.answers = {OBJECT.format("lab"): federation(), PROXY.format("lab", "latest"): model()}
    result = get()
    assert result.exit_code == 0, result.output
    assert (tmp_path / "model").read_bytes() == MODEL
    assert result.output == f"{tmp_path / 'model'}: 439.5 KiB\n"
    assert PROXY.format("lab", "latest") in server.asked, "colons and slashes go over the wire as they are"


@pytest.mark.parametrize(
    ("options", "namespace"), [(["-n", "else"], "else"), (["--context", "plain"], "default"), ([], "lab")]
)
def test_namespace_and_context_can_be_chosen(
    server: ApiServer, get: Callable[..., Result], options: list[str], namespace: str
) -> None:
    server.answers = {OBJECT.format(namespace): federation(), PROXY.format(namespace, "latest"): model()}
    assert get(*options).exit_code == 0


def test_a_version_can_be_chosen(server: ApiServer, get: Callable[..., Result]) -> None:
    server.answers = {OBJECT.format("lab"): federation(), PROXY.format("lab", "7"): model()}
    assert get("--version", "7").exit_code == 0


def test_a_damaged_model_is_not_kept(server: ApiServer, get: Callable[..., Result], tmp_path: Path) -> None:
    server.answers = {OBJECT.format("lab"): federation(), PROXY.format("lab", "latest"): model("00" * 32)}
    result = get()
    assert result.exit_code == 1
    assert "arrived damaged" in result.output
    assert not (tmp_path / "model").exists()


NOT_FOUND = status(404, 'federations.metisfl.dev "digits" not found')
NO_SERVICE = status(404, 'services "digits-controller" not found')
NO_ENDPOINTS = status(503, 'no endpoints available for service "digits-controller"')
STARTING = federation(ControllerAvailable=("False", "PodNotReady", "the image cannot be pulled"))
COMPLETE = federation(Complete=("True", "MaxRoundsReached", ""), ControllerAvailable=("False", "Removed", ""))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({}, "context 'here' knows no Federations: MetisFL is not installed"),
        (
            {"object": NOT_FOUND},
            "there is no Federation 'digits' in namespace 'lab' (context 'here'); name another with -n",
        ),
        ({"object": status(403, "you shall not read")}, "cannot be read: you shall not read"),
        (
            {"object": STARTING, "proxy": NO_ENDPOINTS},
            "the controller of 'digits' is not ready (ControllerAvailable is False: PodNotReady: the image cannot be "
            "pulled): no endpoints available",
        ),
        ({"object": federation(), "proxy": NO_SERVICE}, "not ready (no status yet: is the operator running?)"),
        ({"object": COMPLETE, "proxy": NO_SERVICE}, "its models are on the claim digits-controller in namespace 'lab'"),
        (
            {"object": COMPLETE, "proxy": (404, {}, b'{"detail": "version 7 is not kept; stored versions: 8, 9"}')},
            "has no such model: version 7 is not kept; stored versions: 8, 9",
        ),
        (
            {"object": COMPLETE, "proxy": status(403, "services/proxy is forbidden")},
            "you may not reach the controller of 'digits' through the API server: services/proxy is forbidden",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(
    server: ApiServer, get: Callable[..., Result], answers: dict[str, Answer], expected: str
) -> None:
    paths = {"object": OBJECT.format("lab"), "proxy": PROXY.format("lab", "latest")}
    server.answers = {paths[name]: answer for name, answer in answers.items()}
    result = get()
    assert result.exit_code == 1
    assert expected in result.output


def test_an_unknown_context_is_told_with_those_there_are(get: Callable[..., Result]) -> None:
    result = get("--context", "nowhere")
    assert result.exit_code == 1
    assert "the kubeconfig has no context 'nowhere'; it has: here, plain" in result.output


def test_without_a_kubeconfig_the_way_to_one_is_told(
    get: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "/does/not/exist")
    result = get()
    assert result.exit_code == 1
    assert "set KUBECONFIG or choose a --context" in result.output


def test_a_cluster_that_is_down_is_told_as_such(server: ApiServer, get: Callable[..., Result]) -> None:
    server.http.server_close()
    result = get()
    assert result.exit_code == 1
    assert "the cluster of context 'here' cannot be reached" in result.output
