"""The commands that serve: videos over HTTP, the page, and the keys to both."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .app import Json, app, print_json, say
from .options import Device, Flags, Threads, takes_options

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

Folder = Annotated[str, typer.Option(help="Where jobs, uploads and the database are kept.")]
Database = Annotated[
    str | None, typer.Option(metavar="URL", help="postgresql+psycopg://...; default: a file of SQLite in the folder.")
]
Port = Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65_535)]


@dataclass(frozen=True)
class Serving(Flags):
    """How a server works, whatever it shows."""

    host: Annotated[str, typer.Option(help="Address to listen on; any but this machine's own needs a key.")] = (
        "127.0.0.1"
    )
    folder: Folder = _FOLDER
    database: Database = None
    device: Device = None
    threads: Threads = None
    memory: Annotated[
        str | None, typer.Option(help="Such as 12GB: for the models that stay loaded; default: one model stays.")
    ] = None
    keep: Annotated[
        str | None, typer.Option(help="How long a finished video is kept, such as 7d or 12h; default: for ever.")
    ] = None
    disk: Annotated[str | None, typer.Option(help="Such as 50GB: the most that videos take; the oldest go first.")] = (
        None
    )
    drain: Annotated[
        float, typer.Option(help="Seconds that a running video may go on when the server is to end.", min=0)
    ] = 5.0
    max_upload: Annotated[str, typer.Option(help="The largest file that is taken.")] = "256MB"
    max_queued: Annotated[int, typer.Option(help="The most unfinished videos of a key.", min=1)] = 100
    max_frames: Annotated[int, typer.Option(help="The most frames of a video, given or made.", min=1)] = 10_000
    max_size: Annotated[str, typer.Option(metavar="WIDTHxHEIGHT", help="The largest frame, given or made.")] = (
        "4096x4096"
    )

    def settings(self) -> Settings:
        """Raises InputError."""
        from ..doctor import parse_memory
        from ..jobs.settings import Limits, Settings
        from ..pipelines.flags import read_size

        sides = read_size(self.max_size)
        limits = Limits(
            upload=parse_memory(self.max_upload),
            pixels=sides["width"] * sides["height"],
            frames=self.max_frames,
            queued=self.max_queued,
        )
        return Settings(
            Path(self.folder).absolute(),
            self.database or "",
            device=self.device,
            threads=self.threads,
            memory=None if self.memory is None else parse_memory(self.memory),
            keep=None if self.keep is None else parse_time(self.keep),
            disk=None if self.disk is None else parse_memory(self.disk),
            drain=self.drain,
            limits=limits,
        )


@serve.callback(invoke_without_command=True)
@takes_options()
def serve_videos(
    context: typer.Context,
    port: Port = 8000,
    serving: Serving = Serving(),
) -> None:
    """Serve videos over HTTP, in the shape of OpenAI's, until Ctrl-C."""
    if context.invoked_subcommand is None:
        _run(serving, port, page=False)


@app.command(name="app")
@takes_options()
def app_page(
    port: Port = 7860,
    open: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    serving: Serving = Serving(),
) -> None:
    """Make videos on a page in the browser; the same server answers over HTTP."""
    _run(serving, port, page=True, open=open)


def parse_time(text: str) -> float:
    """ "7d", "12h", "30m", "90s" to seconds. Raises InputError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip().lower())
    if not found or not 0 < (seconds := float(found[1]) * _UNITS[found[2]]) < 1e10:
        raise InputError(f"{text!r} is not a time; write a number with its unit, such as 7d, 12h or 30m.")
    return seconds


def _run(serving: Serving, port: int, page: bool, open: bool = False) -> None:
    settings, host = serving.settings(), serving.host
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
    # uvicorn ends by SIGTERM as it should, and then sends it again: a server that was told to stop has not failed.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        _server(config, open).run()
    finally:
        signal.signal(signal.SIGTERM, before)


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
