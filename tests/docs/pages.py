"""Reads the documentation: its code blocks, with the marks that stand before them."""

from __future__ import annotations

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(
    r"(?:^[ \t]*<!--[ \t]*(?P<mark>slow|no-run(?::[^\n]*?)?)[ \t]*-->[ \t]*\n)?"
    r"^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w-]*)(?P<rest>[^\n]*)\n"
    r"(?P<text>.*?)"
    r"^[ \t]*(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_TITLE = re.compile(r'title="([^"]+)"')
_SHELL = ("bash", "sh", "shell", "console")
_OPERATORS = {"|", "||", "&&", ";", "&", ">", ">>", "<"}


@dataclass(frozen=True)
class Block:
    """A fenced block. reason: why it is not run; None if it is. title: of the file that it shows, if it shows one."""

    line: int
    language: str
    text: str
    slow: bool = False
    reason: str | None = None
    title: str | None = None

    def commands(self) -> list[list[str]]:
        """The `animagic` commands in a shell block, without the word animagic. Raises ValueError for what no test
        can run: pipes and the like."""
        if self.language not in _SHELL:
            return []
        found = []
        for line in re.sub(r"\\\n\s*", " ", self.text).splitlines():
            line = line.strip()
            if self.language == "console":
                if not line.startswith("$ "):
                    continue  # what the command printed
                line = line[2:]
            if re.match(r"torchrun\b", line):
                continue  # several processes: tests/training/test_ranks.py starts them
            if not re.match(r"animagic\b", line):
                if re.search(r"\banimagic (?:generate|models|plan|info|reproduce|doctor|train|magi|serve|app)\b", line):
                    raise ValueError(f"the command must begin with animagic: {line}")
                continue
            words = shlex.split(line, comments=True)
            if _OPERATORS & set(words):
                raise ValueError(f"a command in the documentation stands alone, without pipes: {line}")
            found.append(words[1:])
        return found

    def requests(self) -> list[list[str]]:
        """The words of each `curl` in a shell block; they go to the server that the page has started."""
        lines = re.sub(r"\\\n\s*", " ", self.text).splitlines() if self.language in _SHELL else []
        return [shlex.split(line, comments=True) for line in lines if re.match(r"curl .*127\.0\.0\.1:8000", line)]

    @property
    def runs(self) -> bool:
        """Whether there is something in it for the tests to do."""
        found = self.commands() or self.requests() or self.language == "python" or self.title
        return self.reason is None and bool(found)


def blocks(markdown: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found = []
    for match in _BLOCK.finditer(markdown):
        mark, title = match["mark"] or "", _TITLE.search(match["rest"])
        found.append(
            Block(
                line=markdown.count("\n", 0, match.start("fence")) + 1,
                language=match["language"],
                text=textwrap.dedent(match["text"]),
                slow=mark == "slow",
                reason=mark.removeprefix("no-run").lstrip(": ") if mark.startswith("no-run") else None,
                title=title[1] if title else None,
            )
        )
    return found
