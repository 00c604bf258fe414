"""The command line as its users type it."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from metisfl import __version__
from metisfl.cli.main import main

EXAMPLES = Path(__file__).parents[3] / "examples"


def metisfl(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_the_version() -> None:
    assert metisfl("--version").output == f"metisfl, version {__version__}\n"


@pytest.mark.parametrize("command", [[], ["validate"], ["run"], ["model"], ["model", "get"], ["crd"]])
def test_every_command_explains_itself_with_examples(command: list[str]) -> None:
    result = metisfl(*command, "--help")
    assert result.exit_code == 0
    if command != ["model"]:
        assert "Example" in result.output


@pytest.mark.parametrize("group", [[], ["model"], ["bench"]])
def test_lists_of_commands_say_in_one_whole_line_what_each_does(group: list[str]) -> None:
    commands = metisfl(*group, "--help").output.partition("Commands:\n")[2].splitlines()
    assert commands
    assert all(line.endswith(".") and not line.endswith("...") for line in commands)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from metisfl.cli.main import main\n"
        "main(['run', '--help'], standalone_mode=False)\n"
        "heavy = {'numpy', 'pydantic', 'yaml', 'rich', 'httpx', 'grpc', 'kubernetes', 'numba', 'torch', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*/federation.yaml")), ids=lambda path: path.parent.name)
def test_the_examples_are_valid(example: Path) -> None:
    result = metisfl("validate", str(example))
    assert result.exit_code == 0, result.output
    assert "valid (Federation " in result.output


def test_validate_says_what_it_found() -> None:
    path = EXAMPLES / "digits" / "federation.yaml"
    expected = f"{path}: valid (Federation digits: 4 learners in 2 groups, Synchronous, FedAvg)\n"
    assert metisfl("validate", str(path)).output == expected


def test_validate_names_every_problem_of_every_file(tmp_path: Path) -> None:
    good = EXAMPLES / "digits" / "federation.yaml"
    document = yaml.safe_load(good.read_text())
    document["spec"]["protocol"]["synchronous"]["quorumPercent"] = 150
    document["spec"]["initialModel"] = {"from": "LastLearner"}
    bad = tmp_path / "bad.yaml"
    bad.write_text(yaml.safe_dump(document))
    result = metisfl("validate", str(good), str(bad))
    assert result.exit_code == 1
    assert result.output.splitlines()[1:] == [
        f"{bad}: spec.initialModel.from: 'LastLearner' is not supported; allowed: 'FirstLearner'",
        f"{bad}: spec.protocol.synchronous.quorumPercent: 150 is not allowed; it must be at most 100",
    ]


def test_validate_tells_unreadable_from_invalid(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("kind: Federation\n")
    missing = tmp_path / "missing.yaml"
    result = metisfl("validate", str(missing), str(bad))
    assert result.exit_code == 2
    assert f"{missing}: cannot be read: No such file or directory" in result.output
    assert f"{bad}: spec: required, and missing" in result.output
    assert metisfl("validate", str(tmp_path)).exit_code == 2


def test_crd_prints_the_definition_of_federation() -> None:
    document = yaml.safe_load(metisfl("crd").output)
    assert document["metadata"]["name"] == "federations.metisfl.dev"
    assert document["spec"]["names"]["shortNames"] == ["mfed"]


def test_run_refuses_an_invalid_file_with_a_line_for_each_problem(tmp_path: Path) -> None:
    path = tmp_path / "federation.yaml"
    path.write_text("kind: Federation\napiVersion: metisfl.dev/v1alpha1\n")
    result = metisfl("run", str(path))
    assert result.exit_code == 2
    assert f"{path}: metadata: required, and missing" in result.output
    assert f"{path}: spec: required, and missing" in result.output


def test_run_refuses_a_wrong_override_before_anything_starts(tmp_path: Path) -> None:
    path = str(EXAMPLES / "digits" / "federation.yaml")
    result = metisfl("run", path, "--set", "training.epoch=3", "--output", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "spec.training.epoch: unknown field; did you mean 'epochs'?" in result.output
    assert not (tmp_path / "out").exists()


def test_a_run_goes_on_from_one_thing(tmp_path: Path) -> None:
    file, folder = str(EXAMPLES / "digits" / "federation.yaml"), tmp_path / "out"
    result = metisfl("run", file, "--resume", "--output", str(folder), "--from", "digits.tar")
    assert result.exit_code == 2
    assert "choose one" in result.output
    result = metisfl("run", file, "--output", str(folder), "--from", str(tmp_path / "digits.tar"))
    assert result.exit_code == 2
    assert "cannot be used: No such file or directory" in " ".join(result.output.split())
    assert not folder.exists()


def test_resume_needs_to_know_what(tmp_path: Path) -> None:
    result = metisfl("run", str(EXAMPLES / "digits" / "federation.yaml"), "--resume")
    assert result.exit_code == 2
    assert "--resume needs --output DIR" in result.output


@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        (["run", str(EXAMPLES / "digits" / "federation.yaml")], "numba", "local"),
        (["model", "get", "digits"], "kubernetes", "cluster"),
        (["bench", "round"], "numba", "controller"),
    ],
)
def test_a_missing_extra_is_named(
    arguments: list[str], missing: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metisfl.cli.extras.find_spec", lambda name: None if name == missing else find_spec(name))
    result = metisfl(*arguments)
    assert result.exit_code == 1
    assert f"this command needs {missing}, not installed here; install metisfl-operator[{extra}]" in result.output
