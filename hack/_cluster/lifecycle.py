"""Bring the cluster up, say how it is, take it down."""

import fcntl
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from _cluster import binaries, components, dns, housekeeping, machine, network, node, pki, volumes
from _cluster.api import Api
from _cluster.errors import ClusterError, NotPossibleHereError
from _cluster.home import API_PORT, NODE, NODE_IP, Home
from _cluster.processes import Command, Processes, kill_matching
from _cluster.shell import run, say, step, wait_until

_POD_SECONDS = 20.0
_SHIM = "containerd-shim-runc-v2"
# A pod's processes end before what they stand on.
_STOP_ORDER = (
    ("controller-manager", "scheduler", "housekeeping", "crd-server"),
    ("kubelet", "proxy", "dnsmasq"),
    ("containerd",),
    ("apiserver",),
    ("etcd",),
)


def build(home: Home) -> None:
    """Install the packages and build the binaries that are missing."""
    machine.require_suitable_machine()
    with exclusively(home):
        _build(home)


def up(home: Home) -> None:
    """Start whatever of the cluster does not run, and wait until its node is ready."""
    machine.require_suitable_machine()
    with exclusively(home):
        processes = Processes(home)
        if not processes.running("apiserver") and not network.is_free(API_PORT):
            raise ClusterError(
                f"{NODE_IP}:{API_PORT} is taken: a cluster of another state folder or tool runs here; stop that first"
            )
        _build(home)
        api = _prepare(home)
        processes.start(components.etcd(home))
        _start_and_wait(processes, components.api_server(home), api.ready)
        _start_and_wait(processes, components.containerd(home), lambda: node.answers(home))
        node.make_pause(home)
        processes.start(components.controller_manager(home))
        processes.start(components.scheduler(home))
        processes.start(components.kubelet(home))
        processes.start(components.proxy(home))
        _start_services(home, processes, api)
        with step("waiting for the node"):
            wait_until(lambda: node_ready(api), f"node {NODE} ready", 90, lambda: processes.must_run("kubelet"))


def start_crd_server(home: Home, environ: Mapping[str, str]) -> None:
    """Start the stand-alone server of newer Kubernetes for custom resources beside a running cluster."""
    executable = Path(environ.get("METISFL_CRD_SERVER") or home.bin / "apiextensions-apiserver")
    if not executable.exists():
        raise NotPossibleHereError(
            f"{executable} is not there: build k8s.io/apiextensions-apiserver of Kubernetes 1.36 and put it there, "
            "or name it in METISFL_CRD_SERVER"
        )
    with exclusively(home):
        processes = Processes(home)
        processes.must_run("apiserver")
        _start_and_wait(processes, components.crd_server(home, str(executable)), Api.of_crd_server(home).ready)


def down(home: Home) -> None:
    """Stop every process, unmount everything, and forget the cluster's objects; images and binaries stay."""
    machine.require_suitable_machine()
    if not home.root.exists():
        return
    with exclusively(home):
        processes = Processes(home)
        _delete_pods(home, processes)
        for names in _STOP_ORDER:
            if "containerd" in names and processes.running("containerd"):
                node.delete_containers(home)  # what is left, as after a crash of the kubelet
            processes.stop(names)
        kill_matching(_SHIM, str(home.containerd_socket))
        _unmount(home)
        if network.is_free(API_PORT):  # otherwise they belong to a cluster of another state folder
            network.remove()
        for folder in (home.etcd, home.kubelet, home.volumes, home.pod_addresses, home.hosts.parent, home.run):
            shutil.rmtree(folder, ignore_errors=True)
        say("the cluster is down")


def status(home: Home) -> bool:
    """Print one line per process and one for the node; tell whether all is well."""
    processes = Processes(home)
    names = processes.known()
    if not names:
        print("the cluster is down; start it with `hack/cluster up`")
        return False
    states = {name: processes.pid(name) for name in names}
    for name, pid in states.items():
        print(f"{name:20} {f'running, pid {pid}' if pid else f'ENDED, see {processes.log(name)}'}")
    ready = states.get("apiserver") is not None and node_ready(Api.of(home))
    print(f"{'node ' + NODE:20} {'ready' if ready else 'NOT READY'}")
    return ready and None not in states.values()


def node_ready(api: Api) -> bool:
    try:
        conditions = api.get(f"/api/v1/nodes/{NODE}")["status"].get("conditions", ())
    except ClusterError:
        return False
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


@contextmanager
def exclusively(home: Home) -> Iterator[None]:
    """Hold the state folder's lock, so that two callers do not start or stop the cluster at the same time."""
    home.root.mkdir(parents=True, exist_ok=True)
    with (home.root / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another hack/cluster that works in {home.root}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def mounts_below(folder: Path, mounts: str) -> list[str]:
    """The mount points inside a folder, innermost first, from the text of /proc/self/mounts."""
    points = (line.split()[1].encode().decode("unicode_escape") for line in mounts.splitlines())
    return sorted((point for point in points if Path(point).is_relative_to(folder)), reverse=True)


def _build(home: Home) -> None:
    machine.install(machine.RUNTIME_PACKAGES)
    binaries.build(home)


def _prepare(home: Home) -> Api:
    """Everything on disk and in the kernel that the processes expect, and a client for the API server to come."""
    for folder in (home.log, home.run, home.cni, home.hosts.parent):
        folder.mkdir(parents=True, exist_ok=True)
    pki.create(home)
    network.create()
    (home.cni / "10-bridge.conflist").write_text(components.cni_config(home))
    (home.root / "containerd.toml").write_text(components.containerd_config(home))
    (home.root / "kubelet.json").write_text(components.kubelet_config(home))
    return Api.of(home)


def _start_services(home: Home, processes: Processes, api: Api) -> None:
    wait_until(lambda: _exists(api, "/api/v1/namespaces/kube-system"), "namespace kube-system", 30)
    dns.publish(api)
    volumes.publish(api)
    housekeeping.update_names(api, home)
    processes.start(components.dns(home))
    processes.start(housekeeping.command())


def _start_and_wait(processes: Processes, command: Command, answers: Callable[[], bool]) -> None:
    if processes.running(command.name) and answers():
        return
    with step(f"starting {command.name}"):
        processes.start(command)
        wait_until(answers, f"{command.name} ready", 60, lambda: processes.must_run(command.name))


def _exists(api: Api, path: str) -> bool:
    try:
        return bool(api.get(path))
    except ClusterError:
        return False


def _delete_pods(home: Home, processes: Processes) -> None:
    """Let the kubelet end the pods, which also gives back their mounts, addresses and rules."""
    if not (processes.running("apiserver") and processes.running("kubelet")):
        return
    api = Api.of(home)
    # Otherwise new pods would take the place of the deleted ones.
    processes.stop(("controller-manager", "scheduler"))
    try:
        pods = api.items("/api/v1/pods")
        for pod in pods:
            metadata = pod["metadata"]
            path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
            api.delete(path, {"gracePeriodSeconds": 1})
        if pods:
            with step(f"ending {len(pods)} pods"):
                wait_until(lambda: not api.items("/api/v1/pods"), "all pods gone", _POD_SECONDS)
    except ClusterError as error:
        say(f"not all pods ended in good order; going on by force ({error})")


def _unmount(home: Home) -> None:
    for point in mounts_below(home.root, Path("/proc/self/mounts").read_text()):
        run("umount", "--lazy", point, check=False)
    left = mounts_below(home.root, Path("/proc/self/mounts").read_text())
    if left:
        raise ClusterError(f"could not unmount {', '.join(left)}; end what uses it and run `down` again")
