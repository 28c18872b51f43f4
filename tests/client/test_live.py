"""A live session: fragments, prompts and sound over one connection."""

from __future__ import annotations

import numpy as np
import pytest

import animagic
from animagic.client import RequestRefused, ServerError


def test_fragments_come_while_prompts_go(server):
    with animagic.Client(server.url, "ak_secret") as client, client.live("a ball", "magi1-tiny", chunks=3) as live:
        first = next(live)
        assert (live.id, live.mime_type) == ("video_live", "video/mp4; codecs=x")
        event = live.prompt("it jumps")
        second = next(live)
        assert live.begins == {event: 2}
        live.sound(np.array([0.5, -0.5], np.float32))
        third = next(live)
        live.stop()
        assert list(live) == []
    assert [one.data for one in (first, second, third)] == [b"chunk 0", b"chunk 1", b"chunk 2"]
    assert (second.chunk, second.start, second.frames) == (1, 8, 8)
    start, prompt, stop = server.said
    assert start == {
        "type": "session.start", "format": "m4s", "prompt": "a ball", "model": "magi1-tiny", "chunks": 3
    }  # fmt: skip
    assert prompt["interaction"]["event"] == {"prompt": "it jumps"}
    assert stop == {"type": "session.stop"}
    assert np.frombuffer(server.sound, "<f4").tolist() == [0.5, -0.5]


def test_a_prompt_that_is_refused_does_not_end_it(server):
    with animagic.Client(server.url) as client, client.live("a ball", chunks=2) as live:
        next(live)
        live.prompt("")
        with pytest.raises(RequestRefused, match="the prompt is empty"):
            next(live)
        assert next(live).chunk == 1


def test_it_is_the_same_for_asyncio(server, loop):
    async def session() -> tuple[list[bytes], dict[str, int]]:
        client = animagic.AsyncClient(server.url)
        pieces = []
        async with client, client.live("a ball", chunks=3) as live:
            async for fragment in live:
                pieces.append(fragment.data)
                if fragment.chunk == 1:
                    await live.sound(np.zeros(2, np.float32))
                    continue
                if fragment.chunk == 2:
                    await live.stop()
                    continue
                await live.prompt("it jumps")
        return pieces, live.begins

    pieces, begins = loop.run_until_complete(session())
    assert pieces == [b"chunk 0", b"chunk 1", b"chunk 2"]
    assert begins == {"prompt-1": 2}
    assert server.sound == bytes(8)


def test_what_cannot_be_is_said(server):
    with (
        animagic.Client("http://127.0.0.1:9", retries=0) as client,
        pytest.raises(ServerError, match="animagic serve"),
        client.live("a ball"),
    ):
        pass
    with (
        animagic.Client(server.url + "/elsewhere") as client,
        pytest.raises(animagic.AnimagicError, match=r"40[34]"),
        client.live("a ball"),
    ):
        pass
    with (
        animagic.Client(server.url) as client,
        client.live("a ball", chunks=1) as live,
        pytest.raises(animagic.InputError, match="float32"),
    ):
        live.sound(np.zeros((2, 2), np.float32))
