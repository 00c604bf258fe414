"""`metisfl bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from metisfl.cli.options import cluster_options, reaching

if TYPE_CHECKING:
    from metisfl.bundle import Bundle


@click.command(short_help="Write what a site outside of the cluster needs to join.")
@click.argument("name")
@cluster_options
@click.option("--group", metavar="GROUP", help="The external learner group.  [default: the only one]")
@click.option("--endpoint", metavar="HOST:PORT", help="What the site dials.  [default: status.endpoint]")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    default=Path("bundle.yaml"),
    show_default=True,
    help="Where to write it; - for standard output.",
)
def bundle(
    name: str, namespace: str | None, kube_context: str | None, group: str | None, endpoint: str | None, output: Path
) -> None:
    """Write the bundle with which a site joins Federation NAME from outside of the cluster.

    It holds the controller's address, the federation's root certificate, and the certificate with which learners of one
    group enrol, at most maxLearners of them. Send it by a way that others cannot read. You need the right to get
    Federations and Secrets.

    \b
    Examples:
      metisfl bundle digits --group hospital-b -o bundle.yaml
      metisfl bundle digits --group hospital-b --endpoint fl.example.org:443
    """
    with reaching(kube_context, namespace) as cluster:
        from pydantic import ValidationError

        from metisfl.bundle import bundle_yaml, write_bundle
        from metisfl.cluster.bundles import bundle_of

        try:
            made = bundle_of(cluster, name, group, endpoint)
        except ValidationError as error:
            told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise click.UsageError(f"no bundle can be made of that: {told}") from error
    if str(output) == "-":
        click.echo(bundle_yaml(made), nl=False)
        return
    try:
        write_bundle(output, made)
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror or error}") from error
    click.echo(_told(made, output))


def _told(made: Bundle, output: Path) -> str:
    spec = made.spec
    lines = [
        f"{output}: {spec.group} of {spec.federation}, at most {spec.max_learners} learners, dialling {spec.endpoint}"
    ]
    if spec.tls is None:
        lines.append("this federation talks in clear text: whoever reaches it may join, and read along")
    else:
        from metisfl.tls.pem import read_certificates

        until = read_certificates(spec.tls.certificate.encode())[0].not_valid_after_utc
        lines.append(f"new learners can enrol with it until {until:%Y-%m-%d %H:%M} UTC")
    return "\n".join([*lines, f"the site runs: metisfl join {output.name}"])
