"""Which certificates are out, and who may have another one. Pure: time is passed in, nothing is stored or signed.

A learner has one certificate at a time, and renewals of it. A group's bootstrap certificate gives a learner its first
one; what it takes to get a second that way depends on where the group runs:

- in pods that the operator announces, every pod may enrol once, under the UID that the API server gave it. A pod that
  takes another's place makes the certificates of the one before worthless;
- anywhere else, a learner may enrol again once its certificate has expired or was revoked.

A certificate can be renewed once. A second renewal, with another key, means that somebody has a copy: it is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

MAX_LIVE = 50
"""Certificates of one learner that can be used at a time. In order, one is followed by the next and repeated when an
answer was lost; whoever asks for more has a clock that is wrong, or means to fill the disk."""


class EnrolmentRefusedError(ValueError):
    """No certificate for this caller; asking again will not help."""


class NotAnnouncedError(Exception):
    """The operator has not yet said that this pod exists."""


class UnknownCertificateError(Exception):
    """Not issued by this federation's controller, or expired: enrol again."""


class RevokedError(Exception):
    """A certificate, or a learner, that is not trusted any more."""


@dataclass(frozen=True)
class Issued:
    """A learner's certificate. Times are seconds since the epoch."""

    serial: str
    """Hexadecimal."""
    group: str
    ordinal: int
    instance: str
    """UID of the pod it was issued to; empty outside of pods."""
    key: str
    """Fingerprint of the public key."""
    issued_at: float
    expires_at: float
    renews: str = ""
    """Serial number of the certificate that this one was asked for with; empty after a bootstrap certificate."""
    revoked_at: float | None = None

    @property
    def learner(self) -> str:
        return f"{self.group}-{self.ordinal}"

    def live(self, now: float) -> bool:
        return self.revoked_at is None and now < self.expires_at


@dataclass
class Ledger:
    """`places`: learners of each group. `announced_groups`: those whose learners run in pods that the operator tells
    of. `revoked`: learners, by id, that the federation does not trust any more."""

    places: Mapping[str, int] = field(default_factory=dict)
    announced_groups: Collection[str] = frozenset()
    revoked: Collection[str] = frozenset()
    _issued: dict[str, Issued] = field(default_factory=dict)
    _of_learner: dict[str, list[str]] = field(default_factory=dict)
    _instances: Mapping[str, str] = field(default_factory=dict)

    def load(self, issued: Iterable[Issued], now: float) -> list[Issued]:
        """Take over what an earlier controller issued. Answers what has to be stored anew, as `amend` does."""
        for entry in issued:
            self._keep(entry)
        return self._revoke(now)

    def amend(
        self, places: Mapping[str, int], announced_groups: Collection[str], revoked: Collection[str], now: float
    ) -> list[Issued]:
        """The federation has changed. Answers what has to be stored anew: certificates that are revoked now."""
        self.places, self.announced_groups, self.revoked = places, announced_groups, frozenset(revoked)
        return self._revoke(now)

    def announce(self, instances: Mapping[str, str]) -> None:
        """The pods that there are: UID by learner id."""
        self._instances = dict(instances)

    def enrol(self, group: str, ordinal: int | None, instance: str, key: str, now: float) -> int:
        """The ordinal that this key may have a first certificate for.

        Raises EnrolmentRefusedError, RevokedError or NotAnnouncedError.
        """
        if group not in self.places:
            raise EnrolmentRefusedError(f"there is no learner group '{group}'; the groups are {', '.join(self.places)}")
        chosen = self._free(group, key, now) if ordinal is None else ordinal
        learner = self._place(group, chosen)
        if group in self.announced_groups:
            self._check_pod(learner, instance, key, now)
        elif any(entry.key != key for entry in self._live(learner, now)):
            raise EnrolmentRefusedError(
                f"{learner} is enrolled already: go on with the key and certificate it has. If those are lost, put "
                f"{learner} into spec.security.revoked and take it out again; then it may enrol anew"
            )
        self._check_count(learner, now)
        return chosen

    def renew(self, serial: str, held: str, key: str, now: float) -> Issued:
        """The certificate, of the key `held`, that `key` may follow up on. Raises what `recognise` does, and
        EnrolmentRefusedError."""
        present = self.recognise(serial, held, now)
        self._check_count(self._place(present.group, present.ordinal), now)
        if any(entry.renews == serial and entry.key != key for entry in self._live(present.learner, now)):
            raise EnrolmentRefusedError(
                f"this certificate of {present.learner} has been renewed before, with another key: somebody may have "
                f"a copy. Put {present.learner} into spec.security.revoked"
            )
        return present

    def recognise(self, serial: str, key: str, now: float) -> Issued:
        """The entry of a certificate that may be used, issued for this key. Raises UnknownCertificateError or
        RevokedError."""
        entry = self._issued.get(serial)
        if entry is None or entry.key != key or now >= entry.expires_at:
            raise UnknownCertificateError("the certificate is not known here or has expired: enrol again")
        if entry.revoked_at is not None or entry.learner in self.revoked:
            raise RevokedError(f"this certificate of {entry.learner} has been revoked")
        return entry

    def add(self, issued: Issued, now: float) -> list[Issued]:
        """A certificate has been signed. Answers what has to be stored: it, and those it makes worthless."""
        superseded = [
            replace(entry, revoked_at=now)
            for entry in self._live(issued.learner, now)
            if entry.instance != issued.instance
        ]
        for entry in (*superseded, issued):
            self._keep(entry)
        self._forget_expired(issued.learner, now)
        return [*superseded, issued]

    def withdraw(self, issued: Issued) -> None:
        """A certificate that was added could not be stored, and is handed out to nobody."""
        self._of_learner[issued.learner].remove(issued.serial)
        del self._issued[issued.serial]

    def _check_pod(self, learner: str, instance: str, key: str, now: float) -> None:
        if not instance or self._instances.get(learner) != instance:
            raise NotAnnouncedError(
                f"the operator has not announced pod {instance or '(without a UID)'} of {learner}; try again"
            )
        if any(entry.instance == instance and entry.key != key for entry in self._live(learner, now)):
            raise EnrolmentRefusedError(
                f"this pod of {learner} has enrolled already, with another key: delete the pod to let it enrol anew, "
                "and find out who has the bootstrap certificate"
            )

    def _check_count(self, learner: str, now: float) -> None:
        if len(self._live(learner, now)) >= MAX_LIVE:
            raise EnrolmentRefusedError(
                f"{learner} has {MAX_LIVE} certificates that have not expired: check its machine's clock, or put it "
                "into spec.security.revoked"
            )

    def _place(self, group: str, ordinal: int) -> str:
        learner, places = f"{group}-{ordinal}", self.places.get(group, 0)
        if ordinal >= places:
            raise EnrolmentRefusedError(
                f"group '{group}' has {places} learners, numbered from 0; {learner} is not one of them"
            )
        if learner in self.revoked:
            raise RevokedError(f"{learner} is listed in spec.security.revoked")
        return learner

    def _free(self, group: str, key: str, now: float) -> int:
        """The place of this key, else the first without a certificate."""
        free = None
        for ordinal in range(self.places[group]):
            live = self._live(f"{group}-{ordinal}", now)
            if any(entry.key == key for entry in live):
                return ordinal
            if free is None and not live and f"{group}-{ordinal}" not in self.revoked:
                free = ordinal
        if free is None:
            raise EnrolmentRefusedError(f"all {self.places[group]} places of group '{group}' are taken")
        return free

    def _live(self, learner: str, now: float) -> list[Issued]:
        entries = (self._issued[serial] for serial in self._of_learner.get(learner, ()))
        return [entry for entry in entries if entry.live(now)]

    def _revoke(self, now: float) -> list[Issued]:
        found = [entry for learner in sorted(self.revoked) for entry in self._live(learner, now)]
        revoked = [replace(entry, revoked_at=now) for entry in found]
        for entry in revoked:
            self._keep(entry)
        return revoked

    def _keep(self, entry: Issued) -> None:
        if entry.serial not in self._issued:
            self._of_learner.setdefault(entry.learner, []).append(entry.serial)
        self._issued[entry.serial] = entry

    def _forget_expired(self, learner: str, now: float) -> None:
        serials = self._of_learner[learner]
        for serial in [serial for serial in serials if now >= self._issued[serial].expires_at]:
            serials.remove(serial)
            del self._issued[serial]
