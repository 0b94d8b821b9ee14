"""Re-indexing as a training worker sees it. In: finished steps. Out: weights to embed with; new indexes, searched between two steps.

Training waits for nothing here but where `train.refresh_wait` says so: weights are written by a thread, and a new index is taken up
after whatever step it is ready at. That step depends on the clock; a checkpoint records which index is searched.
"""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep

from ragray.artifact.files import replace_folder
from ragray.config import TrainConfig
from ragray.embed.saving import save_encoder
from ragray.embed.transformer import TransformerEncoder
from ragray.errors import ModelNotFoundError, TrainingError
from ragray.failures import told
from ragray.models import weights_fingerprint
from ragray.train.components import Components
from ragray.train.refresh.exchange import WEIGHTS, IndexState, RefreshFolder, Reply, Request, read_state, write_state
from ragray.train.schedule import Rank

POLL_S = 0.05
RETRY_S = 1.0


class IndexRefresh:
    """Asks for new indexes and switches to them; every rank has one, and calls each method at the same step as all others."""

    def __init__(
        self,
        folder: RefreshFolder,
        components: Components,
        train: TrainConfig,
        *,
        snapshot: str,
        switch: Callable[[Reply], None],
        rank: Rank | None = None,
        shared: Callable[[Reply | None], Reply | None] = lambda reply: reply,
    ) -> None:
        """``snapshot`` is what the run begins with; ``switch`` lets the next search be one of the snapshot of a reply.

        ``shared`` returns on every rank what the first rank gave; it is called by all ranks at once. ``seconds`` is how long the last
        step was kept from the next by all this.
        """
        self._folder = folder
        self._components = components
        self._every, self._waits = train.refresh_steps, train.refresh_wait
        self._switch = switch
        self._first = (rank or Rank()).rank == 0
        self._shared = shared
        self._token = ""
        self.state = IndexState(0, snapshot)
        self.seconds = 0.0

    def age(self, step: int) -> int:
        """Return how many steps are between the weights that the searched index is of and those of a step."""
        return step - self.state.step

    def restore(self, checkpoint: Path | None) -> None:
        """Search the index that a checkpoint's run searched, or the one that the run begins with; go on with its refresh.

        Raises:
            TrainingError: that index cannot be opened.
        """
        state = (read_state(checkpoint) if checkpoint else None) or self.state
        self._ask(snapshot=state.snapshot)
        reply = self._await_reply()
        if reply.error:
            raise TrainingError(f"the index of step {state.step} cannot be searched: {reply.error}; use --restart")
        self._switch(reply)
        self.state = state
        if state.pending:
            self._ask(step=state.pending)

    def save(self, checkpoint: Path) -> None:
        """Record in a checkpoint which index is searched; on the first rank."""
        if self._first:
            write_state(checkpoint, self.state)

    def after_step(self, step: int) -> None:
        """Switch to a new index if one is ready; ask for the next if it is time to, and none is under way."""
        started = monotonic()
        if self.state.pending:
            self._take(self._shared(self._folder.answered(self._token) if self._first else None))
        if step % self._every == 0 and not self.state.pending:
            self.state = replace(self.state, pending=step)
            self._begin(step)
            if self._waits:
                self._take(self._await_reply())
        self.seconds = monotonic() - started

    def _take(self, reply: Reply | None) -> None:
        """Switch to what a reply names; where the refresh failed, the old index is searched until the next one."""
        if reply is None:
            return
        if reply.error:
            self.state = replace(self.state, pending=0)
            return
        self._switch(reply)
        self.state = IndexState(self.state.pending, reply.snapshot)

    def _begin(self, step: int) -> None:
        """Copy the passage encoder, and let a thread write it and ask for its index."""
        self._token = uuid.uuid4().hex
        if self._first:
            arguments = (self._folder, self._components.frozen_passage_encoder(), Request(self._token, step))
            threading.Thread(target=save_and_ask, args=arguments, name="refresh", daemon=True).start()

    def _ask(self, *, step: int = 0, snapshot: str = "") -> None:
        self._token = uuid.uuid4().hex
        if self._first:
            self._folder.ask(Request(self._token, step, snapshot))

    def _await_reply(self) -> Reply:
        while True:
            if reply := self._shared(self._folder.answered(self._token) if self._first else None):
                return reply
            sleep(POLL_S)


def save_and_ask(folder: RefreshFolder, encoder: TransformerEncoder, request: Request) -> None:
    """Write a passage encoder and ask for its index; where it cannot be written, ask with the error.

    What an earlier attempt made of the very same weights stays, so that it goes on; what it made of others is removed.
    """
    target = folder.of_step(request.step)
    fresh = target.with_name(f".{target.name}.new")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        save_encoder(encoder, fresh / WEIGHTS)
        if _weights_in(fresh) != _weights_in(target):
            replace_folder(fresh, target)
        shutil.rmtree(fresh, ignore_errors=True)
    except Exception as err:
        request = replace(request, error=str(told(err, target)))
    while True:  # a request that is never made would never be answered; a disk that is full may have room again
        try:
            return folder.ask(request)
        except OSError:
            sleep(RETRY_S)


def _weights_in(folder: Path) -> str:
    """Return the fingerprint of the weights in the folder of a step, "" where there are none."""
    try:
        return weights_fingerprint(folder / WEIGHTS)
    except ModelNotFoundError:
        return ""
