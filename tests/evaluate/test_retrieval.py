"""Retrieval measured: judgements and queries as BEIR and TREC have them, documents counted once, scores computed by hand."""

import json
from collections.abc import Sequence
from math import log2
from pathlib import Path

import pytest

from ragray.config import Config, IndexConfig, load_config
from ragray.errors import InputError
from ragray.evaluate.judged import Queries, read_qrels, read_queries
from ragray.evaluate.retrieval import RECALL_AT, evaluate_retrieval
from ragray.types import Passage
from tests.helpers import index_of, sentence

WORDS = ["anchor", "barrel", "candle", "dagger", "engine", "feather"]
LEXICAL = load_config(None, ["retrieve.mode=lexical"])


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Document dN says the first N + 1 words; the fuller a document, the longer, the lower it ranks for one word."""
    passages = [Passage(f"d{n}#0", " ".join(WORDS[: n + 1]), document_id=f"d{n}") for n in range(len(WORDS))]
    return index_of(tmp_path_factory.mktemp("index"), passages, IndexConfig(lexical="english"))


@pytest.fixture(scope="module")
def split_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One document of 300 passages that say `engine` twice, and 120 documents of one passage that say it once."""
    long = [Passage(f"long#{n:03}", f"engine engine {sentence(n)}", document_id="long") for n in range(300)]
    short = [
        Passage(f"s{n:03}#0", f"engine {sentence(n)} {sentence(n + 1)}", document_id=f"s{n:03}") for n in range(120)
    ]
    return index_of(tmp_path_factory.mktemp("split"), [*long, *short], IndexConfig(lexical="english"))


def files(folder: Path, queries: dict[str, str], qrels: Sequence[tuple[str, str, int]]) -> tuple[Path, Path]:
    asked, judged = folder / "queries.jsonl", folder / "qrels.tsv"
    asked.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in queries.items()))
    judged.write_text("".join(f"{query}\t{document}\t{gain}\n" for query, document, gain in qrels))
    return asked, judged


def test_scores_of_two_queries_computed_by_hand(index: Path, tmp_path: Path) -> None:
    queries = {"a": "anchor", "b": "feather", "c": "candle"}
    qrels = [("a", "d2", 1), ("a", "d0", 2), ("a", "gone", 1), ("b", "d0", 1), ("c", "d2", 0), ("x", "d1", 1)]
    found = evaluate_retrieval(index, *files(tmp_path, queries, qrels), LEXICAL)
    # anchor ranks d0 d1 d2 d3 d4 d5; feather finds d5 alone; candle has no relevant document; nobody asks x
    dcg, best = 2 / log2(2) + 1 / log2(4), 2 / log2(2) + 1 / log2(3) + 1 / log2(4)
    figures = found.to_json()
    assert figures.pop("interval") == {name: list(edges) for name, edges in found.intervals.items()}
    assert figures == {
        "ndcg@10": pytest.approx(dcg / best / 2),
        "recall@1": pytest.approx(1 / 3 / 2),
        **{f"recall@{k}": pytest.approx(2 / 3 / 2) for k in (5, 10, 20, 100)},
        "mrr@10": pytest.approx(1 / 2),
        "num_queries": 2,
        "num_refused": 0,
        "num_left_out": 1,
        "num_unknown_documents": 1,
        "num_missing": 1,
        "mode": "lexical",
        "snapshot": "000001-test",
    }


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_every_mode_is_measured_and_says_so(index: Path, tmp_path: Path, mode: str) -> None:
    queries, qrels = files(tmp_path, {"a": "anchor"}, [("a", "d0", 1)])
    found = evaluate_retrieval(index, queries, qrels, load_config(None, [f"retrieve.mode={mode}"]))
    assert (found.mode, found.ndcg_at_10, found.mrr_at_10, set(found.recall_at.values())) == (mode, 1, 1, {1})


def test_a_filter_of_the_configuration_holds(index: Path, tmp_path: Path) -> None:
    queries, qrels = files(tmp_path, {"a": "anchor"}, [("a", "d0", 1)])
    config = load_config(None, ["retrieve.mode=lexical", "retrieve.where=document_id != d0"])
    assert evaluate_retrieval(index, queries, qrels, config).recall_at[100] == 0


def test_a_split_document_counts_once_and_the_search_goes_deeper_until_there_are_enough(
    split_index: Path, tmp_path: Path
) -> None:
    judged = [("q", f"s{n:03}", 1) for n in range(120)]
    found = evaluate_retrieval(split_index, *files(tmp_path, {"q": "engine"}, [*judged, ("q", "long", 1)]), LEXICAL)
    assert found.recall_at == {k: pytest.approx(k / 121) for k in RECALL_AT}
    assert found.ndcg_at_10 == pytest.approx(1)


def test_judgements_may_name_passages_instead_of_documents(split_index: Path, tmp_path: Path) -> None:
    judged = [("q", f"long#{n:03}", 1) for n in range(0, 300, 3)]
    found = evaluate_retrieval(split_index, *files(tmp_path, {"q": "engine"}, judged), LEXICAL)
    assert (
        0 < found.recall_at[100] < 0.6
    )  # a hundred of them are among 300 equals; as one document they would all be found


def test_queries_of_beir_are_read(tmp_path: Path) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_text('\ufeff{"_id": "1", "text": "one\\u2028two", "metadata": {}}\r\n\n{"id": "2", "text": "three"}')
    assert read_queries(path) == Queries({"1": "one\u2028two", "2": "three"}, {})


@pytest.mark.parametrize(
    "text",
    [
        "q1\td1\t1\nq1\td2\t0\nq2\td1\t2\n",
        "query-id\tcorpus-id\tscore\nq1\td1\t1\r\nq1\td2\t0\r\nq2\td1\t2",
        "\ufeffq\td\tRelevance\nq1\td1\t1\nq1\td2\t0\nq2\td1\t2",
        "topic iter doc_id rel\nq1 0 d1 1\nq1 0 d2 0\nq2 0 d1 2",
        "q1\t0\td1\t1\nq1\t0\td2\t0\nq2\t0\td1\t2\n",
        "q1 0 d1 1\nq1 0  d2 0\n\nq2 Q0 d1 2\n",
    ],
)
def test_judgements_of_beir_and_trec_are_the_same(tmp_path: Path, text: str) -> None:
    path = tmp_path / "qrels"
    path.write_text(text)
    assert read_qrels(path) == {"q1": {"d1": 1, "d2": 0}, "q2": {"d1": 2}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q\td\t1\nq\td2\n", r"qrels:2: has 2 columns, expected query, document and relevance"),
        (
            "q\td\t1\nq\td2\tyes\n",
            r"qrels:2: field 'relevance' must be a whole number of at most 15 digits \(found 'yes'\)",
        ),
        ("q1\td1\tyes\nq1\td2\t1\n", r"qrels:1: field 'relevance' must be a whole number .* \(found 'yes'\)"),
        ("q1\td1\t1\t\nq1\td2\t1\n", r"qrels:1: field 'relevance' must be a whole number .* \(found ''\)"),
        ("Query-ID\tscore\trel\na\tb\tc\n", r"qrels:2: field 'relevance' must be a whole number .* \(found 'c'\)"),
        (f"q\td\t{'9' * 400}\n", r"qrels:1: field 'relevance' must be a whole number .* \(found '9{39}\)"),
        (f"q\td\t{'9' * 5000}\n", r"qrels:1: field 'relevance' must be a whole number"),
        ("q\td\t1.5\n", r"qrels:1: field 'relevance' must be a whole number .* \(found '1.5'\)"),
        ("q\t\t1\n", r"qrels:1: field 'document' is empty"),
        ("\td\t1\n", r"qrels:1: field 'query' is empty"),
        ("q\td\t1\nq\td\t2\n", r"qrels:2: query 'q', document 'd' has another relevance on an earlier line"),
        ("q\td\t1\n\udcff", r"qrels: is not UTF-8"),
    ],
)
def test_a_wrong_judgement_names_its_line_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "qrels"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message):
        read_qrels(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "queries:1: is a JSON list, expected an object with id and text"),
        ('{"id": "1", "text": "x"}\n{', "queries:2: is not JSON"),
        ('{"id": 1, "text": "x"}', r"queries:1: field 'id' must be a string \(found 1\)"),
        ('{"text": "x"}', "queries:1: field 'id' must be a string"),
        ('{"id": "1"}', "queries:1: field 'text' must be a text"),
        ('{"id": "1", "text": "x"}\n{"_id": "1", "text": "y"}', "queries:2: id '1' stands on an earlier line too"),
        ("[" * 100_000, "queries:1: is not JSON"),
        ('{"id": "\\udcff", "text": "x"}', "queries:1: field 'id': character 1 "),
    ],
)
def test_a_wrong_query_names_its_line_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "queries"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_queries(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for read in (read_qrels, read_queries):
        with pytest.raises(InputError, match="gone: cannot be read"):
            read(tmp_path / "gone")


@pytest.mark.parametrize("qrels", [[], [("other", "d0", 1)], [("a", "d0", 0)]])
def test_nothing_to_measure_is_an_error_before_any_search(tmp_path: Path, qrels: list[tuple[str, str, int]]) -> None:
    with pytest.raises(InputError, match=r"qrels.tsv: no query of .*queries.jsonl has a relevant document"):
        evaluate_retrieval(tmp_path / "no-index", *files(tmp_path, {"a": "anchor"}, qrels), Config())


def test_a_query_that_is_blank_or_no_utf8_is_refused_alone_and_named(
    index: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queries, qrels = files(tmp_path, {"a": "anchor", "b": " ", "c": "x\ud800"}, [(name, "d0", 1) for name in "abc"])
    found = evaluate_retrieval(index, queries, qrels, LEXICAL)
    assert (found.num_queries, found.num_refused, found.num_missing, found.ndcg_at_10) == (1, 2, 0, 1)
    assert (
        "2 queries are left out (the first: " in caplog.text and "queries.jsonl:2: field 'text' is blank" in caplog.text
    )
