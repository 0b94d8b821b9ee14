"""Answers the requests of training workers for new indexes. In: the folder where they ask. Out: indexes, opened beside the one searched.

It knows neither Ray nor how an index is made: a job makes it, wherever that runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from time import monotonic
from typing import Protocol

from ragray.errors import RagrayError
from ragray.failures import told
from ragray.train.refresh.exchange import REPLY, REQUEST, STATE, RefreshFolder, Reply, Request, read_state

logger = logging.getLogger("ragray")


class Job(Protocol):
    """An index that is being made."""

    def result(self) -> str | None:
        """Return the name of its snapshot, None while it is not done; raises what went wrong."""

    def cancel(self) -> None:
        """Stop it; what it has finished so far may stay."""


class RefreshService:
    """Makes one index at a time, opens it, and removes those that nobody will search again."""

    def __init__(
        self,
        folder: RefreshFolder,
        *,
        start: Callable[[int], Job],
        prepare: Callable[[str], int],
        keep: Callable[[Collection[str]], None],
        served: tuple[int, str],
    ) -> None:
        """``start`` begins the index of a step's weights; ``prepare`` opens a snapshot beside the one searched, and returns its number.

        ``keep`` removes all snapshots but some. ``served`` are number and name of the snapshot that is open from the beginning.
        """
        self._folder = folder
        self._start, self._prepare, self._keep = start, prepare, keep
        self._opened = [served]
        self._request = Request("")
        self._job: Job | None = None
        self._began = 0.0
        self._owed: Reply | None = None
        for name in (REQUEST, REPLY):  # of a process that is gone, whose numbers mean nothing here
            (folder.path / name).unlink(missing_ok=True)

    def turn(self) -> None:
        """Do what is to be done now: begin what was asked for, hand over what is ready. Never raises."""
        try:
            if self._owed:
                self._folder.answer(self._owed)
                self._owed = None
            request = self._folder.asked()
            if request and request.token != self._request.token:
                self.stop()
                self._request, self._began = request, monotonic()
                self._answer(request)
            if self._job and (snapshot := self._job.result()):
                self._job = None
                self._hand_over(snapshot)
        except Exception as err:
            self._job = None
            self._failed(told(err, self._folder.path))

    def stop(self) -> None:
        """Stop what is being made."""
        if self._job:
            self._job.cancel()
        self._job = None

    def _answer(self, request: Request) -> None:
        if request.error:
            raise RagrayError(request.error)
        if request.snapshot:
            self._hand_over(request.snapshot)
        else:
            self._job = self._start(request.step)

    def _hand_over(self, snapshot: str) -> None:
        if self._opened[-1][1] != snapshot:
            self._opened = [self._opened[-1], (self._prepare(snapshot), snapshot)]
        self._clean()  # before the answer, after which the worker may save the weights of another step
        request = self._request
        self._folder.answer(Reply(request.token, *self._opened[-1]))
        if request.step:
            seconds = monotonic() - self._began
            logger.info("train: the index of step %d's weights is ready after %.0f s", request.step, seconds)

    def _failed(self, error: RagrayError) -> None:
        """Say it once, and owe the workers an answer: the disk may be full at this moment."""
        request = self._request
        if request.step and not self._owed:
            what = "train: no index was made of step %d's weights (%s); training goes on with the one before until the next is due"
            logger.warning(what, request.step, error)
        self._owed = Reply(request.token, error=str(error))

    def _clean(self) -> None:
        """Remove what neither the workers nor a checkpoint will ask for."""
        try:
            found = [read_state(path.parent) for path in self._folder.path.parent.glob(f"*/{STATE}")]
        except (OSError, ValueError, TypeError):  # a checkpoint that is just being written or removed
            return
        states = [state for state in found if state]
        self._keep({name for _, name in self._opened} | {state.snapshot for state in states})
        self._folder.keep_only(
            {self._request.step, *(step for state in states for step in (state.step, state.pending))}
        )
