"""A site's bundle: all that learners outside of the cluster need to find a federation and to be let in.

One YAML file in the form of a Kubernetes object. With TLS it holds a private key, the group's bootstrap key, so it is
written for its owner's eyes only; what that key opens is the Enroll call, at most maxLearners times.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from metisfl.files import write_private
from metisfl.spec.documents import plain, read_documents
from metisfl.spec.fields import Entrypoint, GroupName, ObjectName
from metisfl.spec.problems import SpecError, problems_of

KIND = "SiteBundle"

_Pem = Annotated[str, StringConstraints(pattern=r"^-----BEGIN ", max_length=65_536)]
Endpoint = Annotated[str, StringConstraints(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):[0-9]{1,5}$", max_length=260)]


class BundleError(ValueError):
    """Not a bundle that can be used; `problems` holds one line for each thing that is wrong with it."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class BundleTls(_Model):
    """PEM: the federation's root, and the group's bootstrap certificate with its key."""

    ca: _Pem
    certificate: _Pem
    key: _Pem
    server_name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """In the controller's certificate, whatever address it is dialled at."""


class BundleSpec(_Model):
    """`endpoint` is host:port as the site dials it; `tls` is absent where the federation talks in clear text."""

    federation: ObjectName
    group: GroupName
    max_learners: Annotated[int, Field(ge=1, le=10_000)]
    endpoint: Endpoint
    entrypoint: Entrypoint
    """What the federation's spec names; a site may have a class of its own."""

    tls: BundleTls | None = None


class BundleMeta(_Model):
    name: Annotated[str, StringConstraints(min_length=1, max_length=63)]


class Bundle(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    api_version: Annotated[Literal["metisfl.dev/v1alpha1"], Field(alias="apiVersion")] = "metisfl.dev/v1alpha1"
    kind: Literal["SiteBundle"] = "SiteBundle"
    metadata: BundleMeta
    spec: BundleSpec


def make_bundle(spec: BundleSpec) -> Bundle:
    return Bundle(metadata=BundleMeta(name=f"{spec.federation}-{spec.group}"), spec=spec)


def read_bundle(path: Path) -> Bundle:
    """Raises BundleError for a file that is no bundle, OSError for one that cannot be read."""
    try:
        documents = [document for document in read_documents(path) if document is not None]
        if len(documents) != 1 or not isinstance(documents[0], dict) or documents[0].get("kind") != KIND:
            raise BundleError(
                (f"this is no bundle: it must hold one object of kind {KIND}, as `metisfl bundle` writes",)
            )
        return Bundle.model_validate_json(json.dumps(plain(documents[0])), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise BundleError(tuple(problems_of(error, Bundle))) from error
    except SpecError as error:
        raise BundleError(error.problems) from error


def bundle_yaml(bundle: Bundle) -> str:
    document = bundle.model_dump(mode="json", by_alias=True, exclude_none=True)
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False)
    return text


def write_bundle(path: Path, bundle: Bundle) -> None:
    """Make or replace a file that only its owner can read: it may hold a key. Raises OSError."""
    write_private(path, bundle_yaml(bundle).encode())


class _Dumper(yaml.SafeDumper):
    """PEM as block text, so that people can see what it is."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)
