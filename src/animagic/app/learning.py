"""A model learns from a few pictures, in a process of its own; one at a time."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import AnimagicError, InputError
from ..media.files import atomic_path
from ..requests import slug


class Learning:
    """What is being learned, or was last. It goes on when the page is closed, and ends with the server.

    Args:
        folder: where results lie.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._process: Any = None
        self._life: Any = None
        self._lock = threading.Lock()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def start(self, name: str, pictures: Sequence[str], model: str, **settings: Any) -> None:
        """Begin. settings: of `training.personalization.Personalization`, but for the pictures; None: its default.

        Raises: InputError for what can be refused at once.
        """
        if not name.strip():
            raise InputError("the name is empty; say how the result is to be called.")
        if not pictures:
            raise InputError("there are no pictures; give 3 to 20.")
        with self._lock:
            if self.running:
                raise InputError("a model is learning already; wait until it is done, or cancel it.")
            from ..training.personalization import Personalization, read_pictures, sheet_file

            place = self.folder / slug(name)
            if place.exists():
                raise InputError(f"there is a result called {slug(name)} already; choose another name.")
            for number, picture in enumerate(pictures):
                (place / "pictures").mkdir(parents=True, exist_ok=True)
                shutil.copyfile(picture, place / "pictures" / f"{number:03d}{Path(picture).suffix.lower()}")
            try:
                chosen = Personalization(place / "pictures", **settings)
                read_pictures(chosen)
            except AnimagicError:
                shutil.rmtree(place)
                raise
            output = place / f"{slug(name)}.safetensors"
            about = {"name": slug(name), "method": chosen.method, "model": model, "output": str(output)}
            _write(self._note, about | {"stage": "starting", "sheet": str(sheet_file(output))})
            context = multiprocessing.get_context("spawn")
            self._life, theirs = context.Pipe()
            values = {"pictures": str(place / "pictures"), **settings}
            self._process = context.Process(
                target=_learn, args=(theirs, self._note, values, model, str(output)), daemon=True
            )
            self._process.start()
            theirs.close()

    def cancel(self) -> None:
        """Stop, and throw away what was begun."""
        with self._lock:
            if not self.running:
                return
            self._life.close()  # which the process watches
            self._process.join(10)
            about = self._read()
            shutil.rmtree(Path(about["output"]).parent, ignore_errors=True)
            _write(self._note, about | {"stage": "cancelled"})

    def state(self) -> dict[str, Any]:
        """Where it stands: `stage` ("done", "failed", "cancelled" at the end; {} if there never was one), `done` of
        `total`, `seconds_left`, `loss`, `error`, `name`, `method`, `model`, `output`, `sheet`."""
        about = self._read()
        if about and not self.running and about["stage"] not in ("done", "failed", "cancelled"):
            about = self._read()  # it may have ended in between
            if about["stage"] not in ("done", "failed", "cancelled"):
                return about | {"stage": "failed", "error": "it ended without a result; see the log of the server."}
        return about

    @property
    def _note(self) -> Path:
        return self.folder / "learning.json"

    def _read(self) -> dict[str, Any]:
        return json.loads(self._note.read_text("utf-8")) if self._note.exists() else {}


def _write(note: Path, about: dict[str, Any]) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(note) as path:
        path.write_text(json.dumps(about), "utf-8")


def _learn(life: Any, note: Path, settings: dict[str, Any], model: str, output: str) -> None:
    """Runs in the process."""

    def watch() -> None:
        try:
            life.recv()
        except (EOFError, OSError):
            os._exit(1)  # cancelled, or the server is gone

    threading.Thread(target=watch, daemon=True).start()
    from .. import zoo
    from ..pipelines.devices import be_quiet

    be_quiet()
    from ..training.personalization import Personalization, personalize

    about = json.loads(note.read_text("utf-8"))
    told, stage_of, began = 0.0, "", 0.0

    def report(stage: str, done: int, total: int, values: dict[str, float]) -> None:
        nonlocal told, stage_of, began
        now = time.monotonic()
        if stage != stage_of:
            stage_of, began = stage, now
        elif now - told < 0.3 and done < total:
            return
        told = now
        left = (now - began) / done * (total - done) if done else None
        state = {"stage": stage, "done": done, "total": total, "seconds_left": left, "loss": values.get("loss")}
        _write(note, about | state)

    try:
        personalize(Personalization(**settings), zoo.resolve(model), output, on_progress=report)
    except AnimagicError as error:
        _write(note, about | {"stage": "failed", "error": str(error)})
    else:
        _write(note, about | {"stage": "done"})
