"""Pictures and video in and out. Frames are NumPy arrays, uint8, (frames, height, width, RGB).

Pillow and PyAV are imported when a name here is first used, so that `animagic --help` does not wait for them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from animagic.media.files import atomic_path
    from animagic.media.fragments import FragmentedMp4
    from animagic.media.frames import beside, contact_sheet, resize
    from animagic.media.framing import Framing
    from animagic.media.pictures import write_image
    from animagic.media.reading import (
        Video,
        count_frames,
        iter_blocks,
        iter_video,
        probe,
        read_image,
        read_metadata,
        read_video,
    )
    from animagic.media.sound import Sound, iter_sound, read_sound, sound_facts
    from animagic.media.writing import VideoWriter

__all__ = [
    "FragmentedMp4",
    "Framing",
    "Sound",
    "Video",
    "VideoWriter",
    "atomic_path",
    "beside",
    "contact_sheet",
    "count_frames",
    "iter_blocks",
    "iter_sound",
    "iter_video",
    "probe",
    "read_image",
    "read_metadata",
    "read_sound",
    "read_video",
    "resize",
    "sound_facts",
    "write_image",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        for room in (
            "files",
            "frames",
            "framing",
            "pictures",
            "sound",
            "reading",
            "writing",
            "fragments",
        ):  # the light ones first
            if name in (values := vars(import_module(f"{__name__}.{room}"))):
                return values[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
