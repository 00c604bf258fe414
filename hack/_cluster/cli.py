"""The commands of `hack/cluster`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from _cluster import housekeeping, images, lifecycle, machine, node
from _cluster.errors import ClusterError
from _cluster.home import DEFAULT_HOME, Home

_EPILOG = f"""\
State is kept in $METISFL_CLUSTER_HOME (default {DEFAULT_HOME}).
Exit codes: 0 done; 1 failed; 2 wrong arguments; 3 not possible on this machine (not root, not Debian 12, …).
"""


def main(arguments: Sequence[str]) -> int:
    """Run one command; the exit code tells how it went."""
    options = _parser().parse_args(arguments)
    home = Home.from_environment(os.environ)
    try:
        return _execute(options, home)
    except ClusterError as error:
        print(f"hack/cluster: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("hack/cluster: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _execute(options: argparse.Namespace, home: Home) -> int:
    match options.command:
        case "build":
            lifecycle.build(home)
        case "up":
            lifecycle.up(home)
            print(home.kubeconfig())
        case "base-image":
            machine.require_suitable_machine()
            with lifecycle.exclusively(home):
                images.make_base(home)
        case "image":
            machine.require_suitable_machine()
            with lifecycle.exclusively(home):
                images.build(home, options.name, options.dockerfile, options.context, options.argument, os.environ)
                node.load(home, options.name)
        case "crd-server":
            lifecycle.start_crd_server(home, os.environ)
            print(home.kubeconfig("crd-server"))
        case "kubeconfig":
            if not home.kubeconfig().exists():
                raise ClusterError("there is no kubeconfig yet; run `hack/cluster up`")
            print(home.kubeconfig())
        case "status":
            return 0 if lifecycle.status(home) else 1
        case "down":
            lifecycle.down(home)
        case "_housekeeping":
            housekeeping.run(home)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hack/cluster",
        description="A real single-node Kubernetes from Debian packages, for machines without a container engine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("build", help="install packages and build the Kubernetes binaries (minutes, once a machine)")
    commands.add_parser("up", help="start what does not run, wait for the node, print the kubeconfig's path")
    commands.add_parser("base-image", help="make the base image of the Dockerfiles out of Debian packages")
    image = commands.add_parser("image", help="build an image with buildah and load it into the node")
    image.add_argument("name", help="for example localhost/metisfl-controller:dev")
    image.add_argument("dockerfile", type=Path)
    image.add_argument("context", type=Path)
    image.add_argument("argument", nargs="*", metavar="ARG=VALUE", help="build arguments")
    commands.add_parser(
        "crd-server", help="start the API server of newer Kubernetes for CRDs, print its kubeconfig's path"
    )
    commands.add_parser("kubeconfig", help="print the path of the admin kubeconfig")
    commands.add_parser("status", help="say what runs; exit code 1 unless all does")
    commands.add_parser("down", help="stop and unmount everything; images and binaries stay")
    commands.add_parser("_housekeeping")
    return parser
