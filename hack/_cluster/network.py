"""The node's bridge and the packet filter's rules around it."""

import errno
import socket

from _cluster.components import BRIDGE
from _cluster.home import NODE_IP, POD_CIDR
from _cluster.shell import run

_MARK = "metisfl-cluster"
# The chains of kube-proxy and the kubelet, those of the CNI plugins, and our own rule.
_OURS = ("KUBE-", "CNI-", _MARK)


def create() -> None:
    """Make the bridge that carries the node's address, and let pods reach the world behind it."""
    if not _exists():
        run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "addr", "replace", f"{NODE_IP}/16", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    # Traffic between two pods stays on the bridge; Services need the packet filter to see it all the same. Kernels
    # without the module lack the key, and filter bridged packets by another way or not at all.
    run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1", check=False)
    if _MARK not in run("iptables", "-w", "-t", "nat", "-S", "POSTROUTING"):
        rule = ("-s", POD_CIDR, "!", "-d", POD_CIDR, "-m", "comment", "--comment", _MARK, "-j", "MASQUERADE")
        run("iptables", "-w", "-t", "nat", "-A", "POSTROUTING", *rule)


def remove() -> None:
    """Take away the bridge and every rule that Services and pods have left."""
    rules = run("iptables-save")
    kept = without_cluster_rules(rules)
    if kept != rules:
        run("iptables-restore", "-w", stdin=kept)
    if _exists():
        run("ip", "link", "delete", BRIDGE)


def is_free(port: int) -> bool:
    """Whether nobody listens on this port of the node's address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((NODE_IP, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE  # without the bridge nobody has the address
        return True


def without_cluster_rules(rules: str) -> str:
    """The text of iptables-save without the chains, and the rules in others' chains, that belong to the cluster."""
    return "".join(line for line in rules.splitlines(keepends=True) if not _is_ours(line))


def _is_ours(line: str) -> bool:
    return line.startswith((":", "-A")) and any(mark in line for mark in _OURS)


def _exists() -> bool:
    return BRIDGE in run("ip", "-o", "link", "show", "type", "bridge")
