"""A block is embedded once, whatever its passages do to the process: raise, break the encoder, or kill it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModel, AutoTokenizer

from ragray.config import EmbedConfig
from ragray.corpus.table import Corpus
from ragray.embed.blocks import BLOCK_FOLDER, Block, is_whole, load_block, plan_blocks, read_layout
from ragray.embed.encoder import HashEncoder
from ragray.embed.passage_text import passage_text
from ragray.embed.worker import DEADLY_ROWS, REFUSABLE_ROWS, SPOILT_EXIT_CODE, UNEXPLAINED_DEATHS, BlockWorker
from ragray.errors import ConfigError, RagrayError
from ragray.execute.crash_markers import ATTEMPT_FOLDER, CrashMarkers
from ragray.types import Passage
from tests.embed.poisonous import BREAKS, ENDLESS, KILLS, RAISES, PoisonousEncoder
from tests.helpers import some_passages, write_corpus


def poisoned(poison: dict[int, str], count: int = 24) -> list[Passage]:
    return [
        Passage(passage.id, f"{passage.text} {poison.get(row, '')}") for row, passage in enumerate(some_passages(count))
    ]


def only_block(corpus: Path) -> Block:
    (block,) = plan_blocks(Corpus.open(corpus).shards, 1000)
    return block


def worker(folder: Path, **settings: int) -> BlockWorker:
    made = BlockWorker(EmbedConfig(model="hash:16", **settings), folder)
    made.encoder = PoisonousEncoder(made.encoder)
    return made


def assert_all_but(refused: list[int], passages: list[Passage], out: Path, block: Block) -> None:
    """The file holds every passage but the refused ones, with its own vector."""
    assert is_whole(out, block)
    layout = read_layout(out / BLOCK_FOLDER / block.name)
    assert list(layout.refused_rows) == refused
    assert [row.id for row in layout.refused] == [passages[row].id for row in refused]
    assert (layout.num_planned, layout.num_rows) == (len(passages), len(passages) - len(refused))
    kept = [passage for row, passage in enumerate(passages) if row not in refused]
    ids, vectors = load_block(out / BLOCK_FOLDER / block.name)
    assert ids == [passage.id for passage in kept]
    expected = HashEncoder(16).encode([passage_text(passage) for passage in kept])
    np.testing.assert_array_equal(vectors, expected.astype(np.float16))


def test_poisonous_passages_are_left_out_and_named(tmp_path: Path) -> None:
    passages = poisoned({3: RAISES, 7: ENDLESS, 8: RAISES})
    block = only_block(write_corpus(tmp_path / "corpus", passages))
    worker(tmp_path).embed(block)
    assert_all_but([3, 7, 8], passages, tmp_path, block)
    assert not list((tmp_path / ATTEMPT_FOLDER).iterdir())


def test_a_block_may_be_refused_whole_if_it_is_small(tmp_path: Path) -> None:
    passages = poisoned(dict.fromkeys(range(REFUSABLE_ROWS), RAISES), REFUSABLE_ROWS)
    block = only_block(write_corpus(tmp_path / "corpus", passages))
    worker(tmp_path).embed(block)
    assert_all_but(list(range(REFUSABLE_ROWS)), passages, tmp_path, block)


def test_an_encoder_that_refuses_most_of_a_block_is_blamed_itself(tmp_path: Path) -> None:
    block = only_block(write_corpus(tmp_path / "corpus", poisoned(dict.fromkeys(range(13), RAISES))))
    with pytest.raises(
        ConfigError, match=r"13 of its 24 passages .* 'p0' \(ValueError: no such token\); the encoder does"
    ):
        worker(tmp_path).embed(block)
    assert not is_whole(tmp_path, block)


def test_a_block_that_is_there_is_not_touched_again(tmp_path: Path) -> None:
    block = only_block(write_corpus(tmp_path / "corpus", poisoned({3: RAISES})))
    worker(tmp_path).embed(block)
    before = (tmp_path / BLOCK_FOLDER / block.name).stat().st_mtime_ns
    worker(tmp_path).embed(block)
    assert (tmp_path / BLOCK_FOLDER / block.name).stat().st_mtime_ns == before


def test_nul_characters_are_a_passage_like_others(tmp_path: Path) -> None:
    passages = [Passage("nul", "a\x00b \x00"), Passage("plain", "paris")]
    block = only_block(write_corpus(tmp_path / "corpus", passages))
    worker(tmp_path).embed(block)
    assert_all_but([], passages, tmp_path, block)


def deaths_of(tmp_path: Path, poison: dict[int, str], *, block_rows: int, max_crashes: int) -> list[int]:
    """Embed a poisoned corpus in processes that may die; return how many did over each block."""
    corpus = write_corpus(tmp_path / "corpus", poisoned(poison))
    command = [sys.executable, "-m", "tests.embed.poisonous", corpus, tmp_path, str(block_rows), str(max_crashes)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return [int(line) for line in result.stdout.split()]


@pytest.mark.parametrize("word", [KILLS, BREAKS])
def test_a_passage_that_ends_the_process_is_found_by_what_was_in_hand(tmp_path: Path, word: str) -> None:
    deaths = deaths_of(tmp_path, {5: word, 6: RAISES, 9: word}, block_rows=12, max_crashes=2)
    assert deaths == [2 + 2 + 2, 0]
    passages = poisoned({5: word, 6: RAISES, 9: word})
    first, second = plan_blocks(Corpus.open(tmp_path / "corpus").shards, 12)
    assert_all_but([5, 6, 9], passages[:12], tmp_path, first)
    assert_all_but([], passages[12:], tmp_path, second)


def test_an_encoder_that_kills_every_time_is_blamed_itself(tmp_path: Path) -> None:
    block = only_block(write_corpus(tmp_path / "corpus", poisoned({})))
    folder = tmp_path / ATTEMPT_FOLDER
    folder.mkdir()
    for row in range(DEADLY_ROWS + 1):
        for time in "ab":
            (folder / f"{block.name}.{row}{time}").write_text(str(row))
    with pytest.raises(ConfigError, match=r"more than 8 of its passages killed the process"):
        worker(tmp_path).embed(block)


def test_a_single_death_in_hand_blames_no_passage(tmp_path: Path) -> None:
    passages = poisoned({})
    block = only_block(write_corpus(tmp_path / "corpus", passages))
    (tmp_path / ATTEMPT_FOLDER).mkdir()
    (tmp_path / ATTEMPT_FOLDER / f"{block.name}.0").write_text("4")
    (tmp_path / ATTEMPT_FOLDER / f"{block.name}.1").write_text("")
    worker(tmp_path, max_crashes=1).embed(block)
    assert_all_but([], passages, tmp_path, block)


def test_a_block_over_which_processes_die_before_a_passage_is_tried_is_given_up(tmp_path: Path) -> None:
    block = only_block(write_corpus(tmp_path / "corpus", poisoned({})))
    (tmp_path / ATTEMPT_FOLDER).mkdir()
    for number in range(2 + UNEXPLAINED_DEATHS):
        (tmp_path / ATTEMPT_FOLDER / f"{block.name}.{number}").touch()
    with pytest.raises(RagrayError, match=r"6 processes died .* before any of its passages was tried"):
        worker(tmp_path, max_crashes=2).embed(block)


def test_a_marker_stays_only_where_the_process_died(tmp_path: Path) -> None:
    attempts = CrashMarkers(tmp_path)
    with attempts.begin("block-1") as attempt:
        attempt.hold(7)
        assert json.loads(attempt.marker.read_text()) == 7
        assert (attempts.deaths("block-1").count, attempts.deaths("block-1").rows[7]) == (1, 1)
        assert attempts.deaths("block-10").count == 0
    with pytest.raises(RuntimeError, match="reported"), attempts.begin("block-1"):
        raise RuntimeError("reported")
    assert attempts.deaths("block-1").count == 0


def test_a_process_with_a_broken_encoder_ends_with_its_own_exit_code(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", poisoned({2: BREAKS}))
    code = (
        "import sys; from pathlib import Path; from tests.embed.test_worker import only_block, worker;"
        "worker(Path(sys.argv[2])).embed(only_block(Path(sys.argv[1])))"
    )
    result = subprocess.run([sys.executable, "-c", code, corpus, tmp_path], check=False, timeout=60)
    assert result.returncode == SPOILT_EXIT_CODE
    assert len(list((tmp_path / ATTEMPT_FOLDER).iterdir())) == 1


def test_an_encoder_whose_vectors_cannot_be_stored_is_an_error_that_says_how_to_mend_it(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    model = AutoModel.from_pretrained(tiny_encoder)
    model.encoder.layer[-1].output.LayerNorm.weight.data *= 1e6
    model.save_pretrained(tmp_path / "loud")
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(tmp_path / "loud")
    config = EmbedConfig(model=str(tmp_path / "loud"), normalize=False)
    with pytest.raises(ConfigError, match=r"^embed\.model=.*loud gives a plain text .* set embed\.normalize=true"):
        BlockWorker(config, tmp_path)
