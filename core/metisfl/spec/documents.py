"""The objects of a YAML file, as plain JSON values and read as strictly as the Kubernetes tools read them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from metisfl.spec.problems import SpecError, path_text, shown

# etcd holds no object over 1.5 MiB, so a file that can be applied is not much larger.
MAX_FILE_BYTES = 4 * 1024 * 1024
# Aliases let a few lines stand for billions of values.
MAX_VALUES = 200_000
MAX_DEPTH = 100

_STANDARD_TAG = "tag:yaml.org,2002:"
_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


class _Loader(yaml.SafeLoader):
    """Leaves timestamps as the text they are: JSON has none."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{_STANDARD_TAG}timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_documents(path: Path) -> list[Any]:
    """Every YAML document of a file. Raises SpecError for content that is not plain YAML, OSError if unreadable."""
    if path.stat().st_size > MAX_FILE_BYTES:
        raise SpecError([f"the file is larger than {MAX_FILE_BYTES // 1024**2} MiB"])
    try:
        return list(parse_documents(path.read_text(encoding="utf-8")))
    except UnicodeDecodeError as error:
        raise SpecError([f"not UTF-8 text: {error.reason} at byte {error.start}"]) from error


def parse_documents(text: str) -> Iterator[Any]:
    """The YAML documents in `text`, one by one. Raises SpecError."""
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = cast(yaml.Node, loader.get_node())
            _Inspection(loader).size(node, 0)
            yield loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise SpecError([_syntax_problem(error)]) from error
    except yaml.YAMLError as error:
        raise SpecError([f"not YAML: {' '.join(str(error).split())}"]) from error
    except (ValueError, OverflowError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError([f"not YAML: {error}"]) from error
    except RecursionError as error:
        raise SpecError([_TOO_DEEP]) from error


def plain(value: Any, path: tuple[str | int, ...] = ()) -> Any:
    """`value` as JSON holds it: dicts with string keys, lists, text, numbers. Raises SpecError for anything else."""
    if len(path) > MAX_DEPTH:
        raise SpecError([_TOO_DEEP])
    if isinstance(value, Mapping):
        return {_key(key): plain(entry, (*path, _key(key))) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry, (*path, index)) for index, entry in enumerate(value)]
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        raise SpecError([f"{path_text(path)}: the number does not fit into 64 bits"])
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError([f"{path_text(path)}: {value} is not a number that JSON can hold"])
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise SpecError([f"{path_text(path)}: {shown(value)} is not a value that JSON can hold"])


def _key(key: object) -> str:
    if isinstance(key, bool):
        return str(key).lower()
    return "null" if key is None else str(key)


class _Inspection:
    """Refuses, before anything is built from a node: twice-written keys, foreign tags, loops and alias bombs."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self._loader = loader
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()

    def size(self, node: yaml.Node, depth: int) -> int:
        """How many values `node` stands for once aliases are replaced by what they name."""
        if depth > MAX_DEPTH:
            raise SpecError([_TOO_DEEP])
        if id(node) in self._open:
            raise SpecError([f"{_line(node)}: the alias refers to what it is part of"])
        if id(node) not in self._sizes:
            self._open.add(id(node))
            self._sizes[id(node)] = 1 + sum(self.size(child, depth + 1) for child in self._children(node))
            self._open.remove(id(node))
        if self._sizes[id(node)] > MAX_VALUES:
            raise SpecError([f"{_line(node)}: more than {MAX_VALUES} values"])
        return self._sizes[id(node)]

    def _children(self, node: yaml.Node) -> list[yaml.Node]:
        if isinstance(node, yaml.MappingNode):
            self._expect_tag(node, "map")
            self._check_keys(node)
            return [part for pair in node.value for part in pair]
        if isinstance(node, yaml.SequenceNode):
            self._expect_tag(node, "seq")
            return list(node.value)
        if node.tag != f"{_STANDARD_TAG}str":
            meant = self._loader.resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]
            self._expect_tag(node, str(meant).removeprefix(_STANDARD_TAG))
        return []

    def _check_keys(self, node: yaml.MappingNode) -> None:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise SpecError([f"{_line(key_node)}: a key must be text, not a list or mapping"])
            if key_node.value in seen:
                raise SpecError([f"{_line(key_node)}: key {shown(key_node.value)} is written twice"])
            seen.add(key_node.value)

    def _expect_tag(self, node: yaml.Node, name: str) -> None:
        if node.tag != f"{_STANDARD_TAG}{name}":
            raise SpecError([f"{_line(node)}: the tag {shown(node.tag)} is not supported here"])


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"


def _syntax_problem(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{where}not YAML: {error.problem or error.context}"
