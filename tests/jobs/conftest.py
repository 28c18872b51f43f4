"""Databases for the tests of jobs: a SQLite file, and a PostgreSQL server that is started once."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="jobs need SQLAlchemy: pip install -e '.[serve]'")


def _programs() -> Path | None:
    """The folder with initdb and pg_ctl."""
    found = [Path(path).resolve().parent for path in [shutil.which("postgres")] if path]
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return next((folder for folder in [*found, *reversed(folders)] if (folder / "initdb").exists()), None)


class Postgres:
    """A PostgreSQL server in a folder of its own, which can be stopped and started."""

    def __init__(self, programs: Path, folder: Path):
        self.programs, self.folder = programs, folder
        # PostgreSQL refuses to be run by root.
        self.user = "postgres" if os.geteuid() == 0 else None
        if self.user:
            shutil.chown(folder, self.user)
        self.run("initdb", "-D", folder / "data", "-U", "animagic", "-A", "trust", "-E", "UTF8", "--no-sync")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()
        self.execute("CREATE ROLE guest LOGIN")

    def run(self, program: str, *words) -> None:
        command = [self.programs / program, *map(str, words)]
        done = subprocess.run(
            command, user=self.user, cwd=self.folder, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        # A log, for otherwise the server would hold the pipe of pg_ctl open.
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.run("pg_ctl", "-D", self.folder / "data", "-w", "-l", self.folder / "log", "-o", options, "start")

    def stop(self, how: str = "fast") -> None:
        self.run("pg_ctl", "-D", self.folder / "data", "-w", "-m", how, "stop")

    def new_database(self) -> str:
        """The URL of an empty one: of a schema, which is made much sooner than a database."""
        name = f"schema_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE SCHEMA {name}; GRANT USAGE ON SCHEMA {name} TO guest")
        return f"postgresql+psycopg://animagic@127.0.0.1:{self.port}/postgres?options=-csearch_path%3D{name}"

    def execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(host="127.0.0.1", port=self.port, user="animagic", dbname="postgres") as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def postgres():
    pytest.importorskip("psycopg", reason="PostgreSQL needs psycopg: pip install -e '.[postgresql]'")
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt install postgresql")
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    # Not in pytest's folders: those are closed to other users, and sockets must have short paths.
    with tempfile.TemporaryDirectory(prefix="animagic-pg-") as folder:
        server = Postgres(programs, Path(folder))
        yield server
        server.stop("immediate")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    """Of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture
def store(url):
    from animagic.jobs.store import Store

    store = Store(url)
    yield store
    store.close()
