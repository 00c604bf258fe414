"""From YAML text or an API object to a validated Federation, with errors a person can act on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from metisfl.spec.documents import plain, read_documents
from metisfl.spec.federation import KIND, Federation, FederationSpec
from metisfl.spec.overrides import apply_override
from metisfl.spec.problems import SpecError, closest, problems_of, shown

__all__ = ["SpecError", "load_federation", "load_source", "parse_federation"]


def load_federation(path: Path, overrides: Iterable[str] = ()) -> Federation:
    """The one Federation in a YAML file, with `path=value` overrides applied; other objects in it are left alone.

    Raises SpecError for anything that is wrong with the file's content, OSError when it cannot be read.
    """
    document = _the_federation(read_documents(path))
    for override in overrides:
        spec = document.setdefault("spec", {})
        if not isinstance(spec, dict):
            break
        apply_override(spec, override, FederationSpec)
    return parse_federation(document)


def parse_federation(document: Mapping[str, Any]) -> Federation:
    """Validate an object as the API server or a YAML reader hands it over. Raises SpecError.

    Types and keys are judged as the API server judges them: text is no number, a number is no text, and keys are
    camelCase.
    """
    try:
        return Federation.model_validate_json(json.dumps(plain(document)), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise SpecError(problems_of(error, Federation)) from error


def load_source(path: Path, config_map: str) -> dict[str, str]:
    """The files of the ConfigMap named `config_map` in a YAML file, by name; empty when the file does not hold it.

    Raises SpecError when the file is not YAML or the ConfigMap's data are not text, OSError when it cannot be read.
    """
    for document in read_documents(path):
        if not isinstance(document, dict) or document.get("kind") != "ConfigMap":
            continue
        metadata, data = document.get("metadata"), document.get("data") or {}
        if not isinstance(metadata, dict) or metadata.get("name") != config_map:
            continue
        if not isinstance(data, dict) or not all(isinstance(text, str) for text in data.values()):
            raise SpecError([f"ConfigMap {config_map}: data must be a mapping of file names to text"])
        return {str(name): text for name, text in data.items()}
    return {}


def _the_federation(documents: list[Any]) -> dict[str, Any]:
    found = [document for document in documents if isinstance(document, dict) and document.get("kind") == KIND]
    if len(found) == 1:
        return found[0]
    if found:
        raise SpecError([f"the file must hold one object of kind {KIND}, and holds {len(found)}"])
    raise SpecError([f"the file holds no object of kind {KIND}{_what_instead(documents)}"])


def _what_instead(documents: list[Any]) -> str:
    objects = [document for document in documents if document is not None]
    if not objects:
        return ": it is empty"
    if not all(isinstance(document, dict) for document in objects):
        return "; a Kubernetes object is a mapping with apiVersion, kind, metadata and spec"
    kinds = [document.get("kind") for document in objects]
    if None in kinds and len(kinds) == 1:
        meant = closest("kind", (str(key) for key in objects[0]))
        return f"; 'kind' is missing{f', is {meant!r} meant to be it?' if meant else ''}"
    return f"; kinds found: {', '.join(shown(kind) for kind in kinds)}"
