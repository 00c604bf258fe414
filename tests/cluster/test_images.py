"""The three images run under Pod Security "restricted" with a read-only root, and pods find each other by name.

What this uses of the cluster is what the operator relies on: claims with fsGroup, Services, DNS, limits, seccomp.
"""

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest

# Prints who the process is and which of these places it may write to.
LOOK_AROUND = """
import json, os, tempfile
def writable(folder):
    try:
        tempfile.TemporaryFile(dir=folder).close()
        return True
    except OSError:
        return False
look = {"user": os.getuid(), "writable": [f for f in ("/", "/tmp", "/var/tmp", "/opt/metisfl") if writable(f)]}
"""

# What each image is for is in it and can be loaded.
IMPORTS = {
    "controller": """
from metisfl_controller import kernel_cache
folder = kernel_cache.prepare(os.environ)
assert list(folder.rglob("*.nbi")), "the image brings no compiled kernels"
from metisfl_controller.aggregation.kernels import runtime
before = sorted(folder.rglob("*.nbc"))
runtime.configure(2)  # refuses another threading layer than OpenMP
if "NUMBA_CPU_NAME" in os.environ:
    assert sorted(folder.rglob("*.nbc")) == before, "the image's kernels were not of use"
print(json.dumps(look))
""",
    "learner": """
import metisfl_learner.examples, sklearn, torch
assert torch.version.cuda is None, torch.__version__
print(json.dumps(look))
""",
    "operator": """
import kopf, kubernetes, metisfl_operator
print(json.dumps(look))
""",
}

SERVE = """
import http.server, os, pathlib
pathlib.Path("/data/who").write_text(f"user {os.getuid()}, in group 20002: {20002 in os.getgroups()}")
os.chdir("/data")
http.server.ThreadingHTTPServer(("", 8080), http.server.SimpleHTTPRequestHandler).serve_forever()
"""

ASK = """
import sys, time, urllib.request
deadline = time.monotonic() + 60
for name in sys.argv[1:]:
    while True:
        try:
            print(name, urllib.request.urlopen(f"http://{name}:8080/who", timeout=5).read().decode())
            break
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"{name}: {error}")
            time.sleep(0.5)
"""


def pod(name: str, image: str, command: list[str], **spec: Any) -> dict[str, Any]:
    """A pod that Pod Security "restricted" admits."""
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "10m"}, "limits": {"cpu": "1", "memory": "512Mi"}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *spec.pop("mounts", ())],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": True, "fsGroup": 20002, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}, *spec.pop("volumes", ())],
            **spec,
        },
    }


def service(name: str, app: str, **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": app}, "ports": ports, **spec},
    }


def apply(kubectl: Any, namespace: str, *objects: dict[str, Any]) -> None:
    listing = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(listing))


def run_to_end(kubectl: Any, namespace: str, manifest: dict[str, Any]) -> str:
    """Run a pod until it has ended, and return what it printed; fails, with that, when the pod has failed."""
    name = manifest["metadata"]["name"]
    apply(kubectl, namespace, manifest)
    deadline = time.monotonic() + 120
    while True:
        status = json.loads(kubectl("get", "pod", name, "-n", namespace, "-o", "json"))["status"]
        if status.get("phase") in {"Succeeded", "Failed"}:
            break
        assert time.monotonic() < deadline, f"pod {name} has not ended: {json.dumps(status, indent=1)}"
        time.sleep(0.3)
    logs: str = kubectl("logs", name, "-n", namespace)
    assert status["phase"] == "Succeeded", logs
    return logs


@pytest.fixture
def restricted(kubectl: Any, namespace: str) -> str:
    """A namespace that refuses pods which are not restricted (clusters older than Pod Security ignore the label)."""
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    return namespace


@pytest.mark.parametrize(("role", "checks"), IMPORTS.items(), ids=IMPORTS)
def test_image_runs_without_root_on_a_read_only_root(
    kubectl: Any, restricted: str, images: Mapping[str, str], role: str, checks: str
) -> None:
    logs = run_to_end(kubectl, restricted, pod(role, images[role], ["python", "-c", LOOK_AROUND + checks]))
    assert json.loads(logs.splitlines()[-1]) == {"user": 10001, "writable": ["/tmp"]}


def test_pods_share_a_name_and_keep_a_volume(kubectl: Any, restricted: str, images: Mapping[str, str]) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    server = pod(
        "server",
        images["controller"],
        ["python", "-c", SERVE],
        hostname="server-0",
        subdomain="headless",
        mounts=[{"name": "data", "mountPath": "/data"}],
        volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    )
    services = [service("web", "server"), service("headless", "server", clusterIP="None")]
    apply(kubectl, restricted, claim, *services, server)
    names = ["web", f"web.{restricted}.svc.cluster.local", "headless", "server-0.headless"]
    answers = run_to_end(kubectl, restricted, pod("client", images["operator"], ["python", "-c", ASK, *names]))
    assert answers.splitlines() == [f"{name} user 10001, in group 20002: True" for name in names]
