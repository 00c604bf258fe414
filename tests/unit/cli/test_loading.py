"""What a person reads when a Federation file is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from metisfl.spec import SpecError, load_federation, parse_federation
from metisfl.spec.loading import load_source

VALID = """
apiVersion: metisfl.dev/v1alpha1
kind: Federation
metadata:
  name: digits
spec:
  learner:
    entrypoint: my_learner:MyLearner
    parameters: {alpha: "0.5"}
  termination: {maxRounds: 3}
  learnerGroups:
    - {name: silo-a, replicas: 2}
    - {name: silo-b, replicas: 1}
"""


def document(**spec: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(VALID)
    loaded["spec"].update(spec)
    return loaded


def problems_in(text: str, tmp_path: Path, overrides: tuple[str, ...] = ()) -> tuple[str, ...]:
    path = tmp_path / "federation.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_federation(path, overrides)
    return caught.value.problems


def problems_with(**spec: Any) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        parse_federation(document(**spec))
    return caught.value.problems


def write(tmp_path: Path, text: str = VALID) -> Path:
    path = tmp_path / "federation.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"trainning": {}}, "spec.trainning: unknown field; did you mean 'training'?"),
        ({"training": {"batch_size": 8}}, "spec.training.batch_size: unknown field; did you mean 'batchSize'?"),
        (
            {"training": {"momentum": "0.9"}},
            "spec.training.momentum: unknown field; allowed here: epochs, steps, batchSize, learningRate, proximalMu",
        ),
        ({"training": {"epochs": 0}}, "spec.training.epochs: 0 is not allowed; it must be at least 1"),
        (
            {"protocol": {"synchronous": {"quorumPercent": 150}}},
            "spec.protocol.synchronous.quorumPercent: 150 is not allowed; it must be at most 100",
        ),
        (
            {"training": {"epochs": "3"}},
            "spec.training.epochs: '3' is text where a whole number is needed; write it without quotes: 3",
        ),
        ({"training": {"epochs": 1.5}}, "spec.training.epochs: 1.5 is a number where a whole number is needed"),
        ({"training": {"epochs": True}}, "spec.training.epochs: true is a truth value where a whole number is needed"),
        (
            {"training": {"learningRate": 0.00001}},
            'spec.training.learningRate: 1e-05 is a number where text is needed; write it in quotes: "0.00001"',
        ),
        (
            {"training": {"learningRate": "fast"}},
            "spec.training.learningRate: 'fast' is not allowed; it must be a decimal number that is not negative, "
            "such as '0.05'",
        ),
        ({"suspend": "yes"}, "spec.suspend: 'yes' is text where true or false is needed"),
        ({"training": [1]}, "spec.training: a list where a mapping is needed"),
        ({"training": None}, "spec.training: an empty value where a mapping is needed"),
        (
            {"protocol": {"type": "synchronous"}},
            "spec.protocol.type: 'synchronous' is not supported; allowed: 'Synchronous', 'SemiSynchronous' or "
            "'Asynchronous'",
        ),
        ({"learner": {}}, "spec.learner.entrypoint: required, and missing"),
        (
            {"learner": {"entrypoint": "my_learner.MyLearner"}},
            "spec.learner.entrypoint: 'my_learner.MyLearner' is not allowed; it must be module:Class, such as "
            "'my_learner:MyLearner'",
        ),
        (
            {"learner": {"entrypoint": "a:B", "parameters": {"my key": "1"}}},
            "spec.learner.parameters.'my key': 'my key' is not allowed; it must be letters, digits, '_', '.' and '-', "
            "starting with a letter or '_', such as 'alpha'",
        ),
        (
            {"learner": {"entrypoint": "a:B", "parameters": {"alpha": True}}},
            'spec.learner.parameters.alpha: true is a truth value where text is needed; write it in quotes: "true"',
        ),
        (
            {"learnerGroups": [{"name": "Silo_A"}]},
            "spec.learnerGroups[0].name: 'Silo_A' is not allowed; it must be lower-case letters, digits and '-', with "
            "a letter or digit at both ends, such as 'silo-a'",
        ),
        ({"learnerGroups": []}, "spec.learnerGroups: has 0 entries; at least 1 are needed"),
        (
            {"learnerGroups": [{"name": "a" * 21}]},
            f"spec.learnerGroups[0].name: '{'a' * 21}' is too long; at most 20 characters are allowed",
        ),
        (
            {"selection": {"minLearners": 9}},
            "spec: selection.minLearners must not exceed the sum of learnerGroups' replicas and maxLearners, "
            "evaluators left out",
        ),
        (
            {"controller": {"memoryBudget": "512"}},
            "spec.controller.memoryBudget: '512' is not allowed; it must be an amount of memory with its unit, such as "
            "'512Mi' or '4Gi'",
        ),
        (
            {"controller": {"storage": {"size": "lots"}}},
            "spec.controller.storage.size: 'lots' is not allowed; it must be a quantity of bytes, such as '512Mi' or "
            "'10Gi'",
        ),
        (
            {"transport": {"codec": "int8"}},
            "spec.transport.codec: 'int8' is not supported; allowed: 'Float32', 'BFloat16', 'Float16', 'Int8' or "
            "'TopK'",
        ),
        (
            {"transport": {"codec": "TopK", "topK": {"fraction": "1.5"}}},
            "spec.transport.topK.fraction: '1.5' is not allowed; it must be a decimal number above 0 and at most 1, "
            "such as '0.01'",
        ),
        ({"training": {"epochs": 2, "steps": 10}}, "spec.training: set epochs or steps, not both"),
        ({"transport": {"codec": "Int8", "topK": {}}}, "spec.transport: topK is for codec TopK only"),
        (
            {"transport": {"compression": {"level": 3}}},
            "spec.transport.compression: level is for type Zstd only",
        ),
        (
            {"termination": {"targetMetric": {"name": "a b", "atLeast": "1"}}},
            "spec.termination.targetMetric.name: 'a b' is not allowed; it must be letters, digits and '_', not "
            "starting with a digit, such as 'accuracy'",
        ),
    ],
)
def test_each_problem_is_named_with_path_value_and_what_is_allowed(spec: dict[str, Any], expected: str) -> None:
    assert problems_with(**spec) == (expected,)


def test_all_problems_are_told_at_once() -> None:
    problems = problems_with(training={"epochs": 0, "batchSize": 0}, suspend="no")
    assert [problem.partition(":")[0] for problem in problems] == [
        "spec.training.epochs",
        "spec.training.batchSize",
        "spec.suspend",
    ]


def test_every_broken_rule_has_its_own_line() -> None:
    problems = problems_with(
        selection={"minLearners": 9},
        termination={"targetMetric": {"name": "accuracy"}},
    )
    assert len(problems) == 2
    assert "spec.termination.targetMetric: set exactly one of atLeast and atMost" in problems


def test_a_value_that_goes_on_for_ever_is_cut() -> None:
    (problem,) = problems_with(training={"learningRate": "x" * 10_000})
    assert len(problem) < 400


def test_a_misspelt_required_field_is_recognised(tmp_path: Path) -> None:
    assert problems_in(VALID.replace("spec:", "sepc:"), tmp_path) == (
        "spec: required, and missing; is 'sepc' meant to be it?",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file holds no object of kind Federation: it is empty"),
        ("- 1\n", "the file holds no object of kind Federation; a Kubernetes object is a mapping with apiVersion, "),
        ("kind: ConfigMap\n---\nkind: Service\n", "kinds found: 'ConfigMap', 'Service'"),
        ("knd: Federation\n", "'kind' is missing, is 'knd' meant to be it?"),
        (VALID + "---" + VALID, "the file must hold one object of kind Federation, and holds 2"),
        ("kind: Federation\nspec: {}\nspec: {}\n", "line 3: key 'spec' is written twice"),
        ("a: [1, 2\nb: 3\n", "line 2, column 2: not YAML: "),
        ("a: b: c\n", "line 1, column 5: not YAML: mapping values are not allowed here"),
        ("a: \x07\n", "not YAML: "),
        ("a: !!python/object/apply:os.system [ls]\n", "line 1: the tag "),
        ("a: !!int ''\n", "line 1: the tag 'tag:yaml.org,2002:int' is not supported here"),
        ("? [a]\n: b\n", "line 1: a key must be text, not a list or mapping"),
        ("a: &x [*x]\n", "line 1: the alias refers to what it is part of"),
        ("a: " + "[" * 5000, "nested more than"),
    ],
)
def test_a_file_that_is_no_federation_says_why(text: str, expected: str, tmp_path: Path) -> None:
    (problem,) = problems_in(text, tmp_path)
    assert expected in problem
    assert "\n" not in problem


def test_an_alias_bomb_is_refused_before_it_grows(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    (problem,) = problems_in("\n".join(lines), tmp_path)
    assert "more than 200000 values" in problem


def test_a_file_that_is_not_text_says_so(tmp_path: Path) -> None:
    path = tmp_path / "federation.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="not UTF-8 text"):
        load_federation(path)


def test_anchors_merge_keys_and_dates_are_read(tmp_path: Path) -> None:
    text = """
apiVersion: metisfl.dev/v1alpha1
kind: Federation
metadata: {name: digits, labels: {since: 2024-01-01}}
spec:
  learner: {entrypoint: "a:B"}
  learnerGroups:
    - &silo {name: silo-a, replicas: 2}
    - {<<: *silo, name: silo-b}
"""
    assert load_federation(write(tmp_path, text)).spec.total_learners == 4


def test_other_objects_in_the_file_are_left_alone(tmp_path: Path) -> None:
    text = VALID + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: code}\ndata: {learner.py: 'x = 1'}\n"
    path = write(tmp_path, text)
    assert load_federation(path).metadata.name == "digits"
    assert load_source(path, "code") == {"learner.py": "x = 1"}
    assert load_source(path, "other") == {}


@pytest.mark.parametrize("name", ["training.epochs", "spec.training.epochs"])
def test_an_override_sets_one_value(name: str, tmp_path: Path) -> None:
    federation = load_federation(write(tmp_path), [f"{name}=7"])
    assert federation.spec.training.epochs == 7
    assert federation.spec.termination.max_rounds == 3


@pytest.mark.parametrize("entry", ["0", "silo-a"])
def test_an_override_reaches_into_a_list_by_index_or_name(entry: str, tmp_path: Path) -> None:
    federation = load_federation(write(tmp_path), [f"learnerGroups.{entry}.replicas=5"])
    assert [group.replicas for group in federation.spec.learner_groups] == [5, 1]


def test_an_override_of_text_needs_no_quotes(tmp_path: Path) -> None:
    overrides = ["training.learningRate=0.1", "learner.parameters.alpha=1", "learner.parameters.flag=true"]
    spec = load_federation(write(tmp_path), overrides).spec
    assert spec.training.learning_rate == "0.1"
    assert spec.learner.parameters == {"alpha": "1", "flag": "true"}


def test_an_override_may_hold_a_whole_mapping(tmp_path: Path) -> None:
    spec = load_federation(write(tmp_path), ['termination.targetMetric={name: accuracy, atLeast: "0.9"}']).spec
    assert spec.termination.target_metric is not None
    assert spec.termination.target_metric.at_least == "0.9"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.epochs", "--set training.epochs: expected path=value, such as termination.maxRounds=3"),
        ("=3", "--set =3: expected path=value"),
        ("training..epochs=3", "expected path=value"),
        ("learnerGroups.silo-z.replicas=3", "the list of 2 has no entry 'silo-z'; there are: silo-a, silo-b"),
        ("learnerGroups.7.replicas=3", "the list of 2 has no entry '7'"),
        ("learner.entrypoint.module=3", "nothing named 'module' can be set inside a single value"),
        ("training.epoch=3", "spec.training.epoch: unknown field; did you mean 'epochs'?"),
        ("training.epochs=three", "spec.training.epochs: 'three' is text where a whole number is needed"),
        ("training.epochs=[1", "--set training.epochs=[1: "),
    ],
)
def test_a_wrong_override_says_what_is_wrong(override: str, expected: str, tmp_path: Path) -> None:
    problems = problems_in(VALID, tmp_path, (override,))
    assert expected in problems[0]


words = st.text(alphabet="aZ09._-/ é\n\x00\U0001f600\ud800", max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | st.integers(), inner, max_size=4),
    max_leaves=12,
)
spec_keys = st.sampled_from(["learner", "training", "termination", "learnerGroups", "protocol", "controller", "x"])


@given(spec=st.dictionaries(spec_keys, json_values, max_size=4))
def test_arbitrary_values_are_accepted_or_explained(spec: dict[str, Any]) -> None:
    try:
        parse_federation(document(**spec))
    except SpecError as error:
        problems = error.problems
    else:
        return
    assert problems
    assert all(problem.strip() and "\n" not in problem for problem in problems)


yaml_pieces = st.sampled_from(
    [*"abk01:-_.,[]{}&*!|>#'\"%@? \n\té\x00", "kind: ", "<<: ", "!!set ", "&x ", "*x", "\n  "]
)
yaml_like = st.lists(yaml_pieces, max_size=40).map("".join)


@given(text=yaml_like | st.binary(max_size=60).map(lambda data: data.decode("latin-1")))
@settings(max_examples=400)
def test_arbitrary_text_never_gives_a_traceback(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("arbitrary") / "federation.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(SpecError) as caught:
        load_federation(path)
    assert all("\n" not in problem for problem in caught.value.problems)


def test_an_object_of_the_api_server_round_trips() -> None:
    first = parse_federation(document())
    dumped = json.loads(first.model_dump_json(by_alias=True, exclude_none=True))
    assert parse_federation(dumped) == first
