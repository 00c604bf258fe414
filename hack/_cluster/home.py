"""Where the cluster keeps its files, and the addresses it uses."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_HOME = "/var/tmp/metisfl-cluster"

CONTEXT = "metisfl-test"
NODE = "node0"
NODE_IP = "10.88.0.1"
POD_CIDR = "10.88.0.0/16"
FIRST_POD_IP = "10.88.0.10"
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
DNS_SERVICE_IP = "10.96.0.10"
DOMAIN = "cluster.local"

API_PORT = 6443
CRD_PORT = 6444
ETCD_URL = "http://127.0.0.1:23790"
ETCD_PEER_URL = "http://127.0.0.1:23800"

API_URL = f"https://{NODE_IP}:{API_PORT}"
CRD_URL = f"https://127.0.0.1:{CRD_PORT}"


@dataclass(frozen=True)
class Home:
    """The state folder. Binaries, images and certificates outlive `down`; everything else is one cluster's."""

    root: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Home":
        return cls(Path(environ.get("METISFL_CLUSTER_HOME") or DEFAULT_HOME).absolute())

    @property
    def bin(self) -> Path:
        """The built binaries; also good as KUBEBUILDER_ASSETS (etcd, kube-apiserver, kubectl)."""
        return self.root / "bin"

    @property
    def build(self) -> Path:
        return self.root / "build"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def run(self) -> Path:
        """One pid file per running process."""
        return self.root / "run"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def tokens(self) -> Path:
        return self.root / "tokens.csv"

    @property
    def etcd(self) -> Path:
        return self.root / "etcd"

    @property
    def kubelet(self) -> Path:
        return self.root / "kubelet"

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    @property
    def cni(self) -> Path:
        return self.root / "cni"

    @property
    def pod_addresses(self) -> Path:
        """Which pod holds which address; the CNI plugin's book-keeping."""
        return self.root / "pod-addresses"

    @property
    def hosts(self) -> Path:
        """The hosts file that the DNS server answers from."""
        return self.root / "hosts" / "cluster"

    @property
    def containerd(self) -> Path:
        return self.root / "containerd"

    @property
    def containerd_socket(self) -> Path:
        return self.root / "containerd.sock"

    @property
    def buildah(self) -> Path:
        return self.root / "buildah"

    @property
    def base_image(self) -> Path:
        return self.root / "base"

    def kubeconfig(self, user: str = "admin") -> Path:
        return self.root / f"{user}.kubeconfig"
