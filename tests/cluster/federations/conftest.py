"""The operator, installed once by its chart, and what tests do with federations in real pods."""

from __future__ import annotations

import base64
import copy
import fcntl
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python import Chart, Config
from kubernetes import config

from metisfl.api import FederationDocument, RoundDocument
from metisfl.api.access import TOKEN_FILE, token_headers
from metisfl.cluster.access import Cluster

ROOT = Path(__file__).resolve().parents[3]
RELEASE, RELEASE_NAMESPACE = "metisfl", "metisfl-system"
OTHER_SESSION_SECONDS = 1200
KINDS = "statefulsets,services,configmaps,persistentvolumeclaims,pods,federations.metisfl.dev"


@dataclass(frozen=True)
class Lab:
    """One namespace with federations in it. `kubectl` fails the test with its own words."""

    kubectl: Any
    namespace: str

    def apply(self, federation: dict[str, Any]) -> None:
        self.kubectl("apply", "-n", self.namespace, "-f", "-", input=json.dumps(federation))

    def federation(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", "mfed", name, "-n", self.namespace, "-o", "json"))
        return found

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.federation(name).get("status", {})
        return found

    def condition(self, name: str, kind: str) -> tuple[str, str, str]:
        """Status, reason and message; empty while there is no such condition."""
        for condition in self.status(name).get("conditions", []):
            if condition["type"] == kind:
                return condition["status"], condition["reason"], condition["message"]
        return "", "", ""

    def controller(self, name: str) -> FederationDocument:
        return FederationDocument.model_validate_json(self._ask(name, "v1/federation"))

    def rounds(self, name: str) -> list[RoundDocument]:
        return [RoundDocument.model_validate(entry) for entry in json.loads(self._ask(name, "v1/rounds?limit=1000"))]

    def audit(self, name: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = json.loads(self._ask(name, "v1/audit?limit=1000"))
        return entries

    def edit(self, name: str, **spec: Any) -> None:
        self.kubectl("patch", "mfed", name, "-n", self.namespace, "--type=merge", "-p", json.dumps({"spec": spec}))

    def delete(self, name: str) -> None:
        self.kubectl("delete", "mfed", name, "-n", self.namespace, "--timeout=60s", timeout=70)

    def left(self, name: str) -> list[str]:
        """What is still there of a federation."""
        selector = f"metisfl.dev/federation={name}"
        text = self.kubectl("get", KINDS, "-n", self.namespace, "-l", selector, "-o", "name", "--ignore-not-found")
        return list(text.split())

    def pods(self, name: str) -> list[str]:
        return [entry.removeprefix("pod/") for entry in self.left(name) if entry.startswith("pod/")]

    def kill(self, pod: str) -> None:
        """As `kill -9` would: no time to say goodbye."""
        self.kubectl("delete", "pod", pod, "-n", self.namespace, "--force", "--grace-period=0", "--wait=false")

    def events(self, name: str) -> list[tuple[str, str, str]]:
        """(type, reason, message) of a Federation's events."""
        fields = f"involvedObject.kind=Federation,involvedObject.name={name}"
        text = self.kubectl("get", "events", "-n", self.namespace, f"--field-selector={fields}", "-o", "json")
        return [(item["type"], item["reason"], item["message"]) for item in json.loads(text)["items"]]

    def until(self, what: str, probe: Callable[[], Any], seconds: float = 120) -> Any:
        """The first truthy answer; fails with the state of the namespace when there is none in time."""
        end = time.monotonic() + seconds
        while True:
            answer = probe()
            if answer:
                return answer
            if time.monotonic() > end:
                pytest.fail(f"{what}: not within {seconds:.0f} s\n{self._state()}", pytrace=False)
            time.sleep(0.5)

    def until_complete(self, name: str, seconds: float = 180) -> dict[str, Any]:
        self.until(f"{name} is complete", lambda: self.condition(name, "Complete")[0] == "True", seconds)
        return self.status(name)

    def _ask(self, name: str, path: str) -> str:
        """With the federation's token in a header, which kubectl cannot send through the API server."""
        jsonpath = f"jsonpath={{.data.{TOKEN_FILE}}}"
        encoded = self.kubectl("get", "secret", f"{name}-api-token", "-n", self.namespace, "-o", jsonpath)
        service = f"/api/v1/namespaces/{self.namespace}/services/{name}-controller:http/proxy"
        with config.new_client_from_config(str(self.kubectl.kubeconfig)) as api:
            headers = token_headers(base64.b64decode(encoded).decode())
            return json.dumps(Cluster(api, "", self.namespace).get(f"{service}/{path}", headers=headers))

    def _state(self) -> str:
        parts = [
            self.kubectl("get", "mfed,pods", "-n", self.namespace, "-o", "wide"),
            self.kubectl("get", "mfed", "-n", self.namespace, "-o", "yaml"),
            self.kubectl("get", "events", "-n", self.namespace),
            self.kubectl("logs", "-n", RELEASE_NAMESPACE, f"deployment/{RELEASE}", "--tail=40"),
        ]
        return "\n".join(parts)


@dataclass(frozen=True)
class Operator:
    """The operator's release. A test that changes it puts it back."""

    helm: Config
    chart: Chart
    values: Mapping[str, Any]

    def install(self) -> None:
        self.helm.install(
            self.chart,
            RELEASE,
            dict(self.values),
            namespace=RELEASE_NAMESPACE,
            create_namespace=True,
            wait="watcher",
            timeout=180,
        )

    def upgrade(self, **values: Any) -> None:
        """To the values of the session, and these."""
        self.helm.upgrade(self.chart, RELEASE, {**self.values, **values}, wait="watcher", timeout=180)

    def uninstall(self) -> None:
        """Also what an earlier session left that was ended half-way."""
        if any(release["name"] == RELEASE for release in self.helm.list()):
            # The newer way of waiting waits for the resource type as well, which is kept.
            self.helm.uninstall(RELEASE, wait="legacy", timeout=120)


@pytest.fixture(scope="session")
def operator(kubectl: Any, kubeconfig: Path, images: Mapping[str, str]) -> Iterator[Operator]:
    """The chart, installed for the whole session; nothing of it is left afterwards."""
    values = {"images": {**images, "pullPolicy": "IfNotPresent"}, "logFormat": "text"}
    with (
        _alone(kubeconfig),
        Config(kubeconfig_path=kubeconfig, namespace=RELEASE_NAMESPACE) as helm,
        Chart.load(ROOT / "charts" / "metisfl") as chart,
    ):
        operator = Operator(helm, chart, values)
        operator.uninstall()
        operator.install()
        try:
            yield operator
        finally:
            operator.uninstall()
            kubectl("delete", "crd", "federations.metisfl.dev", "--timeout=60s", timeout=70)
            kubectl("delete", "namespace", RELEASE_NAMESPACE, "--timeout=120s", timeout=130)


@contextmanager
def _alone(kubeconfig: Path) -> Iterator[None]:
    """A cluster has one operator: another session of these tests on this machine has to finish first."""
    with kubeconfig.with_suffix(".tests.lock").open("w") as lock:
        end = time.monotonic() + OTHER_SESSION_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    pytest.fail(f"another session has been testing in this cluster for {OTHER_SESSION_SECONDS} s")
                time.sleep(1)
        yield


@pytest.fixture(scope="session")
def lab(operator: Operator, kubectl: Any) -> Iterator[Lab]:
    """One namespace for all tests, each with a federation of its own name: pods take their time to go."""
    with _namespace(kubectl) as name:
        yield Lab(kubectl, name)


@pytest.fixture(scope="session")
def other_lab(operator: Operator, kubectl: Any) -> Iterator[Lab]:
    """A second namespace."""
    with _namespace(kubectl) as name:
        yield Lab(kubectl, name)


@contextmanager
def _namespace(kubectl: Any) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        kubectl("delete", "namespace", name, "--timeout=120s", timeout=130)


@pytest.fixture
def run(lab: Lab) -> Iterator[Callable[[dict[str, Any]], str]]:
    """Applies a Federation and answers its name; after the test it is deleted, without waiting for its pods."""
    names: list[str] = []

    def applied(federation: dict[str, Any]) -> str:
        lab.apply(federation)
        names.append(federation["metadata"]["name"])
        return names[-1]

    yield applied
    for name in names:
        lab.kubectl("delete", "mfed", name, "-n", lab.namespace, "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="session")
def example() -> Callable[..., dict[str, Any]]:
    """A Federation of examples/, under another name and with parts of its spec replaced if so wished."""

    def load(folder: str, name: str | None = None, **spec: Any) -> dict[str, Any]:
        document: dict[str, Any] = yaml.safe_load((ROOT / "examples" / folder / "federation.yaml").read_text())
        document["metadata"]["name"] = name or document["metadata"]["name"]
        document["spec"].update(copy.deepcopy(spec))
        return document

    return load
