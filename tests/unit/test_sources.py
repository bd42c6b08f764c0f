"""Sources → corpora: sharing, gaps, carving, label orders, faults with file and line, equal formats."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mtl_nlp.data.readers import read_files
from mtl_nlp.data.sources import Corpus, read_corpora
from mtl_nlp.errors import FaultyInput
from mtl_nlp.recipe import make_recipe
from tests.conftest import write_conll, write_jsonl

Rows = list[dict[str, Any]]


def label_task(name: str = "mine", head: str = "sequence_classification", **data: Any) -> dict[str, Any]:
    columns = data.pop("columns", {"text": "text", "label": "label"})
    return {"name": name, "head": head, "data": {"columns": columns, **data}}


def read(tasks: list[dict[str, Any]], base: Path, memory: Mapping[str, Any] | None = None, **more: Any) -> list[Corpus]:
    return read_corpora(make_recipe({"tasks": tasks}, base=base, memory=memory or ()), memory=memory, **more)


def one(task: dict[str, Any], base: Path, rows: Rows | None = None) -> Corpus:
    """The corpus of one task, on `mine.jsonl` with the rows if there are any."""
    if rows is not None:
        task["data"]["source"] = str(write_jsonl(base / "mine.jsonl", rows))
    (corpus,) = read([task], base)
    return corpus


def column(corpus: Corpus, name: str, split: str = "train") -> list[Any]:
    return list(corpus.splits[split].data[name])


def faults_of(call: Any, base: Path) -> list[str]:
    with pytest.raises(FaultyInput) as caught:
        call()
    return [str(item).replace(f"{base}/", "") for item in caught.value.faults]


def texts(number: int, **more: Any) -> Rows:
    return [{"text": f"text {i}", "label": "ab"[i % 2], **more} for i in range(number)]


def test_two_tasks_on_one_file_share_its_texts_and_keep_their_gaps(tmp_path: Path) -> None:
    rows = [
        {"text": f"t {i}", "mood": "x" if i % 2 else None, "topic": "yz"[i % 2] if i % 3 else ""} for i in range(12)
    ]
    source = str(write_jsonl(tmp_path / "both" / "train.jsonl", rows).parent)
    write_jsonl(tmp_path / "both" / "validation.jsonl", rows[:6])
    tasks = [label_task(n, source=source, columns={"text": "text", "label": n}) for n in ("mood", "topic")]
    tasks[0]["labels"] = ["x", "w"]
    (corpus,) = read(tasks, tmp_path)
    assert (corpus.name, corpus.task_names, corpus.reads) == ("mood+topic", ["mood", "topic"], "text")
    train = corpus.splits["train"]
    # Rows 0 and 6 have neither annotation.
    assert (len(train), train.unannotated) == (10, 2)
    assert train.source_rows == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
    assert column(corpus, "@mood") == ["x", None, "x", None, "x", "x", None, "x", None, "x"]
    assert column(corpus, "@topic") == ["z", "y", None, "y", "z", "z", "y", None, "y", "z"]
    assert (train.counts["mood"].annotated, train.counts["mood"].missing) == (6, 6)
    assert train.where(1) == f"{tmp_path}/both/train.jsonl:3"


def test_words_win_over_text_where_the_characters_agree(tmp_path: Path) -> None:
    rows = [{"text": f"hi, bob {i}", "words": ["hi", ",", "bob", str(i)], "label": "a", "tags": ["O", "O", "B-P", "O"]}
            for i in range(9)]  # fmt: skip
    source = str(write_jsonl(tmp_path / "f.jsonl", rows))
    ner = label_task("ner", "token_classification", source=source, columns={"tokens": "words", "labels": "tags"})
    (corpus,) = read([label_task(source=source), ner], tmp_path)
    assert corpus.reads == "tokens"
    assert corpus.splits["train"].data[0]["tokens"][:3] == ["hi", ",", "bob"]
    assert corpus.notes == []


@pytest.mark.parametrize(
    ("other", "place"),
    [
        ({"tokens": "other", "labels": "tags"}, "f.jsonl:2"),
        ({"tokens": "split", "labels": "tags3"}, "f.jsonl:1"),
        ({"text": "text", "spans": "spans"}, "spans count the characters"),
    ],
)
def test_tasks_that_read_other_texts_are_two_corpora(tmp_path: Path, other: dict[str, str], place: str) -> None:
    rows = [{"text": f"hi {i}", "words": ["hi", str(i)], "other": ["hi" if i == 0 else "ho", str(i)], "tags": ["B-P", "O"],
             "split": ["h", "i", str(i)], "tags3": ["O", "O", "O"] if i else ["B-P", "O", "O"],
             "spans": [{"start": 0, "end": 2, "label": "P"}]} for i in range(9)]  # fmt: skip
    source = str(write_jsonl(tmp_path / "f.jsonl", rows))
    first = label_task("one", "token_classification", source=source, columns={"tokens": "words", "labels": "tags"})
    second = label_task("two", "token_classification", source=source, columns=other)
    corpora = read([first, second], tmp_path)
    assert [corpus.name for corpus in corpora] == ["one", "two"]
    assert place in corpora[0].notes[0]
    assert corpora[1].splits["train"].data[0]["@two"]


def test_questions_of_other_columns_are_two_corpora(tmp_path: Path) -> None:
    rows = [
        {"q": f"who {i}", "p": f"what {i}", "c": "bob", "a": {"text": ["bob"], "answer_start": [0]}} for i in range(9)
    ]
    source = str(write_jsonl(tmp_path / "f.jsonl", rows))
    tasks = [
        label_task(n, "question_answering", source=source, columns={"question": n, "context": "c", "answers": "a"})
        for n in ("q", "p")
    ]
    corpora = read(tasks, tmp_path)
    assert [sorted(column(corpus, "question"))[0][:4] for corpus in corpora] == ["who ", "what"]


def test_a_validation_split_is_carved_with_no_text_on_both_sides(tmp_path: Path) -> None:
    rows = [{"text": f"text {i % 25}", "label": "ab"[i % 2]} for i in range(100)]
    corpus = one(label_task(validation=0.2), tmp_path, rows)
    train, held = set(column(corpus, "text")), set(column(corpus, "text", "validation"))
    assert corpus.carved
    assert train & held == set()
    assert len(train | held) == 25
    # Whole groups of four, until a fifth of the rows is held.
    assert (len(corpus.splits["train"]), len(corpus.splits["validation"])) == (80, 20)
    again = one(label_task(validation=0.2), tmp_path, rows)
    assert column(again, "text", "validation") == column(corpus, "text", "validation")
    assert corpus.splits["validation"].where(0).endswith(f":{corpus.splits['validation'].source_rows[0] + 1}")


def test_a_split_that_exists_is_not_carved(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        write_jsonl(tmp_path / "d" / f"{split}.jsonl", texts(4))
    corpus = one(label_task(source="d"), tmp_path)
    assert {name: len(part) for name, part in corpus.splits.items()} == {"train": 4, "validation": 4, "test": 4}
    assert not corpus.carved


def test_one_text_cannot_be_carved(tmp_path: Path) -> None:
    told = faults_of(lambda: one(label_task(), tmp_path, [{"text": "same", "label": x} for x in "ab"]), tmp_path)
    assert told == ["mine.jsonl:1: data (mine): too few texts to carve a validation split"]


def test_an_unknown_label_is_a_fault_in_train_and_counted_in_test(tmp_path: Path) -> None:
    for split, odd in (("train", "c"), ("validation", "a"), ("test", "d")):
        write_jsonl(
            tmp_path / "d" / f"{split}.jsonl", [*texts(4), {"text": "odd", "label": odd}, {"text": "o", "label": odd}]
        )
    task = label_task(source="d") | {"labels": ["a", "b"]}
    assert faults_of(lambda: one(task, tmp_path), tmp_path) == [
        'd/train.jsonl:5: mine.labels (train): unknown label "c" (2 times) → a, b'
    ]
    corpus = one(task | {"labels": ["a", "c", "b"]}, tmp_path)
    assert corpus.tasks[0].labels == ["a", "c", "b"]
    assert corpus.splits["test"].counts["mine"].unknown == {"d": 2}


def test_an_unknown_tag_is_told_with_the_line_of_its_word(tmp_path: Path) -> None:
    write_conll(
        tmp_path / "f.conll", [[("a", "O"), ("b", "B-PER")], [("c", "B-PER"), ("d", "B-XX")]] + [[("e", "O")]] * 5
    )
    task = label_task("ner", "token_classification", source="f.conll", columns={"tokens": "tokens", "labels": "labels"})
    told = faults_of(lambda: one(task | {"labels": ["PER"]}, tmp_path), tmp_path)
    assert told == ['f.conll:5: ner.labels (train): unknown label "XX" (1 times) → PER']


def test_labels_without_a_list_stand_by_code_point(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "label": label} for i, label in enumerate(["é", "b", "B", "10", "9", "a b"] * 3)]
    assert one(label_task(), tmp_path, rows).tasks[0].labels == ["10", "9", "B", "a b", "b", "é"]


@pytest.mark.parametrize(
    ("values", "extra", "labels", "found"),
    [
        ([0, 1, 2], {}, ["0", "1", "2"], ["0", "1", "2"]),
        ([2.0, 0.0, None], {"names": ["x", "y", "z"]}, ["x", "y", "z"], ["z", "x", None]),
        ([1, -1, 0], {"names": ["x", "y"]}, ["x", "y"], ["y", None, "x"]),
        ([True, False, None], {}, ["false", "true"], ["true", "false", None]),
        (["no", "yes", ""], {}, ["no", "yes"], ["no", "yes", None]),
        (["u", "?", "v"], {"missing": ["?"]}, ["u", "v"], ["u", None, "v"]),
        ([5, 7, 7], {"missing": [5]}, ["7"], [None, "7", "7"]),
    ],
)
def test_codes_truth_values_and_gaps(
    tmp_path: Path, values: list[Any], extra: Any, labels: Any, found: list[Any]
) -> None:
    for split in ("train", "validation"):
        rows = [{"text": f"t {i}", "label": value, "k": "x"} for i, value in enumerate(values)]
        write_jsonl(tmp_path / "d" / f"{split}.jsonl", rows)
    # A second task keeps the rows of which the first has no annotation.
    other = label_task("all", source="d", columns={"text": "text", "label": "k"}) | {"labels": ["x", "y"]}
    split_filter = extra.get("missing")
    tasks = [label_task(source="d", **extra), other]
    if split_filter:
        tasks[1]["data"]["missing"] = split_filter
    (corpus,) = read(tasks, tmp_path)
    assert corpus.tasks[0].labels == labels
    assert column(corpus, "@mine") == found


def test_a_code_out_of_range_is_a_fault(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "label": i} for i in range(3)]
    told = faults_of(lambda: one(label_task(names=["x", "y"]), tmp_path, rows), tmp_path)
    assert told == ["mine.jsonl:3: mine (train): label code 2 → allowed: 0 to 1, or a name"]


def test_the_order_of_a_class_label_is_kept_and_given_labels_win(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset

    rows: dict[str, Any] = {"text": [f"t {i}" for i in range(20)], "label": [i % 2 for i in range(20)]}
    data = Dataset.from_dict(rows).cast_column("label", ClassLabel(names=["zebra", "ant", "unused"]))
    (corpus,) = read([label_task()], tmp_path, {"mine": data})
    assert corpus.tasks[0].labels == ["zebra", "ant", "unused"]
    assert set(column(corpus, "@mine")) == {"zebra", "ant"}
    (given,) = read([label_task() | {"labels": ["unused", "ant", "zebra"]}], tmp_path, {"mine": data})
    assert given.tasks[0].labels == ["unused", "ant", "zebra"]
    data.to_parquet(tmp_path / "f.parquet")
    assert one(label_task(source="f.parquet"), tmp_path).tasks[0].labels == ["zebra", "ant", "unused"]


def test_a_class_label_of_tags_gives_types_in_their_order(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, List

    rows: dict[str, Any] = {"tokens": [["a", str(i)] for i in range(20)], "labels": [[2, i % 2] for i in range(20)]}
    names = ["O", "I-Z", "B-Z", "B-A", "I-A"]
    data = Dataset.from_dict(rows).cast_column("labels", List(ClassLabel(names=names)))
    (corpus,) = read([{"name": "ner", "head": "token_classification"}], tmp_path, {"ner": data})
    assert corpus.tasks[0].labels == ["Z", "A"]
    assert sorted(map(tuple, column(corpus, "@ner")))[0] == ("B-Z", "I-Z")


def test_data_in_memory_of_every_kind_gives_the_same_corpus(tmp_path: Path) -> None:
    import pandas
    from datasets import Dataset

    rows = texts(20)
    forms: list[Any] = [rows, Dataset.from_list(rows), pandas.DataFrame(rows), {"train": rows}]
    corpora = [
        read([{"name": "mine", "head": "sequence_classification"}], tmp_path, {"mine": form})[0] for form in forms
    ]
    for corpus in corpora:
        assert corpus.splits["train"].data.to_list() == corpora[0].splits["train"].data.to_list()
    assert corpora[0].tasks[0].data.columns.roles() == {"text": ["text"], "label": ["label"]}
    (split,) = read([label_task()], tmp_path, {"mine": {"train": rows, "validation": rows[:4], "test": rows[:2]}})
    assert {name: len(part) for name, part in split.splits.items()} == {"train": 20, "validation": 4, "test": 2}


@pytest.mark.parametrize(
    ("head", "row", "roles"),
    [
        ("token_classification", {"text": "a", "tokens": ["a"], "labels": ["B-X"], "label": "q"}, {"tokens", "labels"}),
        ("token_classification", {"text": "a", "spans": [{"start": 0, "end": 1, "label": "X"}]}, {"text", "spans"}),
        ("multi_label_classification", {"text": "a", "label": "q", "labels": ["x"]}, {"text", "labels"}),
        ("sequence_classification", {"tokens": ["a"], "label": "q", "labels": ["x"]}, {"tokens", "label"}),
        ("masked_language_modeling", {"text": "a", "label": "q"}, {"text"}),
    ],
)
def test_columns_in_memory_default_to_the_roles_a_head_needs(
    tmp_path: Path, head: str, row: Any, roles: set[str]
) -> None:
    data = [{**row, **{k: f"{row[k]} {i}" for k in ("text",) if k in row}, "n": i} for i in range(12)]
    if "tokens" in row:
        data = [{**r, "tokens": [f"a{r['n']}"]} for r in data]
    (corpus,) = read([{"name": "mine", "head": head}], tmp_path, {"mine": data})
    assert set(corpus.tasks[0].data.columns.roles()) == roles
    assert corpus.tasks[0].word_splitter == ("given" if "tokens" in roles else "pretokenizer")


def test_columns_in_memory_that_are_not_there_are_told(tmp_path: Path) -> None:
    told = faults_of(
        lambda: read([{"name": "mine", "head": "regression"}], tmp_path, {"mine": [{"body": "a", "label": 1}]}),
        tmp_path,
    )
    assert len(told) == 1
    assert "reads text or tokens or bracketed → body, label (rename them, or say in data.columns" in told[0]


def write_all(folder: Path, rows: Rows) -> list[Path]:
    """The rows as JSONL, CSV, TSV and Parquet."""
    from datasets import Dataset

    paths = [write_jsonl(folder / "f.jsonl", rows), folder / "f.csv", folder / "f.tsv", folder / "f.parquet"]
    for path, delimiter in ((paths[1], ","), (paths[2], "\t")):
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    Dataset.from_list(rows).to_parquet(paths[3])
    return paths


def test_all_formats_give_the_same_rows(tmp_path: Path) -> None:
    awkward = ["NA", "null", "None", "a,b", 'he said "no"', "a\tb", "é 😀", " spaced ", "1", "true", "two\nlines"]
    rows = [
        {"text": f"{text} {i}", "label": "yes" if i % 2 else "no", "gap": None if i % 3 else "x"}
        for i, text in enumerate(awkward * 2)
    ]
    found = []
    for path in write_all(tmp_path, rows):
        tasks = [
            label_task(source=str(path)),
            label_task("gap", source=str(path), columns={"text": "text", "label": "gap"}),
        ]
        (corpus,) = read([tasks[0], tasks[1] | {"labels": ["x", "y"]}], tmp_path)
        found.append({split: part.data.to_list() for split, part in corpus.splits.items()})
    assert found[1:] == found[:1] * 3
    assert sum(len(part) for part in found[0].values()) == 22


def test_a_filter_keeps_rows_by_value_and_counts_the_rest(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "label": "ab"[i % 2], "lang": ["en", "de", "fr"][i % 3], "n": i % 2} for i in range(24)]
    corpus = one(label_task(filter={"lang": ["en", "de"], "n": 1}), tmp_path, rows)
    kept = [i for i in range(24) if i % 3 != 2 and i % 2 == 1]
    sources = [row for part in corpus.splits.values() for row in part.source_rows]
    assert sorted(sources) == kept
    assert corpus.splits["train"].filtered == 24 - len(kept)
    told = faults_of(lambda: one(label_task(filter={"language": "en"}), tmp_path, rows), tmp_path)
    assert told == ['recipe: mine.data.filter: no column "language" → text, label, lang, n']


def test_a_split_may_be_named_by_stem_where_the_source_is_a_folder(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write_jsonl(tmp_path / "d" / f"{split}.jsonl", texts(4))
    corpus = one(label_task(source="d", splits={"train": "train", "validation": "validation"}), tmp_path)
    assert {name: len(part) for name, part in corpus.splits.items()} == {"train": 4, "validation": 4}


def test_rows_in_memory_may_lack_a_key_but_not_mix_types(tmp_path: Path) -> None:
    import pandas

    rows: Rows = [{"text": "a"}, *texts(20)]
    (corpus,) = read([label_task()], tmp_path, {"mine": rows})
    assert (corpus.tasks[0].labels, corpus.splits["train"].unannotated) == (["a", "b"], 1)
    mixed = [{"text": f"t {i}", "label": "a" if i else 1} for i in range(9)]
    assert faults_of(lambda: read([label_task()], tmp_path, {"mine": mixed}), tmp_path) == [
        "mine (train), row 2: label: 'a' is a str, but a int at mine (train), row 1 → one type a column (quote them all)"
    ]
    frame = pandas.DataFrame(mixed)
    assert "several types" in faults_of(lambda: read([label_task()], tmp_path, {"mine": frame}), tmp_path)[0]


@pytest.mark.parametrize("streaming", [False, True])
def test_the_first_rows_are_read_whole_or_as_a_stream(tmp_path: Path, streaming: bool) -> None:
    # The column `note` is empty where the first rows are looked at, and absent from others.
    rows: Rows = [{**row, "note": None} for row in texts(2100)]
    rows[1700]["note"] = "late"
    corpus = one(label_task(rows=1800, streaming=streaming), tmp_path, rows)
    both = [*column(corpus, "text"), *column(corpus, "text", "validation")]
    assert sorted(both) == sorted(f"text {i}" for i in range(1800))
    assert corpus.tasks[0].labels == ["a", "b"]
    split = corpus.splits["train"]
    place = split.where(len(split) - 1)
    assert place.endswith(f"mine.jsonl:{split.source_rows[-1] + 1}")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_stream_of_a_file_is_what_the_file_holds(tmp_path: Path, ending: str) -> None:
    from datasets import Dataset

    data = Dataset.from_list(texts(40))
    (data.to_csv if ending == "csv" else data.to_parquet)(str(tmp_path / f"mine.{ending}"))
    task = label_task(source=str(tmp_path / f"mine.{ending}"), rows=30)
    streamed = label_task(source=str(tmp_path / f"mine.{ending}"), rows=30, streaming=True)
    (whole,), (stream,) = read([task], tmp_path), read([streamed], tmp_path)
    for split in ("train", "validation"):
        assert column(whole, "text", split) == column(stream, "text", split)
        assert column(whole, "@mine", split) == column(stream, "@mine", split)


def test_a_hub_dataset_is_streamed_with_its_class_names(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    from mtl_nlp.data.readers import HubSource, read_hub
    from mtl_nlp.data.streaming import first_rows

    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    data = Dataset.from_dict({"text": [f"t {i}" for i in range(50)], "label": [i % 2 for i in range(50)]}, features)
    (tmp_path / "set").mkdir()
    data.to_parquet(str(tmp_path / "set" / "train.parquet"))
    stream, _ = read_hub(HubSource(str(tmp_path / "set")), "train", "here", streaming=True)
    found = first_rows(stream, 20, "here")
    assert found["text"] == data["text"][:20]
    assert found.features["label"].names == ["bad", "good"]


def test_streaming_needs_rows(tmp_path: Path) -> None:
    with pytest.raises(FaultyInput, match=r"data\.streaming: needs data\.rows"):
        one(label_task(streaming=True), tmp_path, texts(10))


def test_tasks_with_other_rows_do_not_share_a_corpus(tmp_path: Path) -> None:
    source = str(write_jsonl(tmp_path / "mine.jsonl", texts(40)))
    tasks = [label_task("one", source=source, rows=20), label_task("other", source=source)]
    assert [corpus.name for corpus in read(tasks, tmp_path)] == ["one", "other"]


def test_a_stream_that_breaks_off_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"text": "a", "label": "b"}\n{"text": \n')
    task = label_task(source=str(tmp_path / "mine.jsonl"), rows=20, streaming=True)
    (found,) = faults_of(lambda: read([task], tmp_path), tmp_path)
    assert found == "mine.jsonl:2: not valid JSON: Expecting value (column 1) → one object a line"


UD = "1-2\tab\t_\t_\t_\t_\t_\t_\t_\t_\n1\ta\t_\tADP\t_\t_\t_\t_\t_\t_\n2\tb{0}\t_\tDET\t_\t_\t_\t_\t_\tX={0}\n\n"


@pytest.mark.parametrize(("tokens", "labels"), [("tokens", "upos"), ("words", "upos"), ("column_2", "column_4")])
def test_conll_u_trains_on_words_alone(tmp_path: Path, tokens: str, labels: str) -> None:
    (tmp_path / "ud.conllu").write_text("".join(UD.format(i) for i in range(10)))
    columns = {"tokens": tokens, "labels": labels}
    task = label_task("pos", "token_classification", source="ud.conllu", columns=columns, validation=0.2)
    corpus = one({**task, "scheme": "none"}, tmp_path)
    assert corpus.tasks[0].labels == ["ADP", "DET"]
    train = corpus.splits["train"]
    assert column(corpus, "tokens") == [["a", f"b{row}"] for row in train.source_rows]
    assert corpus.notes == ["train: 10 lines of multiword tokens (3-4) and empty nodes (5.1) are left out"]
    assert train.where(0, 1) == f"{tmp_path}/ud.conllu:{4 * train.source_rows[0] + 3}"


def test_conll_u_does_not_guess_which_column_has_the_labels(tmp_path: Path) -> None:
    (tmp_path / "ud.conllu").write_text("".join(UD.format(i) for i in range(10)))
    columns = {"tokens": "tokens", "labels": "labels"}
    task = label_task("pos", "token_classification", source="ud.conllu", columns=columns)
    allowed = "id, tokens, lemma, upos, xpos, feats, head, deprel, deps, misc"
    told = f"recipe: pos.data.columns.labels: no column labels in ud.conllu (train) → {allowed}"
    assert faults_of(lambda: one({**task, "scheme": "none"}, tmp_path), tmp_path) == [told]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "text,label\n", "a.csv: no row below the header → at least one row"),
        ("a.tsv", "\ntext\tlabel\n\n", "a.tsv: no row below the header → at least one row"),
        ("a.csv", "\n\n", "a.csv: no row in the file → at least one row"),
        ("a.jsonl", "\n\n", "a.jsonl: no row in the file → at least one row"),
        ("a.json", "[]\n", "a.json: no row in the file → at least one row"),
        ("a.json", '[{"a": 1},\n3]\n', "a.json: found a int in the list → objects"),
        (
            "a.json",
            '[\n{"a": 1}\n{"a": 2}]\n',
            "a.json:3: not valid JSON: Expecting ',' delimiter (column 1) → a list of objects, or one object a line",
        ),
        ("a.csv", "", "a.csv: the file is empty → at least one row"),
        (
            "a.csv",
            "text,text,label\na,b,c\n",
            "a.csv:1: column text stands more than once → a header of distinct names",
        ),
        (
            "a.csv",
            "\n text ,id,text\na,b,c\n",
            "a.csv:2: column text stands more than once → a header of distinct names",
        ),
        (
            "a.tsv",
            "a\ta\tb\tb\n1\t2\t3\t4\n",
            "a.tsv:1: column a, b stands more than once → a header of distinct names",
        ),
    ],
)
def test_a_table_without_rows_or_with_a_doubled_column(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(FaultyInput) as caught:
        read_files([tmp_path / name])
    assert str(caught.value).replace(f"{tmp_path}/", "") == told


def test_columns_without_a_name_may_be_several(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,,\na,b,,\n")
    assert list(read_files([tmp_path / "a.csv"])[0]["text"]) == ["a"]
