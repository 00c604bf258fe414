"""`metisfl watch`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from metisfl.cli.options import cluster_options, reaching

if TYPE_CHECKING:
    from metisfl.api import FederationDocument, RoundDocument
    from metisfl.cluster.access import Cluster


@click.command(short_help="Follow a federation in a cluster until its end.")
@click.argument("name")
@cluster_options
@click.pass_context
def watch(context: click.Context, name: str, namespace: str | None, kube_context: str | None) -> None:
    """Follow Federation NAME until it has ended: live on a terminal, as lines in a pipe or a file.

    Exit status 0: complete; 1: failed. Ctrl-C ends the watching alone.

    \b
    Example:
      metisfl watch digits
    """
    from contextlib import closing

    from rich.console import Console

    from metisfl.local.progress.display import Display
    from metisfl.local.progress.live import LiveDisplay
    from metisfl.local.progress.plain import PlainDisplay
    from metisfl.spec import SpecError

    console = Console()
    display: Display = (
        LiveDisplay(console) if console.is_terminal and not console.is_dumb_terminal else PlainDisplay(console)
    )
    with reaching(kube_context, namespace) as cluster, closing(display):
        from metisfl.cluster.watching import Watch
        from metisfl.cluster.words import holds, telling

        try:
            found = Watch(_Source(cluster, name), display).run()
        except SpecError as error:
            raise click.ClickException(f"Federation '{name}' is not valid: {error}") from error
        except KeyboardInterrupt:
            context.exit(130)
    click.echo(telling(found))
    context.exit(1 if holds(found, "Failed") else 0)


@dataclass(frozen=True)
class _Source:
    cluster: Cluster
    name: str

    def federation(self) -> dict[str, Any]:
        from metisfl.cluster.federations import federation

        return federation(self.cluster, self.name)

    def progress(self) -> FederationDocument:
        from metisfl.cluster.controller import progress

        return progress(self.cluster, self.name)

    def rounds(self, after: int, limit: int) -> list[RoundDocument]:
        from metisfl.cluster.controller import rounds

        return rounds(self.cluster, self.name, after, limit)
