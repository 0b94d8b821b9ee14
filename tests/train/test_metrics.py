"""The metrics file: written, read to its end, followed."""

from pathlib import Path

from ragray.train.metrics import METRICS_FILE, MetricsLog, MetricsTail, read_metrics


def steps(lines: list[dict[str, float]]) -> list[float]:
    return [line["step"] for line in lines]


def test_the_tail_reads_what_was_appended_and_nothing_twice(tmp_path: Path) -> None:
    tail = MetricsTail(tmp_path)
    assert tail.read() == []
    with MetricsLog(tmp_path, 0) as log:
        log.write(1, loss=0.5)
        log.write(2, loss=0.25)
        assert tail.read() == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
        assert tail.read() == []
        log.write(3, loss=0.125)
        with (tmp_path / METRICS_FILE).open("r+") as file:
            file.write("x" * 20)  # what was read before is not read again
        assert steps(tail.read()) == [3]


def test_the_tail_leaves_a_line_that_is_half_written_for_later(tmp_path: Path) -> None:
    tail, path = MetricsTail(tmp_path), tmp_path / METRICS_FILE
    path.write_text('{"step": 1}\n{"st')
    assert steps(tail.read()) == [1]
    with path.open("a") as file:
        file.write('ep": 2}\n')
    assert steps(tail.read()) == [2]


def test_the_tail_begins_again_where_a_resumed_run_replaced_the_file(tmp_path: Path) -> None:
    tail = MetricsTail(tmp_path)
    with MetricsLog(tmp_path, 0) as log:
        for step in (1, 2, 3):
            log.write(step, loss=0.5)
    assert steps(tail.read()) == [1, 2, 3]
    with MetricsLog(tmp_path, 2) as log:
        for step in (3, 4, 5):
            log.write(step, loss=0.5)
    assert steps(tail.read()) == [1, 2, 3, 4, 5] == steps(list(read_metrics(tmp_path)))
