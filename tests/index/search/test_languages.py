"""Lexical search in many languages: the passage that holds the words comes first; an index made before keeps its analyzer."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ragray.cli.commands import app
from ragray.config import IndexConfig, RetrieveConfig
from ragray.generate.load import FAKE
from ragray.index.search.nothing import why_nothing
from ragray.index.search.reader import IndexReader
from ragray.index.store.snapshot import SNAPSHOT_FORMAT
from ragray.types import Passage
from tests.helpers import index_of
from tests.index.made import make_index

TEXTS = {
    "zh-crane": "港口的吊车每周检查一次，检查记录由值班长签字后存档。",
    "zh-canteen": "食堂的菜单每周更新一次，意见由食堂管理员登记后答复。",
    "ja-crane": "港のクレーンは毎週点検し、点検の記録は当直長が保管します。",
    "ja-canteen": "食堂の献立は毎週変わり、ご意見は受付で承ります。",
    "ko-crane": "항구의 크레인은 매주 점검하고 점검 기록은 당직 반장이 보관한다.",
    "ko-canteen": "식당의 메뉴는 매주 바뀌고 의견은 접수처에서 받는다.",
    "th-crane": "ปั้นจั่นของท่าเรือตรวจสอบทุกสัปดาห์และเก็บบันทึกไว้กับหัวหน้าเวร",
    "th-canteen": "โรงอาหารเปลี่ยนรายการอาหารทุกวันจันทร์และรับความเห็นที่โต๊ะหน้า",
    "hi-crane": "बंदरगाह की क्रेन की जाँच हर सप्ताह होती है।",
    "hi-canteen": "भोजनालय की सूची हर सोमवार बदलती है।",
    "ar-crane": "تُفحَص رافعة الميناء كل أسبوع ويُحفَظ السجل.",
    "ar-canteen": "تتغير قائمة المطعم كل يوم اثنين.",
    "de-crane": "Der Kran an der Hafenstraße wird jede Woche geprüft.",
    "de-canteen": "Der Speiseplan der Kantine wechselt an jedem Montag.",
    "vi-crane": "Cần cẩu của bến cảng được kiểm tra mỗi tuần.",
    "vi-canteen": "Thực đơn của nhà ăn thay đổi mỗi thứ hai.",
    "en-k": "Vitamin K is kept in room 2 of the clinic.",
    "en-c": "Vitamin C is kept in room 3 of the clinic.",
}
QUERIES = {
    "吊车怎么检查？": "zh-crane",
    "食堂菜单": "zh-canteen",
    "クレーン": "ja-crane",
    "献立": "ja-canteen",
    "크레인": "ko-crane",
    "메뉴": "ko-canteen",
    "ปั้นจั่น": "th-crane",
    "รายการอาหาร": "th-canteen",
    "क्रेन": "hi-crane",
    "भोजनालय": "hi-canteen",
    "تفحص": "ar-crane",
    "المَطعَم": "ar-canteen",
    "HAFENSTRASSE": "de-crane",
    "Kan\u00adtine": "de-canteen",
    "Ca\u0302\u0300n cẩu": "vi-crane",
    "thực đơn": "vi-canteen",
    "vitamin K": "en-k",
    "ｒｏｏｍ ３": "en-c",
}


@pytest.fixture(scope="module", params=["english", "plain"])
def reader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> IndexReader:
    passages = [Passage(id, text, document_id=id) for id, text in TEXTS.items()]
    settings = IndexConfig(lexical=request.param, segment_rows=7)
    return IndexReader.open(index_of(tmp_path_factory.mktemp("index"), passages, settings))


@pytest.mark.parametrize("query", QUERIES)
def test_the_passage_that_holds_the_words_comes_first(reader: IndexReader, query: str) -> None:
    [hits] = reader.search_text([query], 2).hits
    assert hits[0].passage.id == QUERIES[query]
    assert len(hits) == 1 or hits[0].score > hits[1].score


def test_a_new_index_names_the_version_of_its_analyzer(reader: IndexReader) -> None:
    assert reader.snapshot.lexical in ("english.3", "plain.3")
    assert reader.snapshot.format_version == SNAPSHOT_FORMAT


def test_an_index_made_before_is_searched_with_the_analyzer_that_made_it(tmp_path: Path) -> None:
    passages = [Passage(id, text, document_id=id) for id, text in TEXTS.items()]
    old = IndexReader.open(make_index(tmp_path / "old", [passages], lexical="english"))
    assert old.search_text(["吊车"], 2).hits == [[]]
    [hits] = old.search_text(["vitamin k"], 5).hits
    assert {hit.passage.id for hit in hits} == {"en-k", "en-c"}
    assert hits[0].score == hits[1].score


@pytest.mark.parametrize(
    ("query", "mode", "where", "reason"),
    [
        ("锚链 chains", "lexical", "", "no term of the query occurs in the index (锚链, 锚, 链, chains)"),
        ("？！", "lexical", "", "the query has no word to look for"),
        (
            "吊车",
            "lexical",
            "document_id == zh-canteen",
            "the filter `document_id == zh-canteen` hides all passages that hold a term",
        ),
        ("吊车", "lexical", "document_id == nobody", "the filter `document_id == nobody` matches none of 18 passages"),
        ("吊车", "dense", "document_id == nobody", "the filter `document_id == nobody` matches none of 18 passages"),
    ],
)
def test_a_search_that_finds_nothing_is_explained(
    reader: IndexReader, query: str, mode: str, where: str, reason: str
) -> None:
    if mode == "lexical":
        assert reader.search_text([query], 3, where=where).hits == [[]]
    said = why_nothing(reader, query, RetrieveConfig.model_validate({"mode": mode, "where": where}))
    assert said.startswith(f"nothing found: {reason}")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["search"], "search: nothing found: no term of the query occurs in the index (锚链, 锚, 链)"),
        (["ask", "generate.model=FAKE"], "ask: answered without passages: nothing found: no term of the query occurs"),
    ],
)
def test_the_command_says_why_it_found_nothing(
    reader: IndexReader, caplog: pytest.LogCaptureFixture, command: list[str], said: str
) -> None:
    name, *overrides = command
    settings = [override.replace("FAKE", FAKE) for override in overrides]
    result = CliRunner().invoke(app, [name, str(reader.index), "锚链", "--mode", "lexical", *settings])
    assert result.exit_code == 0
    assert said in caplog.text
