"""The output folder of a stage. In: the folder and the kind of artefact. Out: the folder held by one writer, and steps to publish it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from ragray.artifact.lock import exclusive
from ragray.artifact.manifest import FileEntry, Manifest, open_artifact, publish, unpublish
from ragray.errors import CorruptArtifactError, NotAnArtifactError
from ragray.failures import naming_storage


@dataclass(frozen=True, slots=True)
class StageOutput:
    """A folder held for writing an artefact.

    ``work`` is a folder below it for what an interrupted run can go on from; it is removed when the artefact is finished.
    """

    folder: Path
    kind: str
    work: Path

    def finished(self, fingerprint: str) -> Manifest | None:
        """Return the manifest of the artefact that is there, if it is this very one and whole: the stage has nothing to do."""
        try:
            manifest = open_artifact(self.folder, self.kind)
        except (NotAnArtifactError, CorruptArtifactError):
            return None
        if manifest.fingerprint != fingerprint:
            return None
        shutil.rmtree(self.work, ignore_errors=True)
        return manifest

    def resume(self, key: str) -> Path:
        """Return the part of ``work`` that belongs to ``key``; whatever another key left there is removed."""
        part = self.work / key
        if self.work.is_dir() and not part.is_dir():
            shutil.rmtree(self.work)
        return part

    def withdraw(self) -> None:
        """Let what the folder holds be no artefact any more; to be called before the first of its files is changed."""
        unpublish(self.folder)

    def publish(self, fingerprint: str, facts: Mapping[str, JsonValue], files: Sequence[FileEntry | Path]) -> Manifest:
        """Write the manifest: from this moment the artefact exists."""
        manifest = publish(self.folder, kind=self.kind, fingerprint=fingerprint, facts=facts, files=files)
        shutil.rmtree(self.work, ignore_errors=True)
        return manifest


@contextlib.contextmanager
def stage_output(folder: Path, *, kind: str, work: str = ".work") -> Iterator[StageOutput]:
    """Hold a folder for writing an artefact of a kind; ``work`` names the folder below it for unfinished work.

    Raises:
        ArtifactBusyError: another process holds it.
        ArtifactError: an artefact of another kind lies there, or files that no stage wrote.
    """
    with naming_storage(folder), exclusive(folder, kind=kind):
        yield StageOutput(folder, kind, folder / work)
