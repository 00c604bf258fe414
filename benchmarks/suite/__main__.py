"""`python -m benchmarks.suite`, from the repository's root."""

from __future__ import annotations

import fnmatch
import json
import subprocess
import sys
from pathlib import Path

import click

from benchmarks.suite.plan import Measurement, measurements
from benchmarks.suite.records import RESULTS, Record

METISFL = Path(sys.executable).with_name("metisfl")
SECONDS = 4500.0
"""Longer than a benchmark gives itself, as only that ends it tidily."""


@click.command()
@click.option("--only", multiple=True, metavar="PATTERN", help="Names that match, such as 'round-*'; may be repeated.")
@click.option("--list", "listed", is_flag=True, help="Say what there is, and run nothing.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=RESULTS,
              help="Folder of results.  [default: benchmarks/results]")  # fmt: skip
def main(only: tuple[str, ...], listed: bool, output: Path) -> None:
    """Run the benchmarks of docs/benchmarks.md and write what each of them printed to a file of its name.

    It takes the better part of an hour, root for memory limits and shaped links, and about 40 GB of disk. Nothing else
    should run meanwhile.
    """
    chosen = [each for each in measurements() if not only or any(fnmatch.fnmatch(each.name, one) for one in only)]
    if not chosen:
        raise click.BadParameter("no benchmark has such a name; --list tells them", param_hint="--only")
    failed = []
    for measurement in chosen:
        click.echo(f"{measurement.name:32} {measurement.command}")
        if not listed and not _measure(measurement, output):
            failed.append(measurement.name)
    if failed:
        raise click.ClickException(f"{len(failed)} of {len(chosen)} failed: {', '.join(failed)}")


def _measure(measurement: Measurement, folder: Path) -> bool:
    command = [str(METISFL), "bench", *measurement.arguments, "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return _failed(measurement, folder, f"not done after {SECONDS:g} s")
    if done.returncode != 0:
        # Its words may name this machine's paths: they are for whoever runs this, not for the file.
        click.echo(done.stderr, err=True)
        return _failed(measurement, folder, f"exit status {done.returncode}")
    result = json.loads(done.stdout.splitlines()[-1])
    Record.today(measurement.command, result=result).write(folder, measurement.name)
    return True


def _failed(measurement: Measurement, folder: Path, words: str) -> bool:
    click.echo(f"  failed: {words}", err=True)
    Record.today(measurement.command, failed=words).write(folder, measurement.name)
    return False


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.suite")
