"""Prompt enhancement: what is sent, what is taken, and every way in which an endpoint can fail."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from animagic.enhancement import MAX_BYTES, MAX_CHARACTERS, SYSTEM_PROMPT, openai_compatible
from animagic.errors import InputError
from animagic.media import read_metadata


def completion(content) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()


class Endpoint(HTTPServer):
    """A chat endpoint on this machine that remembers what it was sent."""

    def __init__(self):
        self.status, self.answer, self.headers, self.delay = 200, completion("A red ball, softly lit."), {}, 0.0
        self.requests: list = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                endpoint.requests.append((self.path, dict(self.headers), json.loads(body)))
                time.sleep(endpoint.delay)
                self.send_response(endpoint.status)
                for name, value in endpoint.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(endpoint.answer)

            do_GET = do_POST

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


@pytest.fixture
def endpoint(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_only_the_prompt_is_sent(endpoint):
    enhance = openai_compatible(endpoint.url + "/", "small", "secret")
    assert enhance("a ball") == "A red ball, softly lit."
    ((path, headers, body),) = endpoint.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body == {
        "model": "small",
        "messages": [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": "a ball"}],
    }


def test_nothing_is_sent_before_a_prompt_comes_and_no_key_where_there_is_none(endpoint):
    enhance = openai_compatible(endpoint.url + "?version=2", "small", system_prompt="Be brief.")
    assert not endpoint.requests
    enhance("a ball")
    ((path, headers, body),) = endpoint.requests
    assert path == "/v1/chat/completions?version=2"
    assert "Authorization" not in headers
    assert body["messages"][0]["content"] == "Be brief."


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("  Two\n\nlines\there ", "Two lines here"),
        ('"In quotation marks."', "In quotation marks."),
        ("“Curly ones.”", "Curly ones."),
        ("<think>Hm, a ball?\n</think>\nA ball.", "A ball."),
        ("A\u0007 ball\x1b[31m", "A ball[31m"),
        ("Ein Hund läuft über die Straße 猫", "Ein Hund läuft über die Straße 猫"),
    ],
)
def test_answers_become_one_line(endpoint, content, text):
    endpoint.answer = completion(content)
    assert openai_compatible(endpoint.url, "small")("a ball") == text


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "not a chat completion"),
        (b"<html>", "not a chat completion"),
        (b"\xff\xfe\x00", "not a chat completion"),
        (b"[]", "not a chat completion"),
        (b'{"choices": []}', "not a chat completion"),
        (b'{"choices": [{"message": {}}]}', "not a chat completion"),
        (completion(None), "not a chat completion"),
        (completion(["a ball"]), "not a chat completion"),
        (completion(" \n"), "without a word"),
        (completion('""'), "without a word"),
        (completion("a" * (MAX_CHARACTERS + 1)), f"with {MAX_CHARACTERS + 1} characters"),
        (b" " * (MAX_BYTES + 1), "longer than"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_strange_answers_are_refused(endpoint, answer, said):
    endpoint.answer = answer
    with pytest.raises(InputError, match=said):
        openai_compatible(endpoint.url, "small")("a ball")


def test_a_refusal_says_its_status_and_never_the_key(endpoint):
    endpoint.status, endpoint.answer = 401, b'{"error": "the key secret-7 is\n unknown"}'
    with pytest.raises(InputError, match="with status 401") as caught:
        openai_compatible(endpoint.url + "?key=hidden", "small", "secret-7")("a ball")
    message = str(caught.value)
    assert "is unknown" in message
    assert "secret-7" not in message
    assert "hidden" not in message
    assert "\n" not in message


def test_redirects_are_not_followed(endpoint):
    """They would take the prompt and the key elsewhere."""
    endpoint.status, endpoint.headers = 302, {"Location": endpoint.url + "/elsewhere"}
    with pytest.raises(InputError, match="with status 302"):
        openai_compatible(endpoint.url, "small", "secret")("a ball")
    assert len(endpoint.requests) == 1


def test_an_endpoint_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match=f"http://127.0.0.1:{port}/v1 cannot be reached"):
        openai_compatible(f"http://127.0.0.1:{port}/v1", "small")("a ball")


def test_an_endpoint_that_does_not_answer_is_said(endpoint):
    endpoint.delay = 0.5
    with pytest.raises(InputError, match=r"gave no answer within 0\.1 s"):
        openai_compatible(endpoint.url, "small", timeout=0.1)("a ball")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "http://"),
        ("localhost:8000/v1", "http://"),
        ("file:///etc/passwd", "http://"),
        ("http://", "http://"),
        ("http://host:many", "http://"),
        ("http://[::1", "http://"),
        ("https://me:secret@host/v1", "holds a password"),
    ],
)
def test_addresses_that_cannot_be_used(url, said):
    with pytest.raises(InputError, match=said) as caught:
        openai_compatible(url, "small")
    assert "secret" not in str(caught.value)


def test_other_values_that_cannot_be_used():
    with pytest.raises(InputError, match="name of the enhancing model"):
        openai_compatible("http://host/v1", " ")
    with pytest.raises(InputError, match="timeout"):
        openai_compatible("http://host/v1", "small", timeout=0)
    with pytest.raises(InputError, match="the key") as caught:
        openai_compatible("http://host/v1", "small", "se\ncret")
    assert "cret" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be reached"):
        openai_compatible("http://a space/v1", "small")("a ball")


# In the pipeline and on the command line


def test_the_pipeline_reads_what_the_enhancer_writes(tiny_pipe):
    import torch

    def better(text: str) -> str:
        return {"a ball": "a red ball bounces", "a cat": "a blue cat falls"}[text]

    def made(prompt, prompts_at, **arguments):
        noise = torch.Generator().manual_seed(1)
        return tiny_pipe(
            prompt, prompts_at=prompts_at, generator=noise, num_frames=24, output_type="latent", **arguments
        ).frames

    enhanced = made("a ball", {1: "a cat"}, prompt_enhancer=better)
    assert torch.equal(enhanced, made("a red ball bounces", {1: "a blue cat falls"}))
    two = made(["a ball", "a cat"], None, prompt_enhancer=better)
    assert torch.equal(two, made(["a red ball bounces", "a blue cat falls"], None))
    with pytest.raises(InputError, match="must return a text, not NoneType"):
        made("a ball", None, prompt_enhancer=lambda text: None)
    with pytest.raises(InputError, match="needs a prompt"):
        made(None, None, prompt_embeds=torch.zeros(1, 12, 8), prompt_enhancer=better)


def test_the_command_line_asks_the_endpoint_and_keeps_both_wordings(generate, run, endpoint, monkeypatch, tmp_path):
    endpoint.answer = completion("a red ball bounces on the floor")
    monkeypatch.setenv("ANIMAGIC_ENHANCE_KEY", "secret-7")
    enhance = ("--enhance", endpoint.url, "--enhance-model", "small")
    ran = generate("-o", "a.mp4", "--json", *enhance, prompt="a ball")
    assert ran.code == 0, ran
    assert ran.err.startswith("prompt: a red ball bounces on the floor\n")
    (sent,) = endpoint.requests
    assert (sent[1]["Authorization"], sent[2]["messages"][1]["content"]) == ("Bearer secret-7", "a ball")
    stored = read_metadata("a.mp4")
    assert stored["request"]["prompt"] == "a red ball bounces on the floor"
    assert stored["request"]["prompt_given"] == "a ball"
    everywhere = json.dumps(stored) + ran.out + ran.err + (tmp_path / "a.mp4").read_bytes().decode("latin-1")
    assert "secret-7" not in everywhere
    assert endpoint.url not in everywhere
    # Made again without asking again.
    assert json.loads(run("reproduce", "a.mp4", "--json").out)["equal_frames"] == 16
    assert len(endpoint.requests) == 1


def test_nothing_is_sent_unless_it_is_asked_for(generate, endpoint, monkeypatch):
    monkeypatch.setenv("ANIMAGIC_ENHANCE_KEY", "secret-7")
    assert generate("-o", "a.mp4", "--frames", "8").code == 0
    assert not endpoint.requests
    assert read_metadata("a.mp4")["request"]["prompt_given"] is None


def test_every_prompt_is_enhanced_and_an_interrupted_run_keeps_its_wording(endpoint, tmp_path):

    from animagic.requests import build_request, enhance, from_metadata, resume_folder

    request = build_request("a ball", prompts_at={1: "a cat"}, seed=1)
    better = openai_compatible(endpoint.url, "small")
    first = enhance(request, better, tmp_path / "a.mp4")
    assert (first.prompt, first.prompts_at) == ("A red ball, softly lit.", {1: "A red ball, softly lit."})
    assert (first.prompt_given, first.prompts_at_given) == ("a ball", {1: "a cat"})
    assert from_metadata(json.loads(json.dumps({"request": first.stored()}))) == first
    assert len(endpoint.requests) == 2

    folder = resume_folder(tmp_path / "a.mp4")
    folder.mkdir()
    (folder / "request.json").write_text(json.dumps(first.stored()))
    endpoint.answer = completion("Something else.")
    assert enhance(request, better, tmp_path / "a.mp4") == first
    assert len(endpoint.requests) == 2
    assert enhance(build_request("a boat"), better, tmp_path / "a.mp4").prompt == "Something else."
    (folder / "request.json").write_text("{")
    assert enhance(request, better, tmp_path / "a.mp4").prompt == "Something else."  # it had made nothing yet
    (folder / "state.safetensors").touch()
    with pytest.raises(InputError, match="is damaged; delete"):
        enhance(request, better, tmp_path / "a.mp4")


def test_an_endpoint_that_fails_ends_the_command_with_one_sentence(generate, endpoint, tmp_path):
    endpoint.status = 500
    before = sorted(tmp_path.rglob("*"))
    generate("-o", "a.mp4", "--enhance", endpoint.url, "--enhance-model", "small").refused("status 500")
    generate("-o", "a.mp4", "--enhance", "nowhere", "--enhance-model", "small").refused("http://")
    generate("-o", "a.mp4", "--enhance", endpoint.url).refused("--enhance-model")
    both = ("--enhance", endpoint.url, "--enhance-model", "small")
    generate("-o", "a.mp4", "--live", *both).refused("--enhance and --live exclude each other")
    assert sorted(tmp_path.rglob("*")) == before
