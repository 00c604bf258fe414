"""Whom a certificate names: `metisfl://<federation UID>/learner/<group>/<ordinal>` and `…/bootstrap/<group>`.

The controller has one name for all its addresses, derived from the federation's UID: learners ask for it by SNI and
check it, whatever load balancer, tunnel or proxy they dialled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_UID = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_GROUP = r"[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?"
_LEARNER = re.compile(rf"metisfl://({_UID})/learner/({_GROUP})/(0|[1-9][0-9]{{0,4}})")
_BOOTSTRAP = re.compile(rf"metisfl://({_UID})/bootstrap/({_GROUP})")


class IdentityError(ValueError):
    """A name that no certificate of a federation can have."""


@dataclass(frozen=True)
class LearnerIdentity:
    """One learner of one federation."""

    federation: str
    """The federation's UID."""

    group: str
    ordinal: int

    @property
    def learner(self) -> str:
        """The learner's id, `<group>-<ordinal>`."""
        return f"{self.group}-{self.ordinal}"

    @property
    def uri(self) -> str:
        return f"metisfl://{self.federation}/learner/{self.group}/{self.ordinal}"


@dataclass(frozen=True)
class BootstrapIdentity:
    """Whoever may enrol learners of one group."""

    federation: str
    group: str

    @property
    def uri(self) -> str:
        return f"metisfl://{self.federation}/bootstrap/{self.group}"


Identity = LearnerIdentity | BootstrapIdentity


def parse_identity(uri: str) -> Identity:
    """The identity that a URI stands for. Raises IdentityError."""
    if found := _LEARNER.fullmatch(uri):
        return LearnerIdentity(found[1], found[2], int(found[3]))
    if found := _BOOTSTRAP.fullmatch(uri):
        return BootstrapIdentity(found[1], found[2])
    raise IdentityError(f"'{uri[:200]}' names neither a learner nor a bootstrap certificate of a federation")


def server_name(federation: str) -> str:
    """The controller's name in its certificate and in SNI, from the federation's UID. Raises IdentityError."""
    if not re.fullmatch(_UID, federation):
        raise IdentityError(f"the federation's UID '{federation[:80]}' cannot be part of a host name")
    return f"controller.{federation}.metisfl.internal"
