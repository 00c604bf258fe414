"""`metisfl join`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from metisfl.bundle import Bundle

_SITES = Path("metisfl-sites")


@click.command(short_help="Take part in a federation from outside of its cluster.")
@click.argument("file", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option("--entrypoint", metavar="MODULE:CLASS", help="Your learner.  [default: as the federation names it]")
@click.option(
    "parameters",
    "--parameters",
    "-p",
    metavar="KEY=VALUE",
    multiple=True,
    help="For your learner alone; wins over the federation's parameter of that name. May be repeated.",
)
@click.option(
    "--state-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="What must outlive a restart, this learner's certificate for one.  [default: metisfl-sites/FEDERATION-GROUP]",
)
@click.option(
    "--ordinal",
    metavar="N",
    type=click.IntRange(min=0),
    help="Which learner of the group, from 0.  [default: the controller chooses; 0 without TLS]",
)
@click.option(
    "--patience",
    metavar="SECONDS",
    type=click.FloatRange(min=1),
    default=86_400.0,
    help="How long the controller may be out of reach.  [default: a day]",
)
def join(
    file: Path,
    entrypoint: str | None,
    parameters: tuple[str, ...],
    state_dir: Path | None,
    ordinal: int | None,
    patience: float,
) -> None:
    """Take part in a federation with a learner on this machine, until the federation ends.

    BUNDLE is the file that `metisfl bundle` wrote for your site. Connections go out only, to one address and port, and
    through the proxy that https_proxy names. Python code is found in the current folder and on PYTHONPATH. Two learners
    on one machine need a --state-dir each.

    Exit status as `python -m metisfl_learner`: 0 the federation ended, 2 wrong options, 3 the entrypoint, 4 the
    learner's code, 5 refused, 6 unreachable.

    \b
    Examples:
      metisfl join bundle.yaml
      metisfl join bundle.yaml --entrypoint my_learner:MyLearner -p data=/data/train.parquet
    """
    from metisfl.bundle import BundleError, read_bundle
    from metisfl.cli.extras import require
    from metisfl.site import Site, SiteError, environment

    require("learner", "threadpoolctl")
    try:
        bundle = read_bundle(file)
    except BundleError as error:
        raise click.UsageError("\n".join(f"{file}: {problem}" for problem in error.problems)) from error
    except OSError as error:
        raise click.UsageError(f"{file}: cannot be read: {error.strerror or error}") from error
    _warn_of_others(file, bundle)
    site = Site(
        entrypoint=entrypoint or bundle.spec.entrypoint,
        parameters=_parsed(parameters),
        state_dir=(state_dir or _SITES / _folder(bundle, ordinal)).absolute(),
        ordinal=ordinal,
        patience=patience,
        import_path=Path.cwd(),
    )
    try:
        variables = environment(bundle, site, os.environ)
    except SiteError as error:
        raise click.ClickException(str(error)) from error
    # The learner takes this process's place, and with it signals, output and exit status.
    os.execve(sys.executable, [sys.executable, "-P", "-m", "metisfl_learner"], variables)


def _parsed(parameters: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in parameters:
        key, separator, value = text.partition("=")
        if not key or not separator:
            raise click.UsageError(f"--parameters {text}: expected KEY=VALUE, such as data=/data/train.parquet")
        found[key] = value
    return found


def _folder(bundle: Bundle, ordinal: int | None) -> str:
    name = f"{bundle.spec.federation}-{bundle.spec.group}"
    return name if ordinal is None else f"{name}-{ordinal}"


def _warn_of_others(file: Path, bundle: Bundle) -> None:
    status = file.stat()
    # Where it belongs to somebody else, as in a pod, that is how it was handed over.
    if bundle.spec.tls is not None and status.st_uid == os.getuid() and status.st_mode & 0o077:
        click.echo(f"{file}: others can read this file, and it holds a key: chmod 600 {file}", err=True)
