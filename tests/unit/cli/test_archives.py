"""`metisfl export` and `metisfl restore` against an API server that answers as Kubernetes does."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from metisfl.cluster.install import controller_image
from metisfl_operator.partitions import PartitionPlan
from tests.unit.archive.test_archive import archive
from tests.unit.cli.api_server import Answer, ApiServer, federation, status

OBJECT = "/apis/metisfl.dev/v1alpha1/namespaces/lab/federations/digits"
PROXY = "/api/v1/namespaces/lab/services/http:digits-controller:http/proxy/v1/archive"
CLAIMS, PODS = "/api/v1/namespaces/lab/persistentvolumeclaims", "/api/v1/namespaces/lab/pods"
POD = f"{PODS}/digits-restored-restore"
RECEIVER = f"{POD}:8080/proxy/archive"
CONTENT = archive()
DIGEST = hashlib.sha256(CONTENT).hexdigest()

Metisfl = Callable[..., Result]


def pod(**found: Any) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps({"status": found}).encode()


READY = pod(conditions=[{"type": "Ready", "status": "True"}])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "digits.tar"
    path.write_bytes(CONTENT)
    return path


# ---- export


def test_an_archive_is_saved_once_it_is_verified(server: ApiServer, metisfl: Metisfl, tmp_path: Path) -> None:
    server.answers = {OBJECT: federation(), PROXY: (200, {"Content-Type": "application/x-tar"}, CONTENT)}
    target = tmp_path / "saved.tar"
    result = metisfl("export", "digits", "-o", str(target))
    assert result.exit_code == 0, result.output
    assert target.read_bytes() == CONTENT
    assert result.output == f"{target}: version 7 of digits, {len(CONTENT) / 1024:.1f} KiB, sha256 {DIGEST}\n"


@pytest.mark.parametrize("damage", [lambda c: c[:-700], lambda c: c[:3000] + b"\xff" + c[3001:]], ids=["cut", "byte"])
def test_one_that_arrives_damaged_does_not_replace_the_last(
    server: ApiServer, metisfl: Metisfl, file: Path, damage: Callable[[bytes], bytes]
) -> None:
    server.answers = {OBJECT: federation(), PROXY: (200, {}, damage(CONTENT))}
    result = metisfl("export", "digits", "-o", str(file))
    assert result.exit_code == 1
    assert "the archive arrived damaged" in result.output
    assert file.read_bytes() == CONTENT
    assert [path.name for path in file.parent.iterdir() if path.suffix == ".tar"] == ["digits.tar"]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({}, "MetisFL is not installed"),
        (
            {"object": federation(), "proxy": (409, {}, b'{"detail": "no model version has been committed yet"}')},
            "the controller of 'digits' gives no archive: no model version has been committed yet",
        ),
        ({"object": federation(), "proxy": (404, {}, b'{"detail": "Not Found"}')}, "is of an older release"),
        (
            {
                "object": federation(Suspended=("True", "Suspended", "spec.suspend is true")),
                "proxy": status(503, "no endpoints available"),
            },
            "does not run (Suspended: Suspended: spec.suspend is true), and an archive comes from it; what it keeps is "
            "on the claim that the Federation uses, by default digits-controller",
        ),
        ({"object": federation(), "proxy": status(403, "is forbidden")}, "you may not reach the controller"),
    ],
)
def test_why_there_is_no_archive_is_told(
    server: ApiServer, metisfl: Metisfl, tmp_path: Path, answers: dict[str, Answer], expected: str
) -> None:
    paths = {"object": OBJECT, "proxy": PROXY}
    server.answers = {paths[name]: answer for name, answer in answers.items()}
    result = metisfl("export", "digits", "-o", str(tmp_path / "digits.tar"))
    assert result.exit_code == 1
    assert expected in result.output
    assert not (tmp_path / "digits.tar").exists()


# ---- restore


def test_an_archive_becomes_a_claim_that_a_federation_can_go_on_from(
    server: ApiServer, metisfl: Metisfl, file: Path
) -> None:
    server.answers = {POD: READY}
    result = metisfl("restore", str(file))
    assert result.exit_code == 0, result.output
    assert result.output.endswith("spec.controller.storage.existingClaim: digits-restored\n")
    (claims, claim), (pods, made) = server.created
    assert (claims, pods) == (CLAIMS, PODS)
    assert claim["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    # The operator reads it as the plan that it once wrote.
    plan = PartitionPlan.parse(claim["metadata"]["annotations"]["metisfl.dev/partition-plan"])
    assert plan == PartitionPlan(4, {"a": 0, "b": 2}, {"a": 2, "b": 1})
    (container,) = made["spec"]["containers"]
    assert container["image"] == controller_image()
    assert container["command"][-4:] == ["--bytes", str(len(CONTENT)), "--sha256", DIGEST]
    assert made["spec"]["volumes"] == [{"name": "state", "persistentVolumeClaim": {"claimName": "digits-restored"}}]
    assert server.sent == [(RECEIVER, CONTENT)]
    assert server.deleted == [POD]


def test_claim_image_and_size_can_be_chosen(server: ApiServer, metisfl: Metisfl, file: Path) -> None:
    server.answers = {f"{PODS}/two-restore": READY}
    options = ["--claim", "two", "--size", "20Gi", "--storage-class", "fast", "--image", "mine:1"]
    result = metisfl("restore", str(file), *options)
    assert result.exit_code == 0, result.output
    (_, claim), (_, made) = server.created
    assert claim["metadata"]["name"] == "two"
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"
    assert claim["spec"]["storageClassName"] == "fast"
    assert made["spec"]["containers"][0]["image"] == "mine:1"


def test_the_pod_meets_the_restricted_level(server: ApiServer, metisfl: Metisfl, file: Path) -> None:
    """Every field that the Pod Security Standards ask for, and no token of a service account."""
    server.answers = {POD: READY}
    assert metisfl("restore", str(file)).exit_code == 0
    spec = server.created[1][1]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert spec["automountServiceAccountToken"] is False
    assert spec["activeDeadlineSeconds"] > 0


def test_a_damaged_archive_reaches_no_cluster(server: ApiServer, metisfl: Metisfl, file: Path) -> None:
    file.write_bytes(CONTENT[:-600])
    result = metisfl("restore", str(file))
    assert result.exit_code == 1
    assert f"{file} cannot be restored: it ends early" in result.output
    assert (server.created, server.asked) == ([], [])


REFUSED = status(409, 'persistentvolumeclaims "digits-restored" already exists')
PULLING = pod(
    phase="Pending",
    containerStatuses=[{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}],
)
UNSCHEDULABLE = pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}])
ENDED = pod(phase="Failed", containerStatuses=[{"state": {"terminated": {"reason": "Error", "message": "no room"}}}])


@pytest.mark.parametrize(
    ("answer", "refused", "expected", "deleted"),
    [
        pytest.param(
            READY,
            {CLAIMS: REFUSED},
            "PersistentVolumeClaim 'digits-restored' cannot be made in namespace 'lab' (context 'here'): "
            'persistentvolumeclaims "digits-restored" already exists; choose another name with --claim',
            [],
            id="claim there",
        ),
        pytest.param(
            READY, {PODS: status(403, "exceeded quota")}, "exceeded quota", [f"{CLAIMS}/digits-restored"], id="quota"
        ),
        pytest.param(PULLING, {}, "was not ready within 1 s: ImagePullBackOff: no such image", None, id="image"),
        pytest.param(UNSCHEDULABLE, {}, "was not ready within 1 s: 0/3 nodes are available", None, id="nodes"),
        pytest.param(ENDED, {}, "ended: Error: no room", None, id="ended"),
        pytest.param(
            READY,
            {RECEIVER: (507, {}, b'{"detail": "the volume cannot be written: No space left on device"}')},
            "the archive did not arrive: the volume cannot be written: No space left",
            None,
            id="disk",
        ),
    ],
)
def test_when_it_fails_nothing_is_left(
    server: ApiServer,
    metisfl: Metisfl,
    file: Path,
    answer: Answer,
    refused: dict[str, Answer],
    expected: str,
    deleted: list[str] | None,
) -> None:
    server.answers, server.refused = {POD: answer}, refused
    result = metisfl("restore", str(file), "--timeout", "1")
    assert result.exit_code == 1
    assert expected in re.sub(r"\s+", " ", result.output)
    assert server.deleted == ([POD, f"{CLAIMS}/digits-restored"] if deleted is None else deleted)


CLAIM = f"{CLAIMS}/digits-restored"


def test_an_object_whose_making_was_not_answered_is_removed(server: ApiServer, metisfl: Metisfl, file: Path) -> None:
    server.silent = {("POST", CLAIMS)}
    result = metisfl("restore", str(file))
    assert result.exit_code == 1
    assert "cannot be reached" in result.output
    assert (server.deleted, server.preconditions) == ([CLAIM], [{"uid": "uid-1"}])


@pytest.mark.parametrize("answer", [None, status(504, "timed out")], ids=["none", "timeout"])
def test_an_object_of_somebody_else_is_left_alone(
    server: ApiServer, metisfl: Metisfl, file: Path, answer: Answer | None
) -> None:
    """There under the same name, made by another run of the same command, when the answer is lost or is no refusal."""
    labels = {"app.kubernetes.io/name": "metisfl-restore", "metisfl.dev/restore": "another"}
    theirs = {"metadata": {"name": "digits-restored", "uid": "theirs", "labels": labels}}
    server.answers = {CLAIM: (200, {}, json.dumps(theirs).encode())}
    if answer is None:
        server.silent = {("POST", CLAIMS)}
    else:
        server.refused = {CLAIMS: answer}
    assert metisfl("restore", str(file)).exit_code == 1
    assert CLAIM in server.asked
    assert server.deleted == []


def test_only_what_was_made_is_removed(server: ApiServer, metisfl: Metisfl, file: Path) -> None:
    """By its uid: the name may be somebody else's by then."""
    server.answers = {POD: ENDED}
    assert metisfl("restore", str(file)).exit_code == 1
    assert server.deleted == [POD, CLAIM]
    assert server.preconditions == [{"uid": "uid-2"}, {"uid": "uid-1"}]


def test_a_whole_claim_stays_when_its_pod_cannot_be_removed(server: ApiServer, metisfl: Metisfl, file: Path) -> None:
    server.answers, server.silent = {POD: READY}, {("DELETE", POD)}
    result = metisfl("restore", str(file))
    assert result.exit_code == 0, result.output
    assert "pod 'digits-restored-restore' could not be deleted" in result.output
    assert "kubectl delete pod digits-restored-restore -n lab" in re.sub(r"\s+", " ", result.output)
    assert "existingClaim: digits-restored" in result.output
    assert server.deleted == [POD]
