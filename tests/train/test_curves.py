"""A picture of runs: what is drawn of their metrics, and what is said of a folder that is no run."""

import json
import sys
from pathlib import Path

import pytest

from ragray.artifact.manifest import publish
from ragray.errors import CorruptArtifactError, InputError, MissingPackageError, NotAnArtifactError
from ragray.train.curves import Curve, Panel, panels
from ragray.train.plots import plot_runs

STEPS = [
    {"step": 5, "loss": 2.0, "learning_rate": 0.1, "step_seconds": 2.0, "wait_seconds": 0.5, "recall": 0.25},
    {"step": 10, "loss": 1.0, "learning_rate": 0.2, "step_seconds": 1.0, "wait_seconds": 0.0, "recall": 0.5},
]
DEV = [
    {"step": 8, "dev_exact_match": 40.0, "dev_f1": 50.0, "dev_loss": 3.0, "dev_seconds": 1.0},
    {"step": 4, "dev_failed": "no room"},
    {"step": 4, "dev_exact_match": 30.0, "dev_f1": 60.0, "dev_loss": 4.0, "dev_seconds": 1.0},
]


def write_run(folder: Path, *lines: dict[str, object], best: dict[str, object] | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if best:
        publish(folder, kind="run", fingerprint="f", facts={"best": dict(best)}, files=[])  # type: ignore[arg-type]
    return folder


def test_every_panel_holds_what_was_logged_by_step(tmp_path: Path) -> None:
    run = write_run(tmp_path / "one", *STEPS, *DEV)
    assert panels([run]) == [
        Panel("loss", (Curve("one", "loss", (5, 10), (2.0, 1.0)), Curve("one", "dev loss", (4, 8), (4.0, 3.0), True))),
        Panel(
            "dev examples, %",
            (
                Curve("one", "exact match", (4, 8), (30.0, 40.0), True),
                Curve("one", "F1", (4, 8), (60.0, 50.0), True),
            ),
        ),
        Panel("training questions with gold found, %", (Curve("one", "recall", (5, 10), (25.0, 50.0)),)),
        Panel("learning rate", (Curve("one", "learning rate", (5, 10), (0.1, 0.2)),)),
        Panel("part of a step spent waiting for retrieval, %", (Curve("one", "waiting", (5, 10), (25.0, 0.0)),)),
    ]


def test_the_age_of_the_index_is_drawn_where_it_was_logged(tmp_path: Path) -> None:
    run = write_run(tmp_path / "one", {"step": 5, "loss": 1.0, "index_age_steps": 3})
    assert panels([run])[1] == Panel("age of the index, steps", (Curve("one", "age", (5,), (3,)),))


def test_the_validation_that_chose_the_weights_is_marked(tmp_path: Path) -> None:
    best = {"step": 8, "metric": "exact_match", "value": 40.0, "num_scored": 2}
    found = panels([write_run(tmp_path / "one", *STEPS, *DEV, best=best)])
    marked = [curve for panel in found for curve in panel.curves if curve.best]
    assert [(curve.name, curve.best) for curve in marked] == [("exact match", (8, 40.0))]


def test_runs_of_the_same_name_are_called_by_their_paths(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name / "run", *STEPS) for name in "ab"]
    assert [curve.run for curve in panels(runs)[0].curves] == [str(run) for run in runs]


def test_a_line_that_is_half_written_is_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "one", *STEPS)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 15, "lo')
    assert panels([run])[0].curves[0].steps == (5, 10)


def test_what_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotAnArtifactError, match=r"nowhere: no run here \(the folder does not exist\)"):
        panels([tmp_path / "nowhere"])
    with pytest.raises(NotAnArtifactError, match=r"no run here \(it has no metrics.jsonl\); give a folder that ragray"):
        panels([tmp_path])
    with pytest.raises(InputError, match=r"metrics.jsonl: no step was logged yet; plot once the run has done train\."):
        panels([write_run(tmp_path / "empty")])
    broken = write_run(tmp_path / "broken", *STEPS, {"no": "step"})
    with pytest.raises(CorruptArtifactError, match=r"metrics.jsonl:3: is no line of metrics \(KeyError: 'step'\)"):
        panels([broken])
    with pytest.raises(InputError, match=r"picture.txt: cannot be written .* ends in .png, .svg, .pdf"):
        plot_runs([broken], tmp_path / "picture.txt")


@pytest.mark.parametrize(("name", "begins"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml")])
def test_several_runs_are_drawn_into_one_picture(tmp_path: Path, name: str, begins: bytes) -> None:
    runs = [write_run(tmp_path / "one", *STEPS, *DEV), write_run(tmp_path / "two", *STEPS)]
    path = plot_runs(runs, tmp_path / name)
    assert path.read_bytes().startswith(begins)
    if name.endswith("svg"):
        text = path.read_text()
        assert all(f"<!-- {words} -->" in text for words in ("one dev loss", "two loss", "learning rate", "step"))


def test_without_matplotlib_the_error_names_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'ragray\[plots\]'"):
        plot_runs([write_run(tmp_path / "one", *STEPS)], tmp_path / "a.png")
