"""The `metisfl` command: one group, one file for each command."""

from __future__ import annotations

import click

from metisfl import __version__
from metisfl.cli.crd import crd
from metisfl.cli.model import model
from metisfl.cli.run import run
from metisfl.cli.validate import validate


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="metisfl")
def main() -> None:
    """Federated learning from one YAML file: on this machine, or in Kubernetes.

    \b
    Examples:
      metisfl validate federation.yaml      is the file right?
      metisfl run federation.yaml           train on this machine
      kubectl apply -f federation.yaml      train in a cluster
      metisfl model get digits              fetch the trained model from there
    """


main.add_command(validate)
main.add_command(run)
main.add_command(model)
main.add_command(crd)
