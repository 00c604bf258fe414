"""`metisfl model`."""

from __future__ import annotations

from pathlib import Path

import click

from metisfl.cli.options import cluster_options, reaching


@click.group()
def model() -> None:
    """Models of federations in a cluster."""


@model.command("get", short_help="Fetch a federation's model from a cluster.")
@click.argument("name")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("model.safetensors"),
    show_default=True,
    help="Where to save the model.",
)
@cluster_options
@click.option(
    "--version",
    "model_version",
    metavar="N",
    type=click.IntRange(min=0),
    help="Model version.  [default: the published one, else the newest]",
)
def get(name: str, output: Path, namespace: str | None, kube_context: str | None, model_version: int | None) -> None:
    """Fetch the model of Federation NAME from the cluster that your kubeconfig names.

    The model comes through the API server, so only access to that is needed: the right to get Federations and to get
    services/proxy.

    \b
    Examples:
      metisfl model get digits
      metisfl model get digits -n hospital -o digits.safetensors --version 7
    """
    from metisfl.downloads import DownloadError
    from metisfl.local.progress.words import size

    with reaching(kube_context, namespace) as cluster:
        from metisfl.cluster.controller import fetch_model

        try:
            count = fetch_model(cluster, name, model_version, output)
        except DownloadError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            raise click.ClickException(f"{output} cannot be written: {error.strerror or error}") from error
    click.echo(f"{output}: {size(count)}")
