"""Mutual TLS as pods have it: what a learner's pod holds opens nothing that is not its own."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

STEADY = {"epochs": 25, "batchSize": 8, "learningRate": "0.05"}
LIFETIME = 300

# Run in a learner's pod: the certificate that the controller shows, without showing one of ours.
SHOWN = """
import os, ssl
host, _, port = os.environ["METISFL_CONTROLLER"].rpartition(":")
print(ssl.get_server_certificate((host, int(port))))
"""

# Run in a learner's pod, with all that the pod has: the group's bootstrap certificate and the pod's own UID.
THIEF = """
import grpc, json, os
from pathlib import Path
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.tls.authority import new_key
from metisfl.tls.requests import make_request
from metisfl.wire import rpc
from metisfl_learner.security import Trust

trust = Trust.read(Path(os.environ["METISFL_TLS_DIR"]))
address = os.environ["METISFL_CONTROLLER"]

def answer(method, request, credentials):
    options = [("grpc.ssl_target_name_override", trust.server_name)]
    with grpc.secure_channel(address, credentials, options) as channel:
        try:
            method.stub(channel)(request, timeout=30)
        except grpc.RpcError as error:
            return [error.code().name, error.details()]
        return ["OK", ""]

def enrol(ordinal, instance):
    return pb.EnrollRequest(certificate_request=make_request(new_key()), ordinal=ordinal, instance=instance)

own = trust.credentials(trust.bootstrap)
print(json.dumps({
    "join": answer(rpc.JOIN, pb.JoinRequest(protocol_version=1, group="hospital-a", ordinal=0), own),
    "again": answer(rpc.ENROLL, enrol(0, os.environ["METISFL_INSTANCE"]), own),
    "as another": answer(rpc.ENROLL, enrol(1, os.environ["METISFL_INSTANCE"]), own),
    "without": answer(rpc.ENROLL, enrol(0, ""), grpc.ssl_channel_credentials(trust.roots)),
}))
"""


def test_a_stolen_bundle_opens_nothing_and_a_new_pod_enrols_anew(
    lab: Any, run: Callable[..., str], example: Callable[..., dict[str, Any]]
) -> None:
    groups = [{"name": "hospital-a", "replicas": 2}, {"name": "hospital-b"}]
    name = run(example("breast-cancer", "guarded", termination={"maxRounds": 100_000}, learnerGroups=groups))
    lab.until("a round", lambda: lab.status(name).get("currentRound", 0) >= 1)
    assert lab.condition(name, "Secured")[:2] == ("True", "MutualTls")
    learner, pod = "hospital-a-0", f"{name}-hospital-a-0"
    said = json.loads(lab.kubectl("exec", pod, "-n", lab.namespace, "--", "python", "-c", THIEF))
    assert {attempt: code for attempt, (code, _) in said.items()} == {
        "join": "PERMISSION_DENIED",
        "again": "PERMISSION_DENIED",
        "as another": "UNAVAILABLE",
        "without": "UNAVAILABLE",
    }
    assert "has enrolled already" in said["again"][1]
    assert "has not announced" in said["as another"][1]

    lab.kill(pod)

    def enrolments() -> int:
        return sum((e["action"], e["learner"]) == ("Enrolled", learner) for e in lab.audit(name))

    lab.until("the new pod has enrolled", lambda: enrolments() == 2)
    assert {"EnrolmentRefused", "CallRefused"} <= {entry["action"] for entry in lab.audit(name)}


@pytest.mark.slow
@pytest.mark.timeout(800, func_only=True)
def test_certificates_are_replaced_while_rounds_go_on(
    lab: Any, run: Callable[..., str], example: Callable[..., dict[str, Any]]
) -> None:
    """By the operator and the kubelet for the controller, and by the learners for themselves; nobody misses a round."""
    tls = {"mode": "Auto", "certificateSeconds": LIFETIME}
    name = run(
        example("digits", "rotating", training=STEADY, termination={"maxRounds": 100_000}, security={"tls": tls})
    )
    lab.until("a round", lambda: lab.status(name).get("currentRound", 0) >= 1)
    before = shown(lab, name)
    assert before == kept(lab, name)
    learners = {learner.id for learner in lab.controller(name).learners}

    def renewed() -> set[str]:
        return {entry["learner"] for entry in lab.audit(name) if entry["action"] == "Renewed"}

    lab.until("every learner has another certificate", lambda: renewed() == learners, LIFETIME)
    lab.until("the operator has made the controller's", lambda: kept(lab, name) != before, LIFETIME)
    lab.until("the controller shows it", lambda: shown(lab, name) == kept(lab, name), LIFETIME / 3)
    reached = lab.controller(name).current_round
    lab.until("rounds go on", lambda: len(lab.rounds(name)) > reached)
    first = lab.rounds(name)[0].number
    missed = [
        entry for entry in lab.rounds(name) if entry.lost or entry.attempts > 1 or set(entry.contributors) != learners
    ]
    assert (first, missed) == (1, [])
    assert {entry["action"] for entry in lab.audit(name)} == {"Enrolled", "Joined", "Renewed"}
    assert lab.controller(name).incarnation == 1


def shown(lab: Any, name: str) -> str:
    learner = next(pod for pod in lab.pods(name) if "controller" not in pod)
    text: str = lab.kubectl("exec", learner, "-n", lab.namespace, "--", "python", "-c", SHOWN)
    return text.strip()


def kept(lab: Any, name: str) -> str:
    """The controller's certificate in its Secret, without those above it."""
    jsonpath = r"jsonpath={.data.tls\.crt}"
    encoded = lab.kubectl("get", "secret", f"{name}-controller-tls", "-n", lab.namespace, "-o", jsonpath)
    end = "-----END CERTIFICATE-----"
    return base64.b64decode(encoded).decode().partition(end)[0].strip() + f"\n{end}"
