"""Key/value caches: what clean frames leave behind, on the device or in CPU memory."""

import pytest
import torch

from animagic.layers.cache import KeyValueCache, OffloadedKeyValueCache


def pairs(layers: int, tokens: int, seed: int) -> list:
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.randn(2, 3, tokens, 4, generator=generator) for _ in range(2)) for _ in range(layers)]


def filled(cache: KeyValueCache) -> KeyValueCache:
    """Frames 0 to 8, of which the first three are forgotten: a piece goes as a whole, and half of the next one."""
    for first, stop, seed in ((0, 2, 1), (2, 4, 2), (4, 8, 3)):
        for layer, (keys, values) in enumerate(pairs(5, (stop - first) * 6, seed)):
            cache.write(layer, keys, values)
        cache.commit(range(first, stop))
    cache.forget(3)
    return cache


def test_an_offloaded_cache_gives_what_a_plain_one_gives():
    plain, offloaded = filled(KeyValueCache()), filled(OffloadedKeyValueCache())
    assert (offloaded.start, offloaded.stop) == (plain.start, plain.stop) == (3, 8)
    assert len(offloaded.layers) == len(plain.layers) == 5
    for _ in range(2):  # a forward, and another one
        for layer in range(5):
            for ours, theirs in zip(offloaded.read(layer), plain.read(layer), strict=True):
                assert torch.equal(ours, theirs)
    for ours, theirs in zip(offloaded.layers, plain.layers, strict=True):
        assert torch.equal(torch.stack(ours), torch.stack(theirs))
    offloaded.forget(8)
    assert offloaded.read(0) is None
    assert len(offloaded.layers) == 0


def test_each_layer_moves_once_a_forward_into_room_for_two():
    cache = filled(OffloadedKeyValueCache())
    layer = sum(x.nbytes for x in cache.layers[0])
    rooms = set()
    for count in (1, 2):
        for index in range(5):
            cache.read(index)
            assert cache.fetched == layer * (5 * (count - 1) + min(index + 2, 5))  # it and the next one
            rooms |= {x.data_ptr() for slot in cache._slots if slot.pair for x in slot.pair}
    assert len(rooms) == 4
    assert cache.stowed == 5 * layer * 8 // 5  # frames 0 to 8 came, 3 to 8 are there


def test_a_cache_is_neither_filled_with_a_gap_nor_changed_by_what_was_given_to_it():
    cache = OffloadedKeyValueCache()
    given = torch.ones(1, 1, 4, 2)
    cache.write(0, given, given)
    given.zero_()
    cache.commit(range(2))
    assert cache.read(0)[0].all()
    with pytest.raises(ValueError, match="do not follow"):
        cache.append(range(3, 4), pairs(1, 2, 0))


def test_what_a_graph_wrote_is_copied():
    """A CUDA graph writes into the same memory each time that it is run."""
    cache, drawn = KeyValueCache(), pairs(1, 6, 0)[0]
    for frames in (range(2), range(2, 4)):
        keys, values = (x.clone() for x in drawn)
        cache.append(frames, [(keys, values)])
        keys.zero_(), values.zero_()
    assert torch.equal(cache.layers[0][0], torch.cat([drawn[0]] * 2, dim=2))
    assert torch.equal(cache.layers[0][1], torch.cat([drawn[1]] * 2, dim=2))
