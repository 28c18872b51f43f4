"""A program of its own that has espeak-ng's library read a text: `python espeak.py VOICE < text`.

It writes a line of JSON, {"rate": samples per second, "phones": [[IPA, start in ms], ...]}, and then the samples,
int16. It leaves with code 3 if there is no library, and 4 if that does not know the voice. The library keeps its state
in globals and has another licence, so it is never loaded into the process of the caller. Standard library only.
"""

import ctypes
import json
import sys

_LIBRARIES = ("libespeak-ng.so.1", "libespeak-ng.so", "libespeak-ng.1.dylib", "libespeak-ng.dylib", "libespeak-ng.dll")
_SYNCHRONOUS, _PHONEMES_AS_IPA, _UTF8 = 2, 0x1 | 0x2, 1
_END, _PHONEME = 0, 7


class _Name(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Name),
    ]


class _Voice(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("others", ctypes.c_ubyte * 16),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def _library() -> ctypes.CDLL:
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    sys.exit(3)


def main(voice: str, text: bytes) -> None:
    library, sound, phones = _library(), bytearray(), []

    def take(samples, count, events):
        if samples and count:
            sound.extend(ctypes.string_at(samples, 2 * count))
        while events[0].type != _END:
            if events[0].type == _PHONEME:
                name = bytes(ctypes.string_at(ctypes.addressof(events[0].id), 8)).split(b"\0")[0]
                phones.append([name.decode("utf-8", "ignore"), events[0].audio_position])
            events = ctypes.cast(ctypes.addressof(events[0]) + ctypes.sizeof(_Event), ctypes.POINTER(_Event))
        return 0

    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEMES_AS_IPA)
    if rate <= 0:
        sys.exit(3)
    callback = _Callback(take)
    library.espeak_SetSynthCallback(callback)
    wanted = _Voice(languages=voice.encode())  # a language whose file has another name; of those no variants
    if library.espeak_SetVoiceByName(voice.encode()) and (
        "+" in voice or library.espeak_SetVoiceByProperties(ctypes.byref(wanted))
    ):
        sys.exit(4)
    library.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 1, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    sys.stdout.buffer.write(json.dumps({"rate": rate, "phones": phones}).encode() + b"\n" + sound)


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin.buffer.read())
