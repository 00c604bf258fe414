"""Security's part of the REST side: the token that it asks for, the audit trail, and the pods that there are."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field, StringConstraints
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from metisfl.api.access import TOKEN_HEADER
from metisfl.api.security import AuditDocument
from metisfl.spec.security import LearnerId
from metisfl_controller.security.audit import AuditEntry
from metisfl_controller.security.setup import Security
from metisfl_controller.settings import SettingsError

OPEN = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths for anybody who reaches the port; all others want the token."""

MIN_TOKEN_CHARACTERS = 16

Instances = Annotated[
    dict[LearnerId, Annotated[str, StringConstraints(min_length=1, max_length=64)]], Field(max_length=100_000)
]
_Limit = Annotated[int, Query(ge=1, le=10_000, description="The newest so many")]


def security_routes(security: Security) -> APIRouter:
    routes = APIRouter()

    @routes.get("/v1/audit", summary="Who enrolled, joined or was refused, newest first")
    async def audit(limit: _Limit = 100) -> list[AuditDocument]:
        await security.audit.flush()
        return [_document(entry) for entry in await asyncio.to_thread(security.store.audit, limit)]

    @routes.put("/v1/instances", summary="The operator announces the learners' pods: UID by learner", status_code=204)
    async def instances(pods: Instances) -> Response:
        security.ledger.announce(pods)
        return Response(status_code=204)

    return routes


class TokenGuard:
    """ASGI middleware: refuses requests to all but the open paths that do not bring the token."""

    def __init__(self, app: ASGIApp, token: Callable[[], str]) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN and not self._knows(scope):
            refusal = JSONResponse(
                {"detail": f"a token is needed: send it as 'Authorization: Bearer …' or '{TOKEN_HEADER}: …'"},
                status_code=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        headers = {name.lower(): value for name, value in scope["headers"]}
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        given = bearer.strip() if scheme.lower() == b"bearer" else headers.get(TOKEN_HEADER.lower().encode(), b"")
        return hmac.compare_digest(given, self._token().encode())


def token_source(file: Path) -> Callable[[], str]:
    """The token in a file, which may be replaced. Raises SettingsError when there is none at first."""

    def read() -> str:
        token = file.read_text().strip()
        if len(token) < MIN_TOKEN_CHARACTERS:
            raise ValueError(f"the token has fewer than {MIN_TOKEN_CHARACTERS} characters")
        return token

    try:
        read()
    except (OSError, ValueError) as error:
        raise SettingsError(f"METISFL_API_TOKEN_FILE={file}: {error}") from error
    return read


def _document(entry: AuditEntry) -> AuditDocument:
    return AuditDocument(
        time=datetime.fromtimestamp(entry.at, UTC),
        action=entry.action,
        learner=entry.learner,
        peer=entry.peer,
        detail=entry.detail,
    )
