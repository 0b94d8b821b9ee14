"""What can be seen of a text, and what can be encoded."""

import pytest

from ragray.errors import InputError
from ragray.text.checks import is_blank, require_text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\t\r\n",
        "\u00a0\u3000",
        "\u200b\u200d",
        "\ufeff",
        "\x00\x07\x9f",
        "\u00ad\u2066",
        "\u2028\u2029",
        "\u3164\u2800\ufe0f",
    ],
)
def test_a_text_of_which_nothing_is_drawn_is_blank(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize("text", ["0", "-", "\ufeffé", "\u200b東", "🙂", "\u0301", "\ue000", "\U000e0fff", "\ud83d"])
def test_a_text_with_one_visible_character_is_not(text: str) -> None:
    assert not is_blank(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("\u200b ", r"^the query: is blank \(found '\\u200b '\)"),
        ("Caf\udce9?", r"^the query: character 4 \('\\udce9'\)"),
    ],
)
def test_what_a_person_asks_has_words_that_can_be_encoded(text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        require_text(text, "the query")
