"""Models that stay loaded, and the memory that they may take."""

import shutil

import pytest

from animagic.errors import InputError
from animagic.jobs.models import WarmModels, bytes_of, weights_of
from animagic.requests import build_request


@pytest.fixture
def requests(tiny_model, tmp_path):
    """Requests for two models."""
    shutil.copytree(tiny_model, tmp_path / "other")
    return [build_request("a ball", str(model), frames=8, steps=4) for model in (tiny_model, tmp_path / "other")]


@pytest.fixture
def get(tmp_path):
    """The pipeline of a request, as the worker gets it."""
    return lambda models, request: models.get(request, tmp_path, None, models.fit(request, None))


def test_without_a_budget_one_model_is_kept(requests, get):
    models, (one, other) = WarmModels("cpu", None), requests
    pipe = get(models, one)
    assert get(models, one.changed(prompt="a cat", seed=1)) is pipe
    get(models, other)
    assert get(models, one) is not pipe


def test_models_are_kept_as_long_as_there_is_memory(requests, get):
    one, other = requests
    peak = WarmModels("cpu", 10**12).fit(one, None).prediction.peak
    plenty = WarmModels("cpu", peak + 10**9)
    pipe = get(plenty, one)
    get(plenty, other)
    assert get(plenty, one) is pipe
    short = WarmModels("cpu", 10**12)
    short.memory = short.fit(one, None).prediction.peak + bytes_of(pipe) // 2
    pipe = get(short, one)
    get(short, other)
    assert get(short, one) is not pipe


def test_a_video_that_does_not_fit_is_refused_in_a_sentence(requests):
    with pytest.raises(InputError, match=r"are too little for 48x32: .* are needed"):
        WarmModels("cpu", 10**6).fit(requests[0], None)


def test_inputs_and_loras_do_not_make_another_model(requests, tmp_path):
    request = requests[0]
    same = request.changed(image=str(tmp_path / "ball.png"), loras={"bright": 1.0})
    assert weights_of(same, tmp_path) == weights_of(request, tmp_path)
    more = request.changed(special_token_file=str(tmp_path.parent / "special.npz"))
    assert weights_of(more, tmp_path) != weights_of(request, tmp_path)
