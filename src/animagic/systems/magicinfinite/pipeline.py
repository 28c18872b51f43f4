"""A portrait that speaks, with MagicInfinite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.loaders import HunyuanVideoLoraLoaderMixin

from ...errors import InputError
from ...faces import face_mask, find_faces
from ...layers.autoencoder import ConvAutoencoder
from ...media.frames import resize
from ...media.sound import Sound
from ...pipelines.base import Call, Run, VideoPipeline, frames_of
from ...pipelines.sound_source import LiveSound, WholeSound
from ...pipelines.speakers import by_latents
from ...pipelines.voices import hushed
from ...speech import Wav2VecEncoder, WhisperEncoder
from ...timeline import FlowEuler, Plan, Timeline
from ...timeline.engine import Clean
from ...weights.lora import LoraMixin
from ...weights.lora_names import HUNYUAN_VIDEO
from .denoiser import (
    GROUP,
    MagicInfiniteDenoiser,
    MagicInfiniteSampling,
    PortraitUnderNoise,
    Prompt,
    Voice,
    latents_of,
    shifted_times,
)
from .transformer import MagicInfiniteTransformer3DModel

RATE = 16_000


@dataclass
class TalkingRun(Run):
    """decoded: the last latent frames that were decoded, (videos, channels, frames, h, w)."""

    decoded: torch.Tensor | None = None


class MagicInfinitePipeline(LoraMixin, HunyuanVideoLoraLoaderMixin, VideoPipeline):
    """A portrait, a text and voices to a video in which the portrait speaks (arXiv 2503.05978).

    Args:
        transformer, vae: the networks; vae: diffusers' AutoencoderKLHunyuanVideo, or a ConvAutoencoder.
        text_encoder, tokenizer: of the text, and of the portrait where it is a language model that sees.
        text_encoder_2, tokenizer_2: CLIP, whose pooled text HunyuanVideo reads; None: the mean of the text's tokens.
        image_processor: of a language model that sees.
        audio_encoder: transformers' Wav2Vec2Model; None: the embedded encoder of speech.
        config: fields of MagicInfiniteSampling, the defaults of a call.
    """

    sampling = MagicInfiniteSampling()
    lora_parts = (HUNYUAN_VIDEO,)
    frames_decoded_together = 8
    _optional_components = [
        "vae",
        "text_encoder",
        "tokenizer",
        "text_encoder_2",
        "tokenizer_2",
        "image_processor",
        "audio_encoder",
    ]
    model_cpu_offload_seq = "text_encoder->text_encoder_2->audio_encoder->transformer->vae"

    def __init__(
        self,
        transformer: MagicInfiniteTransformer3DModel,
        vae: Any = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        text_encoder_2: Any = None,
        tokenizer_2: Any = None,
        image_processor: Any = None,
        audio_encoder: Any = None,
        config: dict[str, Any] | None = None,
    ):
        super().__init__()
        self._register_parts(
            config,
            transformer=transformer,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            image_processor=image_processor,
            audio_encoder=audio_encoder,
        )

    @classmethod
    def from_published(cls, hunyuan: Any, wav2vec: Any = None, **arguments: Any) -> MagicInfinitePipeline:
        """The pipeline that begins where HunyuanVideo ended; the arguments are those of `weights.load_published`."""
        from .weights import load_published

        return load_published(cls, hunyuan, wav2vec, **arguments)

    # ---------------------------------------------------------------- latents

    @property
    def latent_channels(self) -> int:  # type: ignore[override]
        return self.transformer.config.in_channels

    pixels_per_latent = 8

    @property
    def size_unit(self) -> int:
        return self.pixels_per_latent * self.transformer.config.patch_size

    def check_size(self, height: int, width: int) -> None:
        super().check_size(height, width)
        least = self.pixels_per_latent * (self.transformer.config.portrait_patch or 0)
        if min(height, width) < least:
            raise InputError(f"{width}x{height} is too small: this model needs {least} pixels on each side.")

    @property
    def _frame_by_frame(self) -> bool:
        """Whether latent frames are coded each for itself, and not after those before them."""
        return isinstance(self.vae, ConvAutoencoder)

    def to_latents(self, video: torch.Tensor) -> torch.Tensor:
        """Of 1 + 4 n frames."""
        if self._frame_by_frame:
            video = torch.cat([video[:, :, :1].expand(-1, -1, GROUP, -1, -1), video[:, :, 1:]], dim=2)
        return self.vae.encode(video).latent_dist.mode().float() * self.vae.config.scaling_factor

    def to_video(self, latents: torch.Tensor) -> torch.Tensor:
        latents = latents.to(self._execution_device, self.vae.dtype) / self.vae.config.scaling_factor
        whole = {"whole": True} if self._frame_by_frame else {}
        return self.vae.decode(latents, **whole).sample

    def pieces(self, clean: Clean, run: Run) -> Iterator[tuple[torch.Tensor, int]]:
        assert isinstance(run, TalkingRun)
        start = clean.frames.start
        for part in clean.latents.split(self.frames_decoded_together, dim=2):
            if self._frame_by_frame:
                yield part, GROUP - 1 if start == 0 else 0
            else:
                # A causal decoder continues what is before; it takes the first latent frame that it gets for one frame.
                before = 0 if run.decoded is None else run.decoded.shape[2]
                joined = part if run.decoded is None else torch.cat([run.decoded, part], dim=2)
                run.decoded = joined[:, :, -self.sampling.decode_context :]
                yield joined, GROUP * (before - 1) + 1 if before else 0
            start += part.shape[2]

    # ---------------------------------------------------------------- conditions

    def encode_prompts(self, texts: Sequence[str], portrait: np.ndarray | None = None) -> list[Prompt]:
        """Texts as the transformer reads them. portrait: uint8 (height, width, 3), for language models that see."""
        from .prompts import encoder_of

        return encoder_of(self).encode(texts, portrait)

    @property
    def speech_encoder(self) -> Any:
        """The encoder of voices. Raises InputError for one that does not fit the transformer."""
        encoder: Any = WhisperEncoder() if self.audio_encoder is None else Wav2VecEncoder(self.audio_encoder)
        needed = self.transformer.config.audio_layers, self.transformer.config.audio_channels
        if (encoder.layers, encoder.channels) != needed:
            raise InputError(
                f"the speech encoder gives {encoder.layers} layers of {encoder.channels}, the transformer reads "
                f"{needed[0]} of {needed[1]}; give the pipeline the audio_encoder that it was trained with."
            )
        return encoder

    def listen(self, voice: Any, fps: float) -> Any:
        """A voice as a denoiser hears it: sound (float32 (n,) at 16 kHz, or a Sound), or what is heard already."""
        if isinstance(voice, Sound):
            if voice.rate != RATE or voice.channels != 1:
                raise InputError(f"a voice has one channel at {RATE} Hz, not {voice.channels} at {voice.rate} Hz.")
            voice = voice.samples
        if isinstance(voice, np.ndarray):
            return WholeSound.of(self.speech_encoder, hushed(voice), fps)
        if getattr(voice, "fps", fps) != fps:
            raise InputError(
                f"a voice is heard at {voice.fps:g} frames a second, the video has {fps:g}; make them equal."
            )
        return voice

    # ---------------------------------------------------------------- a call

    def prepare(  # type: ignore[override]  # it knows its arguments
        self,
        call: Call,
        *,
        voices: Sequence[Any] = (),
        masks: Sequence[Any] | None = None,
        dub: Any = None,
        prompts_at: Mapping[int, str] | None = None,
        negative_prompt: str | None = None,
        portrait_scale: float | None = None,
        voice_scale: float | None = None,
        plan: str | None = None,
        window: int | None = None,
        window_overlap: int | None = None,
        front: int | None = None,
        portrait_start: float | None = None,
        endless: bool = False,
    ) -> Run:
        """The run of a call. Raises InputError.

        Args:
            call: its image is the portrait. Without num_frames the video is as long as the longest voice.
            voices: one for each speaker: sound, float32 (n,) at 16 kHz or a Sound, or a LiveSound, which arrives while
                the video is made.
            masks: their faces, one for each voice: (height, width) or (frames, height, width) of the portrait, 0 to
                1; or Regions of the video's size. None: faces are found in the portrait, the largest ones.
            dub: of a video, in which only mouths are made anew: `shown(range of frames)`, uint8 (frames, height, width,
                3), and `known(range of latent frames)`, 1 where it stays, see `animagic.pipelines.dubbing.Dub`.
            prompts_at: video frame -> prompt from there on.
            portrait_scale, voice_scale, portrait_start, plan, window, window_overlap, front: see MagicInfiniteSampling.
            endless: until it is stopped, or live voices have ended.
        """
        if not (call.prompt is None or isinstance(call.prompt, str)):
            raise InputError("give one prompt: one portrait makes one video.")
        size = self.size_of(call)
        own: dict[str, Any] = {"plan": plan, "window": window, "window_overlap": window_overlap, "front": front}
        own |= {"portrait_scale": portrait_scale, "voice_scale": voice_scale, "portrait_start": portrait_start}
        settings = self.sampling.changed(**call.settings(height=size[0], width=size[1]), **own)
        heard = [self.listen(voice, settings.fps) for voice in voices]
        if call.num_frames is None and call.latents is None and not endless:
            settings = settings.changed(num_frames=self._frames(call, heard, settings))
        if call.latents is not None:
            settings = settings.changed(num_frames=1 + GROUP * (call.latents.shape[2] - 1))
        the_plan = settings.plan_for(endless=endless)
        if call.video is not None:
            raise InputError("a video in which somebody is to speak otherwise is given as dub.")
        source = frames_of(call.image, None)
        if source is None:
            raise InputError("give a picture of who is to speak.")
        picture = resize(source[:1], *size, call.fit)
        portrait = self.encode_frames(picture)[:, :, 0]
        known = self._known_picture(portrait) if dub is None else KnownVideo(self, dub)
        faces = self._faces(source[0], masks, len(heard), size, call.fit)
        speakers = [Voice(one, face) for one, face in zip(heard, faces, strict=True)]
        later = {latents_of(frame + 1) - 1: text for frame, text in (prompts_at or {}).items() if frame > 0}
        texts = {0: call.prompt or "", **later}
        *prompts, null = self.encode_prompts([*texts.values(), negative_prompt or ""], picture[0])
        times = shifted_times(settings.num_inference_steps, settings.shift, settings.portrait_start)
        denoiser = MagicInfiniteDenoiser(
            self.transformer,
            times,
            dict(zip(texts, prompts, strict=True)),
            null,
            portrait.to(self._execution_device),
            known,
            speakers,
            settings.embedded_guidance,
        )
        noise = PortraitUnderNoise(
            self.noise(call, call.num_videos_per_prompt, size), portrait, settings.portrait_start
        )
        guided = denoiser.guided(settings.portrait_scale, settings.guidance_scale, settings.voice_scale)
        limit = None if endless else settings.num_frames
        return TalkingRun(the_plan, guided, FlowEuler(times), Timeline(noise), call.num_videos_per_prompt, limit)

    def plan(self, num_frames: int | None = None, num_inference_steps: int | None = None, **own: Any) -> Plan:
        return self.sampling.plan_for(num_frames, num_inference_steps, **own)

    def _frames(self, call: Call, heard: Sequence[Any], settings: MagicInfiniteSampling) -> int:
        lengths = [len(one) for one in heard if isinstance(one, WholeSound)]
        return max(lengths) if lengths else settings.num_frames

    def _known_picture(self, portrait: torch.Tensor) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
        """The portrait, at every frame, everywhere."""
        everywhere = torch.ones(1, 1, 1, *portrait.shape[-2:])
        return lambda frames: (portrait[:, :, None].expand(-1, -1, len(frames), -1, -1), everywhere)

    def _faces(
        self, picture: np.ndarray, masks: Sequence[Any] | None, count: int, size: tuple[int, int], fit: Any
    ) -> list[Callable[[Sequence[int]], torch.Tensor]]:
        """A function of latent frames -> (frames, h, w) for each voice."""
        source = picture.shape[:2]
        if masks is None:
            found = find_faces(picture) if count else []
            if len(found) < count:
                raise InputError(f"{len(found)} faces are found for {count} voices; give their masks.")
            masks = [face_mask(face, *source) for face in found[:count]]
        if len(masks) != count:
            raise InputError(f"there are {count} voices and {len(masks)} masks; give one mask for each voice.")

        def on_latents(mask: Any) -> Callable[[Sequence[int]], torch.Tensor]:
            at = mask.face if hasattr(mask, "face") else _given_mask(mask, source, size, fit)

            def face(frames: Sequence[int]) -> torch.Tensor:
                latents = range(frames[0], frames[-1] + 1)
                return torch.from_numpy(by_latents(at, latents, *size, self.pixels_per_latent, np.mean))

            return face

        return [on_latents(mask) for mask in masks]

    def stream(self, prompt: Any = None, **arguments: Any) -> Iterator[Any]:
        live = [voice for voice in arguments.get("voices") or () if isinstance(voice, LiveSound)]
        if live and arguments.get("num_frames") is None:
            arguments["endless"] = True
        for chunk in super().stream(prompt, **arguments):
            yield chunk
            if (
                live
                and arguments.get("endless")
                and all(voice.ended_before(chunk.start + len(chunk)) for voice in live)
            ):
                return


def _given_mask(mask: Any, source: tuple[int, int], size: tuple[int, int], fit: Any) -> Callable[..., np.ndarray]:
    """A mask of the portrait's size as a function of (video frames, height, width); after the end the last stays."""
    pixels = np.asarray(mask, np.float32)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if pixels.shape[1:] != source:
        given, wanted = (f"{width}x{height}" for height, width in (pixels.shape[1:], source))
        raise InputError(f"a mask is {given} pixels, the picture {wanted}; give masks of its size.")
    grey = (pixels[..., None] * 255).round().clip(0, 255).astype(np.uint8).repeat(3, -1)
    brought = resize(grey, *size, fit)[..., 0] / np.float32(255)
    return lambda frames, height, width: brought[[min(frame, len(brought) - 1) for frame in frames]]


class KnownVideo:
    """What is known of a video but for its mouths: a function of latent frames. Each is encoded once."""

    def __init__(self, pipe: MagicInfinitePipeline, dub: Any):
        self.pipe, self.dub = pipe, dub
        self.latents: dict[int, torch.Tensor] = {}

    def __call__(self, frames: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        missing = [frame for frame in frames if frame not in self.latents]
        if missing:
            first, last = missing[0], missing[-1]
            # One frame before: the first that is encoded stands for one video frame.
            pixels = self.dub.shown(range(max(0, GROUP * (first - 1)), GROUP * last + 1))
            encoded = self.pipe.encode_frames(pixels)[0, :, -(last - first + 1) :]
            self.latents |= {frame: encoded[:, frame - first] for frame in missing}
        where = torch.from_numpy(self.dub.known(range(frames[0], frames[-1] + 1)))
        return torch.stack([self.latents[frame] for frame in frames], dim=1)[None], where[None, None]
