"""What the code knows stands in the pages."""

import importlib.util

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


def test_the_options_of_a_command_stand_in_its_page():
    page = hooks.on_page_markdown("# x\n\n<!-- options: generate -->\n", page=None)
    assert "`--frames` `N\\|endless` | Frames of the video" in page
    assert "`--json` | Print one machine-readable line" in page
    shared, of_magi1, of_animatediff = page.split("| option | meaning |")[1:]
    assert "`--loop`" in of_animatediff
    assert "`--loop`" not in shared + of_magi1
    assert "Only AnimateDiff" in of_magi1  # the caption of the next table
