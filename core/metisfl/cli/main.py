"""The `metisfl` command: one group, one file for each command."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from metisfl import __version__
from metisfl.cli.archives import export, restore
from metisfl.cli.bundle import bundle
from metisfl.cli.crd import crd
from metisfl.cli.install import install
from metisfl.cli.join import join
from metisfl.cli.model import model
from metisfl.cli.pods import logs, resume, suspend
from metisfl.cli.run import run
from metisfl.cli.status import describe, status
from metisfl.cli.validate import validate
from metisfl.cli.watch import watch


class _Commands(click.Group):
    """The commands of this package, and those that other packages offer as entry points `metisfl.commands`, which are
    imported when they are used."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted({*super().list_commands(context), *_offered()})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        own = super().get_command(context, name)
        if own is not None or name not in _offered():
            return own
        try:
            command: Any = _offered()[name].load()
        except ImportError as error:
            raise click.ClickException(
                f"`metisfl {name}` needs {error.name}, which is not installed: pip install 'metisfl-operator[local]'"
            ) from error
        return command if isinstance(command, click.Command) else None

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does, but without importing what is not installed."""
        rows = []
        for name in self.list_commands(context):
            try:
                command = self.get_command(context, name)
            except click.ClickException:
                continue
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(60)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _offered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="metisfl.commands")}


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="metisfl")
def main() -> None:
    """Federated learning from one YAML file: on this machine, or in Kubernetes.

    \b
    Examples:
      metisfl validate federation.yaml      is the file right?
      metisfl run federation.yaml           train on this machine
      kubectl apply -f federation.yaml      train in a cluster
      metisfl watch digits                  follow it
      metisfl describe digits               why does it not run?
      metisfl model get digits              fetch the trained model
    """


for _command in (
    validate,
    run,
    install,
    status,
    watch,
    describe,
    logs,
    model,
    export,
    restore,
    suspend,
    resume,
    bundle,
    join,
    crd,
):
    main.add_command(_command)
