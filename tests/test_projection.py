"""A study projected to several workers: hand-computed times, and traffic of the shared storage."""

import io
import math
from types import SimpleNamespace

import pytest
from rich.console import Console

from study_helpers import TINY, call
from voxloss.commands.display.plan_table import workers_table
from voxloss.config.schema import ComparisonConfig, ExecutionConfig
from voxloss.study import projection
from voxloss.study.plan import Plan
from voxloss.study.projection import Costs, Projection, execution_seconds, projected, spread


@pytest.fixture(autouse=True)
def costs(monkeypatch) -> None:
    """Round numbers: 7 s to start, 2 s beside a run, 3 s at the end; a second for each million voxels."""
    monkeypatch.setitem(projection.COSTS, "local", Costs(7, 2, 3))
    monkeypatch.setitem(projection.COSTS, "slurm", Costs(17, 2, 3))
    monkeypatch.setattr(projection, "PREPARED_VOXELS", 1e-6)


def planned(
    runs: int = 20, trials: int = 0, comparison: ComparisonConfig | None = None, epochs: int = 10, **execution: object
) -> Plan:
    """A plan of runs of 100 s, trials of 20 s, and four cases, the last of which takes 5 s to prepare, the others 2."""
    config = SimpleNamespace(
        training=SimpleNamespace(epochs=epochs, selection="last"),
        comparison=comparison or ComparisonConfig(),
        execution=ExecutionConfig(**execution),  # type: ignore[arg-type]
        patches=SimpleNamespace(size=(10, 10, 10), batch_size=2),
        splits=SimpleNamespace(folds=2),
    )
    shapes = [(100, 100, 100)] * 3 + [(100, 100, 400)]
    survey = SimpleNamespace(config=config, shapes=shapes, original_voxels=4_000_000, channels=3)
    return SimpleNamespace(  # type: ignore[return-value]
        survey=survey, probe=SimpleNamespace(parameters=1000), runs=runs, training=90.0 * runs, prediction=10.0 * runs,
        trials=trials, search=20.0 * trials, steps=50,
    )  # fmt: skip


def by_workers(found: list[Projection]) -> dict[int, Projection]:
    return {one.workers: one for one in found}


@pytest.mark.parametrize(
    ("runs", "most", "expected"),
    [(35, 64, [(1, 35), (2, 18), (4, 9), (8, 5), (16, 3), (32, 2), (64, 1)]), (7, 3, [(1, 7), (2, 4), (3, 3)])],
)
def test_workers_share_the_runs_and_no_run_is_shared(runs, most, expected):
    found = projected(planned(runs), most)
    assert [(one.workers, one.rounds) for one in found] == expected
    for one in found:
        preparation = max(11 / one.workers, 5)  # the largest case is prepared by one worker
        assert one.preparation == pytest.approx(preparation)
        assert one.seconds == pytest.approx(preparation + 7 + one.rounds * (100 + 2) + 3)
        assert one.least == pytest.approx(5 + 7 + 100 + 2 + 3)
    assert found[0].run == 100


def test_the_costs_are_those_of_the_executor():
    (one,) = projected(planned(executor="slurm"), 1)
    assert one.seconds == pytest.approx(11 + 17 + 20 * 102 + 3)


def test_workers_share_trials_whose_rounds_wait_for_each_other():
    tuning = {"trials": 12, "batch": 4, "learning_rate": [1e-4, 1e-2, "log"]}
    comparison = ComparisonConfig(losses=("dice", "focal"), tuning=tuning)
    found = by_workers(projected(planned(trials=12 * 2 * 5, comparison=comparison), 64))
    assert {number: (one.rounds, one.trials) for number, one in found.items() if number in (1, 16, 64)} == {
        1: (20, 120), 16: (2, 8), 64: (1, 3),  # three rounds of four trials
    }  # fmt: skip
    assert found[1].seconds == pytest.approx(11 + 7 + 120 * 22 + 20 * 102 + 3)
    assert found[64].seconds == found[64].least == pytest.approx(5 + 7 + 3 * 22 + 102 + 3)


def test_a_thousand_runs_on_64_workers():
    found = by_workers(projected(planned(runs=1000), 64))
    assert found[64].rounds == 16
    assert found[64].seconds == pytest.approx(5 + 7 + 16 * 102 + 3)
    assert found[1].seconds / found[64].seconds == pytest.approx((11 + 7 + 1000 * 102 + 3) / 1647)


def test_what_a_run_moves_to_and_from_the_shared_storage():
    """By default a heartbeat every 30 s and a look every 5 s: 100 s make 100 / 30 + 100 / 5 operations."""
    found = by_workers(projected(planned(runs=3), 64))
    traffic = found[1].traffic
    fixed = 92 + 10 * 19 + 4 * 6 + 2 * 8  # ten epochs, four cases, two of which are scored
    assert traffic.operations == round(fixed + 70 / 3)
    assert traffic.written == 10 * 1000 * 4 * 3  # ten checkpoints of weights and two moments
    assert traffic.read == 50 * 2 * 1000 * (3 * 4 + 1)  # float32 channels and a byte of label
    assert found[2].operations_per_s == pytest.approx(2 * traffic.operations / 102)
    assert found[64].written_per_s == pytest.approx(3 * traffic.written / 102)  # no more than there are runs
    quick = projected(planned(heartbeat_s=1, stale_after_s=4), 1)[0].traffic
    assert quick.operations == round(fixed + 100 + 100)


@pytest.mark.parametrize(("workers", "seconds"), [(1, 12.0), (2, 6.0), (3, 5.0), (64, 5.0)])
def test_cases_are_shared_out_whole(workers, seconds):
    assert spread([5.0, 4.0, 3.0], workers) == seconds
    assert spread([], workers) == 0


def test_a_study_that_is_prepared():
    assert execution_seconds(Costs(5, 0.5, 2), rounds=4, run=10) == 5 + 4 * 10.5 + 2


def test_the_table_says_that_it_is_a_model(phantom, unmeasured_steps):
    result = call("plan", "demo", "--data", phantom, *TINY, "--workers", "4", "--execution.executor", "slurm")
    assert result.returncode == 0, result.stderr
    text = " ".join(result.stdout.split())
    assert "On several workers (slurm): a model, not a measurement" in text
    assert "17.0 s to start, 2.0 s beside each run, 3.0 s at the end" in text and "…" not in text
    assert call("plan", "demo", "--data", phantom, *TINY, "--workers", "0").returncode == 2


def test_the_table_has_a_row_for_each_number_of_workers():
    stream = io.StringIO()
    Console(file=stream, width=200).print(workers_table(projected(planned(runs=1000), 64), "local"))
    rows = [line.split("│")[1:-1] for line in stream.getvalue().splitlines() if line.startswith("│")]
    assert [row[0].strip() for row in rows] == ["1", "2", "4", "8", "16", "32", "64"]
    assert not any(math.isnan(float(row[-1])) for row in rows)
