"""What kopf remembers of a Federation between its handlers: that a spec was seen, not the spec itself.

kopf's own storage copies the object into an annotation, and annotations end at 256 KiB together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import kopf

from metisfl.spec import API_GROUP
from metisfl_operator.resources.metadata import digest


class SpecDigestStorage(kopf.AnnotationsDiffBaseStorage):  # type: ignore[misc] # kopf is untyped to mypy here
    """A change of the spec changes its digest; nothing else is a change to the handlers."""

    def __init__(self) -> None:
        super().__init__(prefix=API_GROUP)

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        essence = super().build(body=body, extra_fields=extra_fields)
        return kopf.BodyEssence(spec={"digest": digest(essence.get("spec"))})
