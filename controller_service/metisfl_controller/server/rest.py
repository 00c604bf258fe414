"""The REST side: status, history and models for people, dashboards and the operator. Reads only."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, HTTPException, Path, Query, Response
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from metisfl.api import FederationDocument, ModelDocument, RoundDocument, UpdateDocument
from metisfl_controller.conductor.conductor import Conductor
from metisfl_controller.state.export import export, plan_of
from metisfl_controller.state.records import Outcome, StateError, StoredVersion
from metisfl_controller.status import federation_document, model_document, round_document, update_document

_VERSION = Path(description="A version number, or `latest`: the published version once there is one", max_length=20)

_After = Annotated[int, Query(ge=0, description="Only rounds with higher numbers: that of the last round of a page")]
_Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many")]


def build_app(conductor: Conductor) -> FastAPI:
    """The application, for one conductor that has started."""
    app = FastAPI(title="MetisFL controller", version="v1", docs_url="/docs", redoc_url=None)
    progress, store = conductor.progress, conductor.progress.store

    @app.get("/healthz", response_class=PlainTextResponse, summary="The process is alive")
    async def healthz() -> str:
        return "ok"

    @app.get("/readyz", response_class=PlainTextResponse, summary="Kernels are compiled and learners may join")
    async def readyz() -> str:
        return "ok"

    @app.get("/metrics", summary="Prometheus metrics")
    async def metrics() -> Response:
        return Response(generate_latest(conductor.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/federation", summary="Where the federation stands")
    async def federation() -> FederationDocument:
        return federation_document(conductor, await progress.published())

    @app.get("/v1/rounds", summary="Committed rounds, oldest first")
    async def rounds(after: _After = 0, limit: _Limit = 100) -> list[RoundDocument]:
        records = await progress.in_store(lambda: store.rounds(after, limit))
        return [round_document(record, progress) for record in records]

    @app.get("/v1/models", summary="Stored model versions, oldest first")
    async def models() -> list[ModelDocument]:
        return [model_document(version, progress) for version in await progress.in_store(store.stored)]

    @app.get("/v1/updates", summary="Learners' last updates that are kept, where spec.aggregation.keepUpdates asks so")
    async def updates() -> list[UpdateDocument]:
        kept = [] if conductor.lineage is None else await conductor.lineage.kept()
        return [update_document(update) for update in kept]

    @app.get("/v1/models/{version}", summary="One model version as a safetensors file")
    async def model(version: Annotated[str, _VERSION]) -> FileResponse:
        stored = _find(await progress.in_store(store.stored), version, progress.outcome)
        return FileResponse(
            store.path(stored),
            media_type="application/octet-stream",
            filename=f"{conductor.federation.metadata.name}-{stored.file}",
            headers={"X-Metisfl-Sha256": stored.sha256, "X-Metisfl-Version": str(stored.version)},
        )

    @app.get("/v1/archive", summary="Kept versions and history as a tar file that another controller goes on from")
    async def archive() -> StreamingResponse:
        name, configuration = conductor.federation.metadata.name, conductor.configuration
        plan = plan_of(configuration.plan, configuration.federation.spec, progress.learners)
        try:
            made = await progress.in_store(lambda: export(store, name, conductor.uid, plan))
        except StateError as error:
            raise HTTPException(409, str(error)) from error
        headers = {"Content-Length": str(made.size), "Content-Disposition": f'attachment; filename="{name}.tar"'}
        return StreamingResponse(made.content(), media_type="application/x-tar", headers=headers)

    return app


def _find(versions: list[StoredVersion], wanted: str, outcome: Outcome | None) -> StoredVersion:
    kept = {version.version: version for version in versions}
    if not kept:
        raise HTTPException(404, "no model version has been committed yet")
    if wanted == "latest":
        published = outcome.published_version if outcome else None
        return kept.get(max(kept) if published is None else published) or kept[max(kept)]
    if not (wanted.isascii() and wanted.isdigit()):
        raise HTTPException(422, f"'{wanted}' is not a version: give a number or 'latest'")
    if int(wanted) not in kept:
        raise HTTPException(404, f"version {wanted} is not kept; stored versions: {', '.join(map(str, sorted(kept)))}")
    return kept[int(wanted)]
