"""Each tab makes a video with its embedded model, through server and worker, in as few steps as there may be."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def service(tmp_path):
    pytest.importorskip("gradio", reason="the page needs Gradio: pip install 'animagic[app]'")
    from animagic.jobs.service import Service
    from animagic.jobs.settings import Settings

    return Service(Settings(tmp_path / "service", threads=1))


@pytest.fixture
def address(service, serve, browser):
    from animagic import app, server

    return serve(app.mount(server.build(service), service))


def fill(page, **values: str) -> None:
    """Write into fields, by the names of options; those under Advanced, too."""
    for name, value in values.items():
        page.locator(f".am-{name} textarea:visible").fill(value)


def unfold(page) -> None:
    page.locator(".am-advanced:visible .label-wrap").click()
    page.locator(".am-steps textarea:visible").wait_for()


def made(page, service) -> dict:
    """The request of the video that is on the page, when it is finished."""
    page.locator("[data-am=panel][data-status=completed]").wait_for(timeout=600_000)
    page.wait_for_function("document.querySelector('video[data-am=video]').currentTime > 0", timeout=600_000)
    return service.get(page.url.partition("job=")[2]).request


def test_words_become_a_video_that_plays_before_it_is_whole(visit, address, service):
    page = visit(address)
    fill(page, prompt="a red ball bounces on a green floor", frames="120", prompts_at="3: a blue star spins at night")
    page.locator(".am-make:visible").click()
    page.wait_for_function("document.querySelector('video[data-am=video]').currentTime > 0.1", timeout=600_000)
    assert service.get(page.url.partition("job=")[2]).status == "in_progress"
    assert made(page, service)["prompts_at"] == {"3": "a blue star spins at night"}


def test_a_person_is_animated(visit, address, service):
    page = visit(address)
    page.get_by_role("tab", name="Animate a person").click()
    page.get_by_role("button", name="A person, and a dance").click()
    page.locator(".am-video:visible video").wait_for()
    unfold(page)
    fill(page, frames="8", steps="2")
    page.locator(".am-make:visible").click()
    assert made(page, service)["steps"] == 2


def test_a_portrait_speaks(visit, address, service, tmp_path):
    import wave

    with wave.open(str(tmp_path / "hum.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(range(256)) * 50)
    page = visit(address)
    page.get_by_role("tab", name="Talking portrait").click()
    page.get_by_role("button", name="A portrait that says hello").click()
    page.locator(".am-image:visible img").first.wait_for()
    page.locator(".am-audio input[type=file]").first.set_input_files(tmp_path / "hum.wav")
    page.locator(".am-audio #waveform").wait_for()
    unfold(page)
    fill(page, say="", frames="5", steps="2")
    page.locator(".am-make:visible").click()
    assert len(made(page, service)["audio"]) == 1


def test_a_model_learns_a_style(visit, address, tmp_path):
    import numpy as np

    from animagic.media import write_image

    for number in range(3):
        write_image(tmp_path / f"{number}.png", np.full((64, 64, 3), 60 * number, np.uint8))
    page = visit(address)
    page.get_by_role("tab", name="Personalise").click()
    page.locator(".am-pictures input[type=file]").set_input_files([tmp_path / f"{i}.png" for i in range(3)])
    page.get_by_label("Name").locator("visible=true").fill("Grey plates")
    page.locator(".am-learn-prompt textarea:visible").fill("a picture of a grey plate")
    page.get_by_text("Advanced").locator("visible=true").click()
    page.locator(".am-learn-steps textarea:visible").fill("2")
    page.get_by_role("button", name="Learn", exact=True).click()
    page.get_by_text("grey-plates: done").wait_for(timeout=600_000)
    page.get_by_role("button", name="Use it in Words & pictures").click()
    page.get_by_text("grey-plates.safetensors").first.wait_for(state="attached")
    assert page.get_by_role("tab", name="Words & pictures").get_attribute("aria-selected") == "true"
