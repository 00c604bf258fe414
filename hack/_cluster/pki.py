"""Certificates, tokens and kubeconfigs: who may talk to whom."""

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from _cluster.home import API_SERVICE_IP, API_URL, CONTEXT, CRD_URL, NODE, NODE_IP, Home
from _cluster.shell import run

_DAYS = "3650"


@dataclass(frozen=True)
class User:
    """Someone with a token: the name of the kubeconfig, the user name and the groups that RBAC sees."""

    file: str
    name: str
    groups: str = ""


USERS = (
    User("admin", "admin", "system:masters"),
    User("controller-manager", "system:kube-controller-manager"),
    User("scheduler", "system:kube-scheduler"),
    User("kubelet", f"system:node:{NODE}", "system:nodes"),
    User("proxy", "system:kube-proxy"),
)


def create(home: Home) -> None:
    """Make what is missing of certificates, tokens and kubeconfigs; what is there is kept."""
    home.pki.mkdir(parents=True, exist_ok=True)
    home.pki.chmod(0o700)
    _authority(home.pki)
    names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
    _certificate(home.pki, "apiserver", "/CN=kube-apiserver", names, ("127.0.0.1", API_SERVICE_IP, NODE_IP))
    _certificate(home.pki, "kubelet", f"/CN={NODE}", (NODE,), (NODE_IP,))
    _certificate(home.pki, "apiserver-to-kubelet", "/CN=kube-apiserver-kubelet-client")
    if not (home.pki / "sa.key").exists():
        run("openssl", "genrsa", "-out", home.pki / "sa.key", "2048")
    tokens = _tokens(home)
    for user in USERS:
        _write_private(
            home.kubeconfig(user.file), kubeconfig(API_URL, home.pki / "ca.crt", user.file, tokens[user.file])
        )
    _write_private(home.kubeconfig("crd-server"), kubeconfig(CRD_URL, home.pki / "ca.crt", "admin", tokens["admin"]))


def admin_token(home: Home) -> str:
    return _tokens(home)["admin"]


def kubeconfig(server: str, authority: Path, user: str, token: str) -> str:
    """A kubeconfig with one cluster, one user and one context."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": CONTEXT,
            "clusters": [{"name": CONTEXT, "cluster": {"server": server, "certificate-authority": str(authority)}}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": user}}],
        },
        indent=2,
    )


def parse_tokens(text: str) -> dict[str, str]:
    """Token by kubeconfig name, from the API server's token file (columns: token, user, uid, groups)."""
    rows = (line.split(",") for line in text.splitlines() if line)
    return {uid: token for token, _, uid, *_ in rows}


def _tokens(home: Home) -> dict[str, str]:
    known = parse_tokens(home.tokens.read_text()) if home.tokens.exists() else {}
    if not all(user.file in known for user in USERS):
        known = {user.file: secrets.token_hex(16) for user in USERS}
        rows = (f'{known[user.file]},{user.name},{user.file},"{user.groups}"\n' for user in USERS)
        _write_private(home.tokens, "".join(rows))
    return known


def _authority(pki: Path) -> None:
    key, certificate = pki / "ca.key", pki / "ca.crt"
    if not (key.exists() and certificate.exists()):
        run(*_new_key(key), "-x509", "-days", _DAYS, "-subj", "/CN=metisfl-test-ca", "-out", certificate)


def _certificate(pki: Path, name: str, subject: str, dns: Iterable[str] = (), ips: Iterable[str] = ()) -> None:
    key, request, certificate = pki / f"{name}.key", pki / f"{name}.csr", pki / f"{name}.crt"
    if key.exists() and certificate.exists():
        return
    run(*_new_key(key), "-subj", subject, "-out", request)
    alternatives = [*(f"DNS:{entry}" for entry in dns), *(f"IP:{entry}" for entry in ips)]
    extensions = pki / f"{name}.extensions"
    extensions.write_text(f"subjectAltName={','.join(alternatives)}\n" if alternatives else "")
    signer: list[str | Path] = ["-CA", pki / "ca.crt", "-CAkey", pki / "ca.key", "-CAcreateserial"]
    run("openssl", "x509", "-req", "-in", request, *signer, "-days", _DAYS, "-extfile", extensions, "-out", certificate)
    request.unlink()
    extensions.unlink()


def _new_key(path: Path) -> tuple[str | Path, ...]:
    return ("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", path)


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)
