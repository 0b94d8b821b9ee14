"""Questions to answers: what is refused before anything is retrieved or generated."""

import pytest

from ragray.errors import InputError
from ragray.generate.engines.fake import FirstSentenceGenerator
from ragray.generate.pipeline import Pipeline


@pytest.mark.parametrize("question", ["", " \u200b", "Who is \udce9?"])
def test_a_question_without_words_or_with_half_a_character_is_refused(question: str) -> None:
    pipeline = Pipeline(None, FirstSentenceGenerator(), k=2)
    with pytest.raises(InputError, match="question 1: "):
        pipeline.answer(["Who?", question])
    with pytest.raises(InputError, match="question 0: "):
        next(pipeline.stream(question))
