"""How long sound takes to be seen, by a clock that the tests turn."""

import math

import numpy as np
import pytest
import torch

from animagic.errors import InputError
from animagic.pipelines.latency import LatencyReport, theoretical_delay
from animagic.pipelines.sound_source import LiveSound
from animagic.timeline import FlowEuler, MovingFront, Sampler, Timeline, flow_levels


class Plain:
    """An encoder whose feature is the mean of the samples; it must hear a frame more."""

    layers, channels, before, after = 1, 1, 0, 1

    def encode(self, sound, first):
        return sound.view(-1, 320).mean(1)[:, None, None]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def arriving(seconds: float, begin: float = 0.0) -> np.ndarray:
    """When each 20 ms have arrived that are spoken in real time."""
    return begin + 0.02 * np.arange(1, round(seconds * 50) + 1)


def test_a_frame_waits_from_the_arrival_of_its_sound_until_it_is_handed_out():
    shown = 1.02 + 0.04 * np.arange(50)  # in real time
    report = LatencyReport(25, arriving(2), shown)
    np.testing.assert_allclose(report.waits, 1.0)
    assert report.facts() == {
        "frames": 50,
        "fps": 25,
        "wait_first": 1.0,
        "wait_median": 1.0,
        "wait_95_percent": 1.0,
        "wait_worst": 1.0,
        "gap_mean": 0.04,
        "gap_deviation": 0.0,
        "gap_worst": 0.04,
        "held_back": 0.0,
    }


def test_one_late_frame_is_seen_in_the_worst_and_in_the_jitter():
    shown = 1.02 + 0.04 * np.arange(50)
    shown[20:] += 0.3
    facts = LatencyReport(25, arriving(2), shown).facts()
    assert (facts["wait_first"], facts["wait_worst"], facts["gap_worst"]) == (1.0, 1.3, 0.34)
    assert facts["held_back"] == 0.3
    assert facts["gap_deviation"] == pytest.approx(0.3 * math.sqrt(48) / 49, abs=1e-4)


def test_frames_that_are_handed_out_together_must_be_held_back():
    shown = 1.0 + 0.16 * (np.arange(40) // 4)
    shown = np.concatenate([[1.0], shown[4:]])  # the first latent frame is one video frame
    facts = LatencyReport(25, arriving(3), shown).facts()
    assert facts["gap_worst"] == 0.16
    assert facts["held_back"] == pytest.approx(0.12)


@pytest.mark.parametrize("fps", [24, 25, 29.97])
def test_each_frame_is_held_against_its_own_sound(fps):
    """Sound that arrives in two bursts."""
    arrived = np.where(np.arange(100) < 50, 1.0, 2.0)
    report = LatencyReport(fps, arrived, np.full(int(2 * fps), 5.0))
    assert (report.waits == 4).sum() == math.ceil(fps)
    assert (report.waits == 3).sum() == int(2 * fps) - math.ceil(fps)


def test_switches_from_silence_to_speech_are_found():
    voiced = np.zeros(150, bool)
    voiced[20:60] = voiced[101:] = True
    shown = 1.02 + 0.04 * np.arange(75)
    shown[40:] += 0.5
    report = LatencyReport(25, arriving(3), shown, voiced)
    # 20 ms number 20 begins frame 10; number 101 is the second half of frame 50.
    np.testing.assert_allclose(report.speech_waits, [1.0, 1.48])
    facts = report.facts()
    assert (facts["speech_starts"], facts["speech_wait_median"], facts["speech_wait_worst"]) == (2, 1.24, 1.48)
    assert len(report.lines()) == 3
    assert report.lines()[2] == "from silence to speech, 2 times: seen after a median of 1.24 s, at worst 1.48 s"


def test_speech_from_the_beginning_on_is_a_switch_and_speech_that_is_not_shown_yet_is_none():
    voiced = np.zeros(150, bool)
    voiced[:20] = voiced[120:] = True
    report = LatencyReport(25, arriving(3), 1.02 + 0.04 * np.arange(50), voiced)
    np.testing.assert_allclose(report.speech_waits, [1.0])


def test_frames_after_the_end_of_the_sound_wait_for_nothing():
    report = LatencyReport(25, arriving(1), 1.02 + 0.04 * np.arange(100))
    assert len(report.waits) == 25
    assert len(report.gaps) == 99


def test_one_frame_has_a_report_of_one_line():
    assert LatencyReport(25, [0.02], [1.0]).lines() == [
        "sound in to picture out: 0.98 s for the first frame, median 0.98 s, 95 % within 0.98 s, "
        "at worst 0.98 s (1 frames)"
    ]


@pytest.mark.parametrize(("arrived", "shown"), [([], [1.0]), ([1.0], [])])
def test_nothing_has_no_report(arrived, shown):
    with pytest.raises(InputError, match="no latency to report"):
        LatencyReport(25, arrived, shown)


# Against a run


def measured(plan: MovingFront, seconds_a_call: float = 0.0, latents: int = 60) -> LatencyReport:
    """A video of sound that is spoken in real time, with a network that takes a fixed time. A second of silence and one
    of speech take turns."""
    clock, begin = Clock(), Clock.now
    tone = 0.3 * np.sin(np.arange(320 * 50))
    sound = np.concatenate([0 * tone, tone] * 6).astype(np.float32)

    blocks = enumerate(sound.reshape(-1, 320), start=1)
    heard, shown = LiveSound(Plain(), 25, step=1, clock=clock), []

    def arrive():
        number, block = next(blocks)
        due, now = begin + 0.02 * number, clock.now
        clock.now = due  # it is pushed when it is due, however long the network takes
        heard.push(block)
        clock.now = max(now, due)

    heard._ask = arrive

    def network(latents, window):
        assert heard.speech(window.frames).shape == (len(window.frames), 8, 1, 1)
        clock.now += seconds_a_call
        return torch.zeros_like(latents)

    timeline = Timeline(lambda frames: torch.zeros(1, 1, len(frames), 1, 1))
    for clean in Sampler(plan, network, FlowEuler(flow_levels(plan.num_steps)), timeline).run():
        shown += [clock()] * (4 * len(clean.frames) - 3 * (clean.frames.start == 0))
        if clean.frames.stop >= latents:
            break
    return heard.latency(shown)


@pytest.mark.parametrize(("num_steps", "front", "k"), [(4, 4, 1), (8, 4, 1), (4, 8, 1), (8, 6, 2), (7, 3, 1)])
def test_a_run_waits_as_long_as_its_plan_says(num_steps, front, k):
    delay = theoretical_delay(MovingFront(None, num_steps, front, 2, k), 25, lookahead_ms=20)
    assert delay.latent_frames == front
    assert delay.milliseconds == 40 * (4 * front + 2) + 20
    waits = measured(MovingFront(None, num_steps, front, 2, k)).waits
    # The report counts from the end of 20 ms of sound, the plan from their beginning.
    assert 1000 * waits[9:].max() == pytest.approx(delay.milliseconds - 20)
    assert waits[:9].max() <= waits[9:].max() + 1e-9


def test_what_the_network_takes_comes_on_top():
    plan = MovingFront(None, 8, front=4, context=2)
    alone, with_network = measured(plan), measured(plan, seconds_a_call=0.04)  # 80 ms a latent frame, of 160
    extra = with_network.waits[20:].max() - alone.waits[20:].max()
    assert 0.04 <= extra <= 0.09
    assert with_network.waits[20:].max() == pytest.approx(with_network.waits[-40:].max())  # it does not fall behind


def test_a_network_that_is_too_slow_falls_behind_and_the_report_says_so():
    report = measured(MovingFront(None, 8, front=4, context=2), seconds_a_call=0.1)  # 200 ms a latent frame, of 160
    facts = report.facts()
    assert facts["gap_mean"] == pytest.approx(0.05, rel=0.05)
    assert facts["wait_worst"] > facts["wait_first"] + 2
    assert facts["held_back"] > 2


def test_speech_is_seen_as_late_as_anything_else():
    plan = MovingFront(None, 4, front=4, context=2)
    report = measured(plan)
    assert report.facts()["speech_starts"] == 5  # in 9.5 s, at 1, 3, 5, 7 and 9
    assert report.facts()["speech_wait_worst"] <= theoretical_delay(plan, 25, 20).milliseconds / 1000
