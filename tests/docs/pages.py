"""The pages of the documentation as tests see them: fenced blocks, links, tables.

An HTML comment before a block, invisible to readers, says how a test takes it:

* `<!-- test: file NAME -->` writes it to NAME instead of running it;
* `<!-- test: exit N -->` expects the exit code N from its last command;
* `<!-- test: answer -->` compares a JSON block with what the command before it wrote, by its keys;
* `<!-- test: like PAGE -->` stands alone: the first Python block of PAGE is run here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OWN_DOCS = sorted(path for path in (ROOT / "docs").rglob("*.md") if "results" not in path.relative_to(ROOT).parts)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *OWN_DOCS]
MARK = re.compile(r"<!-- test: (\w+) ?(.*?) -->")
LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line where it begins, and the mark before it (`file NAME`)."""

    page: str
    line: int
    language: str
    text: str
    mark: str = ""
    argument: str = ""

    @property
    def place(self) -> str:
        """`docs/tutorial.md:12`."""
        return f"{self.page}:{self.line}"


def name_of(page: Path) -> str:
    """A page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page in order; a mark that stands alone comes as a block of the language `mark`."""
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), 1))
    mark, argument = "", ""
    for number, line in lines:
        found = MARK.fullmatch(line.strip())
        if found and found[1] == "like":
            yield Block(name_of(page), number, "mark", "", *found.groups())
        elif found:
            mark, argument = found.groups()
        elif line.startswith("```"):
            inner = []
            for _, body in lines:
                if body.startswith("```"):
                    break
                inner.append(body)
            yield Block(name_of(page), number, line[3:].strip(), "\n".join(inner) + "\n", mark, argument)
            mark, argument = "", ""


def links(page: Path) -> list[str]:
    """The targets of a page's links, those inside fenced blocks left out."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return LINK.findall(text)


def anchors(page: Path) -> set[str]:
    """What `#…` may follow a link to this page: its headings as GitHub writes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def section(page: Path, title: str) -> str:
    """What stands under a heading, up to the next one of its level or a higher one."""
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(title)}$\n(.*?)(?=^#{{1,6}} |\Z)", text, flags=re.M | re.S)
    assert found, f'{name_of(page)} has no section "{title}"'
    return found[2]


def table(text: str) -> list[list[str]]:
    """The rows of the first table in a text, without its head; a cell's outer spaces are cut."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return cells[2:]


def code(cell: str) -> list[str]:
    """What stands in backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)
