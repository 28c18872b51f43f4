"""What the code knows stands in the pages."""

import importlib.util
import re

from pages import ROOT

_spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
hooks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hooks)


def test_a_card_comes_without_front_matter_and_title_and_finds_its_pictures(tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "README.md").write_text(
        "---\nlicense: apache-2.0\n---\n\n# tiny\n\nText. ![frames](sheet.png) ![far](https://x.y/z.png)\n"
    )
    text = hooks.card("tiny", tmp_path)
    assert text == "Text. ![frames](tiny/sheet.png) ![far](https://x.y/z.png)"


def test_a_card_that_is_not_there_is_said_to_be_missing(tmp_path):
    assert "not there yet" in hooks.card("tiny", tmp_path)


def test_the_place_in_a_page_is_filled():
    page = (ROOT / "docs" / "models" / "magi1-tiny.md").read_text("utf-8")
    assert "<!-- card:" in page
    assert "<!-- card:" not in hooks.on_page_markdown(page, page=None)


def test_the_words_of_a_model_stand_in_its_card(tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "vocabulary.json").write_text(
        '{"things": {"ball": ["ball", "sphere", "disc"], "car": ["car"]}}'
    )
    assert hooks.words("tiny", tmp_path).splitlines()[2:] == ["| things | **ball** (sphere, disc); **car** |"]
    for model in ("magi1-tiny", "animatediff-tiny"):
        page = hooks.on_page_markdown(f"<!-- card: {model} -->", page=None)
        assert "**square** (box, block, cube); **triangle**" in page
        assert "<!-- vocabulary" not in page


def test_the_options_of_a_command_stand_in_its_page():
    page = hooks.on_page_markdown("# x\n\n<!-- options: generate -->\n", page=None)
    assert "`--frames` `N\\|endless` | Frames of the video" in page
    assert "`--json` | Print one machine-readable line" in page
    shared, of_magi1, of_animatediff = page.split("| option | meaning |")[1:]
    assert "`--loop`" in of_animatediff
    assert "`--loop`" not in shared + of_magi1
    assert "Only AnimateDiff" in of_magi1  # the caption of the next table


def test_every_room_and_system_stands_in_the_drawing_and_every_room_in_the_table():
    from animagic.systems import SYSTEMS

    source, page = ROOT / "src" / "animagic", (ROOT / "docs" / "ideas" / "architecture.md").read_text("utf-8")
    packages = {file.parent.name for file in source.glob("*/__init__.py")}
    rooms = packages | {file.stem for file in source.glob("*.py") if not file.name.startswith("__")}
    assert len(rooms) > 10
    assert "<!-- rooms -->" in page.splitlines()
    drawing = hooks.on_page_markdown("<!-- rooms -->", page=None)
    for name in (*rooms, *(system.title for system in SYSTEMS.values())):
        assert re.search(rf"<b>{name}</b><small>\w", drawing), f"{name} is not drawn, or has no docstring"
    table = page.split("## Where does my line go?")[1].split("\n## ")[0]
    last_cells = re.findall(r"\| ([^|]+) \|$", table, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(last_cells))) == rooms


def test_a_room_is_described_by_the_first_sentence_of_its_docstring(tmp_path):
    (tmp_path / "hall").mkdir()
    (tmp_path / "hall" / "__init__.py").write_text('"""Hall: where `guests`\nwait. And more.\n\nDetails."""\n')
    assert hooks.summary(tmp_path / "hall") == "Hall: where guests wait."
    assert hooks.box("hall", "Hall: where guests wait.") == (
        '<div class="room"><b>hall</b><small>Where guests wait.</small></div>'
    )
    assert hooks.summary(tmp_path / "cellar") == ""
