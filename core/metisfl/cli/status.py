"""`metisfl status`, `metisfl describe`: how federations in a cluster stand, and why one does not run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from metisfl.cli.options import cluster_options, reaching

if TYPE_CHECKING:
    from metisfl.cluster.access import Cluster
    from metisfl.cluster.diagnosis import Findings

T = TypeVar("T")


@click.command(short_help="How federations in a cluster stand.")
@click.argument("name", required=False)
@cluster_options
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Federations of all namespaces.")
@click.option("as_json", "--json", is_flag=True, help="Print the Federation objects as JSON.")
def status(name: str | None, namespace: str | None, kube_context: str | None, everywhere: bool, as_json: bool) -> None:
    """All federations of a namespace in a table, or one by NAME in detail.

    \b
    Examples:
      metisfl status
      metisfl status digits -n lab
    """
    if name and everywhere:
        raise click.UsageError("one federation is in one namespace: leave out NAME or --all-namespaces")
    from datetime import UTC, datetime

    with reaching(kube_context, namespace) as cluster:
        from metisfl.cluster.federations import federation, federations
        from metisfl.cluster.words import details, table

        if name:
            found = federation(cluster, name)
            lines = [json.dumps(found)] if as_json else details(found)
        else:
            listed = federations(cluster, everywhere)
            lines = [json.dumps(listed)] if as_json else table(listed, datetime.now(UTC), everywhere)
            if not listed and not as_json:
                lines = [f"no Federations in {'any namespace' if everywhere else cluster.place}"]
    click.echo("\n".join(lines))


@click.command(short_help="Why a federation in a cluster does not run.")
@click.argument("name")
@cluster_options
def describe(name: str, namespace: str | None, kube_context: str | None) -> None:
    """Why Federation NAME does not run, in words, and what to do about it.

    Reads its conditions, pods, events and what its controller says, as far as you may.

    \b
    Example:
      metisfl describe digits
    """
    from datetime import UTC, datetime

    with reaching(kube_context, namespace) as cluster:
        from metisfl.cluster.diagnosis import diagnosis

        lines = diagnosis(_findings(cluster, name), datetime.now(UTC))
    click.echo("\n".join(lines))


def _findings(cluster: Cluster, name: str) -> Findings:
    from metisfl.cluster.access import ClusterError
    from metisfl.cluster.controller import progress
    from metisfl.cluster.diagnosis import Findings
    from metisfl.cluster.federations import events, federation, pods
    from metisfl.cluster.words import holds

    unread: list[str] = []

    def tried(what: str, read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except ClusterError as error:
            unread.append(f"{what}: {error}")
            return otherwise

    found = federation(cluster, name)
    nothing: list[dict[str, Any]] = []
    document = (
        tried("controller", lambda: progress(cluster, name), None) if holds(found, "ControllerAvailable") else None
    )
    return Findings(
        federation=found,
        pods=tried("pods", lambda: pods(cluster, name), nothing),
        events=tried("events", lambda: events(cluster, name), nothing),
        document=document,
        unread=unread,
    )
