"""Recipes are checked and carried out, whatever the system: with toy stages."""

import copy
import json
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from animagic.errors import CheckpointError, InputError
from animagic.synthetic import vocabulary
from animagic.training import Course, Stage, train
from animagic.training.stages import average_of, prepare, save_model
from animagic.training.videos import VideoBatches


@dataclass
class Numbers(Dataset):
    seed: int
    steps: int
    batch_size: int = 2

    def __getitem__(self, item):
        return {"x": torch.full((self.batch_size, 1), float(item))}


@dataclass
class Objective:
    frozen: float
    max_snr_weight: float = 1.0

    def __call__(self, model, batch, generator):
        loss = (model(batch["x"]) - self.frozen).square().mean()
        return self.max_snr_weight * loss, {"batch": float(len(batch["x"]))}


def start(task):
    torch.manual_seed(task.config.seed)
    return nn.Linear(1, **task.section.get("model", {"out_features": 1})), {"frozen": 2.0}


STAGES = [
    Stage("base", start, Objective, Numbers, model=nn.Linear, besides={"words.model": nn.Embedding}),
    Stage("styles", start, Objective, Numbers, shares="base", several=True, needs=["rank"], folder="style_{}"),
    Stage("motion", start, Objective, Numbers, files=VideoBatches, optional=True, part="video",
          save=lambda task, average: torch.save(average.weight, task.root / "motion.pt")),
]  # fmt: skip
COURSES = [
    Course([], lambda recipe, root: root / "student", only="teacher"),
    Course(STAGES, lambda recipe, root: root / "model", needs=["sampling"]),
]


@pytest.fixture
def recipe() -> dict:
    training = {"steps": 2, "workers": 0, "log_every": 1, "warmup": 0, "decay": 1}
    learned = {"objective": {}, "data": {}, "training": training}
    sections = {
        "words": {"model": {"num_embeddings": 3}},
        "base": {"model": {"out_features": 1}, **learned},
        "styles": {"ink": {"rank": 2, "data": {}, "training": training}, "oil": {"rank": 2, **learned}},
        "motion": learned,
        "sampling": {},
    }
    return json.loads(json.dumps(sections))  # none of them shares anything with another


def steps_of(folder) -> dict[str, list[int]]:
    logs = {path.parent.name: path.read_text().splitlines() for path in folder.glob("*/log.jsonl")}
    return {name: [json.loads(line)["step"] for line in lines] for name, lines in logs.items()}


def test_all_stages_are_trained_in_order(recipe, tmp_path):
    seen = []
    made = train(recipe, COURSES, tmp_path, on_log=lambda name, line: seen.append((name, line["step"])))
    assert made == tmp_path / "model"
    assert seen == [(name, step) for name in ("base", "style_ink", "style_oil", "motion") for step in (1, 2)]
    assert torch.equal(torch.load(tmp_path / "motion.pt"), average_of(tmp_path / "motion")["weight"])
    with pytest.raises(CheckpointError, match=r"style_pen/average\.safetensors is missing: train this part first"):
        average_of(tmp_path / "style_pen")


def test_parts_and_another_number_of_steps(recipe, tmp_path):
    before = copy.deepcopy(recipe)
    train(recipe, COURSES, tmp_path, ["video", "base"], steps=3)
    assert steps_of(tmp_path) == {"base": [1, 2, 3], "motion": [1, 2, 3]}
    assert recipe == before
    train(recipe, COURSES, tmp_path, ["motion", "ink"])  # a stage may be chosen by its own name, too
    assert steps_of(tmp_path) == {"base": [1, 2, 3], "motion": [1, 2, 3], "style_ink": [1, 2]}
    with pytest.raises(InputError, match="the part 'sound' is unknown; the recipe has base, styles, video"):
        train(recipe, COURSES, tmp_path, ["sound"])


def test_a_field_chooses_the_course(recipe, tmp_path):
    assert train({**recipe, "teacher": "x"}, COURSES, tmp_path) == tmp_path / "student"


def test_fields_may_have_the_names_of_earlier_versions(recipe, tmp_path):
    recipe["base"] |= {"data": {"chunks_per_batch": 5}, "objective": {"most_weight": 3.0}}
    train(recipe, COURSES, tmp_path / "old", ["base"])
    recipe["base"] |= {"data": {"batch_size": 5}, "objective": {"max_snr_weight": 3.0}}
    train(recipe, COURSES, tmp_path / "new", ["base"])
    old, new = ([json.loads(line) for line in (tmp_path / x / "base" / "log.jsonl").open()] for x in ("old", "new"))
    assert [line["loss"] for line in old] == [line["loss"] for line in new]
    assert old[0]["batch"] == 5


def test_what_was_learned_from_the_studio_has_its_words(recipe, tmp_path):
    def export(recipe, root):
        (root / "model").mkdir(parents=True)
        (root / "model" / "model_index.json").write_text("{}")
        return root / "model"

    def words(name, **fields):
        file = train({**recipe, **fields}, courses, tmp_path / name, parts=[]) / "vocabulary.json"
        return json.loads(file.read_text()) if file.exists() else None

    stage = Stage(
        "motion", start, Objective, files=VideoBatches
    )  # its batches are the studio's, unless a source is named
    courses = [Course([stage], export, origin="begun")]
    assert words("studio") == vocabulary()
    assert words("own", motion={**recipe["motion"], "data": {"source": "clips"}}) is None
    begun = tmp_path / "begun"
    begun.mkdir()
    assert words("of nobody knows what", begun=str(begun)) is None
    (begun / "vocabulary.json").write_text('{"things": {"ball": []}}')
    assert words("of a model", begun=str(begun)) == {"things": {"ball": []}}
    courses = [Course([stage], export, words=lambda: {"motions": {"nods": []}})]
    assert words("faces") == {"motions": {"nods": []}}


def without(path):
    def change(recipe):
        *parents, last = path.split(".")
        for name in parents:
            recipe = recipe[name]
        del recipe[last]

    return change


def with_fields(**fields):
    return lambda recipe: recipe.update(fields)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *((without(path), f"lacks {path}") for path in ("base.model", "base.objective", "base.data", "base.training",
          "styles.oil.rank", "styles.ink.training", "words.model", "sampling")),
        (without("base"), "lacks base.model"),
        (with_fields(styles="ink"), "must have names under styles, not 'ink'"),
        (with_fields(base="big"), "must have fields under base.model, not 'big'"),
        (with_fields(words={"model": {"size": 1}}), "unknown field words.model.size"),
        (lambda recipe: recipe["base"]["model"].update(depth=2), "unknown field base.model.depth"),
        (lambda recipe: recipe["base"]["data"].update(source="x"), "unknown field base.data.source"),
        (lambda recipe: recipe["motion"]["data"].update(source="x"), "x is no source of videos"),
        (lambda recipe: recipe["styles"]["ink"]["training"].update(epochs=2), "field styles.ink.training.epochs"),
        (lambda recipe: recipe["motion"]["training"].update(steps=0), "steps"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_before_anything_is_trained(recipe, tmp_path, change, said):
    change(recipe)
    with pytest.raises(InputError, match=said):
        train(recipe, COURSES, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_model_folder_of_the_user_stays(recipe, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").touch()
    with pytest.raises(InputError, match="model is there already, and no training has left it"):
        train(recipe, COURSES, tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "mine.txt"]


def test_a_model_folder_is_whole_or_the_older_one(recipe, tmp_path):
    class Pipe:
        def __init__(self, text):
            self.text = text

        def save_pretrained(self, folder):
            folder.mkdir()
            (folder / "first").write_text(self.text)
            if self.text == "new":
                raise KeyboardInterrupt
            (folder / "second").write_text(self.text)

    def courses(text):
        return [Course([Stage("motion", start, Objective)], lambda _, root: save_model(Pipe(text), root))]

    assert train(recipe, courses("old"), tmp_path, parts=[]) == tmp_path / "model"
    with pytest.raises(KeyboardInterrupt):
        train(recipe, courses("new"), tmp_path, parts=[])
    assert {path.name: path.read_text() for path in (tmp_path / "model").iterdir()} == dict.fromkeys(
        ("first", "second"), "old"
    )
    assert not [path for path in tmp_path.iterdir() if ".part-" in path.name]
    assert train(recipe, courses("newer"), tmp_path, parts=[]) == tmp_path / "model"
    assert (tmp_path / "model" / "second").read_text() == "newer"


def test_one_training_in_a_folder(recipe, tmp_path):
    with (
        prepare(recipe, COURSES, tmp_path).alone(),
        pytest.raises(InputError, match="is being trained in by another process"),
    ):
        train(recipe, COURSES, tmp_path)
