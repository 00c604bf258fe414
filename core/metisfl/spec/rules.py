"""All rules across fields, gathered from the parts of `spec` that they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from metisfl.spec import (
    aggregation,
    compatibility,
    controller,
    expose,
    groups,
    pods,
    protocol,
    security,
    selection,
    termination,
    training,
    transport,
)
from metisfl.spec.rule import BrokenRulesError, Fixed, Json, Rule

if TYPE_CHECKING:
    from metisfl.spec.federation import Federation

# A StatefulSet's name goes into a label with an eleven character suffix, and labels end at 63 characters.
MAX_WORKLOAD_NAME_LENGTH = 52


def _workload_names_fit(federation: Json) -> bool:
    longest = max((len(group["name"]) for group in federation["spec"]["learnerGroups"]), default=0)
    return len(federation["metadata"]["name"]) + 1 + longest <= MAX_WORKLOAD_NAME_LENGTH


RULES: tuple[Rule, ...] = (
    Rule(
        path=(),
        message="metadata.name and a learner group's name must have at most "
        f"{MAX_WORKLOAD_NAME_LENGTH - 1} characters together",
        holds=_workload_names_fit,
        cel=f"self.spec.learnerGroups.all(g, size(self.metadata.name) + size(g.name) < {MAX_WORKLOAD_NAME_LENGTH})",
    ),
    *protocol.RULES,
    *selection.RULES,
    *termination.RULES,
    *training.RULES,
    *transport.RULES,
    *groups.RULES,
    *controller.RULES,
    *expose.RULES,
    *security.RULES,
    *pods.RULES,
    *aggregation.RULES,
    *compatibility.RULES,
)

# What has been trained depends on these; all else may change while a federation runs, from its next round on.
FIXED: tuple[Fixed, ...] = (
    Fixed(("spec", "learner"), "entrypoint"),
    Fixed(("spec", "learner"), "partitions"),
    Fixed(("spec",), "managedBy"),
    Fixed(("spec",), "initialModel"),
    Fixed(("spec", "protocol"), "type"),
    Fixed(("spec", "protocol", "asynchronous"), "bufferSize"),
    Fixed(("spec",), "aggregation"),
    Fixed(("spec",), "transport"),
    Fixed(("spec", "controller", "storage"), "existingClaim"),
    Fixed(("spec", "controller", "storage"), "storageClassName"),
    # A StatefulSet's claim templates cannot change either.
    Fixed(("spec", "learnerGroups[]"), "storage"),
)


def changed_for_good(before: Federation, after: Federation) -> list[str]:
    """One line for each field that differs and must not; empty when the change can take effect."""
    old, new = (each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in (before, after))
    return [
        f"{'.'.join(fixed.path)}: {fixed.message}"
        for fixed in FIXED
        if any(a.get(fixed.field) != b.get(fixed.field) for a, b in _both(old, new, fixed.path))
    ]


def _both(old: Json, new: Json, path: tuple[str, ...]) -> Iterator[tuple[Json, Json]]:
    """What is at the path before and after; of a list, the objects of one name that are in both."""
    if not path:
        yield old, new
        return
    key, rest = path[0], path[1:]
    if name := key.removesuffix("[]") if key.endswith("[]") else "":
        after = {each["name"]: each for each in new.get(name, ())}
        for each in old.get(name, ()):
            if each["name"] in after:
                yield from _both(each, after[each["name"]], rest)
    else:
        yield from _both(old.get(key) or {}, new.get(key) or {}, rest)


def _at(document: Json, path: tuple[str, ...]) -> Json | None:
    value: Any = document
    for key in path:
        value = value.get(key)
        if value is None:
            return None
    found: Json = value
    return found


def check(federation: Json) -> None:
    """Raise BrokenRulesError if the object breaks any; `federation` is plain JSON with defaults filled in."""
    problems = []
    for rule in RULES:
        target = _at(federation, rule.path)
        if target is not None and not rule.holds(target):
            where = ".".join(rule.path)
            problems.append(f"{where}: {rule.message}" if where else rule.message)
    if problems:
        raise BrokenRulesError(problems)
