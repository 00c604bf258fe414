"""The cluster that these tests run in: one that METISFL_TEST_KUBECONFIG names, or that of hack/cluster.

METISFL_TEST_KUBECONFIG  use this cluster; its current context has to be named `kind-…` or `metisfl-test…`
METISFL_TEST_CONTEXTS    more names of contexts that the tests may touch, separated by commas
METISFL_TEST_IMAGES      where such a cluster finds the images, {} for the role: `registry.example/metisfl-{}:dev`
METISFL_REQUIRE_CLUSTER  1: no cluster is a failure; without it the tests skip and say why
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("controller", "learner", "operator")
ALLOWED_PREFIXES = ("kind-", "metisfl-test")

# hack/cluster ends with this code, and one line, on a machine that cannot run it.
NOT_POSSIBLE_HERE = 3
BUILD_SECONDS = 1800
IMAGE_SECONDS = 1800
TEST_SECONDS = 600


@dataclass(frozen=True)
class Cluster:
    """A cluster that may be used, and the kubectl to use it with."""

    kubeconfig: Path
    context: str
    kubectl: str
    ours: bool


@dataclass(frozen=True)
class Kubectl:
    """Calls kubectl: `kubectl("get", "pods", "-n", namespace)` returns what it prints."""

    executable: str
    kubeconfig: Path

    def __call__(self, *args: str, input: str | None = None, timeout: float = 60) -> str:
        """Run one command. A failure raises AssertionError with kubectl's own words."""
        command = [self.executable, f"--kubeconfig={self.kubeconfig}", *args]
        done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=timeout)
        assert done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr.strip() or done.stdout.strip()}"
        return done.stdout


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and time them without their fixtures: the first one may build Kubernetes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TEST_SECONDS, func_only=True))


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """A running cluster. Skips, or fails with METISFL_REQUIRE_CLUSTER=1, where none can be had."""
    named = os.environ.get("METISFL_TEST_KUBECONFIG")
    if named:
        return _named_cluster(Path(named).expanduser(), tmp_path_factory.mktemp("kubeconfig") / "config")
    return _own_cluster(pytestconfig)


@pytest.fixture(scope="session")
def kubeconfig(cluster: Cluster) -> Path:
    """The path of an admin's kubeconfig for the cluster."""
    return cluster.kubeconfig


@pytest.fixture(scope="session")
def images(cluster: Cluster, pytestconfig: pytest.Config) -> Mapping[str, str]:
    """The names of the images by role (controller, learner, operator), built from this checkout and loaded."""
    template = os.environ.get("METISFL_TEST_IMAGES")
    if template:
        return {role: template.format(role) for role in ROLES}
    options = []
    if not cluster.ours:
        if not cluster.context.startswith("kind-"):
            pytest.fail(
                f"tell with METISFL_TEST_IMAGES where the cluster {cluster.context} finds the images", pytrace=False
            )
        options = ["--kind", cluster.context.removeprefix("kind-")]
    else:
        options = ["--engine", "buildah"]
    names = _run_visibly(pytestconfig, "hack/images", *options, timeout=IMAGE_SECONDS).split()
    return dict(zip(ROLES, names, strict=True))


@pytest.fixture(scope="session")
def kubectl(cluster: Cluster) -> Kubectl:
    return Kubectl(cluster.kubectl, cluster.kubeconfig)


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A fresh namespace, gone again after the test: one that cannot be deleted (a finalizer) fails it."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=true", "--timeout=120s", timeout=130)


def allowed(context: str, extra: str) -> bool:
    """Whether tests may touch the cluster of this context; `extra` names more, separated by commas."""
    return context.startswith(ALLOWED_PREFIXES) or context in {
        name.strip() for name in extra.split(",") if name.strip()
    }


def _named_cluster(kubeconfig: Path, copy: Path) -> Cluster:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        _no_cluster("METISFL_TEST_KUBECONFIG is set but there is no kubectl on the path")
    if not kubeconfig.is_file():
        pytest.fail(f"METISFL_TEST_KUBECONFIG names {kubeconfig}, which is not a file", pytrace=False)
    context = Kubectl(kubectl, kubeconfig)("config", "current-context").strip()
    if not allowed(context, os.environ.get("METISFL_TEST_CONTEXTS", "")):
        pytest.fail(
            f"the current context of {kubeconfig} is {context}, which does not look like a test cluster; "
            f"set METISFL_TEST_CONTEXTS={context} if these tests may create and delete things in it",
            pytrace=False,
        )
    # A copy of this one context: a switch of the original while the tests run leads them nowhere else.
    copy.touch(mode=0o600)
    copy.write_text(
        Kubectl(kubectl, kubeconfig)("config", "view", f"--context={context}", "--minify", "--flatten", "--raw")
    )
    return Cluster(copy, context, kubectl, ours=False)


def _own_cluster(pytestconfig: pytest.Config) -> Cluster:
    if not sys.platform.startswith("linux"):
        _no_cluster("hack/cluster needs Linux; set METISFL_TEST_KUBECONFIG to use a cluster of yours")
    kubeconfig = Path(_run_visibly(pytestconfig, "hack/cluster", "up", timeout=BUILD_SECONDS).strip())
    # That of the same version as the cluster, which a kubectl on the path may be years away from.
    kubectl = kubeconfig.parent / "bin" / "kubectl"
    context = json.loads(kubeconfig.read_text())["current-context"]
    return Cluster(kubeconfig, context, str(kubectl), ours=True)


def _run_visibly(pytestconfig: pytest.Config, script: str, *args: str, timeout: float) -> str:
    """Run one of our scripts; its progress goes to the terminal, past pytest's capture, because it may take minutes."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    command = [sys.executable, str(ROOT / script), *args]
    last = ""
    with (
        capture.global_and_fixture_disabled(),
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        deadline = threading.Timer(timeout, process.terminate)
        deadline.start()
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            last = line.strip() or last
        output = process.stdout.read()
        deadline.cancel()
    if process.returncode == NOT_POSSIBLE_HERE:
        _no_cluster(last)
    if process.returncode:
        pytest.fail(f"{script} {' '.join(args)} ended with {process.returncode}: {last}", pytrace=False)
    return output


def _no_cluster(reason: str) -> NoReturn:
    if os.environ.get("METISFL_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"no cluster, and METISFL_REQUIRE_CLUSTER=1: {reason}", pytrace=False)
    pytest.skip(reason)
