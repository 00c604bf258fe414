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
    import yaml

    from metisfl.spec.crd import crd as definition

    click.echo(yaml.safe_dump(definition(), sort_keys=False, width=120), nl=False)
