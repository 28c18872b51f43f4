"""The commands that serve: videos over HTTP, the page, and the keys to both."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .app import Json, app, print_json, say
from .options import Device, Threads

if TYPE_CHECKING:
    from ..jobs.keys import Keys
    from ..jobs.settings import Settings

_FOLDER = "animagic-jobs"
_LOCAL = ("127.0.0.1", "::1", "localhost")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

serve = typer.Typer(help="Serve videos over HTTP, in the shape of OpenAI's.", no_args_is_help=False)
keys = typer.Typer(help="Who may use the server from elsewhere.", no_args_is_help=True)
serve.add_typer(keys, name="keys")
app.add_typer(serve, name="serve")

Host = Annotated[str, typer.Option(help="Address to listen on; any but this machine's own needs a key.")]
Port = Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65_535)]
Folder = Annotated[str, typer.Option(help="Where jobs, uploads and the database are kept.")]
Database = Annotated[
    str | None, typer.Option(metavar="URL", help="postgresql+psycopg://...; default: a file of SQLite in the folder.")
]
Memory = Annotated[
    str | None, typer.Option(help="Such as 12GB: for the models that stay loaded; default: one model stays.")
]
Keep = Annotated[
    str | None, typer.Option(help="How long a finished video is kept, such as 7d or 12h; default: for ever.")
]
Disk = Annotated[str | None, typer.Option(help="Such as 50GB: the most that videos take; the oldest go first.")]
Drain = Annotated[float, typer.Option(help="Seconds that a running video may go on when the server is to end.", min=0)]
Upload = Annotated[str, typer.Option(help="The largest file that is taken.")]
Queued = Annotated[int, typer.Option(help="The most unfinished videos of a key.", min=1)]
Frames = Annotated[int, typer.Option(help="The most frames of a video, given or made.", min=1)]
Pixels = Annotated[str, typer.Option(metavar="WIDTHxHEIGHT", help="The largest frame, given or made.")]


@serve.callback(invoke_without_command=True)
def serve_videos(
    context: typer.Context,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    folder: Folder = _FOLDER,
    database: Database = None,
    device: Device = None,
    threads: Threads = None,
    memory: Memory = None,
    keep: Keep = None,
    disk: Disk = None,
    drain: Drain = 5.0,
    max_upload: Upload = "256MB",
    max_queued: Queued = 100,
    max_frames: Frames = 10_000,
    max_size: Pixels = "4096x4096",
) -> None:
    """Serve videos over HTTP, in the shape of OpenAI's, until Ctrl-C."""
    if context.invoked_subcommand is None:
        limits = _limits(max_upload, max_queued, max_frames, max_size)
        settings = _settings(folder, database, device, threads, memory, keep, disk, drain, limits)
        _run(settings, host, port, page=False)


@app.command(name="app")
def app_page(
    host: Host = "127.0.0.1",
    port: Port = 7860,
    open: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    folder: Folder = _FOLDER,
    database: Database = None,
    device: Device = None,
    threads: Threads = None,
    memory: Memory = None,
    keep: Keep = None,
    disk: Disk = None,
    drain: Drain = 5.0,
) -> None:
    """Make videos on a page in the browser; the same server answers over HTTP."""
    settings = _settings(folder, database, device, threads, memory, keep, disk, drain, None)
    _run(settings, host, port, page=True, open=open)


def _limits(upload: str, queued: int, frames: int, size: str) -> Any:
    from ..doctor import parse_memory
    from ..jobs.settings import Limits
    from ..pipelines.flags import read_size

    sides = read_size(size)
    return Limits(
        upload=parse_memory(upload), pixels=sides["width"] * sides["height"], frames=frames, queued=queued
    )  # fmt: skip


def _settings(
    folder: str,
    database: str | None,
    device: str | None,
    threads: int | None,
    memory: str | None,
    keep: str | None,
    disk: str | None,
    drain: float,
    limits: Any,
) -> Settings:
    from ..doctor import parse_memory
    from ..jobs.settings import Limits, Settings

    return Settings(
        Path(folder).absolute(),
        database or "",
        device=device,
        threads=threads,
        memory=None if memory is None else parse_memory(memory),
        keep=None if keep is None else parse_time(keep),
        disk=None if disk is None else parse_memory(disk),
        drain=drain,
        limits=limits or Limits(),
    )


def parse_time(text: str) -> float:
    """ "7d", "12h", "30m", "90s" to seconds. Raises InputError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip().lower())
    if not found or not 0 < (seconds := float(found[1]) * _UNITS[found[2]]) < 1e10:
        raise InputError(f"{text!r} is not a time; write a number with its unit, such as 7d, 12h or 30m.")
    return seconds


def _run(settings: Settings, host: str, port: int, page: bool, open: bool = False) -> None:
    _need("fastapi", "serve")
    if page:
        _need("gradio", "app")
    import uvicorn

    from ..jobs.keys import Keys
    from ..jobs.service import Service
    from ..server import build
    from ..server.security import LOCAL, log_to_stderr

    service = Service(settings)
    local = host in _LOCAL
    has_keys = bool(Keys(service.store).list())
    if not local and not has_keys:
        raise InputError(
            f"{host} can be reached from elsewhere, and there is no key yet; make one: animagic serve keys add NAME."
        )
    api = build(service, token_needed=has_keys, hosts=None if has_keys else LOCAL)
    if page:
        from ..app import mount

        api = mount(api, service)
    log_to_stderr()
    config = uvicorn.Config(
        api,
        host,
        port,
        log_config=None,
        access_log=False,
        ws_max_size=4 * 2**20,
        limit_concurrency=1000,
        timeout_graceful_shutdown=2,  # a stream may last as long as its video
        server_header=False,
    )
    _server(config, open).run()


def _need(module: str, extra: str) -> None:
    """Raises InputError if an extra is not installed."""
    if find_spec(module) is None:
        raise InputError(f"this command needs more packages: pip install 'animagic[{extra}]'.")


def _server(config: Any, open: bool) -> Any:
    """A server that says where it listens, once it does."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if not self.started:
                return
            name = f"[{config.host}]" if ":" in config.host else config.host
            url = f"http://{name}:{self.servers[0].sockets[0].getsockname()[1]}"
            say(f"animagic: serving at {url}; Ctrl-C ends it")
            if open:
                import webbrowser

                webbrowser.open(url)

    return Server(config)


# ------------------------------------------------------------ keys


def _keys(folder: str, database: str | None) -> Keys:
    _need("sqlalchemy", "serve")
    from ..jobs.keys import Keys
    from ..jobs.settings import Settings
    from ..jobs.store import Store

    settings = Settings(Path(folder).absolute(), database or "")
    settings.folder.mkdir(parents=True, exist_ok=True)
    return Keys(Store(settings.url))


@keys.command()
def add(
    name: Annotated[str, typer.Argument(help="Whose it is, for people.")],
    priority: Annotated[int, typer.Option(help="Videos of higher priority are made first.")] = 0,
    queued: Annotated[int | None, typer.Option(help="The most unfinished videos; default: as for all keys.")] = None,
    folder: Folder = _FOLDER,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Make a key, and print it: it is not kept, and cannot be shown again."""
    key, token = _keys(folder, database).create(name, priority, queued)
    print_json({"name": key.name, "id": key.id, "key": token}) if as_json else print(token)


@keys.command(name="list")
def list_keys(folder: Folder = _FOLDER, database: Database = None, as_json: Json = False) -> None:
    """List the keys by name."""
    found = _keys(folder, database).list()
    if as_json:
        print_json({"keys": [{"name": key.name, "priority": key.priority, "queued": key.queued} for key in found]})
        return
    for key in found:
        most = "" if key.queued is None else f", at most {key.queued} unfinished"
        print(f"{key.name}  (priority {key.priority}{most})")


@keys.command()
def remove(
    name: Annotated[str, typer.Argument(help="As `list` shows it.")],
    folder: Folder = _FOLDER,
    database: Database = None,
) -> None:
    """Remove a key; from then on it opens nothing."""
    _keys(folder, database).revoke(name)
