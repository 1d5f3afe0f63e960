"""What a study will cost: counts by hand, patches that are measured, memory that does not suffice, wrong input."""

import io
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from study_helpers import TINY, call
from voxloss.commands.display.plan_table import load_sentence, plan_table
from voxloss.config.files import load_config
from voxloss.study import plan as plan_module
from voxloss.study import probe as module
from voxloss.study.create import open_study
from voxloss.study.plan import memory_advice, plan, prediction_advice, window_count
from voxloss.study.probe import growing_patches
from voxloss.study.settle import survey
from voxloss.utilities.errors import InputError


def config(phantom, *overrides):
    return load_config(
        "demo", ["--data.root", str(phantom), *TINY, "--comparison.losses", '["dice", "focal"]', *overrides]
    )


def test_counts_and_shapes_are_those_of_the_study(phantom, tmp_path):
    chosen = config(phantom, "--comparison.seeds", "[0, 1]", "--training.selection", "fold")
    said = []
    planned = plan(chosen, said.append)
    assert planned.runs == 2 * 2 * 2 and planned.steps == 4
    probe = planned.probe
    assert probe.patch == (8, 16, 16) and said == ["measuring patches of 8 x 16 x 16"]
    assert probe.step > 0 and probe.forward > 0
    assert planned.training == pytest.approx(8 * (4 * probe.step + 2 * 1 * 2 * probe.forward))
    with open_study(chosen, tmp_path / "study") as study:
        prepared = list(study.files.read_prepared().values())
        sizes = [sum(path.stat().st_size for path in folder.glob("*.npy")) for folder in prepared]
        assert planned.survey.config.preparation == study.config.preparation
    network = probe.parameters * 4 * 4 * 8
    predictions = planned.survey.original_voxels * 2 * 2 // 50
    assert planned.disk - network - predictions == pytest.approx(sum(sizes), rel=0.05)
    assert not list(tmp_path.glob("*/runs/*"))


class Machine:
    """A machine on which a step takes `fixed` seconds and `per_voxel` more, slowed by others.

    Its clock moves only where a step is measured.
    """

    def __init__(self, monkeypatch, fixed, per_voxel, others=0.0, fixed_memory=0, memory_per_voxel=0):
        self.clock = self.work = 0.0
        self.patches = []

        def measure(config, patch, channels, classes, device, rounds, before):
            voxels = math.prod(patch)
            self.patches.append(patch)
            idle = fixed + per_voxel * voxels
            taken = idle * (1 + others)
            self.clock += taken
            self.work += idle
            memory = fixed_memory + memory_per_voxel * voxels
            return module._Measured(patch, taken, idle, taken / 2, idle / 2, memory)

        monkeypatch.setattr(module, "_measure", measure)
        monkeypatch.setattr(module, "_augmentation", lambda *_: (0.5 * (1 + others), 0.5))
        monkeypatch.setattr(
            module, "time", SimpleNamespace(perf_counter=lambda: self.clock, process_time=lambda: self.work)
        )
        monkeypatch.setattr(module, "busy_seconds", lambda: self.clock if others else self.work)
        monkeypatch.setattr(module.os, "cpu_count", lambda: 1)


def settled(phantom, *overrides):
    return survey(config(phantom, *overrides)).config


def test_a_step_that_would_take_too_long_is_projected_with_its_fixed_part(phantom, monkeypatch):
    """Of a fixed part of 2 s and 0.1 ms for each voxel; the proportion to the small patch would say six times that."""
    machine = Machine(monkeypatch, 2.0, 1e-4, fixed_memory=10**9, memory_per_voxel=1000)
    monkeypatch.setattr(module, "available", lambda _: 10**12)
    chosen = settled(phantom, "--patches.size", "[64, 64, 64]")
    measured = module.probe(chosen, 1, 3, torch.device("cpu"))
    assert machine.patches == [(16, 16, 16), (16, 16, 16), (32, 32, 32)] and measured.patch == (32, 32, 32)
    assert measured.step == pytest.approx(2.0 + 64**3 * 1e-4 + 0.5)
    assert measured.forward == pytest.approx((2.0 + 64**3 * 1e-4) / 2)
    assert measured.memory == 10**9 + 64**3 * 1000
    assert not measured.busy and measured.slowed == pytest.approx(1)


def test_a_patch_that_would_not_fit_in_memory_is_projected(phantom, monkeypatch):
    machine = Machine(monkeypatch, 0.0, 1e-9, fixed_memory=10**6, memory_per_voxel=1000)
    monkeypatch.setattr(module, "available", lambda _: 10**8)
    measured = module.probe(settled(phantom, "--patches.size", "[64, 64, 64]"), 1, 3, torch.device("cpu"))
    assert machine.patches[-1] == (32, 32, 32) and measured.memory == 10**6 + 64**3 * 1000


def test_the_times_are_those_of_an_idle_machine(phantom, monkeypatch):
    """Other programs take a half of the only core, so that everything takes twice as long."""
    Machine(monkeypatch, 0.1, 1e-6, others=1.0)
    measured = module.probe(settled(phantom, "--patches.size", "[32, 32, 32]"), 1, 3, torch.device("cpu"))
    assert measured.busy and measured.others == pytest.approx(0.5)
    assert measured.step == pytest.approx(0.1 + 32**3 * 1e-6 + 0.5)
    assert measured.forward == pytest.approx((0.1 + 32**3 * 1e-6) / 2)
    assert measured.slowed == pytest.approx(2)
    assert load_sentence(measured) == (
        "other programs took 0.5 of 1 cores while this was measured; a step took 2.0 times as long as it is expected "
        "to alone. The times are those of an idle machine."
    )


def test_a_machine_that_is_too_busy_to_measure_is_not_called_idle(phantom, monkeypatch):
    Machine(monkeypatch, 0.1, 1e-6, others=3.0)
    measured = module.probe(settled(phantom, "--patches.size", "[32, 32, 32]"), 1, 3, torch.device("cpu"))
    assert measured.others == pytest.approx(0.75) and measured.slowed == pytest.approx(4)
    assert load_sentence(measured) == (
        "other programs took 0.8 of 1 cores while this was measured; a step took 4.0 times as long as it is expected "
        "to alone. This machine is too busy to measure: the times may be several times too long."
    )


def test_less_work_than_the_clock_says_is_no_load_where_nobody_else_works(phantom, monkeypatch):
    """A network that leaves its threads waiting is as slow on an idle machine."""
    Machine(monkeypatch, 0.1, 1e-6, others=3.0)
    monkeypatch.setattr(module, "busy_seconds", lambda: None)
    measured = module.probe(settled(phantom, "--patches.size", "[32, 32, 32]"), 1, 3, torch.device("cpu"))
    assert not measured.busy and measured.step == pytest.approx(4 * (0.1 + 32**3 * 1e-6 + 0.5))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((80, 160, 160), [(16, 32, 32), (32, 80, 80), (80, 160, 160)]),
        ((32, 48, 32), [(16, 16, 16), (16, 32, 16), (32, 48, 32)]),
        ((8, 16, 16), [(8, 16, 16)]),
    ],
)
def test_patches_grow_by_sixteens(size, expected):
    assert growing_patches(size) == expected


@pytest.mark.parametrize(
    ("shape", "size", "overlap", "count"),
    [((8, 16, 16), (8, 16, 16), 0.5, 1), ((9, 16, 16), (8, 16, 16), 0.5, 2), ((16, 32, 16), (8, 16, 16), 0, 4),
     ((3, 3, 3), (8, 8, 8), 0.5, 1), ((80, 200, 200), (80, 160, 160), 0.5, 4)],
)  # fmt: skip
def test_windows_are_those_of_the_prediction(shape, size, overlap, count):
    from monai.inferers import sliding_window_inference

    assert window_count(shape, size, overlap) == count
    if math.prod(shape) < 10**5:
        seen = []
        image = torch.zeros(1, 1, *(max(a, b) for a, b in zip(shape, size, strict=True)))
        sliding_window_inference(image, size, 1, lambda x: seen.append(len(x)) or x, overlap=overlap)
        assert sum(seen) == count


def test_advice_where_memory_is_short(phantom):
    chosen = config(phantom, "--patches.size", "[80, 160, 160]")
    once = replace(chosen, execution=replace(chosen.execution, parallel=1))
    assert memory_advice(once, 10**9, 2 * 10**9) is None and memory_advice(once, None, 1) is None
    assert memory_advice(once, 10**9, 6 * 10**8) == "--patches.batch_size 1 would fit"
    assert memory_advice(once, 10**9, 3 * 10**8) == '--patches.batch_size 1 --patches.size "[80, 112, 128]" would fit'
    assert memory_advice(replace(once, execution=replace(once.execution, parallel=2)), 10**9, 15 * 10**8) is not None


def test_the_memory_of_a_run_is_that_of_its_largest_prediction_where_this_takes_more(phantom, monkeypatch):
    chosen = config(phantom)
    planned = plan(chosen)
    if planned.memory is None or planned.prediction_memory is None:
        pytest.skip("this system does not tell how much memory a process uses")
    assert planned.memory >= planned.prediction_memory > 0
    monkeypatch.setattr(plan_module, "case_memory", lambda *_: 10**11)
    large = plan(chosen)
    assert large.memory == large.prediction_memory > 10**11
    assert large.advice is not None and "the prediction of the largest case takes 10" in large.advice


def test_advice_for_predictions():
    assert prediction_advice(10**9, 2, 2 * 10**9) is None and prediction_advice(None, 2, 1) is None
    assert prediction_advice(10**9, 3, 2 * 10**9) == (
        "--execution.parallel 2 would fit the predictions of the largest case"
    )
    assert "takes 3.0 GB" in str(prediction_advice(3 * 10**9, 1, 2 * 10**9))


@pytest.mark.slow
def test_the_command(phantom):
    result = call("plan", "demo", "--data", phantom, "--losses", "dice", *TINY)
    assert result.returncode == 0, result.stderr
    assert "2: 1 loss × 2 folds × 1 seed" in result.stdout and "4 steps per run" in result.stdout
    assert "detected with a probability" in result.stdout and "organs" in result.stdout
    wrong = call("plan", "demo", "--data", phantom / "nowhere")
    assert wrong.returncode == 2 and "nowhere" in wrong.stderr and "Traceback" not in wrong.stderr


@pytest.mark.slow
def test_a_pilot_tells_what_a_larger_study_will_detect(phantom, tiny_study, tmp_path):
    result = call("plan", "demo", "--data", phantom, "--losses", "dice,focal", "--pilot", tiny_study, *TINY)
    assert result.returncode == 0, result.stderr
    assert "Standard deviations. Demo: " in " ".join(result.stdout.split())
    rows = [line.split("│") for line in result.stdout.splitlines() if line.startswith("│") and line.count("│") == 7]
    assert [[cell.strip() for cell in row[1:5]] for row in rows] == [
        ["2", "1", "4", "4"], ["2", "3", "4", "12"], ["2", "5", "4", "20"], ["4", "1", "4", "8"], ["2", "1", "8", "4"],
    ]  # fmt: skip
    wrong = call("plan", "demo", "--data", phantom, "--pilot", tmp_path, *TINY)
    assert wrong.returncode == 2 and "study.yaml" in wrong.stderr


def test_what_a_run_would_refuse_is_refused(phantom):
    with pytest.raises(InputError, match="cannot be imported"):
        plan(config(phantom, "--network.name", "no.such.Net"))


@pytest.mark.parametrize("grid", ["prepared", "original"])
def test_kept_probabilities_are_in_the_disk_cost(phantom, grid):
    without, planned = plan(config(phantom)), plan(config(phantom, "--evaluation.probabilities", grid))
    survey = planned.survey
    voxels = survey.original_voxels if grid == "original" else sum(map(math.prod, survey.shapes))
    assert planned.probabilities == 2 * 1 * 2 * voxels and without.probabilities == 0  # losses, seeds, classes
    assert planned.disk - without.disk == planned.probabilities
    stream = io.StringIO()
    Console(file=stream, width=200).print(plan_table(planned))
    assert f"for probabilities on the {grid} grid" in stream.getvalue()
