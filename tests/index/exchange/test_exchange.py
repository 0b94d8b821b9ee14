"""What leaves ragray answers elsewhere as it does here, and comes back as it was; what others made is checked row by row."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import RagConfig, RagRetriever

from ragray.config import EncoderConfig, IndexConfig
from ragray.corpus.table import Corpus
from ragray.embed.blocks import BLOCK_FOLDER, Embeddings
from ragray.embed.encoder import HashEncoder
from ragray.errors import CorruptArtifactError, EncoderMismatchError, InputError, RagrayError
from ragray.index.exchange.exporting import export_hf, export_parquet
from ragray.index.exchange.importing import import_embeddings
from ragray.index.search.reader import IndexReader
from ragray.types import Passage
from tests.helpers import sentence, some_passages, write_corpus, write_index
from tests.index.made import DIM, copy_of, make_index, vectors_of

ROWS = 300
PASSAGES = some_passages(ROWS)
PARTS = (PASSAGES[:110], PASSAGES[110:])
DELETED = (0, 5, 109, 110, 111, 299)
CONFIG = EncoderConfig(model=f"hash:{DIM}")
QUERIES = np.random.default_rng(7).normal(size=(12, DIM)).astype(np.float32)
"""Not vectors of texts: no two passages score the same."""


def ids_of(reader: IndexReader, k: int = 5) -> list[list[str]]:
    return [[hit.passage.id for hit in hits] for hits in reader.search(QUERIES, k).hits]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_index(tmp_path_factory.mktemp("exchange") / "index", PARTS, deleted=DELETED)


@pytest.fixture(scope="module")
def hf(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hf") / "out"
    assert export_hf(index, out).num_rows == ROWS - len(DELETED)
    return out


@pytest.fixture(scope="module")
def parquet(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("parquet") / "out"
    export_parquet(index, out, rows_per_file=100)
    return out


# Out, for datasets and transformers.


def found_by_datasets(folder: Path, k: int = 5) -> list[list[str]]:
    dataset = datasets.load_from_disk(str(folder / "dataset"))
    dataset.load_faiss_index("embeddings", str(folder / "index.faiss"))
    return [found["id"] for found in dataset.get_nearest_examples_batch("embeddings", QUERIES, k).total_examples]


def test_datasets_finds_what_ragray_finds_over_segments_and_without_the_deleted(index: Path, hf: Path) -> None:
    assert found_by_datasets(hf) == ids_of(IndexReader.open(index))


def test_the_dataset_holds_the_live_rows_in_order(index: Path, hf: Path) -> None:
    dataset = datasets.load_from_disk(str(hf / "dataset"))
    live = [passage for row, passage in enumerate(PASSAGES) if row not in DELETED]
    assert dataset.column_names == ["id", "title", "text", "embeddings"]
    assert [Passage(row["id"], row["text"], row["title"]) for row in dataset] == [
        Passage(passage.id, passage.text, passage.title) for passage in live
    ]
    vectors = np.array(dataset["embeddings"], dtype=np.float32)
    np.testing.assert_array_equal(vectors, vectors_of(live).astype(np.float32))


def test_the_retriever_of_transformers_opens_it_and_finds_the_same(index: Path, hf: Path) -> None:
    config = RagConfig(
        question_encoder={"model_type": "dpr"},
        generator={"model_type": "bart"},
        index_name="custom",
        passages_path=str(hf / "dataset"),
        index_path=str(hf / "index.faiss"),
        retrieval_vector_size=DIM,
    )
    vectors, _, docs = RagRetriever(config, None, None).retrieve(QUERIES, 5)
    result = IndexReader.open(index).search(QUERIES, 5, with_vectors=True)
    assert [found["id"] for found in docs] == [[hit.passage.id for hit in hits] for hits in result.hits]
    np.testing.assert_array_equal(vectors, result.vectors_NKD.astype(np.float32))


@pytest.mark.parametrize(
    ("factory", "kind"),
    [("IVF8,Flat", "IndexIVFFlat"), ("IVF8,SQ8", "IndexRefine"), ("SQfp16", "IndexScalarQuantizer")],
)
def test_an_approximate_index_leaves_with_its_type_its_parameters_and_its_rescoring(
    tmp_path: Path, factory: str, kind: str
) -> None:
    index = make_index(tmp_path / "index", PARTS, factory=factory, nprobe=3 * factory.startswith("IVF"), lexical="none")
    export_hf(index, tmp_path / "out")
    written = faiss.read_index(str(tmp_path / "out" / "index.faiss"))
    assert type(written).__name__ == kind
    assert found_by_datasets(tmp_path / "out") == ids_of(IndexReader.open(index))


@pytest.mark.parametrize(("over_retrieve", "k_factor"), [(2, 20), (100, 216), (1000, ROWS), (10**6, ROWS)])
def test_faiss_reads_what_takes_more_candidates_than_there_are_rows(
    tmp_path: Path, over_retrieve: int, k_factor: int
) -> None:
    index = make_index(
        tmp_path / "index", PARTS, factory="IVF8,SQ8", nprobe=8, lexical="none", over_retrieve=over_retrieve
    )
    export_hf(index, tmp_path / "out")
    assert faiss.read_index(str(tmp_path / "out" / "index.faiss")).k_factor == k_factor
    assert found_by_datasets(tmp_path / "out") == ids_of(IndexReader.open(index))


def test_faiss_reads_what_takes_more_candidates_than_a_file_may_ask_for(tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", [some_passages(1100)], factory="SQ8", lexical="none", over_retrieve=5000)
    export_hf(index, tmp_path / "out")
    assert faiss.read_index(str(tmp_path / "out" / "index.faiss")).k_factor == 1000


def test_without_rescoring_the_index_holds_the_codes_alone(tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", PARTS, factory="IVF8,SQ8", nprobe=3, lexical="none")
    export_hf(index, tmp_path / "out", rescore=False)
    written = faiss.read_index(str(tmp_path / "out" / "index.faiss"))
    assert (type(written).__name__, written.nprobe, written.ntotal) == ("IndexIVFScalarQuantizer", 3, ROWS)


# Out, as Parquet.


def test_parquet_holds_passages_with_their_vectors_in_files_of_so_many_rows(parquet: Path) -> None:
    paths = sorted(parquet.glob("*.parquet"))
    assert [pq.read_metadata(path).num_rows for path in paths] == [100, 100, 94]
    table = pq.read_table(paths)
    live = [passage for row, passage in enumerate(PASSAGES) if row not in DELETED]
    assert table["id"].to_pylist() == [passage.id for passage in live]
    stacked = np.stack(table.slice(50, 100)["embedding"].to_numpy())  # as embedding-reader does it
    np.testing.assert_array_equal(stacked, vectors_of(live[50:150]).astype(np.float32))


def test_the_folder_where_one_stands_can_be_written_to(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export_parquet(index, Path()).folder == tmp_path
    assert list(tmp_path.glob("part-*.parquet")) and export_parquet(index, tmp_path).reused


def test_an_export_that_is_there_is_not_written_again_and_a_foreign_folder_never_replaced(
    index: Path, parquet: Path, tmp_path: Path
) -> None:
    assert export_parquet(index, parquet, rows_per_file=100).reused
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="holds something that is no export"):
        export_parquet(index, tmp_path)
    with pytest.raises(InputError, match="every row is deleted"):
        export_hf(make_index(tmp_path / "empty", [PASSAGES[:3]], deleted=(0, 1, 2)), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "out"))] == []


# In.


def test_what_was_exported_comes_back_and_answers_the_same(index: Path, parquet: Path, tmp_path: Path) -> None:
    report = import_embeddings(parquet, None, tmp_path / "in", encoder_config=CONFIG, sample=30)
    assert (report.num_rows, report.dim, report.reused) == (ROWS - len(DELETED), DIM, False)
    again = write_index(tmp_path / "index", report.embeddings, report.corpus, IndexConfig(segment_rows=100))
    here, there = IndexReader.open(index).search(QUERIES, 5), IndexReader.open(again).search(QUERIES, 5)
    assert there.hits == here.hits
    assert there.scores_NK.tobytes() == here.scores_NK.tobytes()
    assert import_embeddings(parquet, None, tmp_path / "in", encoder_config=CONFIG).reused


def write_parquet(path: Path, passages: list[Passage], **columns: pa.Array) -> Path:
    vectors = vectors_of(passages).astype(np.float32)
    table = {
        "id": pa.array([passage.id for passage in passages]),
        "text": pa.array([passage.text for passage in passages]),
        "embedding": pa.array(list(vectors), pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(table | columns), path)
    return path


PLAIN = [Passage(f"p{n}", sentence(n), document_id=f"p{n}") for n in range(50)]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_npy_files_join_a_corpus_of_equal_order(tmp_path: Path, kind: type) -> None:
    corpus = write_corpus(tmp_path / "corpus", PASSAGES, shard_rows=70)
    (tmp_path / "npy").mkdir()
    for number, part in enumerate((PASSAGES[:10], PASSAGES[10:10], PASSAGES[10:])):
        np.save(tmp_path / "npy" / f"{number}.npy", vectors_of(part).astype(kind).reshape(-1, DIM))
    report = import_embeddings(tmp_path / "npy", corpus, tmp_path / "in", encoder_config=CONFIG, sample=5)
    assert report.corpus == corpus
    again = write_index(tmp_path / "index", report.embeddings, corpus)
    expected = make_index(tmp_path / "expected", [PASSAGES], lexical="none")
    assert ids_of(IndexReader.open(again)) == ids_of(IndexReader.open(expected))


def test_texts_may_lie_in_jsonl_beside_npy(tmp_path: Path) -> None:
    lines = [json.dumps({"id": n, "text": p.text, "title": None, "metadata": {"n": n}}) for n, p in enumerate(PLAIN)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    np.save(tmp_path / "v.npy", vectors_of(PLAIN))
    report = import_embeddings(tmp_path / "v.npy", tmp_path / "texts.jsonl", tmp_path / "in", encoder_config=CONFIG)
    assert list(Corpus.open(report.corpus).iter_passages())[7] == Passage("7", PLAIN[7].text, "", "7", {"n": "7"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "a", "text": "x"}\n\n{broken\n', "row 1: is not JSON"),
        ('{"id": "a", "text": "x"}\n[]', "row 1: expected an object"),
        ('{"id": "a"}', "row 0: no 'text'"),
        (
            '{"id": "a", "text": "x"}\n{"id": "b", "text": "x\\ud800"}',
            "row 1: 'text': character 2 .* cannot be written as UTF-8",
        ),
        ('{"id": "\\udcff", "text": "x"}', "row 0: 'id': character 1 "),
        ('{"id": "a", "text": "x", "metadata": {"k": "\\ud800"}}', "row 0: 'metadata': character 1 "),
        ('{"id": "a", "text": "x", "metadata": ["k"]}', "row 0: 'metadata' must be an object .* a list with 'k'"),
        ('{"id": "a", "text": "x", "metadata": [["k", "v"]]}', "row 0: 'metadata' must be an object"),
        (b"caf\xe9".decode("latin-1"), "row 0: is not JSON"),
        ("\n \n", "0 rows"),
    ],
)
def test_a_line_of_jsonl_that_cannot_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "texts.jsonl").write_text(text, encoding="latin-1")
    np.save(tmp_path / "v.npy", vectors_of(PLAIN[:1]))
    with pytest.raises(InputError, match=f"texts.jsonl: {message}"):
        import_embeddings(tmp_path / "v.npy", tmp_path / "texts.jsonl", tmp_path / "in", encoder_config=CONFIG)


def test_another_question_prefix_is_taken_over_and_a_finished_import_is_still_checked(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", PLAIN)
    np.save(tmp_path / "v.npy", vectors_of(PLAIN[::-1]))
    settings = CONFIG.model_copy(update={"question_prefix": "query: "})
    for encoder, prefix in ((CONFIG, ""), (settings, "query: ")):
        report = import_embeddings(tmp_path / "v.npy", corpus, tmp_path / "in", encoder_config=encoder)
        assert not report.reused
        assert Embeddings.open(report.embeddings).encoder_config.question_prefix == prefix
    with pytest.raises(EncoderMismatchError, match="row 0"):
        import_embeddings(tmp_path / "v.npy", corpus, tmp_path / "in", encoder_config=settings, sample=3)


@pytest.mark.parametrize("kind", [pa.list_(pa.float16()), pa.large_list(pa.float64()), pa.list_(pa.float32(), DIM)])
def test_any_list_of_floats_is_a_vector(tmp_path: Path, kind: pa.DataType) -> None:
    vectors = pa.array([row.tolist() for row in vectors_of(PLAIN).astype(np.float32)], kind)
    source = write_parquet(tmp_path / "v.parquet", PLAIN, embedding=vectors)
    report = import_embeddings(source, None, tmp_path / "in", encoder_config=CONFIG)
    (block,) = Embeddings.open(report.embeddings).iter_blocks()
    np.testing.assert_array_equal(block[1], vectors_of(PLAIN))


def test_an_interrupted_import_goes_on_and_a_changed_source_is_imported_anew(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "v.parquet", PLAIN)
    report = import_embeddings(source, None, tmp_path / "in", encoder_config=CONFIG, block_rows=20)
    blocks = Embeddings.open(report.embeddings).blocks
    assert len(blocks) == 3
    (report.embeddings / "manifest.json").unlink()
    blocks[1].unlink()
    before = blocks[0].stat().st_mtime_ns
    assert not import_embeddings(source, None, tmp_path / "in", encoder_config=CONFIG, block_rows=20).reused
    assert blocks[0].stat().st_mtime_ns == before
    write_parquet(source, PLAIN[:30])
    import_embeddings(source, None, tmp_path / "in", encoder_config=CONFIG, block_rows=20)
    assert len(list((report.embeddings / BLOCK_FOLDER).iterdir())) == 2
    assert [len(ids) for ids, _ in Embeddings.open(report.embeddings).iter_blocks()] == [20, 10]


def test_an_import_beneath_its_own_source_does_not_read_what_it_wrote(tmp_path: Path) -> None:
    write_parquet(tmp_path / "v.parquet", PLAIN)
    for out in (tmp_path / "out", tmp_path):
        reports = [import_embeddings(tmp_path, None, out, encoder_config=CONFIG) for _ in range(2)]
        assert [report.reused for report in reports] == [False, True]
        assert {report.num_rows for report in reports} == {len(PLAIN)}
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


def doubled(path: Path) -> None:
    write_parquet(path, PLAIN, id=pa.array([passage.id if n != 40 else "p3" for n, passage in enumerate(PLAIN)]))


def with_vector(row: int, vector: list[float] | None) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        rows = [one.tolist() for one in vectors_of(PLAIN).astype(np.float32)]
        rows[row] = vector  # type: ignore[call-overload] # raw rows
        write_parquet(path, PLAIN, embedding=pa.array(rows, pa.list_(pa.float32())))

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (doubled, "row 40 has the id of .*row 3 "),
        (with_vector(41, [float("nan")] * DIM), "row 41: a number is NaN"),
        (with_vector(42, [1.0] * DIM), "row 42: a vector of length 8.000"),
        (with_vector(43, [1.0] * 3), "row 43: a vector of 3 numbers, those before have 64"),
        (with_vector(44, None), "row 44: column 'embedding' is empty"),
        (lambda path: write_parquet(path, PLAIN, text=pa.array([None] * 50, pa.string())), "row 0: no 'text'"),
        (lambda path: write_parquet(path, PLAIN, embedding=pa.array(["x"] * 50)), "holds string, expected lists"),
        (lambda path: write_parquet(path, PLAIN[:0]), "0 vectors"),
        (lambda path: path.write_bytes(b"PAR1 no"), "cannot be read as Parquet"),
        (lambda path: path.mkdir(), "no .parquet or .npy file here"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_file(
    tmp_path: Path, write: Callable[[Path], None], message: str
) -> None:
    source = tmp_path / "v.parquet"
    write(source)
    with pytest.raises(InputError, match=message) as caught:
        import_embeddings(source, None, tmp_path / "in", encoder_config=CONFIG)
    assert "v.parquet" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "in/embeddings/manifest.json").exists()


def test_vectors_that_are_not_those_of_the_corpus_or_the_encoder_are_refused(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", PLAIN)
    source = write_parquet(tmp_path / "v.parquet", [PLAIN[1], PLAIN[0], *PLAIN[2:]])

    def refused(message: str, kind: type[RagrayError], path: Path = source, **options: object) -> None:
        with pytest.raises(kind, match=message):
            import_embeddings(path, corpus, tmp_path / "in", **({"encoder_config": CONFIG} | options))  # type: ignore[arg-type] # options of any type

    refused("row 0: the vector of 'p1', the corpus .* has 'p0' there", InputError)
    refused(
        "vectors of 64 dimensions, .* makes 32", EncoderMismatchError, encoder_config=EncoderConfig(model="hash:32")
    )
    np.save(tmp_path / "v.npy", vectors_of(PLAIN[:49]))
    refused("49 vectors, but 50 passages", InputError, tmp_path / "v.npy")
    np.save(tmp_path / "w.npy", vectors_of(PLAIN[::-1]))
    refused(r"row 0: the encoder 'hash:64' makes another vector", EncoderMismatchError, tmp_path / "w.npy", sample=3)
    with pytest.raises(InputError, match="has no column 'text'"):
        import_embeddings(tmp_path / "v.npy", None, tmp_path / "in", encoder_config=CONFIG)


def test_the_encoder_of_an_import_is_the_one_that_questions_need(tmp_path: Path) -> None:
    report = import_embeddings(
        write_parquet(tmp_path / "v.parquet", PLAIN), None, tmp_path / "in", encoder_config=CONFIG
    )
    assert Embeddings.open(report.embeddings).encoder == HashEncoder(DIM).fingerprint


@pytest.mark.parametrize("run", ["hf", "parquet"])
def test_an_export_that_fails_midway_leaves_what_was_there(index: Path, tmp_path: Path, run: str) -> None:
    export = {"hf": export_hf, "parquet": export_parquet}[run]
    broken = copy_of(index, tmp_path / "index")
    before = export(broken, tmp_path / "out", snapshot="000001-test")
    (path,) = broken.glob("segments/*-1/vectors.npy")
    path.write_bytes(path.read_bytes()[:-2])
    assert export(broken, tmp_path / "out") == dataclasses.replace(before, reused=True)
    with pytest.raises(CorruptArtifactError):
        export(broken, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "out"]
