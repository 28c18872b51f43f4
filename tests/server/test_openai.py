"""The stock client of OpenAI, as it is."""

from __future__ import annotations

import asyncio
import warnings

import pytest

openai = pytest.importorskip("openai", reason="needs OpenAI's client: pip install -e '.[dev]'")
# The client marks its video calls as deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def sora(client):
    """OpenAI's client, whose requests go to the server without a network."""
    return openai.OpenAI(base_url="http://testserver/v1", api_key="none", http_client=client, max_retries=0)


def test_a_video_is_created_polled_and_downloaded(sora):
    video = sora.videos.create_and_poll(prompt="a red ball bounces", seconds="1", size="64x64", model="magi1-tiny")
    assert (video.status, video.progress, video.seconds, video.size) == ("completed", 100, "1", "64x64")
    assert video.completed_at >= video.created_at
    content = sora.videos.download_content(video.id).read()
    assert content[4:8] == b"ftyp"
    assert sora.videos.download_content(video.id, variant="thumbnail").read()[:2] == b"\xff\xd8"
    assert sora.videos.download_content(video.id, variant="spritesheet").read()[:2] == b"\xff\xd8"


def test_plain_words_are_enough(sora):
    """The client sends a form without a file."""
    assert sora.videos.create(prompt="a red ball bounces").status == "queued"


def test_options_of_ours_beside(sora):
    options = {"frames": 8, "steps": 4, "prompts_at": {"1": "it falls"}, "tiling": True}
    video = sora.videos.create(prompt="a red ball", extra_body=options)
    assert video.model_dump()["options"] == options


def test_the_picture_to_begin_from(sora, picture, service):
    import base64

    url = f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
    file = sora.files.create(file=picture, purpose="vision")
    for reference in (picture, picture.open("rb")):
        video = sora.videos.create(prompt="a red ball", input_reference=reference)
        assert service.requests[video.id].image.endswith(".png")
    for reference in ({"file_id": file.id}, {"image_url": url}):
        with pytest.raises(RuntimeError, match="but received <class 'dict'>"):  # a fault of this client
            sora.videos.create(prompt="a red ball", input_reference=reference)
        video = sora.videos.create(prompt="a red ball", extra_body={"input_reference": reference})
        assert service.requests[video.id].image.endswith(".png")
    assert sora.files.retrieve(file.id).bytes == picture.stat().st_size
    assert [one.id for one in sora.files.list()] == [file.id]
    assert sora.files.delete(file.id).deleted


def test_retrieve_list_and_delete(sora):
    ids = [sora.videos.create(prompt="a red ball", extra_body={"frames": 4}).id for _ in range(3)]
    assert sora.videos.retrieve(ids[0]).id == ids[0]
    assert [video.id for video in sora.videos.list(limit=2, order="asc")] == ids  # a page after the other
    gone = sora.videos.delete(ids[1])
    assert (gone.id, gone.deleted, gone.object) == (ids[1], True, "video.deleted")
    with pytest.raises(openai.NotFoundError, match="there is no video"):
        sora.videos.retrieve(ids[1])


def test_remix_extend_and_edit(sora, clip):
    source = sora.videos.create_and_poll(prompt="a red ball", seconds="1")
    remix = sora.videos.remix(source.id, prompt="a blue ball")
    assert (remix.remixed_from_video_id, remix.prompt) == (source.id, "a blue ball")
    by_id = {"video": openai.omit, "extra_body": {"video": {"id": source.id}}}  # as above
    longer = sora.videos.extend(prompt="it falls", seconds="4", **by_id)
    assert longer.model_dump()["total_frames"] == 24 + 96
    assert sora.videos.extend(prompt="it falls", seconds="1", video=clip).model_dump()["total_frames"] == 8 + 24
    assert sora.videos.edit(prompt="made of glass", **by_id).model == "animatediff-tiny"
    assert sora.videos.edit(prompt="made of glass", video=clip).status == "queued"


def test_characters_are_refused_in_a_sentence(sora, clip):
    with pytest.raises(openai.BadRequestError, match="characters are not kept here"):
        sora.videos.create_character(name="Ada", video=clip)
    with pytest.raises(openai.BadRequestError, match="characters are not kept here"):
        sora.videos.get_character("char_1")


def test_errors_are_of_their_kind(sora):
    with pytest.raises(openai.NotFoundError) as error:
        sora.videos.create(prompt="a", model="sora-2")
    assert (error.value.code, error.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="seconds must be a number"):
        sora.videos.create(prompt="a", seconds="long")


def test_models(sora):
    assert "magi1-tiny" in [model.id for model in sora.models.list()]
    assert sora.models.retrieve("magi1-tiny").owned_by == "animagic"


def test_keys_of_the_client(keyed):
    one = keyed("one")
    token = one.headers.pop("Authorization").removeprefix("Bearer ")
    sora = openai.OpenAI(base_url="http://testserver/v1", api_key=token, http_client=one, max_retries=0)
    assert sora.videos.list().data == []
    wrong = sora.with_options(api_key="ak_wrong")
    with pytest.raises(openai.AuthenticationError):
        wrong.videos.list()


def test_the_client_waits_as_long_as_it_is_told(sora, client):
    answer = sora.videos.with_raw_response.create(prompt="a red ball")
    assert int(answer.headers["openai-poll-after-ms"]) > 0


def test_the_asynchronous_client(app):
    import httpx2

    async def make() -> str:
        transport = httpx2.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport) as http:
            sora = openai.AsyncOpenAI(base_url="http://testserver/v1", api_key="none", http_client=http)
            return (await sora.videos.create_and_poll(prompt="a red ball", seconds="1")).status

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert asyncio.run(make()) == "completed"
