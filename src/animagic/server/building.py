"""The server, put together."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import anyio
from fastapi import FastAPI, Response

from .. import __version__, zoo
from ..jobs.keys import Keys
from ..jobs.service import Service
from . import realtime, streaming, uploads, videos
from .answers import ServiceOf
from .errors import ApiError, add_handlers
from .fields import defaults, schemas
from .metrics import CONTENT_TYPE, Metrics
from .security import LOCAL, Guard, Log


def build(service: Service, *, token_needed: bool = False, hosts: tuple[str, ...] | None = LOCAL) -> FastAPI:
    """The server of a service, which it starts and stops.

    Args:
        token_needed: whether every request needs a key of the service's store.
        hosts: names by which it may be called; None: any. Where no key is needed, they keep pages of other sites out.
    """

    @contextlib.asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        # What a request is read with takes seconds to import: the first one should not wait for it. Before the service
        # starts, which imports as well: transformers cannot be imported by two threads.
        await anyio.to_thread.run_sync(lambda: [defaults(model.name) for model in service.models()])
        await anyio.to_thread.run_sync(service.start)
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(service.stop)

    # Its pages about the interface would fetch scripts from elsewhere.
    app = FastAPI(title="Animagic", version=__version__, lifespan=running, docs_url=None, redoc_url=None)
    app.state.service = service
    metrics = Metrics(service)
    app.add_middleware(Guard, keys=Keys(service.store) if token_needed else None, hosts=hosts)
    app.add_middleware(Log, metrics=metrics)  # outermost
    add_handlers(app)
    for room in (videos, streaming, uploads, realtime):
        app.include_router(room.router)
    _add_models(app)

    @app.get("/healthz", tags=["server"])
    def healthz(service: ServiceOf) -> dict[str, str]:
        """Whether the server can do its work: 503 if its database is away."""
        service.store.counts()
        return {"status": "ok", "version": __version__}

    @app.get("/metrics", tags=["server"], response_class=Response)
    def read_metrics() -> Response:
        """Figures for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    return app


def _add_models(app: FastAPI) -> None:
    @app.get("/v1/models", tags=["models"])
    def list_models(service: ServiceOf) -> dict[str, Any]:
        """The models, with the options that each has."""
        return {"object": "list", "data": [_model(model) for model in service.models()]}

    @app.get("/v1/models/{id}", tags=["models"])
    def retrieve_model(id: str, service: ServiceOf) -> dict[str, Any]:
        """One model, with its options."""
        for model in service.models():
            if model.name == id:
                return _model(model)
        raise ApiError(404, f"there is no model {id[:60]}.", "model_not_found", "model")


def _model(model: Any) -> dict[str, Any]:
    options = schemas(model.options_class)
    created = int(zoo.entry(model.name).folder.stat().st_mtime)
    facts = {"id": model.name, "object": "model", "created": created, "owned_by": "animagic"}
    return {**facts, "system": model.system, "title": model.title, "options": options}
