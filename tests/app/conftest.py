"""A headless Chromium, and servers with the page for it."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = int(os.environ.get("PATIENCE", 120_000))
"""Milliseconds that a page may take for anything, on a machine that has other things to do."""


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("gradio", reason="the page needs Gradio: pip install 'animagic[app]'")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'animagic[browser]'")
    if CHROMIUM is None:
        pytest.skip("the page is tested in Chromium: apt install chromium")
    # Of a module: as long as it runs, there is an event loop in the thread, and tests of others have none of their own.
    with playwright.sync_playwright() as driver:
        # As root there is no sandbox; sound needs no touch of the page.
        arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Opens an address in a window of that width; what goes wrong in its scripts fails the test."""
    contexts, wrong = [], []

    def visit(address: str, width: int = 1280, height: int = 900) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(address)
        page.locator(".am-empty, [data-am=panel]").first.wait_for(state="attached")
        page.wait_for_function("document.querySelector('.am-frames textarea')?.placeholder > ''")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def serve():
    """Starts a FastAPI server in a thread; returns its address."""
    import uvicorn

    started = []

    def serve(app: Any) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        started.append((server, thread))
        while not server.started and thread.is_alive():
            time.sleep(0.05)
        return f"http://127.0.0.1:{port}"

    yield serve
    for server, thread in started:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(autouse=True)
def own_uploads(tmp_path, monkeypatch):
    """What is uploaded lies in the test's own folder."""
    monkeypatch.setitem(os.environ, "GRADIO_TEMP_DIR", str(tmp_path / "uploads"))


@pytest.fixture
def wrong_picture(tmp_path) -> Path:
    path = tmp_path / "notes.png"
    path.write_text("this is no picture", "utf-8")
    return path
