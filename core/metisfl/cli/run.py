"""`metisfl run`."""

from __future__ import annotations

import json
import os
import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from metisfl.local.folder import RunFolder
    from metisfl.local.outcome import Outcome
    from metisfl.local.progress.display import Display
    from metisfl.spec import Federation

_RUNS = Path("metisfl-runs")


@click.command(short_help="Run a federation on this machine.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "overrides",
    "--set",
    metavar="PATH=VALUE",
    multiple=True,
    help="Change a value under spec, such as termination.maxRounds=3. May be repeated.",
)
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where model, history, logs and report go.  [default: metisfl-runs/NAME-TIME]",
)
@click.option("--resume", is_flag=True, help="Go on with the run in --output that was stopped or failed half-way.")
@click.option(
    "archive",
    "--from",
    metavar="ARCHIVE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Begin a run that goes on from what `metisfl export` saved.",
)
@click.option(
    "as_json", "--json", is_flag=True, help="Print one JSON object as the last line; progress goes to stderr."
)
@click.option("--no-progress", is_flag=True, help="Show only warnings and the result.")
@click.option(
    "--startup-timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=1),
    default=300.0,
    help="How long controller and learners, those that join from elsewhere too, may take to get ready.  [default: 300]",
)
@click.pass_context
def run(
    context: click.Context,
    file: Path,
    overrides: tuple[str, ...],
    output: Path | None,
    resume: bool,
    archive: Path | None,
    as_json: bool,
    no_progress: bool,
    startup_timeout: float,
) -> None:
    """Run a federation on this machine: the controller and every learner as processes.

    Learners import their code from FILE's folder too. Those of external groups are not started: a bundle for each such
    group is written into the output folder, and the command to join with it is printed. Images, volumes and other
    things of a pod are not used here.
    Ctrl-C stops every process; the run can then go on with --resume. Exit status 0: complete; 1: failed; 2: the file or
    the options are wrong; 130: interrupted.

    \b
    Examples:
      metisfl run federation.yaml
      metisfl run federation.yaml --set termination.maxRounds=3 --set training.learningRate=0.1
      metisfl run federation.yaml --output out --json | tail -1 | jq .metrics
      metisfl run federation.yaml --output out --resume
      metisfl run federation.yaml --from digits.tar
    """
    from metisfl.cli.extras import require

    require("local", "fastapi", "uvicorn", "numba", "prometheus_client", "jinja2", "matplotlib")
    if resume and output is None:
        raise click.UsageError("--resume needs --output DIR, the folder of the run to go on with")
    if resume and archive is not None:
        raise click.UsageError("--resume goes on with what is in --output, and --from with an archive: choose one")
    from rich.console import Console

    from metisfl.local.folder import RunFolder, RunFolderError

    federation = _load(file, overrides)
    folder = RunFolder((output or _default_output(federation.metadata.name)).absolute())
    try:
        uid = folder.prepare(federation, resume, archive)
        outcome = _run(file, federation, folder, uid, _display(Console(stderr=as_json), no_progress), startup_timeout)
    except RunFolderError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"the run could not go on: {error}") from error
    _tell(Console(stderr=as_json), folder, outcome, _resume_command(file, overrides, folder))
    if as_json:
        click.echo(json.dumps(outcome.as_json()))
    context.exit(outcome.exit_code)


def _load(file: Path, overrides: tuple[str, ...]) -> Federation:
    from metisfl.spec import SpecError, load_federation

    try:
        return load_federation(file, overrides)
    except SpecError as error:
        raise click.UsageError("\n".join(f"{file}: {problem}" for problem in error.problems)) from error
    except OSError as error:
        raise click.UsageError(f"{file}: cannot be read: {error.strerror or error}") from error


def _default_output(name: str) -> Path:
    return _RUNS / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def _display(console: Console, no_progress: bool) -> Display:
    from metisfl.local.progress.live import LiveDisplay
    from metisfl.local.progress.plain import PlainDisplay, QuietDisplay

    if no_progress:
        return QuietDisplay(console)
    return LiveDisplay(console) if console.is_terminal and not console.is_dumb_terminal else PlainDisplay(console)


def _run(
    file: Path, federation: Federation, folder: RunFolder, uid: str, display: Display, startup_timeout: float
) -> Outcome:
    from metisfl.local.plan import Surroundings
    from metisfl.local.report import write_report
    from metisfl.local.run import run_federation
    from metisfl.local.session import Limits
    from metisfl.spec.loading import load_source

    import_paths = [file.absolute().parent]
    reference = federation.spec.learner.source_ref
    if reference is not None and (files := load_source(file, reference.name)):
        folder.write_source(files)
        import_paths.insert(0, folder.source)
    surroundings = Surroundings(dict(os.environ), _processors(), import_paths)
    limits = Limits(startup=startup_timeout)
    return run_federation(federation, folder, uid, surroundings, display, write_report, limits)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _resume_command(file: Path, overrides: tuple[str, ...], folder: RunFolder) -> str:
    from metisfl.local.outcome import shown_path

    changes = [part for override in overrides for part in ("--set", override)]
    return shlex.join(["metisfl", "run", str(file), *changes, "--output", shown_path(folder.root), "--resume"])


def _tell(console: Console, folder: RunFolder, outcome: Outcome, resume_command: str) -> None:
    from metisfl.local.outcome import told

    for line in told(outcome, folder, resume_command):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
