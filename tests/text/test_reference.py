"""A fixed text in thirteen scripts and its terms, compared with the documented rules of Lucene's CJKAnalyzer and of ICU's tokenizer.

Neither could be installed (no wheel of PyICU, no Lucene), so the terms, taken from ragray's output and reviewed, are held against
their documented rules: CJKAnalyzer is the StandardTokenizer (word boundaries of UAX #29), width folded, lower case, CJKBigramFilter;
ICU's tokenizer is UAX #29 with dictionaries for Thai, Lao, Khmer, Burmese, Chinese and Japanese. `DIFFERENCES` says for each script
what is different here, and why.
"""

import pytest

from ragray.text.analyzer import terms

TEXTS = {
    "Latin": (
        "L’été, the pilot’s 2nd boat can’t re-enter; Straße N° 7, state_of_sea, e.g. 3.14",
        "été the pilot 2nd boat can re enter strasse n 7 state_of_sea e g 3 14",
    ),
    "Cyrillic": (
        "Маяк стоит на мысе; объём 12,5 м³ — пол-литра, ёж",
        "маяк стоит на мысе объём 12 5 м3 пол литра ёж",
    ),
    "Greek": ("Ο φάρος του ΛΙΜΑΝΙΟΎ, 3ος όροφος", "ο φάροσ του λιμανιού 3οσ όροφοσ"),
    "Arabic": ("المَنارةُ في المينـاء، ٣ سفن", "المنارة في الميناء 3 سفن"),
    "Hebrew": ("מִגְדַּלּוֹר בנמל, צה״ל ג׳ירפה", "מגדלור בנמל צה ל ג ירפה"),
    "Devanagari": ("बंदरगाह का दीपस्तंभ, ३ नावें, क्ष", "बंदरगाह का दीपस्तंभ 3 नावें क्ष"),
    "Tamil": ("துறைமுகத்தின் கலங்கரை விளக்கம் 5", "துறைமுகத்தின் கலங்கரை விளக்கம் 5"),
    "Thai": ("ประภาคารที่ท่าเรือ ๓ คน", "ปร ระ ะภ ภา าค คา าร รที่ ที่ท่ ท่า าเ เรื รือ 3 คน"),
    "Han": ("燈塔在港口，３號船GPS。海", "燈塔 塔在 在港 港口 燈 塔 在 港 口 3 號船 號 船 gps 海"),
    "Kana": ("灯台のﾗﾝﾌﾟは3つ、コーヒー", "灯台 台の のラ ラン ンプ プは 灯 台 3 つ コー ーヒ ヒー"),
    "Hangul": ("항구의 등대는 3층, 배", "항구 구의 항 구 의 등대 대는 등 대 는 3 층 배"),
    "Georgian": ("შუქურა ნავსადგურში, 3 გემი", "შუქურა ნავსადგურში 3 გემი"),
    "Khmer": ("ប៉មភ្លើង ៣", "ប៉ម មភ្ ភ្លើ លើង 3"),
}

DIFFERENCES = {
    "Latin": "UAX #29 keeps l’été, pilot’s, can’t, e.g and 3.14 whole; parts find each other here. ß is ss, as ICU's folding has it.",
    "Cyrillic": "UAX #29 keeps 12,5 whole; the raised 3 is no part of a word there, NFKC makes it one here.",
    "Greek": "CJKAnalyzer keeps the final sigma; case folding makes it σ, as ICU's folding does.",
    "Arabic": "CJKAnalyzer keeps vowel signs, the stroke and Arabic digits; ICU's folding drops or folds them too.",
    "Hebrew": "UAX #29 keeps words whole around gershayim and geresh; CJKAnalyzer keeps the points.",
    "Devanagari": "None but the digit, which ICU's folding makes 3 too.",
    "Tamil": "None.",
    "Thai": "CJKAnalyzer has one term per run without a space, ICU words by dictionary; overlapping pairs need none.",
    "Han": "CJKBigramFilter has the characters beside their pairs only with outputUnigrams; ICU has words.",
    "Kana": "As Han; of Kana there are pairs alone, as in CJKAnalyzer.",
    "Hangul": "CJKBigramFilter has pairs alone; ICU has the words between spaces.",
    "Georgian": "None.",
    "Khmer": "As Thai.",
}


@pytest.mark.parametrize("script", TEXTS)
def test_a_text_of_a_script_gives_these_terms(script: str) -> None:
    text, expected = TEXTS[script]
    assert terms(text, "plain.3") == expected.split()


def test_every_script_says_what_is_different() -> None:
    assert DIFFERENCES.keys() == TEXTS.keys()


@pytest.mark.parametrize("script", ["Han", "Hangul"])
def test_pairs_are_those_of_cjk_bigram_filter_without_unigrams(script: str) -> None:
    """Its rule: overlapping pairs of a run, and a character only where it stands alone."""
    runs = {"Han": ["燈塔在港口", "3", "號船", "gps", "海"], "Hangul": ["항구의", "등대는", "3", "층", "배"]}[script]
    expected: list[str] = []
    for run in runs:
        is_pairs = len(run) > 1 and not run.isascii()
        expected += [run[at : at + 2] for at in range(len(run) - 1)] if is_pairs else [run]
    assert terms(TEXTS[script][0], "plain.2") == expected
