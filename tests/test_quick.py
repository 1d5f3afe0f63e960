"""A quick look, what it leaves out, and what a study is said to cost before it starts."""

import json
import math
import shutil
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch
import yaml

from study_helpers import call, tiny_run
from voxloss.commands.display.plan_table import estimate_sentence
from voxloss.commands.display.prices import gpu_sentence, price_table
from voxloss.commands.quick import _answers
from voxloss.commands.run import _left_out
from voxloss.config.files import load_config, preset_names, to_plain
from voxloss.config.losses import loss_choices
from voxloss.study import prices as module
from voxloss.study.estimate import Estimate, estimate
from voxloss.study.prices import Price, prices
from voxloss.study.probe import Probe
from voxloss.study.quick import MOST_CASES, MOST_VOXELS, coarse_spacing, quick_look
from voxloss.study.study import Study
from voxloss.training.device import resolve_precision

SMALL = ["--training.epochs", "1", "--training.iterations", "1", "--training.validation_batches", "1",
         "--network.filters", "2", "--execution.parallel", "1", "--execution.device", "cpu"]  # fmt: skip


def folder_of(path, masks, spacing=(1.0, 1.0, 1.0)):
    """Images and masks, of which each mask is given by the values in it."""
    for name in ("images", "masks"):
        (path / name).mkdir(parents=True)
    affine = np.diag([*spacing, 1])
    for number, values in enumerate(masks):
        mask = np.zeros((8, 8, 8), np.uint8)
        mask.ravel()[: len(values)] = values
        for kind, array in (("images", mask.astype(np.int16)), ("masks", mask)):
            nibabel.save(nibabel.Nifti1Image(array, affine), path / kind / f"c{number:02}.nii.gz")
    return path


def look(root, *words):
    return quick_look(load_config("quick", ["--data.root", str(root), *words]))


def test_a_look_takes_few_cases_from_all_over_the_data_and_every_class(tmp_path):
    masks = [[1]] * 30
    masks[17] = [1, 2]
    chosen = look(folder_of(tmp_path / "data", masks), "--data.options", "{classes: {a: 1, b: 2}}")
    kept = {f"c{number:02}" for number in range(30)} - set(chosen.data.exclude)
    assert len(kept) == MOST_CASES + 1 and {"c00", "c17", "c29"} <= kept
    assert max(np.diff(sorted(int(name[1:]) for name in kept))) <= 3
    few = look(folder_of(tmp_path / "few", masks[:5]), "--data.options", "{classes: {a: 1}}", "--data.exclude", "[c03]")
    assert few.data.exclude == ("c03",)


def test_a_look_keeps_what_the_user_sets(tmp_path):
    data = folder_of(tmp_path / "data", [[1]] * 4)
    chosen = look(data, "--patches.size", "[8,8,8]", "--preparation.spacing_mm", "[2,2,2]", "--execution.parallel", "3")
    assert chosen.patches.size == (8, 8, 8) and chosen.preparation.spacing_mm == (2, 2, 2)
    assert chosen.execution.parallel == 3
    assert look(data).preparation.spacing_mm == "median" and look(data).patches.size == (8, 8, 8)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((512, 512, 300), (0.8, 0.8, 1.0)), ((60, 512, 512), (5.0, 0.7, 0.7)), ((2000, 2000, 2000), (0.01, 0.01, 0.01))],
)
def test_a_large_volume_becomes_coarse_along_its_finest_axes_first(shape, spacing):
    coarse = coarse_spacing([shape], spacing)
    voxels = math.prod(np.multiply(shape, spacing) / coarse)
    assert 0.9 * MOST_VOXELS < voxels <= 1.01 * MOST_VOXELS
    assert all(new >= old for new, old in zip(coarse, spacing, strict=True))
    assert coarse[0] == 5.0 if spacing[0] == 5.0 else max(coarse) <= max(*spacing, min(coarse) * 1.001)


def test_a_small_volume_keeps_its_spacing():
    assert coarse_spacing([(100, 100, 100), (40, 40, 40)], (1.0, 1.0, 1.0)) is None


@pytest.mark.slow
@pytest.mark.usefixtures("blank_figures")
def test_a_look_ends_in_a_page_that_says_what_it_is_and_what_an_answer_costs(phantom, tmp_path, monkeypatch):
    # Of the answer's network, which is large; that of the look is measured before.
    measured = Probe((16, 16, 16), 1000, 0.5, 0.1, 10**6, 0.0, 1.0)
    monkeypatch.setattr("voxloss.study.plan.probe", lambda *_: measured)
    data = tmp_path / "scans"
    shutil.copytree(phantom, data)
    result = call("quick", data, *SMALL, "--losses", "dice,focal", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    study = tmp_path / "studies" / "quick-scans"
    page = (study / "report" / "index.html").read_text()
    assert "A quick look (few cases, few training steps, one seed): do not use this to choose a loss." in page
    assert f"voxloss plan folder --data {data}" in page and "--seeds 0,1,2" not in page
    assert "left out" not in result.stdout
    full = "--splits.folds 4 --losses dice_cross_entropy,mixed_focal,focal_tversky,dice --seeds 0,1,2"  # 4 cases
    first, *_, last = result.stdout.strip().splitlines()
    assert first == "A quick look, not evidence: few cases, few training steps, one seed."
    assert last == f"  voxloss race folder --data {data} {full}"
    assert "4 trainings, about " in result.stdout and "by training steps measured now" in result.stdout
    assert f"  voxloss run folder --data {data} {full}\n" in result.stdout
    assert "voxloss quick" not in result.stdout.partition("Report: ")[2]
    again = call("quick", data, "--losses", "dice,focal", cwd=tmp_path)  # goes on with the study's own values
    assert again.returncode == 0, again.stderr
    assert "run left" not in again.stdout and "trainings, about" not in again.stdout.partition("Verdict")[0]
    assert Study.open(study).config.training.epochs == 1


def test_a_look_does_not_go_on_with_another_study(tiny_study, phantom):
    result = call("quick", phantom, "--study", tiny_study)
    assert result.returncode == 2 and "holds a study that is no quick look" in result.stderr


@pytest.mark.slow
def test_a_run_says_what_it_will_take_before_it_starts(phantom, tmp_path):
    first = call(*tiny_run(phantom, tmp_path / "study", "--folds", "0"))
    assert first.returncode == 0, first.stderr
    said = first.stdout.index("2 trainings, about ")
    assert "by training steps measured now" in first.stdout and said < first.stdout.index("2 runs left")
    study = Study.open(tmp_path / "study")
    waiting = [run for run in study.runs() if run.fold == 1]
    for run in study.runs():
        if run.fold == 0:
            study.write_status(run, seconds=100.0, peak_memory=10**9)
    expected = estimate(study, waiting)
    assert (expected.finished, expected.each, expected.total, expected.memory) == (2, 100.0, 200.0, 10**9)
    written = [path for path in (study.folder / "runs" / "dice" / "fold-0" / "seed-0").rglob("*") if path.is_file()]
    assert expected.disk == pytest.approx(2 * sum(path.stat().st_size for path in written))
    second = call("run", tmp_path / "study", "--no-report")
    assert second.returncode == 0, second.stderr
    assert "2 trainings, about 1 min 40 s each, as the 2 finished runs took: about 3 min 20 s;" in second.stdout


def test_the_sentence_before_a_run():
    expected = Estimate(0, 100.0, 300.0, 2 * 10**9, 8 * 10**9, 10**9, None)
    assert estimate_sentence(expected, 6, 2, at_most=False) == (
        "6 trainings, about 1 min 40 s each, by training steps measured now: about 5 min 0 s with 2 at a time; memory "
        "2.00 GB each (8.00 GB free), disk 1.00 GB"
    )
    assert estimate_sentence(expected, 1, 2, at_most=True).startswith("at most 1 training, about 1 min 40 s each")


def test_many_cases_left_out_for_one_reason_are_counted():
    assert _left_out([("a", "x"), ("b", "y")]) == ["left out: a: x", "left out: b: y"]
    many = [(str(number), "excluded by the settings") for number in range(48)]
    assert _left_out([*many, ("z", "y")]) == ["left out: 48 cases (excluded by the settings)", "left out: z: y"]


def planned(losses, folds=5, seeds=(0, 1, 2), parallel=1):
    runs = len(losses) * folds * len(seeds)
    config = load_config(
        None,
        ["--comparison.losses", json.dumps(losses), "--splits.folds", str(folds), "--comparison.seeds",
         json.dumps(seeds), "--execution.parallel", str(parallel), "--data.root", "/data"],
    )  # fmt: skip
    return SimpleNamespace(
        survey=SimpleNamespace(config=config),
        runs=runs,
        training=90.0 * runs,
        prediction=10.0 * runs,
        search=0.0,
        steps=10000,
        parts=(),
    )


@pytest.fixture
def looks(monkeypatch):
    monkeypatch.setattr(module, "quick_look", lambda config: config)
    monkeypatch.setattr(module, "plan", lambda config: planned(["dice", "focal", "combo"], 2, (0,)))


def test_three_studies_and_a_race_are_priced(looks):
    names = ["focal", "dice", "tversky", "mixed_focal"]
    words = ["folder", "--data", "/da ta", "--seeds", "0,1,2", "--comparison.losses=[focal]", "--splits.folds", "5"]
    full = "folder --data '/da ta' --splits.folds 5 --losses focal,dice,tversky,mixed_focal --seeds 0,1,2"
    offers = prices(planned(names), words)
    assert offers == [
        Price("look", "voxloss quick /data", (6, 6), (600.0, 600.0), 10000),
        Price(
            "reasonable",
            "voxloss run folder --data '/da ta' --splits.folds 5 --losses mixed_focal,dice,focal --seeds 0",
            (15, 15), (1500.0, 1500.0), 10000,
        ),
        Price(
            "full",
            f"voxloss run {full}",
            (60, 60), (6000.0, 6000.0), 10000,
        ),
        Price(
            "race",
            f"voxloss race {full}",
            (12, 24), (1200.0, 2400.0), 10000,
        ),
    ]  # fmt: skip


def test_no_study_is_offered_that_is_no_smaller(looks):
    assert [offer.name for offer in prices(planned(["dice", "focal"], seeds=(0,)), ["folder"])] == ["look", "full"]
    with_parameters = [{"name": "focal", "gamma": 3}, "dice"]
    assert [offer.name for offer in prices(planned(with_parameters), ["x.yaml"])] == ["look", "full", "race"]
    alone = prices(planned(["dice"]), ["folder"])
    assert [offer.name for offer in alone] == ["look", "reasonable", "full"]  # one loss cannot race
    half = prices(planned(["dice", "focal"], parallel=2), ["folder"])
    assert half[-1].seconds == (600.0, 1200.0) or half[-2].seconds == (1500.0, 1500.0)


def test_the_prices_are_lines_to_copy():
    from rich.console import Console

    console = Console(width=40)
    with console.capture() as captured:
        console.print(
            price_table([Price("race", "voxloss race " + 60 * "x", (2, 4), (60.0, 7200.0), 5000)]), soft_wrap=True
        )
    assert captured.get() == (
        "The full study as a race: losses leave that cannot be the best: usually 2 to 4 trainings of 5,000 steps, "
        "1 min 0 s to 2 h 0 min\n"
        f"  voxloss race {60 * 'x'}\n"
    )


@pytest.mark.parametrize(
    ("flat", "shape", "size", "filters", "cut"),
    [
        (None, (256, 256, 8), (168, 168, 8), 32, ' --patches.size "[88,88,8]"'),
        (2, (512, 512, 1), (256, 256, 1), 8, ' --patches.size "[160,160,1]"'),
        (None, (256, 256, 40), (256, 256, 1), 32, ""),  # slices stay slices
        (None, (48, 48, 48), (32, 32, 32), 16, ""),  # the user's patch is smaller
    ],
)
def test_a_short_study_is_offered_where_the_reasonable_one_takes_days(monkeypatch, flat, shape, size, filters, cut):
    def plan(config):
        runs = len(config.comparison.losses) * config.splits.folds * len(config.comparison.seeds)
        survey = SimpleNamespace(config=config, shapes=[shape], dataset=SimpleNamespace(flat_axis=flat, own_folds=None))
        steps = config.training.epochs * config.training.iterations
        return SimpleNamespace(
            survey=survey, runs=runs, training=2.0 * runs * steps, prediction=0.0, search=0.0, steps=steps, parts=()
        )

    monkeypatch.setattr(module, "quick_look", lambda config: config)
    monkeypatch.setattr(module, "plan", plan)
    config = load_config("folder", ["--data.root", "/data", "--patches.size", json.dumps(size),
                                    "--network.filters", str(filters)])  # fmt: skip
    offers = prices(plan(config), ["folder", "--data", "/data", "--splits.folds", "5"])  # which the short one replaces
    assert [offer.name for offer in offers] == ["look", "short", "reasonable", "full", "race"]
    narrow = " --network.filters 16" if filters > 16 else ""
    assert offers[1].command.replace("'", '"') == (
        "voxloss run folder --data /data --losses dice_cross_entropy,mixed_focal,focal_tversky --seeds 0 "
        f"--study studies/folder-short{narrow} --training.epochs 30 --splits.folds 3{cut}"
    )
    assert (offers[1].runs, offers[1].steps, offers[1].seconds[1]) == ((9, 9), 3000, 9 * 3000 * 2.0)
    assert gpu_sentence(offers) == (
        "On a GPU that takes 0.2 s for a step, the reasonable answer takes 8 h 20 min; `voxloss plan` on a machine "
        "with one measures its step."
    )
    assert gpu_sentence(offers[2:]) is None


def test_a_short_study_of_several_networks_leaves_them_as_they_are(monkeypatch):
    """With the narrower network of a short study, the two would be one."""

    def plan(config):
        networks = config.networks()
        runs = len(config.comparison.losses) * config.splits.folds * len(config.comparison.seeds) * len(networks)
        dataset = SimpleNamespace(flat_axis=None, own_folds=None)
        steps = config.training.epochs * config.training.iterations
        return SimpleNamespace(
            survey=SimpleNamespace(config=config, shapes=[(48, 48, 48)], dataset=dataset), runs=runs, steps=steps,
            training=2.0 * runs * steps, prediction=0.0, search=0.0, parts=[(one.key, None) for one in networks],
        )  # fmt: skip

    monkeypatch.setattr(module, "quick_look", lambda config: plan_of_look)
    monkeypatch.setattr(module, "plan", plan)
    networks = json.dumps(["unet", {"name": "unet", "filters": 16, "label": "narrow"}])
    words = ["--data.root", "/data", "--patches.size", "[32,32,32]", "--comparison.networks", networks]
    plan_of_look = load_config("folder", words)
    offers = prices(plan(plan_of_look), ["networks.yaml", "--data", "/data"])
    assert [offer.name for offer in offers] == ["look", "short", "reasonable", "full"]
    assert "--network.filters" not in offers[1].command
    assert offers[1].runs == (3 * 3 * 2, 3 * 3 * 2)  # losses, folds, networks


# What a call does not say


@pytest.mark.slow
def test_a_study_goes_on_with_what_it_was_created_with(phantom, tiny_study, tmp_path):
    """By its folder, or by the preset with nothing else; seeds are added."""
    copy = tmp_path / "study"
    shutil.copytree(tiny_study, copy)
    for words in (["run", copy, "--seeds", "0,1"], ["run", "folder", "--data", phantom, "--study", copy]):
        result = call(*words, "--losses", "dice,mixed_focal", "--folds", "0", "--no-report")
        assert result.returncode == 0, result.stderr
    study = Study.open(copy)
    assert study.config.comparison.seeds == (0, 1)
    assert to_plain(study.config)["training"] == to_plain(Study.open(tiny_study).config)["training"]
    assert [study.status(run).state for run in study.runs() if run.seed == 1 and run.fold == 0] == ["done", "done"]
    refused = call("run", copy, "--training.epochs", "9")
    assert refused.returncode == 2 and "was created with training.epochs = 2, not 9" in refused.stderr


def test_a_study_without_a_recorded_precision_computed_in_float32(tiny_study, tmp_path):
    copy = tmp_path / "study"
    shutil.copytree(tiny_study, copy)
    content = yaml.safe_load((copy / "study.yaml").read_text())
    assert content["config"]["training"].pop("precision") == "float32"
    (copy / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert Study.open(copy).config.training.precision == "float32"


# The defaults


def test_the_precision_is_bfloat16_where_the_device_has_it(monkeypatch):
    assert resolve_precision("auto", "cpu") == "float32"
    for capability, expected in (((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert resolve_precision("auto", "cuda:0") == expected
        assert resolve_precision("float32", "cuda:0") == "float32"
        assert resolve_precision("bfloat16", "cpu") == "bfloat16"


def test_the_papers_protocols_keep_their_losses_seeds_and_precision():
    for name, losses in (("kits19", 7), ("brats20", 3)):
        config = load_config(name)
        assert config.training.precision == "float32" and config.comparison.seeds == (0,)
        assert len(config.comparison.losses) == losses and config.comparison.design == "grid"


def test_only_the_look_is_a_look():
    assert [name for name in preset_names() if load_config(name).comparison.look] == ["quick"]
    config = load_config("folder")
    assert len(loss_choices(config.comparison.losses)) * config.splits.folds * len(config.comparison.seeds) == 60


def test_the_offers_after_a_look_read_the_data_as_the_look_did(tmp_path, monkeypatch):
    for name in ("images", "drawn", "fov"):
        (tmp_path / name).mkdir()
        for number in range(3):
            image = nibabel.Nifti1Image(np.full((4, 4, 4), number % 2 + 1, np.uint8), np.eye(4))
            nibabel.save(image, tmp_path / name / f"c{number}.nii.gz")
    monkeypatch.setattr("voxloss.study.plan.plan", lambda config: config)
    monkeypatch.setattr("voxloss.study.prices.prices", lambda config, words: (config.data.options, words))
    overrides = ["--data.options", "{masks: drawn, region_of_interest: fov}", "--training.epochs", "1"]
    options, words = _answers(tmp_path, overrides)
    assert options == {"masks": "drawn", "region_of_interest": "fov"}
    assert words == ["folder", "--data", str(tmp_path), *overrides[:2], "--splits.folds", "3"]
