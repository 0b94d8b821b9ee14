"""One answer while it is written. In: its tokens so far. Out: the pieces of text that came, then, last, the whole `Generation`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ragray.generate.answer.markers import with_known_numbers, without_begun_marker
from ragray.generate.answer.stop import before_stop, without_begun_stop
from ragray.generate.engine import Generation, Piece, Submission, Usage
from ragray.generate.strategy import AnswerStrategy, WeightedPrompts
from ragray.generate.textcodec import TextCodec
from ragray.types import FinishReason


class Writing:
    """What was asked, from which prompts, and what was shown of the answer; K prompts."""

    def __init__(
        self, submission: Submission, weighted: WeightedPrompts, strategy: AnswerStrategy, codec: TextCodec
    ) -> None:
        self._stop = submission.sampling.stop
        self._weighted = weighted
        self._strategy = strategy
        self._codec = codec
        self._shown = ""

    def pieces(
        self,
        token_ids: Sequence[int],
        posterior_K: Sequence[float],
        log_prob: float,
        finished: FinishReason | None,
    ) -> Iterator[Piece]:
        """Take all tokens written so far; yield what is new of the text, then, where the answer is finished, the whole.

        It is finished, too, where one of the request's stop texts occurs in it.
        """
        text, stopped = before_stop(self._codec.decode(token_ids).lstrip(), self._stop)
        if stopped:
            finished = "stop"
        text = self._visible(text, whole=finished is not None)
        if len(text) > len(self._shown) and (text.startswith(self._shown) or finished is not None):
            yield text[len(self._shown) :]
            self._shown = text
        if finished is not None:
            shares = self._strategy.shares(self._weighted, text, posterior_K)
            usage = Usage(sum(map(len, self._weighted.prompts)), len(token_ids))
            yield Generation(text, shares, log_prob, finished, usage, numbered=self._strategy.numbered)

    def _visible(self, text: str, *, whole: bool) -> str:
        if not whole:
            text = without_begun_stop(text, self._stop)
        if self._strategy.numbered:
            text = with_known_numbers(text, len(self._weighted.log_prior_N))
            text = text if whole else without_begun_marker(text)
        return text.strip() if whole else text
