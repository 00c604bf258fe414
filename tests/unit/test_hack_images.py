"""How hack/ builds images and hands them to the cluster, as far as that needs neither root nor a cluster."""

import hashlib
import importlib.machinery
import importlib.util
import io
import json
import re
import sys
import tarfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

# These modules are a program of their own, not part of the distribution.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "hack"))

from _cluster import images, node, transfer
from _cluster.errors import ClusterError
from _cluster.home import Home

ROOT = Path(__file__).resolve().parents[2]

LISTING = """\
REF                       TYPE                                       DIGEST     SIZE    PLATFORMS   LABELS
localhost/controller:dev  application/vnd.oci.image.manifest.v1+json sha256:aaa 1.3 GiB linux/amd64 io.cri=managed
sha256:111                application/vnd.oci.image.manifest.v1+json sha256:aaa 1.3 GiB linux/amd64 -
"""


def test_the_listing_of_images_is_understood() -> None:
    assert node.parse_images(LISTING) == {"localhost/controller:dev": "sha256:aaa", "sha256:111": "sha256:aaa"}
    assert node.parse_images("") == {}


def test_images_that_no_name_leads_to_are_orphans() -> None:
    present = {"c:dev": "sha256:bbb", "c:kept": "sha256:ccc"}
    present |= {"sha256:111": "sha256:aaa", "sha256:222": "sha256:bbb", "sha256:333": "sha256:ccc"}
    assert node.orphans(present) == ["sha256:111"]
    assert node.named(present) == {"c:dev": "sha256:bbb", "c:kept": "sha256:ccc"}


def test_a_manifest_is_read_and_an_index_of_platforms_has_no_layers() -> None:
    manifest = {"config": {"digest": "sha256:c"}, "layers": [{"digest": "sha256:a"}, {"digest": "sha256:b"}]}
    assert node.Manifest.parse(json.dumps(manifest)) == node.Manifest("sha256:c", ("sha256:a", "sha256:b"))
    index = {"manifests": [{"digest": "sha256:m", "platform": {"os": "linux"}}]}
    assert node.Manifest.parse(json.dumps(index)) == node.Manifest("", ())


@pytest.fixture
def containerd(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Stands for the node's containerd: the names of its images, and what they are."""
    present = {"c:dev": "sha256:old"}

    def ctr(_: Home, *arguments: str, check: bool = True) -> str:
        match arguments:
            case ("images", "ls"):
                rows = (f"{reference} type {digest}" for reference, digest in present.items())
                return "\n".join(["REF TYPE DIGEST", *rows])
            case ("images", "tag", "--force", source, target):
                present[target] = present[source]
            case ("images", "rm", "--sync", reference):
                del present[reference]
            case _:
                pytest.fail(f"unexpected: ctr {arguments}")
        return ""

    monkeypatch.setattr(node, "ctr", ctr)
    return present


def test_the_former_image_has_a_name_until_the_new_one_is_there(
    containerd: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def import_new(*_: object) -> None:
        containerd["c:dev"] = "sha256:new"
        assert "sha256:old" in containerd.values()

    monkeypatch.setattr(node, "_import", import_new)
    node._replace(Home(Path("/home")), "c:dev", ())
    assert containerd == {"c:dev": "sha256:new"}


def test_the_former_image_comes_back_when_an_import_fails(
    containerd: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        containerd["c:dev"] = "sha256:half"
        raise ClusterError("no space left")

    monkeypatch.setattr(node, "_import", fail)
    with pytest.raises(ClusterError, match="no space left"):
        node._replace(Home(Path("/home")), "c:dev", ())
    assert containerd == {"c:dev": "sha256:old"}


def test_a_build_sees_the_folders_that_pip_looks_in(tmp_path: Path) -> None:
    wheels, index = tmp_path / "wheels", tmp_path / "simple"
    wheels.mkdir()
    index.mkdir()
    environ = {"PIP_FIND_LINKS": str(wheels), "PIP_EXTRA_INDEX_URL": f"file://{index} https://pypi.example/simple"}
    assert list(images.pip_options(environ)) == [
        "--volume",
        f"{wheels}:{wheels}:ro",
        "--build-arg",
        f"PIP_FIND_LINKS={wheels}",
        "--volume",
        f"{index}:{index}:ro",
        "--build-arg",
        f"PIP_EXTRA_INDEX_URL=file://{index} https://pypi.example/simple",
    ]
    assert list(images.pip_options({"PIP_INDEX_URL": ""})) == []
    assert list(images.pip_options({"PIP_FIND_LINKS": "wheels"})) == ["--build-arg", "PIP_FIND_LINKS=wheels"]


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def docker_archive(config: bytes, layers: list[bytes]) -> bytes:
    """What `buildah push … docker-archive:` writes: blobs by digest, and links and files that older readers want."""
    stems = [digest_of(content).removeprefix("sha256:") for content in (config, *layers)]
    names = [f"{stems[0]}.json", *(f"{stem}.tar" for stem in stems[1:])]
    manifest = [{"Config": names[0], "RepoTags": ["localhost/a:dev"], "Layers": names[1:]}]
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in dict(zip([*names[1:], names[0]], [*layers, config], strict=True)).items():
            add(archive, name, content)
        for number, name in enumerate(names[1:]):
            link = tarfile.TarInfo(f"{number}abc/layer.tar")
            link.type, link.linkname = tarfile.SYMTYPE, f"../{name}"
            archive.addfile(link)
            add(archive, f"{number}abc/json", b"{}")
        add(archive, "manifest.json", json.dumps(manifest).encode())
        add(archive, "repositories", b"{}")
    return stream.getvalue()


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def files_of(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {member.name: content.read() for member in opened if (content := opened.extractfile(member))}


@given(layers=st.lists(st.binary(max_size=3000), min_size=1, max_size=5, unique=True), data=st.data())
def test_an_archive_becomes_the_same_image_without_the_layers_that_are_there(layers: list[bytes], data: Any) -> None:
    config = b'{"architecture": "amd64"}'
    present = data.draw(st.sets(st.sampled_from([digest_of(layer) for layer in layers])))
    target = io.BytesIO()
    transfer.convert(io.BytesIO(docker_archive(config, layers)), target, "localhost/a:dev", present)
    files = files_of(target.getvalue())

    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    [entry] = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"] == {"io.containerd.image.name": "localhost/a:dev"}
    manifest = files["blobs/" + entry["digest"].replace(":", "/")]
    assert (len(manifest), digest_of(manifest)) == (entry["size"], entry["digest"])
    described = json.loads(manifest)
    assert [(layer["digest"], layer["size"]) for layer in described["layers"]] == [
        (digest_of(layer), len(layer)) for layer in layers
    ]
    assert (described["config"]["digest"], described["config"]["size"]) == (digest_of(config), len(config))
    blobs = {f"sha256:{Path(name).name}": content for name, content in files.items() if name.startswith("blobs/")}
    assert all(digest_of(content) == digest for digest, content in blobs.items())
    wanted = {digest_of(layer) for layer in layers} - present
    assert set(blobs) == wanted | {digest_of(config), entry["digest"]}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive(b"{}", [b"x" * 3_000_000]))
    return path


def test_an_image_passes_from_one_command_to_the_other(archive: Path, tmp_path: Path) -> None:
    received = tmp_path / "received.tar"
    transfer.pipe(["cat", archive], ["dd", f"of={received}", "status=none"], "localhost/a:dev", [])
    assert b"x" * 3_000_000 in files_of(received.read_bytes()).values()


def test_a_receiver_that_fails_is_told_with_its_own_words(archive: Path) -> None:
    with pytest.raises(ClusterError, match="no space left"):
        transfer.pipe(["cat", archive], ["sh", "-c", "echo no space left >&2; exit 1"], "localhost/a:dev", [])


def test_a_sender_that_fails_is_told_with_its_own_words() -> None:
    with pytest.raises(ClusterError, match="image not known"):
        transfer.pipe(["sh", "-c", "echo image not known >&2; exit 125"], ["cat"], "localhost/a:dev", [])


def test_a_stream_that_is_no_archive_is_an_error_although_both_commands_succeed() -> None:
    with pytest.raises(ClusterError, match="localhost/a:dev"):
        transfer.pipe(["echo", "nothing of the kind"], ["cat"], "localhost/a:dev", [])


def test_a_transfer_that_hangs_is_stopped(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_SECONDS", 0.3)
    began = time.monotonic()
    with pytest.raises(ClusterError):
        transfer.pipe(["cat", archive], ["sleep", "60"], "localhost/a:dev", [])
    assert time.monotonic() - began < 10


def script(name: str) -> ModuleType:
    """One of hack's executables, as a module."""
    loader = importlib.machinery.SourceFileLoader(f"hack_{name}", str(ROOT / "hack" / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


PYPROJECT = """
[build-system]
requires = ["hatchling>=1"]
[project]
name = "thing"
dependencies = ["numpy>=1.26"]
[project.optional-dependencies]
cluster = ["kubernetes>=31"]
operator = ["thing[cluster]", "kopf>=1.44"]
everything = ["thing[operator, cluster]", "numpy>=1.26"]
"""


def test_requirements_of_an_extra_include_those_of_the_extras_that_it_names() -> None:
    requirements = script("requirements")
    assert requirements.requirements(PYPROJECT, []) == ["numpy>=1.26"]
    assert requirements.requirements(PYPROJECT, ["operator"]) == ["numpy>=1.26", "kopf>=1.44", "kubernetes>=31"]
    assert sorted(requirements.requirements(PYPROJECT, ["everything"])) == [
        "kopf>=1.44",
        "kubernetes>=31",
        "numpy>=1.26",
    ]
    assert requirements.build_requirements(PYPROJECT) == ["hatchling>=1"]
    with pytest.raises(KeyError, match="nothing"):
        requirements.requirements(PYPROJECT, ["nothing"])


def test_no_image_asks_a_package_index_for_the_project_itself() -> None:
    requirements = script("requirements")
    project = (ROOT / "pyproject.toml").read_text()
    for extras in (["controller"], ["operator"], ["learner", "torch", "sklearn"]):
        assert not [line for line in requirements.requirements(project, extras) if line.startswith("metisfl-operator")]


def dockerfiles() -> dict[str, str]:
    roles = script("images").ROLES
    return {role: (ROOT / f"Dockerfile.{role}").read_text() for role in roles}


def test_images_share_the_stages_that_build_the_code() -> None:
    shared = {text[text.index("FROM ") : text.index("FROM tools AS lists")] for text in dockerfiles().values()}
    assert len(shared) == 1, "alike word for word, they are built once for all three"


def test_images_run_as_a_user_with_a_number() -> None:
    for text in dockerfiles().values():
        assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", text, re.MULTILINE)
        assert re.search(r"^ARG PIP_FIND_LINKS", text, re.MULTILINE)
