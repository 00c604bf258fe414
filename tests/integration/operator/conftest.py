"""A real API server with the controllers that matter, without nodes: pods are made, and the tests play the kubelet.

The binaries are those of hack/cluster (`build`), or of KUBEBUILDER_ASSETS.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config

from metisfl.spec.crd import crd
from metisfl_operator.kube import KubeClient
from metisfl_operator.reconcile.reconciler import Reconciler
from metisfl_operator.settings import NetworkSettings, Settings
from tests.integration.operator.world import Controller, World

BINARIES = Path(os.environ.get("KUBEBUILDER_ASSETS", "/var/tmp/metisfl-cluster/bin"))
# As hack/cluster looks for it: Kubernetes 1.20 does not have this program, and no CEL.
CRD_SERVER = Path(os.environ.get("METISFL_CRD_SERVER") or BINARIES / "apiextensions-apiserver")
TOKEN = "admin-token"
CONTROLLERS = ("statefulset", "garbagecollector", "serviceaccount", "namespace", "endpoint", "pvc-protection")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            # Starting a control plane takes longer than a test may.
            item.add_marker(pytest.mark.timeout(180))


def need(binary: str) -> Path:
    """Path of a control-plane binary; the test is skipped (or fails, where a cluster is required) without it."""
    path = BINARIES / binary
    if not path.exists():
        reason = f"{binary} is not in {BINARIES}: run `hack/cluster build`, or set KUBEBUILDER_ASSETS"
        if os.environ.get("METISFL_REQUIRE_CLUSTER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def eventually(what: str, probe: Callable[[], Any], seconds: float = 30, pause: float = 0.1) -> Any:
    """The first truthy answer of `probe`; fails the test when there is none in time."""
    end = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > end:
            pytest.fail(f"{what}: not within {seconds} s; last answer: {answer!r}")
        time.sleep(pause)


class RefusedError(Exception):
    """An answer other than success, with the server's own words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass
class Server:
    """An API server: its address, and the file that lets clients in."""

    url: str
    kubeconfig: Path
    ca: Path

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Any:
        """The decoded answer of a plain REST call; RefusedError for anything but success."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": content_type, "Accept": accept},
        )
        trust = ssl.create_default_context(cafile=str(self.ca))
        try:
            with urllib.request.urlopen(request, context=trust, timeout=30) as answer:
                text = answer.read()
                return json.loads(text) if answer.headers.get_content_type() == "application/json" else text.decode()
        except urllib.error.HTTPError as error:
            raise RefusedError(error.code, _message(error.read())) from error

    def ready(self) -> bool:
        try:
            return bool(self.request("GET", "/readyz") == "ok")
        except (OSError, RefusedError):
            return False


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")


class Processes:
    """Children of the test run, stopped in reverse order."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *command: str | Path) -> None:
        with (self._logs / f"{name}.log").open("wb") as log:
            self._running.append(subprocess.Popen([str(part) for part in command], stdout=log, stderr=log))

    def stop(self) -> None:
        for process in reversed(self._running):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """etcd, the API server and a few controllers, with the Federation CRD installed."""
    etcd, apiserver, manager = need("etcd"), need("kube-apiserver"), need("kube-controller-manager")
    home = tmp_path_factory.mktemp("control-plane")
    etcd_url, peer_url, port = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}", free_port()
    subprocess.run(["openssl", "genrsa", "-out", home / "sa.key", "2048"], check=True, capture_output=True)
    (home / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
    server = Server(f"https://127.0.0.1:{port}", home / "kubeconfig", home / "pki" / "apiserver.crt")
    server.kubeconfig.write_text(_kubeconfig(server))
    processes = Processes(home)
    try:
        processes.start(
            "etcd", etcd, "--data-dir", home / "etcd", "--unsafe-no-fsync",
            "--listen-client-urls", etcd_url, "--advertise-client-urls", etcd_url,
            "--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url,
            "--initial-cluster", f"default={peer_url}",
        )  # fmt: skip
        processes.start(
            "apiserver", apiserver, f"--etcd-servers={etcd_url}", f"--secure-port={port}",
            "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--cert-dir={home / 'pki'}",
            f"--service-account-key-file={home / 'sa.key'}", f"--service-account-signing-key-file={home / 'sa.key'}",
            "--service-account-issuer=https://kubernetes.default.svc", f"--token-auth-file={home / 'tokens.csv'}",
            "--authorization-mode=RBAC", "--service-cluster-ip-range=10.97.0.0/16",
        )  # fmt: skip
        eventually("the API server is ready", server.ready, 60)
        processes.start(
            "controller-manager", manager, f"--kubeconfig={server.kubeconfig}", "--leader-elect=false",
            f"--controllers={','.join(CONTROLLERS)}", "--secure-port=0", "--port=0",
            f"--service-account-private-key-file={home / 'sa.key'}",
        )  # fmt: skip
        install(server, crd())
        eventually("the default service account", lambda: _exists(server, "serviceaccounts/default"))
        yield server
    finally:
        processes.stop()


@pytest.fixture(scope="session")
def crd_server(control_plane: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A newer server for custom resources alone, which judges CEL; it trusts the control plane's tokens."""
    if not CRD_SERVER.exists():
        pytest.skip(f"no {CRD_SERVER}: rules in CEL need k8s.io/apiextensions-apiserver 1.36, see METISFL_CRD_SERVER")
    home = tmp_path_factory.mktemp("crd-server")
    etcd_url, peer_url, port = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}", free_port()
    server = Server(f"https://127.0.0.1:{port}", home / "kubeconfig", home / "pki" / "apiserver.crt")
    processes = Processes(home)
    try:
        processes.start(
            "etcd", need("etcd"), "--data-dir", home / "etcd", "--unsafe-no-fsync",
            "--listen-client-urls", etcd_url, "--advertise-client-urls", etcd_url,
            "--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url,
            "--initial-cluster", f"default={peer_url}",
        )  # fmt: skip
        processes.start(
            "crd-server", CRD_SERVER, f"--etcd-servers={etcd_url}", f"--secure-port={port}", "--bind-address=127.0.0.1",
            f"--kubeconfig={control_plane.kubeconfig}", f"--authentication-kubeconfig={control_plane.kubeconfig}",
            f"--authorization-kubeconfig={control_plane.kubeconfig}", f"--cert-dir={home / 'pki'}",
            "--enable-priority-and-fairness=false",
            "--disable-admission-plugins=MutatingAdmissionPolicy,MutatingAdmissionWebhook,NamespaceLifecycle,"
            "ValidatingAdmissionPolicy,ValidatingAdmissionWebhook",
        )  # fmt: skip
        eventually("the CRD server is ready", server.ready, 60)
        install(server, crd())
        yield server
    finally:
        processes.stop()


def install(server: Server, definition: dict[str, Any]) -> None:
    """Create a CRD and wait until its objects can be written."""
    name = definition["metadata"]["name"]
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    server.request("POST", path, definition)

    def established() -> bool:
        conditions = server.request("GET", f"{path}/{name}").get("status", {}).get("conditions") or []
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    def served() -> bool:
        try:
            server.request("GET", "/apis/metisfl.dev/v1alpha1/namespaces/default/federations")
        except RefusedError:
            return False
        return True

    eventually(f"CRD {name} is established", established)
    eventually(f"{name} are served", served)


def _exists(server: Server, path: str) -> bool:
    try:
        server.request("GET", f"/api/v1/namespaces/default/{path}")
    except RefusedError:
        return False
    return True


def _kubeconfig(server: Server) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "metisfl-test",
            "clusters": [
                {"name": "c", "cluster": {"server": server.url, "certificate-authority": str(server.ca)}},
            ],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "metisfl-test", "context": {"cluster": "c", "user": "admin"}}],
        }
    )


@pytest.fixture(scope="session")
def api_client(control_plane: Server) -> Iterator[client.ApiClient]:
    """The official client, for the control plane."""
    settings = client.Configuration()
    config.load_kube_config(str(control_plane.kubeconfig), client_configuration=settings)
    with client.ApiClient(settings) as opened:
        yield opened


@dataclass
class Namespace:
    """A namespace of a test's own, and what tests do in it."""

    server: Server
    name: str

    def path(self, kind: str, name: str = "") -> str:
        groups = {
            "federations": "/apis/metisfl.dev/v1alpha1",
            "statefulsets": "/apis/apps/v1",
            "networkpolicies": "/apis/networking.k8s.io/v1",
            "poddisruptionbudgets": "/apis/policy/v1beta1",  # 1.20 has no other
        }
        return f"{groups.get(kind, '/api/v1')}/namespaces/{self.name}/{kind}" + (f"/{name}" if name else "")

    def create(self, kind: str, manifest: dict[str, Any]) -> dict[str, Any]:
        created: dict[str, Any] = self.server.request("POST", self.path(kind), manifest)
        return created

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.server.request("GET", self.path(kind, name))
        return found

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        try:
            return self.get(kind, name)
        except RefusedError as error:
            if error.code != 404:
                raise
            return None

    def names(self, kind: str) -> list[str]:
        return sorted(item["metadata"]["name"] for item in self.server.request("GET", self.path(kind))["items"])

    def patch(self, kind: str, name: str, body: dict[str, Any], subresource: str = "") -> dict[str, Any]:
        path = self.path(kind, name) + (f"/{subresource}" if subresource else "")
        patched: dict[str, Any] = self.server.request("PATCH", path, body, "application/merge-patch+json")
        return patched

    def delete(self, kind: str, name: str, **options: Any) -> None:
        self.server.request("DELETE", self.path(kind, name), options or None)

    def events(self) -> list[tuple[str, str, str]]:
        """(type, reason, message) of the Federations' events, oldest first."""
        items = self.server.request("GET", self.path("events"))["items"]
        ours = [item for item in items if item["involvedObject"]["kind"] == "Federation"]
        ours.sort(key=lambda item: int(item["metadata"]["resourceVersion"]))
        return [(item["type"], item["reason"], item["message"]) for item in ours]

    def pod_says(self, name: str, **status: Any) -> None:
        """Play the kubelet: report this about a pod's only container."""
        pod = self.get("pods", name)
        container = pod["spec"]["containers"][0]
        running = "running" in status.get("state", {})
        report = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
        self.patch(
            "pods",
            name,
            {
                "status": {
                    "phase": "Running" if running else "Pending",
                    "conditions": [
                        {"type": "PodScheduled", "status": "True"},
                        {"type": "Ready", "status": "True" if running else "False"},
                    ],
                    "containerStatuses": [{**report, "ready": running, **status}],
                }
            },
            "status",
        )

    def pod_runs(self, name: str) -> None:
        self.pod_says(name, state={"running": {"startedAt": "2024-05-01T10:00:00Z"}})

    @staticmethod
    def eventually(what: str, probe: Callable[[], Any], seconds: float = 30) -> Any:
        return eventually(what, probe, seconds)

    def pods(self, *names: str) -> None:
        """Wait until these pods, and no others, are there."""
        eventually(f"pods {sorted(names)}", lambda: self.names("pods") == sorted(names))


@pytest.fixture(name="free_port")
def _free_port() -> Callable[[], int]:
    return free_port


@pytest.fixture
def namespace(control_plane: Server, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    name = f"t-{uuid.uuid4().hex[:8]}"
    control_plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    made = Namespace(control_plane, name)
    eventually("the default service account", lambda: made.find("serviceaccounts", "default"))
    yield made
    control_plane.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def world(namespace: Any, api_client: client.ApiClient) -> World:
    controller = Controller()
    settings = Settings("example.test/controller:1", "example.test/learner:1", network=NetworkSettings())
    clock = [datetime(2024, 5, 1, 10, 0, 0, tzinfo=UTC)]
    now: Callable[[], datetime] = lambda: clock[0]  # noqa: E731
    reconciler = Reconciler(
        KubeClient.over(api_client), controller, settings, now=now, monotonic=lambda: clock[0].timestamp()
    )
    return World(namespace, reconciler, controller, clock)
