"""Videos without an end, and prompts typed while they are made."""

import json
import signal
import time

import pytest

PATIENCE = 120


WORDS = ("generate", "a red ball", "--frames", "endless", "--seed", 7, "-o", "ball.mp4")


def test_ctrl_c_ends_it_with_what_is_final(start, run, frames_of, tiny_model, tmp_path):
    process = start(*WORDS, "--model", tiny_model, "--json")
    deadline = time.monotonic() + PATIENCE
    while not list(tmp_path.glob(".*.part-*")):  # until frames are being written
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert "Ctrl-C again throws the video away" in err
    assert result["frames"] > 0
    assert result["frames"] % 8 == 0
    assert len(frames_of(tmp_path / "ball.mp4")) == result["frames"]
    assert {path.name for path in tmp_path.iterdir()} == {"ball.mp4"}
    again = run("reproduce", "ball.mp4", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["equal_frames"] == result["frames"]


def test_lines_typed_meanwhile_are_later_prompts_and_stay_in_the_file(
    interrupt, run, tiny_model, tmp_path, monkeypatch
):
    def chunks() -> int:
        return len(list(tmp_path.glob("ball.mp4.resume/clean-*")))

    def typed():
        while chunks() < 2:
            time.sleep(0.01)
        yield "a blue cat falls\n"

    monkeypatch.setattr("sys.stdin", typed())
    ran = interrupt(lambda: chunks() > 12, *WORDS, "--model", tiny_model, "--live", "--resume")
    assert ran.code == 0, ran
    assert "from the next chunk on: a blue cat falls" in ran.err
    request = json.loads(run("info", "ball.mp4", "--json").out)["metadata"]["request"]
    assert [request["prompt"], *request["prompts_at"].values()] == ["a red ball", "a blue cat falls"]
    assert json.loads(run("reproduce", "ball.mp4", "--json").out)["equal_frames"] == request["frames"]


def test_it_can_go_on_later(interrupt, tiny_model, tmp_path):
    frames = []
    for start in (4, 12):  # latent frames; chunks are of two
        last = tmp_path / "ball.mp4.resume" / f"clean-{start:08d}.safetensors"
        ran = interrupt(last.exists, *WORDS, "--model", tiny_model, "--resume", "--json")
        assert ran.code == 0, ran
        frames.append(json.loads(ran.out)["frames"])
    assert 0 < frames[0] < frames[1]
    assert (tmp_path / "ball.mp4.resume").is_dir()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--frames", "endless", "-o", "ball.gif"), "without an end"),
        (("--frames", "forever"), "integer or endless"),
        (("--hand-over", "-1"), "--hand-over is -1; it must lie between"),
    ],
)
def test_wrong_input_is_refused(generate, words, said):
    refused = generate(*words)
    assert refused.code == 2
    assert said in refused.err
