"""Pictures and video in and out. Frames are NumPy arrays, uint8, (frames, height, width, RGB).

Pillow and PyAV are imported when a name here is first used, so that `animagic --help` does not wait for them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from animagic.media.files import atomic_path
    from animagic.media.frames import contact_sheet, resize
    from animagic.media.reading import Video, iter_video, probe, read_image, read_metadata, read_video
    from animagic.media.writing import FragmentedMp4, VideoWriter, write_image

_ROOMS = {
    "atomic_path": "files",
    "contact_sheet": "frames",
    "resize": "frames",
    "Video": "reading",
    "iter_video": "reading",
    "probe": "reading",
    "read_image": "reading",
    "read_metadata": "reading",
    "read_video": "reading",
    "FragmentedMp4": "writing",
    "VideoWriter": "writing",
    "write_image": "writing",
}

__all__ = [  # noqa: RUF022 (in the order of the rooms)
    "atomic_path",
    "contact_sheet",
    "resize",
    "Video",
    "iter_video",
    "probe",
    "read_image",
    "read_metadata",
    "read_video",
    "FragmentedMp4",
    "VideoWriter",
    "write_image",
]


def __getattr__(name: str) -> object:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
