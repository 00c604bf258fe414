"""NetworkPolicies as rendered, judged by what they would let through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from metisfl.spec import Federation
from metisfl_operator.names import labels
from metisfl_operator.resources.metadata import Owner
from metisfl_operator.resources.network import network_policies
from metisfl_operator.settings import NetworkSettings, Settings, SettingsError

Build = Callable[..., Federation]

CONTROLLER, LEARNER = labels("demo", "controller"), labels("demo", "learner", "a")
OPERATOR = {"app.kubernetes.io/name": "metisfl-operator"}
PROMETHEUS = {"app.kubernetes.io/name": "prometheus"}
OTHER_FEDERATION = labels("other", "learner", "a")
GRPC, HTTP = 50051, 8080


def allows(
    policies: list[dict[str, Any]], direction: str, pod: dict[str, str], peer: dict[str, str], port: int
) -> bool:
    """Whether the policies let `pod` talk with `peer`; policies are united, and none that applies means yes."""
    applying = [
        p["spec"]
        for p in policies
        if _picked(p["spec"]["podSelector"], pod) and direction.capitalize() in p["spec"]["policyTypes"]
    ]
    side = {"ingress": "from", "egress": "to"}[direction]
    return not applying or any(
        (side not in rule or any(_picked(entry.get("podSelector", {}), peer) for entry in rule[side]))
        and ("ports" not in rule or port in [entry["port"] for entry in rule["ports"]])
        for spec in applying
        for rule in spec[direction]
    )


def _picked(selector: dict[str, Any], pod: dict[str, str]) -> bool:
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= pod.items()


@pytest.fixture
def policies(federation: Build, owner: Owner) -> Callable[..., list[dict[str, Any]]]:
    def build(settings: NetworkSettings | None = None, **spec: Any) -> list[dict[str, Any]]:
        chosen = settings or NetworkSettings(http_from=({"podSelector": {"matchLabels": PROMETHEUS}},))
        return network_policies(owner, federation(**spec), chosen)

    return build


@pytest.mark.parametrize(
    ("peer", "port", "let_in"),
    [
        (LEARNER, GRPC, True),
        (LEARNER, HTTP, False),
        (OPERATOR, HTTP, True),
        (OPERATOR, GRPC, False),
        (PROMETHEUS, HTTP, True),
        (PROMETHEUS, GRPC, False),
        (OTHER_FEDERATION, GRPC, False),
        ({}, HTTP, False),
    ],
)
def test_who_reaches_the_controller(policies: Any, peer: dict[str, str], port: int, let_in: bool) -> None:
    assert allows(policies(), "ingress", CONTROLLER, peer, port) is let_in


def test_nobody_reaches_a_learner(policies: Any) -> None:
    for peer in (CONTROLLER, LEARNER, OPERATOR, {}):
        assert not allows(policies(), "ingress", LEARNER, peer, GRPC)


def test_learners_from_outside_may_come_from_anywhere_but_only_to_the_grpc_port(policies: Any) -> None:
    groups = [{"name": "a"}, {"name": "hospital", "external": True, "maxLearners": 2}]
    made = policies(learnerGroups=groups)
    assert allows(made, "ingress", CONTROLLER, {}, GRPC)
    assert not allows(made, "ingress", CONTROLLER, {}, HTTP)


def test_the_controller_connects_to_dns_alone_unless_it_has_an_output(policies: Any) -> None:
    assert allows(policies(), "egress", CONTROLLER, {}, 53)
    assert not allows(policies(), "egress", CONTROLLER, {}, 443)
    assert allows(policies(output={"url": "s3://models"}), "egress", CONTROLLER, {}, 443)
    more = NetworkSettings(controller_egress=({"ports": [{"port": 3128}]},))
    assert allows(policies(more), "egress", CONTROLLER, {}, 3128)


def test_learners_are_held_back_only_when_asked(policies: Any) -> None:
    assert allows(policies(), "egress", LEARNER, {}, 443)
    held = policies(NetworkSettings(learner_egress=({"ports": [{"port": 5432}]},)))
    assert not allows(held, "egress", LEARNER, {}, 443)
    assert not allows(held, "egress", LEARNER, CONTROLLER, HTTP)
    assert allows(held, "egress", LEARNER, CONTROLLER, GRPC)
    assert allows(held, "egress", LEARNER, {}, 53)
    assert allows(held, "egress", LEARNER, {}, 5432)


@pytest.mark.parametrize("text", ["[]", "{", '{"httpFrom": 3}', '{"from": []}', '{"httpFrom": ["x"]}'])
def test_settings_that_are_wrong_are_refused_by_name(text: str) -> None:
    with pytest.raises(SettingsError, match="METISFL_NETWORK_POLICIES"):
        NetworkSettings.parse(text)


def test_no_settings_mean_no_policies() -> None:
    images = {"METISFL_CONTROLLER_IMAGE": "c", "METISFL_LEARNER_IMAGE": "l"}
    assert Settings.from_environment(images).network is None
    assert Settings.from_environment({**images, "METISFL_NETWORK_POLICIES": "{}"}).network == NetworkSettings()
