"""`metisfl crd`."""

from __future__ import annotations

import click


@click.command(short_help="Print the CustomResourceDefinition.")
def crd() -> None:
    """Print the CustomResourceDefinition of Federation.

    \b
    Example:
      metisfl crd | kubectl apply --server-side -f -
    """
    from metisfl.spec.crd import crd_yaml

    click.echo(crd_yaml(), nl=False)
