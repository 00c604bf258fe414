"""`metisfl export` and `metisfl restore`."""

from __future__ import annotations

import math
from pathlib import Path

import click

from metisfl.cli.options import cluster_options, reaching


@click.command(short_help="Save a federation in a file.")
@click.argument("name")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to save it.  [default: NAME.tar]",
)
@cluster_options
def export(name: str, output: Path | None, namespace: str | None, kube_context: str | None) -> None:
    """Save what Federation NAME goes on from in an archive: its kept models, its history and who has which data.

    The federation may train meanwhile: the archive holds what was committed at that moment. It has no keys and no
    learner's updates; docs/security.md says what is in it. It comes as models do, with the same rights.

    \b
    Examples:
      metisfl export digits
      metisfl export digits -n hospital -o backups/digits.tar
    """
    from metisfl.archive import ArchiveError
    from metisfl.local.progress.words import size

    target = output or Path(f"{name}.tar")
    with reaching(kube_context, namespace) as cluster:
        from metisfl.cluster.controller import fetch_archive

        try:
            manifest, sha256 = fetch_archive(cluster, name, target)
        except ArchiveError as error:
            raise click.ClickException(f"the archive arrived damaged: {error}; try again") from error
        except OSError as error:
            raise click.ClickException(f"{target} cannot be written: {error.strerror or error}") from error
    click.echo(f"{target}: version {manifest.version} of {name}, {size(target.stat().st_size)}, sha256 {sha256}")


@click.command(short_help="Make a volume of such a file.")
@click.argument("archive", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--claim", metavar="NAME", help="PersistentVolumeClaim to make.  [default: FEDERATION-restored]")
@click.option("--size", metavar="QUANTITY", help="Its size.  [default: room for the archive three times, in Gi]")
@click.option("--storage-class", metavar="NAME", help="Its storage class.  [default: the cluster's]")
@click.option("--image", help="Controller image that unpacks the archive.  [default: this release's]")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=1),
    default=300.0,
    show_default=True,
    help="For the volume and the pod that unpacks to be ready.",
)
@cluster_options
def restore(
    archive: Path,
    claim: str | None,
    size: str | None,
    storage_class: str | None,
    image: str | None,
    timeout: float,
    namespace: str | None,
    kube_context: str | None,
) -> None:
    """Make a PersistentVolumeClaim of ARCHIVE, which `metisfl export` saved, for a Federation to go on from.

    The archive is verified first, and again where it is unpacked. That is done by a pod, which is gone afterwards; you
    need the right to create, get and delete pods and persistentvolumeclaims, and to update pods/proxy. When anything
    goes wrong there is no claim. On this machine, `metisfl run FILE --from ARCHIVE` goes on from an archive.

    \b
    Examples:
      metisfl restore digits.tar
      metisfl restore digits.tar -n hospital --claim digits-2 --size 20Gi
    """
    from metisfl.archive import ArchiveError, verify

    try:
        manifest, sha256 = verify(archive)
    except ArchiveError as error:
        raise click.ClickException(f"{archive} cannot be restored: {error}") from error
    except OSError as error:
        raise click.ClickException(f"{archive} cannot be read: {error.strerror or error}") from error
    length = archive.stat().st_size
    with reaching(kube_context, namespace) as cluster:
        from metisfl.cluster.install import controller_image
        from metisfl.cluster.restoring import Archive, Claim, restore

        wanted = Claim(
            claim or f"{manifest.federation}-restored", size or f"{math.ceil(3 * length / 2**30)}Gi", storage_class
        )
        made = Archive(archive, length, sha256, manifest)
        try:
            left = restore(cluster, made, wanted, image or controller_image(), timeout)
        except OSError as error:
            raise click.ClickException(f"{archive} cannot be read: {error.strerror or error}") from error
        place = cluster.place
    if left:
        click.echo(left, err=True)
    click.echo(f"{wanted.name} in {place}: version {manifest.version} of {manifest.federation}")
    click.echo(f"go on from it with spec.controller.storage.existingClaim: {wanted.name}")
