"""Clients of a server that `animagic serve` runs: `Client`, and `AsyncClient` for asyncio."""

from .asynchronous import AsyncClient
from .blocking import Client
from .live import Fragment
from .replies import Event, RequestRefused, ServerError, Video, VideoFailed

__all__ = ["AsyncClient", "Client", "Event", "Fragment", "RequestRefused", "ServerError", "Video", "VideoFailed"]
