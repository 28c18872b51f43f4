"""The page in a browser, with a service that makes stripes at a steady pace."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytestmark = pytest.mark.integration
NAMELESS = """[...document.querySelectorAll('input, textarea, select, button')].filter(node =>
    node.offsetParent && node.type !== 'file' && !node.labels?.length && !node.ariaLabel && !node.title
    && !node.textContent.trim() && !node.querySelector('img[alt]:not([alt=""]), title')).map(node => node.outerHTML)"""
"""Controls that can be seen and have no name."""
PROMPT = "a red ball bounces on a green floor"


@pytest.fixture
def service(tmp_path):
    pytest.importorskip("gradio", reason="the page needs Gradio: pip install 'animagic[app]'")
    from fake import FakeService

    return FakeService(tmp_path / "service", pace=1.0)


@pytest.fixture
def address(service, serve, browser):
    from fake import routes

    from animagic.app import mount

    return serve(mount(routes(service), service))


def make(page, prompt: str = PROMPT) -> None:
    page.locator(".am-prompt textarea:visible").fill(prompt)
    page.locator(".am-make:visible").click()
    page.locator("[data-am=panel]").wait_for()


def state(page) -> str:
    return page.locator("[data-am=state]").inner_text()


def finish(page) -> None:
    page.locator("[data-am=panel][data-status=completed]").wait_for()


def played(page) -> float:
    return page.locator("video[data-am=video]").evaluate("video => video.currentTime")


def test_the_video_plays_while_later_chunks_are_made(visit, address, service):
    service.pace = 3.0
    page = visit(address)
    make(page)
    page.wait_for_function("document.querySelector('video[data-am=video]').currentTime > 0.2")
    (job,) = service.jobs.values()
    assert job.status == "in_progress"
    assert re.search(r"Step \d+ of 24 · \d+ of 144 frames", state(page))
    assert "left" in page.locator("[data-am=left]").inner_text()
    assert page.locator("svg[data-am=plan] rect").count() > 3
    assert "latent frames are final" in page.locator("svg[data-am=plan]").get_attribute("aria-label")
    service.pace = 0.1
    finish(page)
    seconds = page.locator("video[data-am=video]").evaluate("video => video.duration")
    assert seconds == pytest.approx(6, abs=0.1)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.path().read_bytes() == service.folder(job.id).video.read_bytes()


def test_cancel_stops_it(visit, address, service):
    page = visit(address)
    make(page)
    page.get_by_role("button", name="Cancel").locator("visible=true").click()
    page.locator("[data-am=panel][data-status=cancelled]").wait_for()
    assert state(page) == "Cancelled"
    assert [job.error[0] for job in service.jobs.values()] == ["cancelled"]


def test_a_reload_and_a_second_device_keep_the_job(visit, address, service):
    page = visit(address)
    make(page)
    page.wait_for_function("document.querySelector('video[data-am=video]').currentTime > 0")
    (job,) = service.jobs
    assert page.url.endswith(f"?job={job}")
    page.reload()
    other = visit(page.url, width=390, height=844)
    for one in (page, other):
        one.wait_for_function("document.querySelector('video[data-am=video]').currentTime > 0.2")
        assert one.locator("[data-am=title]").inner_text() == PROMPT
        finish(one)


def test_an_unknown_job_is_told(visit, address):
    page = visit(f"{address}/?job=video_0")
    page.get_by_text("There is no job video_0.").wait_for()


def test_what_is_wrong_is_told_in_a_sentence(visit, address, wrong_picture, service):
    page = visit(address)
    page.locator(".am-make:visible").click()
    page.get_by_text("The prompt is empty; say what the video should show.").wait_for()
    page.locator(".am-image input[type=file]").first.set_input_files(wrong_picture)
    page.locator(".am-image img").first.wait_for()
    page.locator(".am-prompt textarea:visible").fill(PROMPT)
    page.locator(".am-make:visible").click()
    page.get_by_text(re.compile("notes.png is damaged or of an unknown kind")).wait_for()
    assert service.jobs == {}


def test_prompts_change_on_the_timeline_while_it_runs(visit, address, service):
    page = visit(address)
    service.pace = 16.0
    page.locator(".am-frames textarea:visible").fill("144")
    make(page)
    later = page.locator(".am-chunk[data-state='to come']").last
    later.click()
    page.get_by_label("Another prompt", exact=True).fill("it falls")
    page.get_by_role("button", name="Set", exact=True).click()
    page.get_by_text(re.compile(r"From chunk \d+ on: it falls")).wait_for()
    assert page.locator(".am-chunk", has_text="it falls").count() == 1
    assert service.prompts == [("it falls", 5)]


def test_a_finished_video_is_used_again(visit, address, service):
    page = visit(address)
    service.pace = 0.1
    page.locator(".am-frames textarea:visible").fill("96")
    make(page)
    finish(page)
    page.get_by_text("What it is made from").click()
    page.locator("[data-am=metadata]").get_by_text("96").wait_for()
    page.get_by_role("button", name="Use as input").click()
    page.locator(".am-video video:visible").first.wait_for()
    page.locator(".am-prompt textarea:visible").fill("something else")
    page.get_by_role("button", name="Take its settings").click()
    page.wait_for_function(f"document.querySelector('.am-prompt textarea').value === {PROMPT!r}")


def test_the_settings_of_a_file_fill_the_form(visit, address, tmp_path):
    import numpy as np

    from animagic import requests
    from animagic.media import VideoWriter

    request = requests.build_request("", "magicinfinite-tiny", image="/etc/hosts.png", say=("Hello.",), steps=3)
    with VideoWriter(tmp_path / "told.mp4", 24, metadata={"request": request.stored()}) as writer:
        writer.write(np.zeros((2, 16, 16, 3), np.uint8))
    page = visit(address)
    page.get_by_text("Take the settings of a file").click()
    page.locator(".am-settings input[type=file]").set_input_files(tmp_path / "told.mp4")
    say = page.locator(".am-say textarea:visible")
    say.wait_for()
    assert say.input_value() == "Hello."
    assert page.locator(".am-image:visible img").count() == 0  # another machine's file is not shown


def test_the_library_shows_compares_and_deletes(visit, address, service):
    page = visit(address)
    service.pace = 0.1
    for prompt in ("a red ball", "a blue ball"):
        make(page, prompt)
        page.wait_for_function(f"document.querySelector('[data-am=title]').textContent === {prompt!r}")
        finish(page)
    page.get_by_role("tab", name="Library").click()
    cards = page.locator(".am-card")
    cards.nth(1).wait_for()
    for number in range(2):
        cards.nth(number).get_by_label("compare").check()
    page.locator(".am-films video").nth(1).wait_for()
    row = page.locator("[data-am=differences] tr", has_text="prompt")
    assert "a blue ball" in row.inner_text()
    assert "a red ball" in row.inner_text()
    cards.nth(1).get_by_role("button", name="Show").click()
    page.wait_for_function("document.querySelector('[data-am=title]').textContent === 'a red ball'")
    page.on("dialog", lambda dialog: dialog.accept())
    cards.nth(0).get_by_role("button", name="Delete").click()
    page.wait_for_function("document.querySelectorAll('.am-card').length === 1")
    assert [job.request["prompt"] for job in service.jobs.values()] == ["a red ball"]


@pytest.mark.parametrize("width", [390, 1440])
def test_every_tab_fits_and_every_control_has_a_name(visit, address, width):
    page = visit(address, width=width)
    for title in ("Words & pictures", "Animate a person", "Talking portrait", "Personalise", "Library"):
        page.get_by_role("tab", name=title).click()
        page.wait_for_function("document.querySelectorAll('[role=tabpanel]').length > 0")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), title
        nameless = page.evaluate(NAMELESS)
        assert nameless == [], title
