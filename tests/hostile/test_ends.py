"""However a run ends, nothing half-written is left, and a kept run goes on to the same bytes."""

import os
import signal
import time

import pytest

from animagic.media import read_metadata


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing(start, tmp_path, tiny_model, number):
    process = start("generate", "a red ball", "--model", tiny_model, "--frames", "2000", "-o", "new.mp4", "--preview")
    wait_for(lambda: list(tmp_path.glob(".new.part-*")), process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert (out, err.count("nothing half-written was left")) == ("", 1)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_goes_with_the_next(start, tmp_path, tiny_model, generate):
    process = start("generate", "a red ball", "--model", tiny_model, "--frames", "2000", "-o", "new.mp4")
    wait_for(lambda: list(tmp_path.glob(".new.part-*")), process)
    process.kill()
    process.wait()
    assert list(tmp_path.glob(".new.part-*"))
    assert generate("-o", "new.mp4", "--frames", "8").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["new.mp4"]


@pytest.mark.parametrize("note", [b"", b'{"prompt": "a'])
def test_a_kept_run_that_was_killed_while_it_began(generate, tmp_path, note):
    (tmp_path / "new.mp4.resume").mkdir()
    (tmp_path / "new.mp4.resume" / "request.json").write_bytes(note)
    assert generate("-o", "new.mp4", "--resume", "--frames", "8").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["new.mp4"]


def test_two_runs_on_one_output(start, tmp_path, tiny_model, generate):
    words = ["--model", tiny_model, "--frames", "2000", "-o", "new.mp4", "--resume", "--seed", "7"]
    process = start("generate", "a red ball bounces", *words)
    wait_for((tmp_path / "new.mp4.resume" / "state.safetensors").exists, process)
    generate("-o", "new.mp4", "--resume", "--frames", "2000").refused("in use by another run")


def test_what_was_typed_before_an_interruption_is_in_the_file(run, interrupt, tmp_path, tiny_model, monkeypatch):
    read, write = os.pipe()
    words = ["generate", "a red ball bounces", "--model", tiny_model, "--seed", "7", "--frames", "64", "--live",
             "--resume", "-o", "new.mp4"]  # fmt: skip
    state = tmp_path / "new.mp4.resume" / "state.safetensors"
    monkeypatch.setattr("sys.stdin", os.fdopen(read))
    os.write(write, b"a blue cat falls\n")
    clean = tmp_path / "new.mp4.resume"
    interrupt(lambda: state.exists() and len(list(clean.glob("clean-*"))) > 4, *words)
    monkeypatch.setattr("sys.stdin", None)  # closed
    assert run(*words).code == 0
    request = read_metadata(tmp_path / "new.mp4")["request"]
    assert "a blue cat falls" in (request["prompt"], *request["prompts_at"].values())
    ran = run("reproduce", "new.mp4", "-o", "again.mp4")
    assert "64 of 64 frames" in ran.err
