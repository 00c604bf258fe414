"""What the commands for clusters share: their options, and errors as people read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from metisfl.cluster.access import Cluster

F = TypeVar("F", bound=Callable[..., Any])


def cluster_options(command: F) -> F:
    """-n and --context, as `namespace` and `kube_context`."""
    context = click.option(
        "--context", "kube_context", metavar="NAME", help="Context of the kubeconfig.  [default: the current one]"
    )
    return click.option("-n", "--namespace", help="Namespace of the Federation.  [default: that of the context]")(
        context(command)
    )


@contextmanager
def reaching(kube_context: str | None, namespace: str | None) -> Iterator[Cluster]:
    """The cluster to work with; what it does not give becomes a ClickException."""
    from metisfl.cli.extras import require

    require("cluster", "kubernetes")
    from metisfl.cluster.access import ClusterError, connect

    try:
        yield connect(kube_context, namespace)
    except ClusterError as error:
        raise click.ClickException(str(error)) from error
