"""`metisfl validate`."""

from __future__ import annotations

from pathlib import Path

import click

_INVALID, _UNREADABLE = 1, 2


@click.command(short_help="Check Federation files.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.pass_context
def validate(context: click.Context, files: tuple[Path, ...]) -> None:
    """Check Federation files before they are run or applied.

    Prints one line for each problem: where it is, what stands there, and what is allowed. Exit status 0: all are valid;
    1: some are not; 2: a file cannot be read.

    \b
    Examples:
      metisfl validate federation.yaml
      metisfl validate examples/*/federation.yaml
    """
    context.exit(max(_validate(path) for path in files))


def _validate(path: Path) -> int:
    from metisfl.local.progress.words import shape
    from metisfl.spec import SpecError, load_federation

    try:
        federation = load_federation(path)
    except SpecError as error:
        for problem in error.problems:
            click.echo(f"{path}: {problem}")
        return _INVALID
    except OSError as error:
        click.echo(f"{path}: cannot be read: {error.strerror or error}", err=True)
        return _UNREADABLE
    click.echo(f"{path}: valid (Federation {federation.metadata.name}: {shape(federation)})")
    return 0
