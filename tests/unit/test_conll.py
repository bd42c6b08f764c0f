"""CoNLL files, as they are found: delimiters, odd lines, missing columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtl_nlp.data.conll import CONLL_U, column_names, read_conll, write_conll
from mtl_nlp.errors import FaultyInput


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "file.conll"
    path.write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
    return path


def faults_of(path: Path) -> list[str]:
    with pytest.raises(FaultyInput) as caught:
        read_conll(path)
    return [str(fault).replace(str(path), "FILE") for fault in caught.value.faults]


def test_sentences_words_and_lines(tmp_path: Path) -> None:
    parsed = read_conll(write(tmp_path, "\n\nanna B-PER\nsings O\n\n\n\nhi O\n"))
    assert parsed.columns == ["tokens", "labels"]
    assert parsed.sentences == [[["anna", "sings"], ["B-PER", "O"]], [["hi"], ["O"]]]
    assert parsed.lines == [[3, 4], [8]]
    assert parsed.blank_lines_kept == 0


def test_the_last_sentence_needs_no_blank_line(tmp_path: Path) -> None:
    assert len(read_conll(write(tmp_path, "a O\n\nb O")).sentences) == 2


def test_without_a_tab_any_white_space_divides(tmp_path: Path) -> None:
    parsed = read_conll(write(tmp_path, "anna  NNP   B-PER\nsings VBZ O\n"))
    assert parsed.columns == ["tokens", "column_2", "labels"]
    assert parsed.sentences == [[["anna", "sings"], ["NNP", "VBZ"], ["B-PER", "O"]]]


def test_a_tab_anywhere_makes_the_tab_the_delimiter(tmp_path: Path) -> None:
    parsed = read_conll(write(tmp_path, "New York\tB-LOC\n\nis\tO\n"))
    assert parsed.sentences == [[["New York"], ["B-LOC"]], [["is"], ["O"]]]


def test_an_empty_word_with_a_tag_is_a_word(tmp_path: Path) -> None:
    parsed = read_conll(write(tmp_path, "a\tO\n\tO\nb\tB-LOC\n"))
    assert parsed.sentences == [[["a", "", "b"], ["O", "O", "B-LOC"]]]


def test_a_line_of_spaces_ends_no_sentence_and_is_counted(tmp_path: Path) -> None:
    parsed = read_conll(write(tmp_path, "a\tO\n \nb\tO\n   \n\nc\tO\n"))
    assert [sentence[0] for sentence in parsed.sentences] == [["a", "b"], ["c"]]
    assert parsed.blank_lines_kept == 2
    assert parsed.lines == [[1, 3], [6]]


def test_every_line_with_too_few_columns_is_named(tmp_path: Path) -> None:
    told = faults_of(write(tmp_path, "a\tO\nb\nc\tO\n\nd\te\tO\nf\n"))
    assert told == [
        'FILE:2: too few columns: 1 in "b" → 2 columns',
        'FILE:5: too many columns: 3 in "d\te\tO" → 2 columns',
        'FILE:6: too few columns: 1 in "f" → 2 columns',
    ]


def test_docstart_and_comments_are_no_words(tmp_path: Path) -> None:
    text = "-DOCSTART- -X- -X- O\n\n# id = 1\na x y O\n# x y B-X\n\n-DOCSTART- -X- -X- O\n\nb x y O\n"
    parsed = read_conll(write(tmp_path, text))
    assert parsed.columns == ["tokens", "pos_tags", "chunk_tags", "ner_tags"]
    # Inside a sentence a hash is a word like any other; before its first word it begins a comment.
    assert [sentence[0] for sentence in parsed.sentences] == [["a", "#"], ["b"]]
    assert parsed.lines == [[4, 5], [9]]


def test_windows_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    parsed = read_conll(write(tmp_path, "\ufeffa O\r\n\r\nb O\r\n".encode()))
    assert parsed.sentences == [[["a"], ["O"]], [["b"], ["O"]]]


@pytest.mark.parametrize("odd", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_stray_line_separator_stays_inside_its_word(tmp_path: Path, odd: str) -> None:
    parsed = read_conll(write(tmp_path, f"a{odd}b\tO\nc\tO\n"))
    assert parsed.sentences == [[[f"a{odd}b", "c"], ["O", "O"]]]


@pytest.mark.parametrize("text", ["", "\n\n", "   \n", "-DOCSTART- O\n"])
def test_a_file_without_words_is_a_fault(tmp_path: Path, text: str) -> None:
    assert faults_of(write(tmp_path, text)) == ["FILE: no word in the file → one word a line with its tag"]


def test_names_of_columns() -> None:
    assert column_names(1) == ["tokens"]
    assert column_names(2) == ["tokens", "labels"]
    assert column_names(3) == ["tokens", "column_2", "labels"]
    assert column_names(4) == ["tokens", "pos_tags", "chunk_tags", "ner_tags"]
    assert column_names(5) == ["tokens", "column_2", "column_3", "column_4", "labels"]


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    sentences = [(["New York", "", "is"], ["B-LOC", "O", "O"]), (["x"], ["O"])]
    parsed = read_conll(write(tmp_path, "".join(write_conll(sentences))))
    assert [(words, tags) for words, tags in parsed.sentences] == sentences


def word(number: str, form: str, upos: str) -> str:
    return "\t".join([number, form, "_", upos, *"______"]) + "\n"


UD = (
    "# sent_id = 1\n# text = ab\tc\n"
    + word("1-2", "ab", "_") + word("1", "a", "ADP") + "#note\n" + word("2", "b", "DET") + word("2.1", "x", "VERB")
    + "\n" + word("1", "#", "SYM") + "\n# newpar\n\n"
)  # fmt: skip


def write_u(folder: Path, text: str) -> Path:
    path = folder / "file.conllu"
    path.write_text(text, encoding="utf-8")
    return path


def test_conll_u_has_its_columns_and_leaves_out_what_is_no_word(tmp_path: Path) -> None:
    parsed = read_conll(write_u(tmp_path, UD))
    assert parsed.columns == list(CONLL_U)
    assert [(sentence[0], sentence[1], sentence[3]) for sentence in parsed.sentences] == [
        (["1", "2"], ["a", "b"], ["ADP", "DET"]),
        (["1"], ["#"], ["SYM"]),
    ]
    assert parsed.lines == [[4, 6], [9]]
    assert parsed.no_words == 2


def test_conll_u_of_ranges_alone_is_a_fault(tmp_path: Path) -> None:
    path = write_u(tmp_path, word("1-2", "ab", "_"))
    assert faults_of(path) == ["FILE: no word in the file → one word a line with its tag"]


def test_every_line_of_conll_u_without_a_number_is_named(tmp_path: Path) -> None:
    told = faults_of(write_u(tmp_path, word("1", "a", "X") + word("b", "b", "X") + word("_", "c", "X")))
    allowed = "a word's number, as 3, 3-4 or 5.1"
    assert told == [f'FILE:{line}: column 1: found "{found}" → {allowed}' for line, found in ((2, "b"), (3, "_"))]


def test_other_files_called_conllu_are_conll(tmp_path: Path) -> None:
    parsed = read_conll(write_u(tmp_path, "# a comment\n1\tO\n3-4\tO\n"))
    assert (parsed.columns, parsed.sentences) == (["tokens", "labels"], [[["1", "3-4"], ["O", "O"]]])
    assert parsed.no_words == 0
