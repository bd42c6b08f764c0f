"""Write the matrix of what goes with what into docs/methods.md, from the code that refuses."""

from __future__ import annotations

from pathlib import Path

from mtl_nlp.balancing.rules import matrix

PAGE = Path(__file__).resolve().parents[1] / "docs" / "methods.md"
START, END = "<!-- matrix -->", "<!-- /matrix -->"


def main() -> None:
    """Replace what stands between the marks."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}\n\n{matrix()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
