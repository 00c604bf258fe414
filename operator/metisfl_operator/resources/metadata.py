"""What all objects of a federation share: owner, labels, and the digest that tells an outdated one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metisfl.spec import API_GROUP, API_VERSION, KIND

Manifest = dict[str, Any]

DIGEST_ANNOTATION = f"{API_GROUP}/digest"


@dataclass(frozen=True)
class Owner:
    """The Federation object that a child belongs to, and is deleted with."""

    name: str
    namespace: str
    uid: str

    def reference(self) -> Manifest:
        return {
            "apiVersion": f"{API_GROUP}/{API_VERSION}",
            "kind": KIND,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


def metadata(owner: Owner, name: str, labels: Mapping[str, str]) -> Manifest:
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": dict(labels),
        "ownerReferences": [owner.reference()],
    }


def digest(content: object) -> str:
    """Short and stable: the same content has the same digest in every process."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stamped(manifest: Manifest) -> Manifest:
    """The manifest with its own digest among the annotations.

    A field that a newer manifest no longer sets cannot be noticed by comparing it with what the server holds; a new
    digest can.
    """
    meta = manifest["metadata"]
    annotations = {**meta.get("annotations", {}), DIGEST_ANNOTATION: digest(manifest)}
    return {**manifest, "metadata": {**meta, "annotations": annotations}}
