"""`metisfl logs`, `metisfl suspend`, `metisfl resume`."""

from __future__ import annotations

import click

from metisfl.cli.options import cluster_options, reaching


@click.command(short_help="What a controller or a learner in a cluster writes.")
@click.argument("name")
@cluster_options
@click.option("--learner", metavar="GROUP-N", help="A learner's log, such as silo-a-0.  [default: the controller's]")
@click.option("--controller", is_flag=True, help="The controller's log.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("--tail", metavar="LINES", type=click.IntRange(min=0), default=200, show_default=True,
              help="The last so many.")  # fmt: skip
@click.option("--previous", is_flag=True, help="Of the container before this one: what it wrote before it crashed.")
@click.option("--raw", is_flag=True, help="Lines as they are, JSON for example.")
def logs(
    name: str,
    namespace: str | None,
    kube_context: str | None,
    learner: str | None,
    controller: bool,
    follow: bool,
    tail: int,
    previous: bool,
    raw: bool,
) -> None:
    """What the controller of Federation NAME, or one of its learners, writes.

    \b
    Examples:
      metisfl logs digits -f
      metisfl logs digits --learner silo-a-0 --previous
    """
    if learner and controller:
        raise click.UsageError("choose one of --learner and --controller")
    with reaching(kube_context, namespace) as cluster:
        from metisfl.cluster.federations import federation
        from metisfl.cluster.logs import pod_name, read_log, readable

        federation(cluster, name)
        for line in read_log(cluster, pod_name(name, learner), follow, tail, previous):
            click.echo(line if raw else readable(line))


@click.command(short_help="Stop a federation in a cluster for a while.")
@click.argument("name")
@cluster_options
def suspend(name: str, namespace: str | None, kube_context: str | None) -> None:
    """Scale Federation NAME to zero and keep its volume; `metisfl resume` goes on at the same round.

    \b
    Example:
      metisfl suspend digits
    """
    _set(name, namespace, kube_context, suspended=True)


@click.command(short_help="Go on with a suspended federation.")
@click.argument("name")
@cluster_options
def resume(name: str, namespace: str | None, kube_context: str | None) -> None:
    """Go on with Federation NAME after `metisfl suspend`.

    \b
    Example:
      metisfl resume digits
    """
    _set(name, namespace, kube_context, suspended=False)


def _set(name: str, namespace: str | None, kube_context: str | None, *, suspended: bool) -> None:
    with reaching(kube_context, namespace) as cluster:
        from metisfl.cluster.federations import suspend as set_suspended

        changed = set_suspended(cluster, name, suspended)
    word = "suspended" if suspended else "resumed"
    click.echo(f"{name}: {word}" if changed else f"{name}: {'already' if suspended else 'was not'} suspended")
