"""The parts of hack/ that need neither root nor a cluster."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

# These modules are a program of their own, not part of the distribution.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "hack"))

from _cluster import (
    binaries,
    cli,
    components,
    dns,
    housekeeping,
    lifecycle,
    machine,
    network,
    pki,
    processes,
    shell,
    volumes,
)
from _cluster.errors import ClusterError, NotPossibleHereError
from _cluster.home import Home
from _cluster.processes import Command, Processes

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="hack/cluster is for Linux: it reads /proc"),
    # The processes of a cluster outlive the program that started them, about which Popen complains.
    pytest.mark.filterwarnings(
        r"ignore:Exception ignored in. <function Popen.__del__:pytest.PytestUnraisableExceptionWarning"
    ),
]

ROOT = Path(__file__).resolve().parents[2]

DEBIAN_12 = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_CODENAME=bookworm\n'
UBUNTU = 'PRETTY_NAME="Ubuntu 24.04 LTS"\nID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n'
ALL_CAPABILITIES = "Name:\tpython3\nCapEff:\t000001ffffffffff\n"
DOCKER_DEFAULT = "Name:\tpython3\nCapEff:\t00000000a80425fb\n"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


# --- the machine ---------------------------------------------------------------------------------------------------


def test_root_on_debian_with_capabilities_is_suitable() -> None:
    assert machine.unsuitable(user_id=0, os_release=DEBIAN_12, process_status=ALL_CAPABILITIES) is None


@pytest.mark.parametrize(
    ("user_id", "os_release", "process_status", "reason"),
    [
        (1000, DEBIAN_12, ALL_CAPABILITIES, "root"),
        (0, UBUNTU, ALL_CAPABILITIES, "Ubuntu 24.04 LTS"),
        (0, "", ALL_CAPABILITIES, "unknown system"),
        (0, DEBIAN_12.replace("bookworm", "trixie"), ALL_CAPABILITIES, "bookworm"),
        (0, DEBIAN_12, DOCKER_DEFAULT, "CAP_SYS_ADMIN"),
        (0, DEBIAN_12, "", "CAP_SYS_ADMIN"),
    ],
)
def test_unsuitable_machine_is_told_why_and_what_else_to_do(
    user_id: int, os_release: str, process_status: str, reason: str
) -> None:
    told = machine.unsuitable(user_id=user_id, os_release=os_release, process_status=process_status)
    assert told is not None
    assert reason in told
    assert "METISFL_TEST_KUBECONFIG" in told
    assert "\n" not in told


@pytest.mark.parametrize("command", [["up"], ["build"], ["down"], ["base-image"], ["image", "a:b", "Dockerfile", "."]])
def test_a_command_without_root_ends_with_3_and_one_line(
    command: list[str], home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METISFL_CLUSTER_HOME", str(home.root))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.main(command) == NotPossibleHereError.exit_code == 3
    output = capsys.readouterr()
    assert output.out == ""
    assert re.fullmatch(r"hack/cluster: .*root.*\n", output.err)
    assert not home.root.exists()


def test_kubeconfig_of_a_cluster_that_never_ran_says_what_to_do(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METISFL_CLUSTER_HOME", str(home.root))
    assert cli.main(["kubeconfig"]) == 1
    assert "hack/cluster up" in capsys.readouterr().err


def test_status_of_a_cluster_that_is_down_is_a_failure(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METISFL_CLUSTER_HOME", str(home.root))
    assert cli.main(["status"]) == 1
    assert "down" in capsys.readouterr().out


def test_crd_server_without_a_binary_is_not_possible_here(home: Home) -> None:
    with pytest.raises(NotPossibleHereError, match="METISFL_CRD_SERVER"):
        lifecycle.start_crd_server(home, {})


def test_the_state_folder_can_be_elsewhere() -> None:
    assert Home.from_environment({"METISFL_CLUSTER_HOME": "/elsewhere"}).root == Path("/elsewhere")
    assert Home.from_environment({}).root == Home.from_environment({"METISFL_CLUSTER_HOME": ""}).root


def test_the_mirror_is_found_in_both_formats_and_not_in_comments() -> None:
    deb822 = (
        "Types: deb\n# http://snapshot.example/archive/debian\nURIs: http://mirror.example/debian\nSuites: bookworm\n"
    )
    assert machine.find_mirror(["", deb822]) == "http://mirror.example/debian"
    one_line = "deb [signed-by=/k] https://other.example/debian/ bookworm main\n"
    assert machine.find_mirror([one_line, deb822]) == "https://other.example/debian"
    assert machine.find_mirror(["deb http://security.example/debian-security bookworm-security main"]) is None


# --- running commands ----------------------------------------------------------------------------------------------


def test_a_failed_command_shows_its_last_lines() -> None:
    with pytest.raises(ClusterError, match=r"failed with 7(?s:.)*line 39") as caught:
        shell.run("sh", "-c", "for i in $(seq 39); do echo line $i; done >&2; exit 7")
    assert "line 3\n" not in str(caught.value)


def test_a_command_that_takes_too_long_is_stopped() -> None:
    began = time.monotonic()
    with pytest.raises(ClusterError, match="longer than 0 s"):
        shell.run("sleep", "30", timeout=0.2)
    assert time.monotonic() - began < 10


def test_an_unknown_command_is_named() -> None:
    with pytest.raises(ClusterError, match="no-such-program: no such command"):
        shell.run("no-such-program")


def test_waiting_ends_at_its_deadline_or_when_it_makes_no_sense() -> None:
    with pytest.raises(ClusterError, match="the moon: not within 0 s"):
        shell.wait_until(lambda: False, "the moon", 0.05, interval=0.01)

    def gone() -> None:
        raise ClusterError("it has ended")

    with pytest.raises(ClusterError, match="it has ended"):
        shell.wait_until(lambda: False, "the moon", 60, gone)


# --- processes -----------------------------------------------------------------------------------------------------


@pytest.fixture
def started(home: Home) -> Iterator[Callable[..., Processes]]:
    """Starts a command as a process of the cluster, and leaves none behind."""
    home.root.mkdir()
    of_home = Processes(home)

    def start(*argv: str, name: str = "test") -> Processes:
        of_home.start(Command(name, argv))
        return of_home

    yield start
    of_home.stop(of_home.known())


def test_a_process_is_recognised_until_it_is_stopped(started: Callable[..., Processes]) -> None:
    found = started("sleep", "60")
    first = found.pid("test")
    assert first is not None
    assert started("sleep", "60").pid("test") == first, "a process that runs is not started again"
    found.stop(["test"])
    assert not found.running("test")
    assert found.known() == []


def test_another_process_with_the_recorded_id_is_not_taken_for_ours(home: Home) -> None:
    home.run.mkdir(parents=True)
    record = {"pid": os.getpid(), "argv": ["etcd", "--data-dir=/somewhere"]}
    (home.run / "etcd.pid").write_text(json.dumps(record))
    found = Processes(home)
    assert not found.running("etcd")
    found.stop(["etcd"])  # would end this test run if the id alone counted
    assert found.known() == []


@pytest.mark.parametrize("content", ["", "123", "not a record", '{"pid": "x", "argv": []}', "[1]"])
def test_a_broken_pid_file_means_not_running(home: Home, content: str) -> None:
    home.run.mkdir(parents=True)
    (home.run / "etcd.pid").write_text(content)
    assert Processes(home).pid("etcd") is None


def test_a_process_that_ends_at_once_is_told_with_its_log(started: Callable[..., Processes]) -> None:
    found = started("sh", "-c", "echo the port is taken; exit 1")
    shell.wait_until(lambda: not found.running("test"), "the end", 10)
    with pytest.raises(ClusterError, match="the port is taken"):
        found.must_run("test")


def test_a_process_that_ignores_the_request_is_killed(
    started: Callable[..., Processes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_STOP_SECONDS", 0.2)
    found = started(sys.executable, "-c", IGNORES_TERM)
    shell.wait_until(lambda: found.log("test").read_text() == "ready\n", "the process", 10)
    found.stop(["test"])
    assert not found.running("test")


IGNORES_TERM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


def test_a_signal_reaches_the_process(started: Callable[..., Processes]) -> None:
    found = started("sleep", "60")
    found.signal("test", signal.SIGTERM)
    shell.wait_until(lambda: not found.running("test"), "the end", 10)


def test_only_the_program_with_the_argument_is_killed() -> None:
    with (
        subprocess.Popen(["sleep", "61.25"]) as other,
        subprocess.Popen(["sleep", "61.5"]) as meant,
    ):
        # Python goes on a moment before the kernel shows the new command lines.
        pids = (other.pid, meant.pid)
        shell.wait_until(lambda: all(processes.command_line(pid)[:1] == ["sleep"] for pid in pids), "both", 10)
        processes.kill_matching("sleep", "61.5")
        try:
            assert meant.wait(timeout=10) == -signal.SIGKILL
            assert other.poll() is None
        finally:
            other.kill()
            meant.kill()


def test_two_callers_do_not_work_in_one_folder(home: Home) -> None:
    probe = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    command = [sys.executable, "-c", probe, str(home.root / "lock")]
    with lifecycle.exclusively(home):
        assert b"BlockingIOError" in subprocess.run(command, capture_output=True).stderr
    assert subprocess.run(command, capture_output=True).returncode == 0


# --- what the cluster is made of -----------------------------------------------------------------------------------


def test_binaries_that_are_there_are_not_built_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.bin.mkdir(parents=True)
    for name in (*binaries.COMPONENTS, "etcd"):
        (home.bin / name).touch()
    monkeypatch.setattr(machine, "install", lambda _: pytest.fail("packages for a build were asked for"))
    binaries.build(home)
    (home.bin / "kubelet").unlink()
    assert binaries.missing(home) == ["kubelet"]


def test_certificates_are_signed_for_the_addresses_and_kept(home: Home) -> None:
    home.root.mkdir()
    pki.create(home)
    authority, server = home.pki / "ca.crt", home.pki / "apiserver.crt"
    for name in ("apiserver", "kubelet", "apiserver-to-kubelet"):
        assert "OK" in shell.run("openssl", "verify", "-CAfile", authority, home.pki / f"{name}.crt")
    for address in ("10.88.0.1", "10.96.0.1", "127.0.0.1"):
        assert "does match" in shell.run("openssl", "x509", "-in", server, "-noout", "-checkip", address)
    before = {path: path.read_bytes() for path in [*home.pki.iterdir(), home.tokens, home.kubeconfig()]}
    pki.create(home)
    assert {path: path.read_bytes() for path in before} == before
    assert home.tokens.stat().st_mode & 0o077 == home.kubeconfig().stat().st_mode & 0o077 == 0


def test_the_kubeconfig_holds_the_token_that_the_api_server_knows(home: Home) -> None:
    home.root.mkdir()
    pki.create(home)
    config = json.loads(home.kubeconfig().read_text())
    assert config["current-context"] == "metisfl-test"
    assert config["users"][0]["user"]["token"] == pki.admin_token(home)
    row = next(line for line in home.tokens.read_text().splitlines() if pki.admin_token(home) in line)
    assert row.split(",")[1:] == ["admin", "admin", '"system:masters"']


def test_configuration_files_can_be_read_and_stay_in_the_state_folder(home: Home) -> None:
    config = tomllib.loads(components.containerd_config(home))
    assert config["plugins"]["io.containerd.grpc.v1.cri"]["restrict_oom_score_adj"] is True
    for folder in (config["root"], config["state"], config["grpc"]["address"]):
        assert Path(folder).is_relative_to(home.root)
    cni = json.loads(components.cni_config(home))
    assert Path(cni["plugins"][0]["ipam"]["dataDir"]).is_relative_to(home.root)
    assert json.loads(components.kubelet_config(home))["kind"] == "KubeletConfiguration"


def test_every_process_that_up_starts_is_one_that_down_stops(home: Home) -> None:
    builders = (
        components.etcd,
        components.api_server,
        components.controller_manager,
        components.scheduler,
        components.containerd,
        components.kubelet,
        components.proxy,
        components.dns,
    )
    started = {builder(home).name for builder in builders}
    started |= {components.crd_server(home, "server").name, housekeeping.command().name}
    assert started == {name for names in lifecycle._STOP_ORDER for name in names}


def test_mounts_are_found_innermost_first_with_blanks_in_their_names() -> None:
    mounts = "\n".join(
        [
            "proc /proc proc rw 0 0",
            "tmpfs /home/x/kubelet tmpfs rw 0 0",
            r"tmpfs /home/x/kubelet/a\040b tmpfs rw 0 0",
            "tmpfs /home/xy tmpfs rw 0 0",
        ]
    )
    assert lifecycle.mounts_below(Path("/home/x"), mounts) == ["/home/x/kubelet/a b", "/home/x/kubelet"]


def test_rules_of_others_survive() -> None:
    rules = """\
*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:DOCKER - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 10.88.0.0/16 ! -d 10.88.0.0/16 -m comment --comment metisfl-cluster -j MASQUERADE
-A KUBE-SERVICES -d 10.96.0.1/32 -j ACCEPT
COMMIT
"""
    assert network.without_cluster_rules(rules).splitlines() == [
        "*nat",
        ":PREROUTING ACCEPT [0:0]",
        ":DOCKER - [0:0]",
        "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "COMMIT",
    ]


def test_a_port_is_free_unless_somebody_listens_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "NODE_IP", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not network.is_free(port)
    assert network.is_free(port)
    monkeypatch.setattr(network, "NODE_IP", "192.0.2.1")  # an address that no machine has
    assert network.is_free(port)


# --- DNS and volumes -----------------------------------------------------------------------------------------------


def named(name: str, namespace: str = "ns", **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, **fields}


def test_names_are_those_that_a_cluster_answers() -> None:
    services = [
        named("web", spec={"clusterIP": "10.96.1.1"}),
        named("pods", spec={"clusterIP": "None"}),
        named("elsewhere", spec={"type": "ExternalName", "externalName": "example.org"}),
    ]
    endpoints = [
        named("web", subsets=[{"addresses": [{"ip": "10.88.0.10"}]}]),
        named(
            "pods",
            subsets=[
                {
                    "addresses": [{"ip": "10.88.0.11", "hostname": "pods-0"}, {"ip": "10.88.0.12"}],
                    "notReadyAddresses": [{"ip": "10.88.0.13", "hostname": "pods-2"}],
                }
            ],
        ),
        named("empty"),
    ]
    assert dns.hosts(services, endpoints).splitlines() == [
        "10.88.0.11 pods-0.pods.ns.svc.cluster.local",
        "10.88.0.11 pods.ns.svc.cluster.local",
        "10.88.0.12 pods.ns.svc.cluster.local",
        "10.96.1.1 web.ns.svc.cluster.local",
    ]


def persistent_volume(name: str, phase: str, storage_class: str = volumes.CLASS) -> dict[str, Any]:
    return named(name, spec={"storageClassName": storage_class}, status={"phase": phase})


def test_volumes_without_a_claim_are_thrown_away_and_free_ones_kept_on_offer() -> None:
    present = [
        persistent_volume("a", "Available"),
        persistent_volume("b", "Bound"),
        persistent_volume("c", "Released"),
        persistent_volume("d", "Failed"),
        persistent_volume("somebody-else", "Released", "fast"),
    ]
    assert volumes.plan(present) == volumes.Plan(discard=["c", "d"], make=volumes.FREE - 1)
    assert volumes.plan([]) == volumes.Plan([], volumes.FREE)


@given(st.lists(st.sampled_from(["Pending", "Available", "Bound", "Released", "Failed"]), max_size=40))
def test_after_the_plan_enough_volumes_are_free_and_none_that_is_bound_is_lost(phases: list[str]) -> None:
    present = {str(index): phase for index, phase in enumerate(phases)}
    todo = volumes.plan(persistent_volume(name, phase) for name, phase in present.items())
    left = {name: phase for name, phase in present.items() if name not in todo.discard}
    free = sum(phase in {"Available", "Pending"} for phase in left.values()) + todo.make
    assert free == max(volumes.FREE, sum(phase in {"Available", "Pending"} for phase in phases))
    assert set(left.values()) <= {"Pending", "Available", "Bound"}
    assert sum(phase == "Bound" for phase in left.values()) == phases.count("Bound")
