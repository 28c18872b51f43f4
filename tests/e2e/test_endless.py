"""Videos without an end, and prompts typed while they are made."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

PATIENCE = 120


@pytest.fixture
def endless(tmp_path, tiny_model):
    """Starts an endless video, types lines into it, and presses Ctrl-C."""

    def endless(*words, lines: str = "", seconds: float = 1.0):
        options = ("--model", str(tiny_model), "--frames", "endless", "--seed", "7")
        process = subprocess.Popen(
            [sys.executable, "-m", "animagic", "generate", "a red ball", *options, *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        if lines:
            process.stdin.write(lines)
            process.stdin.flush()
        try:
            deadline = time.monotonic() + PATIENCE
            while not list(tmp_path.glob(".*.part-*")) or seconds > 0:  # until frames are being written
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.1)
                seconds -= 0.1 if list(tmp_path.glob(".*.part-*")) else 0
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE)
            return process.returncode, out, err
        finally:
            process.kill()
            process.communicate()

    return endless


def test_ctrl_c_ends_it_with_what_is_final(endless, run, frames_of, tmp_path):
    code, out, err = endless("-o", "ball.mp4", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert "Ctrl-C again throws the video away" in err
    assert result["frames"] > 0
    assert result["frames"] % 8 == 0
    assert len(frames_of(tmp_path / "ball.mp4")) == result["frames"]
    assert {path.name for path in tmp_path.iterdir()} == {"ball.mp4"}
    again = run("reproduce", "ball.mp4", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["equal_frames"] == result["frames"]


def test_lines_typed_meanwhile_are_later_prompts_and_stay_in_the_file(endless, run, tmp_path):
    code, _, err = endless("-o", "ball.mp4", "--live", lines="a blue cat falls\n", seconds=2)
    assert code == 0, err
    assert "from the next chunk on: a blue cat falls" in err
    request = json.loads(run("info", "ball.mp4", "--json").out)["metadata"]["request"]
    prompts = [request["prompt"], *request["prompts_at"].values()]
    assert prompts in (["a red ball", "a blue cat falls"], ["a blue cat falls"])  # typed before the first chunk began
    assert json.loads(run("reproduce", "ball.mp4", "--json").out)["equal_frames"] == request["frames"]


def test_it_can_go_on_later(endless, tmp_path):
    code, out, err = endless("-o", "ball.mp4", "--resume", "--json", seconds=1)
    assert code == 0, err
    code, later, err = endless("-o", "ball.mp4", "--resume", "--json", seconds=2)
    assert code == 0, err
    assert json.loads(later)["frames"] > json.loads(out)["frames"]
    assert (tmp_path / "ball.mp4.resume").is_dir()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--frames", "endless", "-o", "ball.gif"), "without an end"),
        (("--frames", "forever"), "integer or endless"),
        (("--hand-over", "-1"), "hand_over must be at least 0"),
    ],
)
def test_wrong_input_is_refused(generate, words, said):
    refused = generate(*words)
    assert refused.code == 2
    assert said in refused.err
