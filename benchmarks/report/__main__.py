"""`python -m benchmarks.report`, from the repository's root."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.report import page
from benchmarks.suite.records import RESULTS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
_PATH = click.Path(path_type=Path)


@click.command()
@click.option("--results", type=_PATH, default=RESULTS, help="Folder of results.  [default: benchmarks/results]")
@click.option("--page", "target", type=_PATH, default=PAGE, help="File to write.  [default: docs/benchmarks.md]")
def main(results: Path, target: Path) -> None:
    """Write the page of benchmarks, and its plots beside it, from the files of results."""
    page.write(results, target)
    click.echo(f"wrote {target.name} and the plots in {target.parent.name}/images")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.report")
