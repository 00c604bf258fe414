"""`metisfl model`."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def model() -> None:
    """Models of federations in a cluster."""


@model.command("get")
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
@click.option("-n", "--namespace", help="Namespace of the Federation.  [default: that of the context]")
@click.option(
    "--context", "kube_context", metavar="NAME", help="Context of the kubeconfig.  [default: the current one]"
)
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
    from metisfl.cli.extras import require

    require("cluster", "kubernetes")
    from metisfl.cli.cluster import ClusterError, connect, fetch_model
    from metisfl.downloads import DownloadError
    from metisfl.local.progress.words import size

    try:
        cluster = connect(kube_context, namespace)
        count = fetch_model(cluster, name, model_version, output)
    except (ClusterError, DownloadError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror or error}") from error
    click.echo(f"{output}: {size(count)}")
