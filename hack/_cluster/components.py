"""The command lines and configuration files of the cluster's processes. Nothing here touches the machine."""

import json

from _cluster.home import (
    API_PORT,
    CRD_PORT,
    DNS_SERVICE_IP,
    DOMAIN,
    ETCD_PEER_URL,
    ETCD_URL,
    FIRST_POD_IP,
    NODE,
    NODE_IP,
    POD_CIDR,
    SERVICE_CIDR,
    Home,
)
from _cluster.processes import Command

BRIDGE = "cni0"
PAUSE_IMAGE = "localhost/pause:1"


def etcd(home: Home) -> Command:
    return Command(
        "etcd",
        (
            f"{home.bin}/etcd",
            f"--data-dir={home.etcd}",
            "--unsafe-no-fsync",  # the data does not outlive `down`
            f"--listen-client-urls={ETCD_URL}",
            f"--advertise-client-urls={ETCD_URL}",
            f"--listen-peer-urls={ETCD_PEER_URL}",
            f"--initial-advertise-peer-urls={ETCD_PEER_URL}",
            f"--initial-cluster=default={ETCD_PEER_URL}",
        ),
    )


def api_server(home: Home) -> Command:
    pki = home.pki
    return Command(
        "apiserver",
        (
            f"{home.bin}/kube-apiserver",
            f"--etcd-servers={ETCD_URL}",
            f"--bind-address={NODE_IP}",
            f"--advertise-address={NODE_IP}",
            f"--secure-port={API_PORT}",
            "--insecure-port=0",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            "--allow-privileged=true",
            "--authorization-mode=Node,RBAC",
            f"--token-auth-file={home.tokens}",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt",
            f"--service-account-key-file={pki}/sa.key",
            f"--service-account-signing-key-file={pki}/sa.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-certificate-authority={pki}/ca.crt",
            f"--kubelet-client-certificate={pki}/apiserver-to-kubelet.crt",
            f"--kubelet-client-key={pki}/apiserver-to-kubelet.key",
        ),
    )


def controller_manager(home: Home) -> Command:
    pki = home.pki
    return Command(
        "controller-manager",
        (
            f"{home.bin}/kube-controller-manager",
            f"--kubeconfig={home.kubeconfig('controller-manager')}",
            f"--service-account-private-key-file={pki}/sa.key",
            f"--root-ca-file={pki}/ca.crt",
            f"--cluster-signing-cert-file={pki}/ca.crt",
            f"--cluster-signing-key-file={pki}/ca.key",
            "--use-service-account-credentials=true",
            "--allocate-node-cidrs=true",
            f"--cluster-cidr={POD_CIDR}",
            "--leader-elect=false",
        ),
    )


def scheduler(home: Home) -> Command:
    kubeconfig = home.kubeconfig("scheduler")
    return Command("scheduler", (f"{home.bin}/kube-scheduler", f"--kubeconfig={kubeconfig}", "--leader-elect=false"))


def containerd(home: Home) -> Command:
    return Command("containerd", ("containerd", "--config", f"{home.root}/containerd.toml"))


def kubelet(home: Home) -> Command:
    return Command(
        "kubelet",
        (
            f"{home.bin}/kubelet",
            f"--config={home.root}/kubelet.json",
            f"--kubeconfig={home.kubeconfig('kubelet')}",
            "--container-runtime=remote",
            f"--container-runtime-endpoint=unix://{home.containerd_socket}",
            f"--root-dir={home.kubelet}",
            f"--hostname-override={NODE}",
            f"--node-ip={NODE_IP}",
        ),
    )


def proxy(home: Home) -> Command:
    return Command(
        "proxy",
        (
            f"{home.bin}/kube-proxy",
            f"--kubeconfig={home.kubeconfig('proxy')}",
            f"--hostname-override={NODE}",
            f"--cluster-cidr={POD_CIDR}",
            "--proxy-mode=iptables",
            # Zero leaves the kernel's own limits, which a container may not be allowed to change.
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
        ),
    )


def dns(home: Home) -> Command:
    return Command(
        "dnsmasq",
        (
            "dnsmasq",
            "--keep-in-foreground",
            "--user=root",
            "--pid-file=",
            "--no-resolv",
            "--no-hosts",
            f"--addn-hosts={home.hosts}",
            f"--local=/{DOMAIN}/",
            f"--listen-address={NODE_IP}",
            "--bind-interfaces",
        ),
    )


def crd_server(home: Home, executable: str) -> Command:
    """The stand-alone server of newer Kubernetes for custom resources, next to the cluster's own API server.

    It asks that one who a caller is and what they may do, and keeps its objects under an etcd prefix of its own.
    """
    admin = home.kubeconfig("admin")
    return Command(
        "crd-server",
        (
            executable,
            f"--etcd-servers={ETCD_URL}",
            "--etcd-prefix=/crd-server",
            "--bind-address=127.0.0.1",
            f"--secure-port={CRD_PORT}",
            f"--tls-cert-file={home.pki}/apiserver.crt",
            f"--tls-private-key-file={home.pki}/apiserver.key",
            f"--kubeconfig={admin}",
            f"--authentication-kubeconfig={admin}",
            f"--authorization-kubeconfig={admin}",
            "--enable-priority-and-fairness=false",
            # These need kinds that the older API server does not have.
            "--disable-admission-plugins=MutatingAdmissionPolicy,MutatingAdmissionWebhook,NamespaceLifecycle,"
            "ValidatingAdmissionPolicy,ValidatingAdmissionWebhook",
        ),
    )


def kubelet_config(home: Home) -> str:
    pki = home.pki
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": f"{pki}/ca.crt"},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "tlsCertFile": f"{pki}/kubelet.crt",
            "tlsPrivateKeyFile": f"{pki}/kubelet.key",
            "cgroupDriver": "cgroupfs",
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            # How soon a new node is found ready; by default ten seconds.
            "nodeStatusUpdateFrequency": "2s",
            # How soon pods see a changed ConfigMap; by default a minute.
            "syncFrequency": "5s",
            "clusterDNS": [DNS_SERVICE_IP],
            "clusterDomain": DOMAIN,
            "resolvConf": "",
            # A nearly full disk must not make the node delete the images that were just built: nothing can pull them.
            "evictionHard": {"imagefs.available": "0%", "nodefs.available": "0%", "memory.available": "100Mi"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
        },
        indent=2,
    )


def containerd_config(home: Home) -> str:
    return f"""\
version = 2
root = "{home.containerd}/root"
state = "{home.containerd}/state"

[grpc]
  address = "{home.containerd_socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{home.containerd}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE, as in most sandboxes, runc may not lower a process's OOM score.
  restrict_oom_score_adj = true
  # Network namespaces are then mounted inside the state folder, where `down` finds what a crash has left.
  netns_mounts_under_state_dir = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{home.cni}"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


def cni_config(home: Home) -> str:
    addresses = {
        "type": "host-local",
        "dataDir": str(home.pod_addresses),
        "ranges": [[{"subnet": POD_CIDR, "rangeStart": FIRST_POD_IP}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "hairpinMode": True, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "metisfl", "plugins": [bridge, ports]}, indent=2)
