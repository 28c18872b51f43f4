"""Videos over HTTP: each field, each answer."""

from __future__ import annotations

import base64
import json
import re

import pytest

PROMPT = {"prompt": "a red ball bounces"}


def refused(answer, status: int, code: str, *words: str, param: str | None = None) -> None:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].count("\n") == 0
    for word in words:
        assert word in error["message"], error
    assert param is None or error["param"] == param, error


def test_a_video_is_queued_made_and_fetched(client, finished):
    answer = client.post("/v1/videos", json={**PROMPT, "seconds": "0.5", "size": "64x48", "seed": 7})
    video = answer.json()
    assert re.fullmatch(r"video_[0-9a-f]{32}", video["id"])
    assert (video["object"], video["model"], video["prompt"]) == ("video", "magi1-tiny", PROMPT["prompt"])
    assert video["status"] in ("queued", "in_progress")
    assert (video["seconds"], video["size"], video["seed"]) == ("0.5", "64x48", 7)
    assert video["options"] == {"frames": 12, "fps": 24.0, "width": 64, "height": 48}
    assert 250 <= int(answer.headers["openai-poll-after-ms"]) <= 5000
    done = finished(client, video["id"])
    assert (done["status"], done["progress"], done["error"]) == ("completed", 100, None)
    assert done["completed_at"] >= done["created_at"]
    content = client.get(f"/v1/videos/{video['id']}/content")
    assert content.headers["content-type"] == "video/mp4"
    assert content.content[4:8] == b"ftyp"


def test_a_part_of_the_content_can_be_asked_for(client, made):
    id = made()["id"]
    part = client.get(f"/v1/videos/{id}/content", headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp")


@pytest.mark.parametrize("variant", ["thumbnail", "spritesheet"])
def test_pictures_of_a_video(client, made, variant):
    answer = client.get(f"/v1/videos/{made()['id']}/content", params={"variant": variant})
    assert (answer.headers["content-type"], answer.content[:2]) == ("image/jpeg", b"\xff\xd8")


def test_progress_is_that_of_the_work(client, service):
    service.gate.clear()
    id = client.post("/v1/videos", json={**PROMPT, "frames": 8}).json()["id"]
    assert client.get(f"/v1/videos/{id}").json()["progress"] == 0
    service.store.update(id, status="in_progress", report={"step": 3, "total_steps": 8, "seconds_left": 8.0})
    answer = client.get(f"/v1/videos/{id}")
    assert (answer.json()["progress"], answer.json()["seconds_left"]) == (37, 8.0)
    assert answer.headers["openai-poll-after-ms"] == "2000"


def test_the_place_in_the_queue(client, service):
    service.gate.clear()
    ids = [client.post("/v1/videos", json=PROMPT).json()["id"] for _ in range(3)]
    assert [client.get(f"/v1/videos/{id}").json()["queue_position"] for id in ids] == [0, 1, 2]


def test_the_content_of_a_video_that_is_not_ready(client, service):
    service.gate.clear()
    id = client.post("/v1/videos", json=PROMPT).json()["id"]
    refused(client.get(f"/v1/videos/{id}/content"), 404, "video_not_ready", "not ready yet")
    client.post(f"/v1/videos/{id}/cancel")
    refused(client.get(f"/v1/videos/{id}/content"), 404, "video_failed", "stopped")


def test_the_list_goes_on_after_its_last_one(client, made):
    ids = [made()["id"] for _ in range(3)]
    first = client.get("/v1/videos", params={"limit": 2, "order": "asc"}).json()
    assert [video["id"] for video in first["data"]] == ids[:2] == [first["first_id"], first["last_id"]]
    assert first["has_more"]
    rest = client.get("/v1/videos", params={"limit": 2, "order": "asc", "after": first["last_id"]}).json()
    assert ([video["id"] for video in rest["data"]], rest["has_more"]) == (ids[2:], False)
    assert client.get("/v1/videos").json()["data"][0]["id"] == ids[-1]


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 101}, {"order": "up"}, {"after": "video_no"}])
def test_a_list_that_cannot_be_given(client, query):
    refused(client.get("/v1/videos", params=query), 400, "invalid_value")


def test_a_deleted_video_is_gone(client, made):
    id = made()["id"]
    assert client.delete(f"/v1/videos/{id}").json() == {"id": id, "deleted": True, "object": "video.deleted"}
    refused(client.get(f"/v1/videos/{id}"), 404, "not_found")


def test_a_running_video_is_cancelled(client, service, finished):
    service.gate.clear()
    id = client.post("/v1/videos", json=PROMPT).json()["id"]
    video = client.post(f"/v1/videos/{id}/cancel").json()
    assert (video["status"], video["error"]["code"]) == ("failed", "cancelled")


def test_a_remix_keeps_what_is_not_changed(client, made, finished):
    source = made(seed=5)
    answer = client.post(f"/v1/videos/{source['id']}/remix", json={"prompt": "a blue ball", "steps": 4})
    video = answer.json()
    assert (video["prompt"], video["seed"], video["remixed_from_video_id"]) == ("a blue ball", 5, source["id"])
    assert video["options"] == {"frames": 8, "steps": 4}
    refused(client.post(f"/v1/videos/{source['id']}/remix", json={}), 400, "invalid_value", "prompt")
    refused(client.post("/v1/videos/video_x/remix", json=PROMPT), 404, "not_found")


def test_a_video_is_continued(client, made):
    source = made()
    body = {"prompt": "it falls", "seconds": "0.5", "video": {"id": source["id"]}}
    video = client.post("/v1/videos/extensions", json=body).json()
    assert (video["extended_from_video_id"], video["total_frames"]) == (source["id"], 8 + 12)
    body["video"], body["frames"] = source["id"], body.pop("seconds") and 4
    assert client.post("/v1/videos/extensions", json=body).json()["total_frames"] == 12
    refused(client.post("/v1/videos/extensions", json={**body, "frames": None}), 400, "invalid_value", "seconds")
    refused(client.post("/v1/videos/extensions", json={**PROMPT, "seconds": 1}), 400, "invalid_value", param="video")


def test_a_clip_is_continued(client, clip):
    with clip.open("rb") as file:
        answer = client.post("/v1/videos/extensions", data={**PROMPT, "seconds": "0.5"}, files={"video": file})
    assert answer.json()["options"]["frames"] == 8 + 12


def test_a_video_that_its_system_cannot_continue(client, made):
    source = made(model="animatediff-tiny")
    body = {**PROMPT, "frames": 4, "video": {"id": source["id"]}}
    refused(client.post("/v1/videos/extensions", json=body), 400, "invalid_value", "cannot continue")


def test_a_video_is_edited_by_a_system_that_can(client, made, clip):
    source = made()
    video = client.post("/v1/videos/edits", json={**PROMPT, "video": {"id": source["id"]}, "strength": 0.5}).json()
    assert (video["model"], video["options"]["strength"]) == ("animatediff-tiny", 0.5)
    with clip.open("rb") as file:
        assert client.post("/v1/videos/edits", data=PROMPT, files={"video": file}).status_code == 200


def test_characters_are_refused_in_a_sentence(client):
    refused(client.post("/v1/videos/characters", data={"name": "x"}), 400, "not_supported", "MagicAnimate")
    refused(client.get("/v1/videos/characters/char_1"), 400, "not_supported", "MagicAnimate")


def test_a_video_in_one_call(client):
    answer = client.post("/v1/videos/sync", json={**PROMPT, "frames": 8})
    assert (answer.headers["content-type"], answer.content[4:8]) == ("video/mp4", b"ftyp")
    assert client.get(f"/v1/videos/{answer.headers['x-video-id']}").json()["status"] == "completed"


def test_another_prompt_while_it_is_made(client, service):
    service.gate.clear()
    id = client.post("/v1/videos", json=PROMPT).json()["id"]
    assert client.post(f"/v1/videos/{id}/prompt", json={"prompt": "it falls"}).json() == {"chunk": 1}
    assert client.post(f"/v1/videos/{id}/prompt", data={"prompt": "it falls", "chunk": "3"}, files={"x": b""}).json()
    assert client.post(f"/v1/videos/{id}/prompt", json={"prompt": "it falls", "chunk": 3}).json() == {"chunk": 3}
    for body in ({}, {"prompt": 3}, {**PROMPT, "chunk": "x"}, {**PROMPT, "chunk": -1}, {**PROMPT, "other": 1}):
        refused(client.post(f"/v1/videos/{id}/prompt", json=body), 400, "invalid_value")


# Fields


def test_a_form_without_a_file_is_a_request(client):
    parts = {name: (None, value) for name, value in {**PROMPT, "seconds": "0.5", "seed": "3"}.items()}
    video = client.post("/v1/videos", files=parts).json()
    assert (video["options"]["frames"], video["seed"]) == (12, 3)


def test_options_have_the_names_and_ranges_of_their_classes(client):
    body = {**PROMPT, "model": "animatediff-tiny", "window": 8, "loop": True, "prompts_at": {"4": "it falls"}}
    assert client.post("/v1/videos", json=body).json()["options"] == {
        "window": 8, "loop": True, "prompts_at": {"4": "it falls"}
    }  # fmt: skip
    refused(
        client.post("/v1/videos", json={**body, "window": 0}),
        400,
        "invalid_value",
        "window is 0; it must lie between 1",
        param="window",
    )
    refused(
        client.post("/v1/videos", json={**PROMPT, "window": 8}), 400, "unknown_parameter", "AnimateDiff", param="window"
    )
    refused(
        client.post("/v1/videos", json={**PROMPT, "promt": "x"}), 400, "unknown_parameter", "prompt?", param="promt"
    )


def test_many_values_in_a_form(client):
    form = [("prompt", "a"), ("prompts_at", "1:it falls"), ("prompts_at", "2:it rises"), ("tiling", "true")]
    video = client.post("/v1/videos", files=[(name, (None, value)) for name, value in form]).json()
    assert video["options"] == {"prompts_at": {"1": "it falls", "2": "it rises"}, "tiling": True}
    for written in ('{"1": "it falls"}', None):
        name = "prompts_at" if written else "prompts_at[1]"
        form = [("prompt", "a"), (name, written or "it falls")]
        video = client.post("/v1/videos", files=[(name, (None, value)) for name, value in form]).json()
        assert video["options"] == {"prompts_at": {"1": "it falls"}}


def test_the_names_of_other_servers(client):
    body = {**PROMPT, "num_frames": 9, "num_inference_steps": 4, "guidance_scale": 2}
    options = {"frames": 9, "steps": 4, "guidance": 2.0}
    assert client.post("/v1/videos", json=body).json()["options"] == options
    refused(client.post("/v1/videos", json={**body, "frames": 9}), 400, "invalid_value", "leave one out")


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"model": "sora-2"}, 404, "model_not_found", "model"),
        ({"model": "/etc/passwd"}, 404, "model_not_found", "model"),
        ({"model": "owner/name"}, 404, "model_not_found", "model"),
        ({"model": 3}, 404, "model_not_found", "model"),
        ({"seconds": "long"}, 400, "invalid_value", "seconds"),
        ({"seconds": -1}, 400, "invalid_value", "seconds"),
        ({"seconds": True}, 400, "invalid_value", "seconds"),
        ({"seconds": 4, "frames": 4}, 400, "invalid_value", "seconds"),
        ({"size": "large"}, 400, "invalid_value", "size"),
        ({"size": 64}, 400, "invalid_value", "size"),
        ({"size": "64x64", "width": 64}, 400, "invalid_value", "width"),
        ({"frames": 201}, 400, "invalid_value", None),
        ({"frames": "endless"}, 400, "invalid_value", "frames"),
        ({"prompt": " "}, 400, "invalid_value", None),
        ({"prompt": None}, 400, "invalid_value", None),
        ({"seed": 2**64}, 400, "invalid_value", "seed"),
        ({"live": True}, 400, "unknown_parameter", "live"),
        ({"memory": "1GB"}, 400, "unknown_parameter", "memory"),
        ({"endless": True}, 400, "unknown_parameter", "endless"),
        ({"settings": ["a=b"]}, 400, "unknown_parameter", "settings"),
        ({"special_token_file": "/etc/passwd"}, 400, "unknown_parameter", "special_token_file"),
        ({"image": "/etc/passwd"}, 400, "invalid_value", "image"),
        ({"image": "../../x.png"}, 400, "invalid_value", "image"),
        ({"image": "http://169.254.169.254/"}, 400, "url_not_fetched", "image"),
        ({"input_reference": {"image_url": "https://example.org/x.png"}}, 400, "url_not_fetched", "input_reference"),
        ({"input_reference": {"file_id": "file_0"}}, 404, "file_not_found", None),
        ({"input_reference": {"path": "x"}}, 400, "invalid_value", "input_reference"),
        ({"input_reference": 3}, 400, "invalid_value", "input_reference"),
        ({"image": "data:image/png,abc"}, 400, "invalid_value", "image"),
        ({"image": "data:image/png;base64,???"}, 400, "invalid_value", "image"),
        ({"image": "data:image/png;base64,aGVsbG8="}, 400, "invalid_file", "image"),
        ({"loras": {"/etc/passwd": 1.0}}, 400, "invalid_value", "loras"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_used(client, fields, status, code, param):
    refused(client.post("/v1/videos", json={**PROMPT, **fields}), status, code, param=param)


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"3", b"null", b"[" * 100_000, b'{"prompt": NaN}', b'{"prompt": "\\ud800"}',
     b'{"prompt": "a\\u0000"}', b"\xff\xfe", b'{"prompt": "a", "guidance": 1e999}', b'{"seed": ' + b"1" * 5000 + b"}"],
)  # fmt: skip
def test_a_body_that_is_no_request(client, body):
    answer = client.post("/v1/videos", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert len(answer.json()["error"]["message"]) < 300


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/mixed"])
def test_a_body_of_another_kind(client, kind):
    refused(client.post("/v1/videos", content=b"x", headers={"Content-Type": kind}), 415, "unsupported_media_type")


def test_a_compressed_body_is_not_unpacked(client):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    refused(client.post("/v1/videos", content=b"x", headers=headers), 415, "unsupported_media_type")


def test_loras_of_the_model_have_names(client):
    body = {**PROMPT, "model": "animatediff-tiny"}
    names = client.get("/v1/models/animatediff-tiny").json()
    assert names["options"]["motion_loras"]["type"] == "object"
    own = json.loads(client.post("/v1/videos", json={**body, "motion_loras": {"x": 1.0}}).text)["error"]["message"]
    name = re.search(r"it has ([\w-]+)", own)[1]
    video = client.post("/v1/videos", json={**body, "motion_loras": {name: 0.5}}).json()
    assert video["options"]["motion_loras"] == {name: 0.5}


# Files


def test_a_picture_comes_as_file_data_url_or_id(client, service, picture):
    data = picture.read_bytes()
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    id = client.post("/v1/files", files={"file": ("../../photo.exe", data)}, data={"purpose": "vision"}).json()["id"]
    for reference in (url, {"image_url": url}, id, {"file_id": id}):
        for field in ("input_reference", "image"):
            video = client.post("/v1/videos", json={**PROMPT, field: reference}).json()
            assert service.requests[video["id"]].image.endswith(".png"), (field, video)
    for parts in (
        {"input_reference": ("x.exe", data)},
        {"image": ("x", data)},
        {"input_reference[file_id]": (None, id)},
        {"input_reference[image_url]": (None, url)},
    ):
        video = client.post("/v1/videos", data=PROMPT, files=parts).json()
        kept = list(service.folder(video["id"]).root.glob("*.png"))
        assert [file.read_bytes() for file in kept] == [data]
    assert not list((service.settings.folder / "incoming").iterdir())


def test_a_clip_is_a_video(client, service, clip):
    answer = client.post("/v1/videos", data=PROMPT, files={"input_reference": ("x.jpg", clip.read_bytes())})
    assert service.requests[answer.json()["id"]].video.endswith(".mp4")


def test_files_in_lists_and_by_number(client, service, picture, voice):
    talk = {"model": "magicinfinite-tiny", "prompt": ""}
    files = [("image", picture.read_bytes()), ("audio", voice.read_bytes()), ("audio", voice.read_bytes())]
    answer = client.post("/v1/videos", data=talk, files=files)
    assert [path[-4:] for path in service.requests[answer.json()["id"]].audio] == [".wav", ".wav"]
    url = f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
    answer = client.post("/v1/videos", json={**talk, "image": url, "audio": ["live", "silence"]})
    assert service.requests[answer.json()["id"]].audio == ("live", "silence")
    body = {**PROMPT, "model": "animatediff-tiny"}
    by_number = client.post("/v1/videos", json={**body, "controls": {"3": url}})
    in_form = client.post("/v1/videos", data=body, files={"controls[3]": picture.read_bytes()})
    for answer in (by_number, in_form):
        assert [*service.requests[answer.json()["id"]].controls] == [3]


def test_files_are_listed_and_deleted(client, picture):
    sent = client.post("/v1/files", files={"file": ("photo.png", picture.read_bytes())}).json()
    assert (sent["object"], sent["filename"], sent["bytes"]) == ("file", "photo.png", picture.stat().st_size)
    assert client.get("/v1/files").json()["data"] == [sent] == [client.get(f"/v1/files/{sent['id']}").json()]
    assert client.delete(f"/v1/files/{sent['id']}").json()["deleted"]
    refused(client.get(f"/v1/files/{sent['id']}"), 404, "file_not_found")
    refused(client.post("/v1/files", json={}), 400, "invalid_value", param="file")


def test_the_description_shows_every_option_with_its_range(client):
    from animagic.server.fields import offered
    from animagic.systems import SYSTEMS

    schema = client.get("/openapi.json").json()["paths"]["/v1/videos"]["post"]["requestBody"]["content"]
    shown = schema["application/json"]["schema"]["properties"]
    assert shown == schema["multipart/form-data"]["schema"]["properties"]
    for system in SYSTEMS.values():
        assert not offered(system.options_class).keys() - shown.keys()
    assert {"minimum": 1, "maximum": 1000, "type": "integer"} in shown["steps"]["anyOf"]
    assert "Only AnimateDiff" in shown["sampler"]["description"]
    assert {"seconds", "size", "input_reference", "model"} <= shown.keys()
    assert not {"motion_module", "live", "memory", "settings"} & shown.keys()


def test_models_say_what_they_take(client):
    models = {model["id"]: model for model in client.get("/v1/models").json()["data"]}
    assert models["magi1-tiny"]["object"] == "model"
    assert models["magi1-tiny"]["options"]["steps"]["description"]
    assert "window" in models["animatediff-tiny"]["options"]
    assert "window" not in models["magi1-tiny"]["options"]
    refused(client.get("/v1/models/none"), 404, "model_not_found")


def test_an_idempotency_key_finds_the_job_again(client, service):
    service.gate.clear()
    headers = {"Idempotency-Key": "once"}
    first, second = (client.post("/v1/videos", json=PROMPT, headers=headers).json()["id"] for _ in range(2))
    assert first == second
    other = client.post("/v1/videos", json={"prompt": "something else"}, headers=headers)
    refused(other, 422, "idempotency_key_reused")
    refused(client.post("/v1/videos", json=PROMPT, headers={"Idempotency-Key": "x" * 256}), 400, "invalid_value")
