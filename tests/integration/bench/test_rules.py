"""`metisfl bench rules` at sizes that take no time: its shape, and that rules are told apart."""

from __future__ import annotations

from tests.integration.bench.running import bench, run


def test_rules_are_measured_beside_fedavg() -> None:
    result = bench("rules", "--learners", "11", "--parameters", "1003", "--rounds", "2")

    assert (result["learners"], result["byzantine"], result["input_bytes"] >= 11 * 4012) == (11, 2, True)
    rules = result["rules"]
    assert {"FedAvg", "FedRec", "Median", "Krum", "Bulyan", "CenteredClip"} <= set(rules)
    assert rules["FedAvg"]["times_fedavg"] == 1
    assert rules["MultiKrum"]["passes"] == 1 + 9 / 11
    for figures in rules.values():
        assert 0 < figures["seconds_min"] <= figures["seconds_median"]
        assert figures["bytes_read_per_second"] > 0


def test_one_rule_can_be_asked_for() -> None:
    result = bench("rules", "--learners", "5", "--parameters", "100", "--rounds", "1", "--rules", "Median")
    assert set(result["rules"]) == {"FedAvg", "Median"}


def test_what_cannot_be_measured_is_said() -> None:
    assert "known: FedAvg" in run("rules", "--rules", "Mode").stderr
    assert "at least three" in run("rules", "--learners", "2", "--parameters", "10").stderr
