"""`metisfl install`."""

from __future__ import annotations

import click


@click.command(short_help="Print what installs the operator.")
@click.option("-n", "--namespace", default="metisfl-system", show_default=True, help="Where the operator runs.")
@click.option("--operator-image", metavar="IMAGE", help="The operator's image.")
@click.option("--controller-image", metavar="IMAGE", help="Controllers' image where a Federation names none.")
@click.option("--learner-image", metavar="IMAGE", help="Learners' image where a learner group names none.")
@click.option("--without-crd", is_flag=True, help="Leave out the resource type, as with `helm … crds.enabled=false`.")
def install(
    namespace: str,
    operator_image: str | None,
    controller_image: str | None,
    learner_image: str | None,
    without_crd: bool,
) -> None:
    """Print the objects that install the operator, for a cluster without Helm; nothing is changed by this command.

    They are those of the chart with its default values; what else the chart can do takes Helm.

    \b
    Example:
      metisfl install | kubectl apply --server-side -f -
    """
    from metisfl.cluster.install import installation

    given = {"operator": operator_image, "controller": controller_image, "learner": learner_image}
    images = {role: image for role, image in given.items() if image}
    click.echo(installation(namespace, images, with_crd=not without_crd), nl=False)
