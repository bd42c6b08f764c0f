"""Every link inside the repository leads somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from .pages import PAGES, ROOT, anchors, links, name_of

LINKING = [*PAGES, ROOT / "tasks" / "README.md", ROOT / "tasks" / "demo" / "README.md", ROOT / "CHANGELOG.md"]


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    assert page.read_text(encoding="utf-8").startswith(("# ", "<!--"))
    for link in links(page):
        target, _, anchor = link.partition("#")
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{name_of(page)}: {link}"
        assert ROOT in path.parents, f"{name_of(page)}: {link} leaves the repository"
        if anchor:
            assert anchor in anchors(path), f"{name_of(page)}: no heading for {link}"


def test_no_page_names_a_folder_of_one_machine() -> None:
    for page in LINKING:
        text = page.read_text(encoding="utf-8")
        assert not any(f"{start}/" in text for start in ("/work", "/home", "/root", "/tmp")), name_of(page)
