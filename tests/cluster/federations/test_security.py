"""Mutual TLS as pods have it: what a learner's pod holds opens nothing that is not its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

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
