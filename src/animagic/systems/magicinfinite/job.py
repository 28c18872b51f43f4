"""Requests for MagicInfinite."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import InputError
from ...media.frames import beside, size_like
from ...media.framing import Framing
from ...media.sound import ArrivingSound, Sound
from ...pipelines.drift import Drift
from ...pipelines.dubbing import Dub
from ...pipelines.job import Job
from ...pipelines.latency import LatencyReport
from ...pipelines.sound_source import LiveSound, frames_of
from ...pipelines.speakers import Speaker, read_speakers
from ...pipelines.voices import LIVE, RATE, SILENCE, Say, Voice, soundtrack
from ...timeline import Plan


class MagicInfiniteJob(Job):
    """A request for a portrait that speaks, or for a video in which somebody speaks otherwise."""

    speakers: Sequence[Speaker]
    picture: np.ndarray
    framing: Framing
    dub: Dub | None = None
    drift: Drift

    def begin(self, pipe: Any) -> None:
        request, sampling = self.request, pipe.sampling
        source = request.image or request.video
        if source is None:
            raise InputError("give a portrait, or a video in which somebody is to speak otherwise.")
        if request.fps is not None and request.fps != sampling.fps:
            raise InputError(
                f"the model makes {sampling.fps:g} frames a second, in time with the voice; leave --fps out."
            )
        self.pipe, self.fps, self.frames_per_latent = pipe, sampling.fps, sampling.frames_per_latent
        voices = self._voices()
        live = LIVE in voices
        if live:
            self._check_live(voices)
            voices = [Sound(np.zeros(RATE // 10, np.float32), RATE) if one == LIVE else one for one in voices]
        found = read_speakers(source, voices, request.mask, request.face, request.people, self.fps)
        self.height, self.width = self._size(sampling)
        pipe.check_size(self.height, self.width)
        frames = max(1, -(-len(found[0].samples) * self.fps // 16_000))
        if request.video is not None:
            self.dub = Dub(source, found, self.fps, self.height, self.width)
            frames = min(frames, self.dub.frames) if request.frames is None else frames
            if request.frames is not None and request.frames > self.dub.frames:
                raise InputError(f"{source} has {self.dub.frames} frames; {request.frames} cannot be made of it.")
            for start, end in self.dub.empty:
                self.on_note(f"nobody is seen from {start:.1f} to {end:.1f} s: there the video stays as it is")
            self.speakers, self.photo = self.dub.speakers, self.dub.shown(range(1))[0]
        else:
            self.framing = self._framing(found)
            self.speakers = [speaker.framed([self.framing]) for speaker in found]
            assert self.image is not None
            self.photo = self.framing.into(self.image[None])[0]
        changes = {"order": "front"} if request.real_time or live else {}
        wanted = request.frames if live else int(request.frames or frames)
        self.request = request = request.changed(frames=wanted, **changes)
        self._seen: list[float] = []
        self._live: list[LiveSound] = []
        if request.sound is not False:
            self.sound = self._arriving() if live else soundtrack(voices)
        self.plan()  # refuses what no plan can be made of
        self.drift = Drift(self.photo, self._faces(range(1))[0] > 0.5, max(1, round(2 * self.fps)))

    @property
    def _is_live(self) -> bool:
        return LIVE in self.request.audio

    def _check_live(self, voices: Sequence[Voice]) -> None:
        """Raises InputError for live voices that cannot be."""
        if self.voice is None:
            raise InputError(f"the voice {LIVE!r} arrives while a server makes the video; give a sound file here.")
        if voices[0] != LIVE or set(voices[1:]) - {SILENCE} or self.request.video is not None:
            raise InputError(f"one speaker of a portrait can be {LIVE!r}, the first; all others are {SILENCE!r}.")

    def _arriving(self) -> ArrivingSound:
        voice = self.voice
        assert voice is not None
        return ArrivingSound(lambda: (block[:, None] for block in voice.blocks()), RATE)

    def plan(self) -> Plan:
        endless = self._is_live and self.request.frames is None
        return self.pipe.plan(**self.request.arguments(plan=True), **({"endless": True} if endless else {}))

    def as_made(self, frames: int) -> Any:
        request = super().as_made(frames)
        if not self._is_live:
            return request
        assert self.voice is not None
        return request.changed(audio=(self.voice.keep(), *request.audio[1:]))

    def _voices(self) -> list[Voice]:
        request = self.request
        if not request.say:
            return list(request.audio)
        names = request.voice or ("en",)
        names = names * len(request.say) if len(names) == 1 else names
        return [Say(text, name) if text != SILENCE else SILENCE for text, name in zip(request.say, names, strict=True)]

    def _size(self, sampling: Any) -> tuple[int, int]:
        """(height, width): as asked; else of the model's area and the picture's aspect."""
        request = self.request
        if request.height is not None or self.image is None or request.around_face or request.fit == "stretch":
            return request.height or sampling.height, request.width or sampling.width
        return size_like(self.image.shape[:2], (sampling.height, sampling.width), self.pipe.size_unit)

    def _framing(self, found: Sequence[Speaker]) -> Framing:
        """What the model sees of the portrait."""
        assert self.image is not None
        (height, width), target = self.image.shape[:2], (self.height, self.width)
        source = (height, width)
        if self.request.around_face:
            boxes = np.stack([speaker.region.boxes(range(1))[0] for speaker in found])
            left, top, right, bottom = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)]).tolist()
            return Framing.around((left, top, right, bottom), source, target, margin=0.4)
        if self.request.fit == "stretch":
            return Framing(source, (0, 0, source[1], source[0]), target)
        return getattr(Framing, self.request.fit)(source, target)

    def _faces(self, frames: range) -> np.ndarray:
        """Where anybody's face is in frames as the model sees them, (F, height, width), 0 to 1."""
        return np.max([one.masks(frames, self.height, self.width) for one in self.speakers], axis=0)

    @property
    def output_size(self) -> tuple[int, int]:
        blank = np.zeros((1, self.height, self.width, 3), np.uint8)
        return self.shown(blank, 0, measure=False).shape[1:3]

    def arguments(self) -> dict[str, Any]:
        given = super().arguments() | {
            "image": self.photo,
            "voices": self._sounds(),
            "masks": [speaker.region for speaker in self.speakers],
            "dub": self.dub,
        }
        given.pop("video")
        return given

    def stream(self, *watched: Any) -> Iterator[Any]:
        for chunk in super().stream(*watched):
            seconds = self.voice.seconds if self._is_live and self.voice is not None else None
            # No frame after the end of the voice was made before it was known.
            last = math.inf if seconds is None else max(1, frames_of(seconds, self.fps))
            kept = chunk.frames[:, : int(min(len(chunk), last - chunk.start))]
            yield replace(chunk, frames=kept)
            if chunk.stop >= last:
                return

    def _sounds(self) -> list[Any]:
        if self._is_live:
            assert self.voice is not None
            live = LiveSound.from_blocks(self.pipe.speech_encoder, self.fps, self.voice.blocks())
            self._live = [live]
            return [live, *(speaker.samples for speaker in self.speakers[1:])]
        if not self.request.real_time:
            return [speaker.samples for speaker in self.speakers]
        encoder = self.pipe.speech_encoder
        self._live = [LiveSound.spoken(encoder, self.fps, [speaker.samples]) for speaker in self.speakers]
        return self._live

    def shown(self, frames: np.ndarray, start: int, measure: bool = True) -> np.ndarray:
        """Frames as the model made them, from number `start` on: as the request wants to see them."""
        request, numbers = self.request, range(start, start + len(frames))
        if measure:
            self.drift.add(frames, self._faces(numbers) > 0.5)
            self._seen += [time.monotonic()] * len(frames)
        made = frames
        if self.dub is not None:
            made = self.dub.put_back(frames, start)
        elif request.around_face:
            assert self.image is not None
            made = self.framing.back(frames, self.image)
        if request.show_face:
            found = self._faces(numbers)[..., None]
            seen = self.photo if self.dub is None else self.dub.shown(numbers)
            tinted = (seen * (1 - 0.5 * found) + 127 * found * (0.4, 1.0, 0.4)).astype(np.uint8)
            made = beside(tinted, made, labels=("faces", "result"))
        return made

    def _latency(self) -> LatencyReport | None:
        return self._live[0].latency(self._seen) if self._live and self._seen else None

    def measured(self) -> dict[str, Any]:
        latency = self._latency()
        return {"drift": self.drift.windows()} | ({} if latency is None else {"latency": latency.facts()})

    def summary(self) -> list[str]:
        latency = self._latency()
        return self.drift.lines() + ([] if latency is None else latency.lines())
