"""The check that every call but Enroll passes: does the caller's certificate speak for this learner?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import grpc

from metisfl.tls.names import BootstrapIdentity, IdentityError
from metisfl_controller.clock import Clock
from metisfl_controller.security.audit import Action, Audit
from metisfl_controller.security.ledger import Ledger, RevokedError, UnknownCertificateError
from metisfl_controller.security.peers import Peer, peer


class NotAdmittedError(Exception):
    """The call is refused with `code` and these words."""

    def __init__(self, code: grpc.StatusCode, words: str) -> None:
        super().__init__(words)
        self.code = code


class Gate(Protocol):
    """Raises NotAdmittedError unless whoever is behind `context` may speak for `learner`, an id."""

    def admit(self, learner: str, context: grpc.aio.ServicerContext) -> None: ...


class OpenGate:
    """Lets everybody in who can reach the port: TLS is disabled."""

    def admit(self, learner: str, context: grpc.aio.ServicerContext) -> None:
        pass


@dataclass(frozen=True)
class CertificateGate:
    """Lets a learner speak for itself, by a certificate of this federation that is in the ledger and not revoked."""

    federation: str
    """The federation's UID."""
    ledger: Ledger
    clock: Clock
    audit: Audit

    def admit(self, learner: str, context: grpc.aio.ServicerContext) -> None:
        try:
            self._judge(learner, peer(context))
        except IdentityError as error:
            self._refuse(grpc.StatusCode.PERMISSION_DENIED, str(error), learner, context)
        except RevokedError as error:
            self._refuse(grpc.StatusCode.PERMISSION_DENIED, str(error), learner, context)
        except UnknownCertificateError as error:
            self._refuse(grpc.StatusCode.UNAUTHENTICATED, str(error), learner, context)

    def _judge(self, learner: str, caller: Peer | None) -> None:
        if caller is None:
            raise IdentityError("this controller wants a certificate from every learner")
        identity = caller.identity
        if isinstance(identity, BootstrapIdentity):
            raise IdentityError("a bootstrap certificate opens the Enroll call alone: enrol first")
        if identity.federation != self.federation:
            raise IdentityError(f"the certificate is of another federation (uid {identity.federation})")
        # What the ledger has under this key counts, and not the name: others may be able to sign under the same root.
        entry = self.ledger.recognise(caller.serial, caller.key, self.clock())
        if entry.learner != learner:
            raise IdentityError(f"the certificate is {entry.learner}'s and cannot speak for {learner[:80]}")

    def _refuse(self, code: grpc.StatusCode, words: str, learner: str, context: grpc.aio.ServicerContext) -> None:
        self.audit.record(Action.CALL_REFUSED, learner, context.peer(), words)
        raise NotAdmittedError(code, words)
