"""The commands for clusters, against an API server that answers as Kubernetes does."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from metisfl.api import FederationDocument, FederationState, LearnerDocument
from metisfl.api.rounds import PAGE
from metisfl.bundle import read_bundle
from metisfl.cluster import names
from metisfl.cluster.access import ClusterError, connect
from metisfl.cluster.diagnosis import ADVICE, Findings, diagnosis
from metisfl.cluster.logs import read_log, readable
from metisfl.cluster.watching import PATIENCE_SECONDS, Watch
from metisfl.spec.crd import crd
from metisfl.tls.authority import make_client_issuer, make_root
from metisfl.tls.holdings import new_bootstrap
from metisfl.tls.pem import certificates_pem
from metisfl_operator import names as operators_names
from metisfl_operator.reconcile.events import _EXPECTED
from metisfl_operator.reconcile.reasons import Reason
from tests.unit.cli.api_server import Answer, ApiServer, status

Metisfl = Callable[..., Result]

NOW = datetime(2024, 5, 1, 10, tzinfo=UTC)
COLLECTION = "/apis/metisfl.dev/v1alpha1/namespaces/lab/federations"
OBJECT = f"{COLLECTION}/digits"
PROXY = "/api/v1/namespaces/lab/services/http:digits-controller:http/proxy/v1"
GROUPS = [{"name": "silo"}, {"name": "hospital-b", "external": True, "maxLearners": 4}]


def federation(*conditions: tuple[str, str, str, str], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "metisfl.dev/v1alpha1",
        "kind": "Federation",
        "metadata": {
            "name": "digits",
            "namespace": "lab",
            "uid": "0a1b2c3d-0000",
            "creationTimestamp": "2024-05-01T09:00:00Z",
        },
        "spec": {
            "learner": {"entrypoint": "pkg.mod:Class"},
            "learnerGroups": GROUPS,
            "termination": {"maxRounds": 10},
            "security": {"tls": {"mode": "Disabled"}},
            **spec,
        },
        "status": {
            "currentRound": 3,
            "learners": {"desired": 2, "ready": 1, "participating": 1, "summary": "1/2"},
            "metrics": [{"name": "accuracy", "value": "0.91"}],
            "endpoint": "digits-controller.lab.svc:50051",
            "conditions": [
                {"type": kind, "status": holds, "reason": reason, "message": message}
                for kind, holds, reason, message in conditions
            ],
        },
    }


TRAINING = ("Progressing", "True", "Training", "Round 3 of 10")
SERVING = ("ControllerAvailable", "True", "Serving", "Serving")


def answer(document: Any) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()


def document(**fields: Any) -> FederationDocument:
    values = {"name": "digits", "uid": "u", "incarnation": 1, "state": FederationState.TRAINING, "max_rounds": 10}
    return FederationDocument(**{**values, **fields})


# ---- status


def test_status_lists_federations_in_columns(server: ApiServer, metisfl: Metisfl) -> None:
    server.answers[COLLECTION] = answer({"items": [federation(TRAINING)]})
    header, row = metisfl("status").output.splitlines()
    assert header.split() == ["NAME", "STATE", "ROUND", "LEARNERS", "METRIC", "AGE"]
    assert row.split()[:6] == ["digits", "Training", "3/10", "1/2", "accuracy", "0.91"]


def test_status_of_all_namespaces_names_them(server: ApiServer, metisfl: Metisfl) -> None:
    server.answers["/apis/metisfl.dev/v1alpha1/federations"] = answer({"items": [federation()]})
    _, row = metisfl("status", "-A").output.splitlines()
    assert row.split()[:3] == ["lab", "digits", "Pending"]


def test_status_of_one_says_how_it_stands(server: ApiServer, metisfl: Metisfl) -> None:
    server.answers[OBJECT] = answer(federation(SERVING, TRAINING))
    output = metisfl("status", "digits").output
    assert output.startswith("digits: Training: Round 3 of 10\n")
    assert "  accuracy  0.91\n" in output
    assert json.loads(metisfl("status", "digits", "--json").output)["metadata"]["name"] == "digits"


def test_an_empty_namespace_is_said_to_be_empty(server: ApiServer, metisfl: Metisfl) -> None:
    server.answers[COLLECTION] = answer({"items": []})
    assert metisfl("status").output == "no Federations in namespace 'lab' (context 'here')\n"


# ---- describe


def test_describe_says_what_is_wrong_and_what_to_do(server: ApiServer, metisfl: Metisfl) -> None:
    words = "0 of 2 learners are connected; silo-0: image x: not found"
    server.answers = {
        OBJECT: answer(
            federation(
                SERVING,
                ("LearnersReady", "False", "ImagePullFailed", words),
                ("Progressing", "False", "ImagePullFailed", words),
            )
        ),
        "/api/v1/namespaces/lab/pods?labelSelector=metisfl.dev/federation=digits": answer(
            {
                "items": [
                    {
                        "metadata": {"name": "digits-silo-0"},
                        "status": {
                            "phase": "Pending",
                            "containerStatuses": [
                                {"ready": False, "state": {"waiting": {"reason": "ImagePullBackOff"}}}
                            ],
                        },
                    }
                ]
            }
        ),
        f"{PROXY}/federation": answer(
            document(
                learners=[
                    LearnerDocument(id="silo-0", group="silo", connected=False, activity="Lost", message="silent")
                ]
            ).model_dump(mode="json", by_alias=True)
        ),
    }
    output = metisfl("describe", "digits").output
    assert f"What is wrong:\n  ImagePullFailed: {words}\n" in output
    assert f"What to do:\n  {ADVICE['ImagePullFailed']}\n" in output
    assert "  digits-silo-0: ImagePullBackOff\n" in output
    assert "  silo-0: Lost, not connected, 0 rounds, 0 examples: silent\n" in output
    assert "Not found out:\n  events: 404" in output


def test_a_federation_that_nobody_looked_at_points_to_the_operator() -> None:
    found = federation()
    del found["status"]
    text = "\n".join(diagnosis(Findings(found), NOW))
    assert "The operator has not looked at it" in text
    assert "metisfl install" in text


def test_a_suspended_federation_is_resumed_and_a_complete_one_is_well() -> None:
    suspended = "\n".join(
        diagnosis(Findings(federation(("Suspended", "True", "Suspended", "spec.suspend is true"))), NOW)
    )
    assert "metisfl resume digits -n lab" in suspended
    complete = "\n".join(diagnosis(Findings(federation(("Complete", "True", "MaxRoundsReached", "done"))), NOW))
    assert "What is wrong" not in complete


def test_every_reason_of_the_operator_that_means_trouble_has_advice() -> None:
    harmless = {*_EXPECTED, Reason.STARTING, Reason.IN_PROGRESS, Reason.NOT_FAILED, Reason.NOT_SUSPENDED}
    harmless |= {Reason.SCALED_DOWN, Reason.DELIVERED, Reason.DELIVERING, Reason.NOTHING_TO_DELIVER, Reason.COMPLETED}
    harmless |= {Reason.FAILED, Reason.WAITING_FOR_CONTROLLER, Reason.MUTUAL_TLS}
    assert {reason for reason in Reason if reason not in harmless} - set(ADVICE) == set()


def test_events_are_told_with_their_age() -> None:
    event = {
        "involvedObject": {"kind": "Pod", "name": "digits-silo-0"},
        "reason": "Failed",
        "message": "no\nimage",
        "lastTimestamp": (NOW - timedelta(minutes=3)).isoformat(),
        "count": 4,
    }
    lines = diagnosis(Findings(federation(), events=[event]), NOW)
    assert lines[-1] == "  3 min ago, Pod digits-silo-0: Failed: no image (4 times)"


# ---- logs, suspend, resume


def test_logs_are_readable_or_raw(server: ApiServer, metisfl: Metisfl) -> None:
    record = {"time": "10:00", "level": "INFO", "logger": "x", "message": "joined", "learner": "a-0"}
    line = json.dumps({**record, "federation": "digits"})
    query = "?follow=false&tailLines=200&previous=false"
    server.answers = {
        OBJECT: answer(federation()),
        f"/api/v1/namespaces/lab/pods/digits-controller-0/log{query}": (200, {}, f"{line}\nplain\n".encode()),
        f"/api/v1/namespaces/lab/pods/digits-silo-0/log{query}": (200, {}, b"of the learner"),
    }
    assert metisfl("logs", "digits").output == "10:00 INFO joined learner=a-0\nplain\n"
    assert metisfl("logs", "digits", "--raw").output == f"{line}\nplain\n"
    assert metisfl("logs", "digits", "--learner", "silo-0").output == "of the learner\n"


def test_a_log_is_followed_line_by_line(server: ApiServer, metisfl: Metisfl) -> None:
    seen = threading.Event()

    def written() -> Iterator[bytes]:
        yield b"first\nsec"
        assert seen.wait(10), "the first line was not shown before the second was written"
        yield b"ond\n"

    query = "?follow=true&tailLines=5&previous=false"
    server.answers[f"/api/v1/namespaces/lab/pods/digits-controller-0/log{query}"] = (200, {}, written())
    lines = read_log(connect(None, None), "digits-controller-0", follow=True, tail=5, previous=False)
    assert next(lines) == "first"
    seen.set()
    assert list(lines) == ["second"]


def test_a_pod_that_is_not_there_is_told(server: ApiServer, metisfl: Metisfl) -> None:
    server.answers = {OBJECT: answer(federation())}
    result = metisfl("logs", "digits", "--learner", "hospital-b-0")
    assert result.exit_code == 1
    assert "there is no pod 'digits-hospital-b-0'" in result.output
    assert "at their sites" in result.output


@pytest.mark.parametrize("line", ["", "[1]", "3", '{"no": "message"}'])
def test_what_is_no_log_record_stays_as_it_is(line: str) -> None:
    assert readable(line) == line


def test_suspend_and_resume_change_the_spec_once(server: ApiServer, metisfl: Metisfl) -> None:
    server.answers = {OBJECT: answer(federation())}
    assert metisfl("suspend", "digits").output == "digits: suspended\n"
    assert [(path, json.loads(body)) for path, body in server.patched] == [(OBJECT, {"spec": {"suspend": True}})]
    assert metisfl("resume", "digits").output == "digits: was not suspended\n"
    assert len(server.patched) == 1


# ---- the controller's token


def test_the_controllers_token_is_sent_by_those_who_may_read_it(
    server: ApiServer, metisfl: Metisfl, tmp_path: Path
) -> None:
    token = base64.b64encode(b"a-token-of-the-controller").decode()
    server.answers = {
        OBJECT: answer(federation(SERVING)),
        "/api/v1/namespaces/lab/secrets/digits-api-token": answer({"data": {"token": token}}),
        f"{PROXY}/models/latest": (200, {}, b"model"),
    }
    assert metisfl("model", "get", "digits", "-o", str(tmp_path / "model")).exit_code == 0
    sent = dict(zip(server.asked, server.headers, strict=True))
    assert sent[f"{PROXY}/models/latest"]["X-Metisfl-Token"] == "a-token-of-the-controller"
    assert sent[OBJECT]["authorization"] == "Bearer secret"


def test_a_token_that_may_not_be_read_is_told(server: ApiServer, metisfl: Metisfl) -> None:
    server.answers = {
        OBJECT: answer(federation(SERVING)),
        f"{PROXY}/models/latest": (401, {}, b'{"detail": "a token is needed"}'),
    }
    assert "you need the right to get Secret digits-api-token" in metisfl("model", "get", "digits").output


# ---- watch


class Told:
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def open(self, found: Any, output: str) -> None:
        self.lines.append(f"open {found.metadata.name}")

    def update(self, snapshot: Any) -> None:
        self.lines.append(f"round {snapshot.document.current_round}")

    def note(self, text: str) -> None:
        self.lines.append(text)

    def close(self) -> None:
        """Nothing to close."""


class Story:
    """A source that tells one thing after the other; an exception among them is raised."""

    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)

    def federation(self) -> dict[str, Any]:
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        return step

    def progress(self) -> Any:
        return document(current_round=3)

    def rounds(self, after: int, limit: int) -> list[Any]:
        return []


def test_watch_ends_with_the_federation() -> None:
    starting = federation(("ControllerAvailable", "False", "Starting", "its pod is starting"))
    complete = federation(SERVING, ("Complete", "True", "MaxRoundsReached", "done"))
    display = Told()
    source = Story(starting, starting, ClusterError("no answer"), federation(SERVING, TRAINING), complete)
    assert Watch(source, display, sleep=lambda _: None).run() is complete
    assert display.lines == [
        "open digits",
        "ControllerAvailable is False: Starting: its pod is starting",
        "no answer",
        "ControllerAvailable is False: Starting: its pod is starting",
        "round 3",
        "round 3",
    ]


def test_watch_does_not_wait_for_ever_for_a_silent_cluster() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    watch = Watch(Story(federation(SERVING, TRAINING), ClusterError("no answer")), Told(), sleep, lambda: now[0])
    with pytest.raises(ClusterError, match="no answer"):
        watch.run()
    assert PATIENCE_SECONDS < now[0] < PATIENCE_SECONDS + 5


def test_watch_prints_lines_where_there_is_no_terminal(server: ApiServer, metisfl: Metisfl) -> None:
    server.answers = {
        OBJECT: answer(federation(SERVING, ("Failed", "True", "QuorumNotReached", "b-0 was missing"))),
        f"{PROXY}/federation": answer(document(current_round=3).model_dump(mode="json", by_alias=True)),
        f"{PROXY}/rounds?after=0&limit={PAGE}": answer([]),
    }
    result = metisfl("watch", "digits")
    assert result.exit_code == 1
    assert result.output.splitlines()[-2:] == ["training", "Failed: QuorumNotReached: b-0 was missing"]


# ---- bundle


EXPOSED = {"controller": {"expose": {"type": "NodePort", "host": "node.example.org"}}}


def bootstrap(now: datetime | None = None) -> dict[str, str]:
    now = now or datetime.now(UTC)
    root = make_root("0a1b2c3d-0000", timedelta(days=9), now)
    issuer = make_client_issuer(root, "0a1b2c3d-0000", timedelta(days=9), now)
    made = new_bootstrap(issuer, "0a1b2c3d-0000", "hospital-b", timedelta(days=1), now)

    content = {"ca.crt": certificates_pem([root.certificate]), "tls.crt": made.certificate, "tls.key": made.key}
    return {key: base64.b64encode(value).decode() for key, value in content.items()}


def test_a_bundle_holds_address_and_certificates_for_its_owner_alone(
    server: ApiServer, metisfl: Metisfl, tmp_path: Path
) -> None:
    found = federation(**EXPOSED, security={"tls": {"mode": "Auto"}})
    found["status"]["endpoint"] = "node.example.org:30443"
    server.answers = {
        OBJECT: answer(found),
        "/api/v1/namespaces/lab/secrets/digits-hospital-b-bootstrap": answer({"data": bootstrap()}),
    }
    file = tmp_path / "bundle.yaml"
    file.write_text("an older one, which others could read")
    result = metisfl("bundle", "digits", "--group", "hospital-b", "-o", str(file))
    assert result.exit_code == 0, result.output
    assert "hospital-b of digits, at most 4 learners, dialling node.example.org:30443" in result.output
    assert "can enrol with it until" in result.output
    assert file.stat().st_mode & 0o777 == 0o600
    bundle = read_bundle(file).spec
    assert (bundle.endpoint, bundle.entrypoint, bundle.max_learners) == ("node.example.org:30443", "pkg.mod:Class", 4)
    assert bundle.tls is not None
    assert bundle.tls.server_name == "controller.0a1b2c3d-0000.metisfl.internal"
    assert bundle.tls.key.startswith("-----BEGIN")


def test_a_bundle_is_not_made_of_an_expired_certificate(server: ApiServer, metisfl: Metisfl, tmp_path: Path) -> None:
    expired = bootstrap(datetime.now(UTC) - timedelta(days=2))
    server.answers = {
        OBJECT: answer(federation(security={"tls": {"mode": "Auto"}})),
        "/api/v1/namespaces/lab/secrets/digits-hospital-b-bootstrap": answer({"data": expired}),
    }
    result = metisfl("bundle", "digits", "--endpoint", "a:1", "-o", str(tmp_path / "bundle.yaml"))
    assert result.exit_code == 1
    assert "Secret digits-hospital-b-bootstrap is of no use: " in result.output
    assert not (tmp_path / "bundle.yaml").exists()


def test_a_bundle_without_tls_says_so(server: ApiServer, metisfl: Metisfl) -> None:
    server.answers = {OBJECT: answer(federation())}
    result = metisfl("bundle", "digits", "--endpoint", "fl.example.org:443", "-o", "-")
    assert yaml.safe_load(result.output)["spec"] == {
        "federation": "digits",
        "group": "hospital-b",
        "maxLearners": 4,
        "endpoint": "fl.example.org:443",
        "entrypoint": "pkg.mod:Class",
    }


@pytest.mark.parametrize(
    ("found", "options", "words"),
    [
        (federation(), (), "reached inside of the cluster only: set spec.controller.expose"),
        (federation(**EXPOSED), (), "the address of 'digits' is not known yet"),
        (federation(), ("--group", "silo"), "'digits' has no external group 'silo'; its external groups: hospital-b"),
        (federation(learnerGroups=[{"name": "a"}]), (), "say with --group which external group"),
        (federation(), ("--endpoint", "nowhere"), "no bundle can be made of that: endpoint"),
        (
            federation(security={"tls": {"mode": "Auto"}}),
            ("--endpoint", "a:1"),
            "a bundle holds Secret digits-hospital-b-bootstrap, which you may not read",
        ),
    ],
)
def test_what_a_bundle_lacks_is_told(
    server: ApiServer, metisfl: Metisfl, found: dict[str, Any], options: tuple[str, ...], words: str
) -> None:
    secret = "/api/v1/namespaces/lab/secrets/digits-hospital-b-bootstrap"
    server.answers = {OBJECT: answer(found), secret: status(403, "secrets is forbidden")}
    result = metisfl("bundle", "digits", *options, "-o", "-")
    assert result.exit_code != 0
    assert words in result.output


# ---- install, names


def test_install_prints_what_the_chart_would_make(metisfl: Metisfl) -> None:
    output = metisfl("install", "-n", "fl", "--operator-image", "r/op:1", "--learner-image", "r/learner:1").output
    objects = list(yaml.safe_load_all(output))
    assert objects[0] == {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fl"}}
    assert objects[1] == crd()
    assert {o["metadata"]["namespace"] for o in objects if "namespace" in o["metadata"]} == {"fl"}
    (deployment,) = [o for o in objects if o["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "r/op:1"
    assert {"name": "METISFL_LEARNER_IMAGE", "value": "r/learner:1"} in container["env"]
    subjects = [s["namespace"] for o in objects for s in o.get("subjects", [])]
    assert set(subjects) == {"fl"}
    assert "CustomResourceDefinition" not in metisfl("install", "--without-crd").output


def test_objects_are_named_as_the_operator_names_them() -> None:
    assert names.controller_name("digits") == operators_names.controller_name("digits")
    assert names.LABEL_FEDERATION == operators_names.LABEL_FEDERATION
    assert names.bootstrap_secret("digits", "a") == operators_names.bootstrap_secret("digits", "a")
    assert names.token_secret("digits") == operators_names.token_secret("digits")
    # Objects of federations that run have these names: another release must find them.
    assert names.controller_name("digits") == "digits-controller"
    assert names.LABEL_FEDERATION == "metisfl.dev/federation"
    assert names.bootstrap_secret("digits", "a") == "digits-a-bootstrap"
    assert names.token_secret("digits") == "digits-api-token"
