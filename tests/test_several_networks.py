"""Studies of several networks: from the configuration to the runs, and every command that works on them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from network_files import NETWORKS as NAMED
from network_files import write_networks_study
from study_helpers import call, leave_steps_unmeasured, tiny_run
from voxloss.commands import run
from voxloss.config.files import config_from
from voxloss.config.schema import StudyConfig
from voxloss.evaluation.scores import read_scores
from voxloss.evidence.add import add_study
from voxloss.study.claims import Worker
from voxloss.study.create import open_study
from voxloss.study.folder import Run, StudyFolder
from voxloss.study.plan import plan
from voxloss.study.search import decide_searches, executable
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError

SEGRESNET = {
    "name": "monai.networks.nets.SegResNet",
    "arguments": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
    "label": "SegResNet",
}
NETWORKS = json.dumps(["unet", SEGRESNET])


def keys(networks: list, **network: object) -> list[str]:
    config = config_from({"comparison": {"networks": networks}, "network": network})
    return [choice.key for choice in config.networks()]


def test_networks_are_named_by_their_class_and_what_their_entry_sets():
    assert keys([]) == []
    segresnet = {"name": "monai.networks.nets.SegResNet", "arguments": {"blocks_down": [1, 2], "dropout_prob": 0.1}}
    assert keys(["unet", "monai.networks.nets.SegResNet", segresnet, {"name": "unet", "filters": 8}]) == [
        "unet",
        "SegResNet",
        "SegResNet-blocks_down=1+2-dropout_prob=0.1",
        "unet-filters=8",
    ]


def test_a_name_without_letters_is_no_path_of_the_network_s_folder():
    assert keys(["../../_", "unet"]) == ["network", "unet"]


def test_what_the_entry_of_a_unet_leaves_out_is_as_in_the_section():
    config = config_from(
        {"comparison": {"networks": ["unet3d", {"name": "unet", "depth": 3}]}, "network": {"filters": 5, "depth": 2}}
    )
    assert [(one.network.filters, one.network.depth) for one in config.per_network()] == [(5, 2), (5, 3)]
    assert all(one.comparison.networks == () for one in config.per_network())


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        (["unet", "unet"], "The network 'unet' is listed twice"),
        (["unet", {"name": "unet", "label": "again"}], "The network 'again' is listed twice"),
        (["unet", "monai.networks.nets.UNet"], "folders would be called 'unet' and 'UNet'; give one of them"),
        ([{"name": "unet", "label": "../x"}], r"the label '../x' cannot name a folder"),
        ([{"name": "unet", "label": "a/b"}], r"the label 'a/b' cannot name a folder"),
        ([{"name": "unet", "label": ".."}], r"the label '..' cannot name a folder"),
        ([{"name": "unet", "label": ""}], r"the label '' cannot name a folder"),
        ([{"name": "unet", "label": "a" * 101}], "cannot name a folder"),
        ([{"name": "unet", "filter": 8}], "unknown key 'filter'.*did you mean 'filters'"),
        ([{"name": "unet", "filters": "many"}], "filters of unet takes a whole number; received 'many'"),
        ([{"name": "unet", "filters": True}], "filters of unet takes a whole number; received True"),
        ([{"name": "unet", "filters": 0}], "comparison.networks: network.filters must be at least 1"),
        ([{"name": "unet", "norm": "layer"}], "norm of unet takes batch or instance"),
        ([{"name": "a.B", "filters": 8}], "filters is a setting of unet; what a.B takes goes into its `arguments`"),
        ([{"name": "unet", "arguments": {"a": 1}}], "network.arguments must be empty for unet"),
        ([{"name": "a.B", "arguments": {"a": "x" * 200}}], "too long for the name of a folder; give it a short name"),
        ([{"filters": 8}], "is a name or a mapping with `name`"),
        ([7], "comparison.networks takes a list of texts or mappings; received 7"),
    ],
)
def test_wrong_networks_are_refused_with_a_sentence(networks, message):
    with pytest.raises(InputError, match=message):
        keys(networks)


def test_a_race_and_a_quick_look_have_one_network(tmp_path):
    with pytest.raises(InputError, match="must be 'grid' with comparison"):
        config_from({"comparison": {"networks": ["unet"], "design": "race"}})
    (tmp_path / "data").mkdir()
    refused = call("quick", tmp_path / "data", "--comparison.networks", "[unet]", cwd=tmp_path)
    assert refused.returncode == 2
    assert "A quick look has one network" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("monai.networks.nets.NoSuchNet", "has no 'NoSuchNet'"),
        ("no_such_package.Network", "there is no module 'no_such_package'; install it"),
        ("segresnet", "network.name must be unet or an import path"),
        ({**SEGRESNET, "arguments": {"out_channels": 7, "init_filters": 8}}, r"returns \(1, 7, .*it should return"),
        ({**SEGRESNET, "arguments": {"init_filter": 8}}, "cannot be built with these arguments"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused_before_any_training(network, message, phantom, tmp_path):
    study = tmp_path / "study"
    networks = json.dumps(["unet", network])
    result = call(*tiny_run(phantom, study, "--comparison.networks", networks))
    assert result.returncode == 2
    with pytest.raises(InputError, match=message):
        raise InputError(result.stderr)
    assert result.stderr.count("\n") == 1
    assert not (study / "study.yaml").exists()


@pytest.fixture(scope="session")
def trained(once, phantom) -> Path:
    """Two networks, two losses, two folds, one seed; fold 0 first, the rest by a second call, with a network more."""

    def build(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            leave_steps_unmeasured(patch)
            words = tiny_run(phantom, folder, "--training.epochs", 1, "--comparison.networks", NETWORKS)
            first = call(*words, "--folds", "0")
            assert first.returncode == 0, first.stderr
            narrow = json.dumps(["unet", SEGRESNET, {"name": "unet", "filters": 1, "label": "narrow"}])
            second = call("run", folder, "--comparison.networks", narrow, "--no-report")
            assert second.returncode == 0, second.stderr
            assert "4 cases, 2 losses, 3 networks, 8 runs left" in " ".join(second.stdout.split())

    return once("trained_networks", build)


@pytest.mark.slow
def test_every_network_trains_every_loss_on_the_same_batches(trained):
    study = Study.open(trained)
    runs = study.runs()
    assert [(run.fold, run.network) for run in runs] == sorted(
        ((fold, key) for fold in (0, 1) for key in ("unet", "SegResNet", "narrow") for _ in "ab"),
        key=lambda place: place[0],
    )
    statuses = [study.status(run) for run in runs]
    assert {status.state for status in statuses} == {"done"}
    for fold in (0, 1):
        assert len({status.batch_digest for status in statuses if status.fold == fold}) == 1
    written = json.loads(study.run_folder(runs[-1]).status_file.read_text())
    assert written["network"] == runs[-1].network
    parts = {part.files.network: part for part in study.parts()}
    assert parts["narrow"].config.network.filters == 1
    assert parts["SegResNet"].config.network.arguments == SEGRESNET["arguments"]
    table = pd.read_csv(trained / "scores.csv", dtype=str, keep_default_na=False)
    for key, part in parts.items():
        own = pd.read_csv(part.files.scores_file, dtype=str, keep_default_na=False)
        pd.testing.assert_frame_equal(
            table[table["network"] == key].drop(columns="network").reset_index(drop=True), own
        )
    assert not any((trained / "runs").iterdir())


@pytest.mark.slow
def test_commands_take_one_network_or_all(trained, phantom, tmp_path):
    status = call("status", trained, "--once")
    assert status.returncode == 0
    assert "All 12 runs finished." in status.stdout
    assert all(f"{trained.name}, {key}" in status.stdout.replace("\n", "") for key in ("unet", "SegResNet", "narrow"))
    image = next(phantom.rglob("imaging.nii.gz"))
    words = ["predict", trained, image, "--loss", "dice", "--output", tmp_path / "masks"]
    refused = call(*words)
    assert refused.returncode == 2
    assert "compares networks; name one with --network: unet, SegResNet, narrow" in refused.stderr
    unknown = call(*words, "--network", "SegResnet")
    assert "has no network 'SegResnet'; it has unet, SegResNet, narrow; did you mean 'SegResNet'?" in unknown.stderr
    predicted = call(*words, "--network", "SegResNet")
    assert predicted.returncode == 0, predicted.stderr
    run = trained / "networks" / "narrow" / "runs" / "dice" / "fold-0" / "seed-0"
    alone = call("predict", run, image, "--output", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    pilot = call("plan", "demo", "--data", phantom, "--pilot", trained)
    assert pilot.returncode == 2
    assert "compares networks, whose noise may differ" in pilot.stderr


def test_one_network_or_all_are_retired(tmp_path):
    folder = write_networks_study(
        tmp_path / "study", losses=("dice", "focal"), cases=4, folds=2, skip={("dice", 1, 0), ("focal", 1, 0)}
    )
    one = call("retire", folder, "focal", "--network", "SegResNet")
    assert one.stdout.startswith("SegResNet, focal: retired on ")
    study = Study.open(folder)
    assert {(run.network, run.loss.key) for run in study.runs() if run.fold == 1} == {
        ("unet", "dice"), ("unet", "focal"), ("SegResNet", "dice"),
    }  # fmt: skip
    both = call("retire", folder, "dice")
    assert [line.partition(":")[0] for line in both.stdout.splitlines()] == ["unet, dice", "SegResNet, dice"]
    assert "SegResNet: All losses are retired." in call("status", folder, "--once").stdout
    assert call("retire", folder, "dice", "--undo").returncode == 0
    assert [part.retired.keys() for part in Study.open(folder).parts()] == [set(), {"focal"}]
    refused = call("retire", folder, "mixed_focal")
    assert "has no loss 'mixed_focal'; it has dice, focal" in refused.stderr


def test_one_network_is_exported_as_evidence(tmp_path):
    folder = write_networks_study(tmp_path / "study", losses=("dice", "focal"), cases=4, folds=2)
    with pytest.raises(InputError, match="compares networks; name one with --network"):
        add_study(folder, tmp_path / "to")
    export = add_study(folder, tmp_path / "to", network="SegResNet")
    assert export.name == "study-SegResNet"
    assert export.settings["network"]["name"] == "monai.networks.nets.SegResNet"
    assert export.settings["comparison"]["networks"] == []
    named = ("unet", {"name": "monai.networks.nets.SegResNet", "arguments": {"init_filters": 8}})
    other = write_networks_study(tmp_path / "other", named, losses=("dice", "focal"), cases=4, folds=2)
    export = add_study(other, tmp_path / "others", network="SegResNet-init_filters=8")
    assert export.name == "other-SegResNet-init_filters-8"


def test_every_network_searches_its_own_settings(tmp_path):
    folder = write_networks_study(tmp_path / "study", losses=("dice", "focal"), cases=4, folds=2)
    files = StudyFolder(folder)
    description = files.read_description()
    description.config["comparison"]["tuning"] = {"learning_rate": [1e-3, 1e-4]}
    files.write_description(description)
    study = Study.open(folder)
    tuned = [run for run in study.runs() if run.loss.tuned]
    assert len(tuned) == 8
    decided = [(run.network, run.fold) for run in tuned]
    while decide_searches(study, tuned, Worker()) and len(trials := executable(study, tuned)) < len(decided) * 2:
        pass
    assert len(trials) == 16  # two learning rates of two losses on two folds with two networks
    assert {run.network for run in trials} == {"unet", "SegResNet"}
    rates = {(run.network, study.setting_of(run)["learning_rate"]) for run in trials}
    assert rates == {(network, rate) for network in ("unet", "SegResNet") for rate in (1e-3, 1e-4)}
    where = study.files.published(trials[0]).path.relative_to(folder)
    assert where.parts[:3] == ("networks", trials[0].network, "tuning")
    assert study.config_of(trials[-1]).network == study.part(trials[-1].network).config.network


def test_a_study_of_one_network_is_written_as_before_and_cannot_get_networks(tmp_path, tiny_study):
    assert read_scores(tiny_study / "scores.csv").columns[0] == "dataset"
    assert not (tiny_study / "networks").exists()
    run = Study.open(tiny_study).runs()[0]
    assert run == Run(run.loss, run.fold, run.seed)
    assert "network" not in json.loads((StudyFolder(tiny_study).run(run).status_file).read_text())
    study = shutil.copytree(tiny_study, tmp_path / "study")
    refused = call("run", study, "--comparison.networks", NETWORKS, "--no-report")
    assert refused.returncode == 2
    assert "was created with one network, unet; compare networks in another --study folder" in refused.stderr
    described = yaml.safe_load((study / "study.yaml").read_text())
    assert described["config"]["comparison"]["networks"] == []


def test_a_network_of_a_study_keeps_its_setting(tmp_path):
    folder = write_networks_study(tmp_path / "study", losses=("dice", "focal"), cases=4, folds=2)
    changed = json.dumps([{"name": "unet", "filters": 9, "label": "SegResNet"}])
    refused = call("run", folder, "--comparison.networks", changed)
    assert "was created with another setting of the network SegResNet; give the changed one another label" in (
        refused.stderr
    )


@pytest.mark.slow
def test_the_plan_measures_every_network(phantom, unmeasured_steps):
    config = config_from(
        {
            "data": {"root": str(phantom)},
            "splits": {"folds": 2},
            "patches": {"size": [8, 16, 16]},
            "preparation": {"spacing_mm": [11, 11, 11]},
            "comparison": {"losses": ["dice", "focal"], "networks": ["unet", SEGRESNET]},
        }
    )
    planned = plan(config)
    assert [network for network, _ in planned.parts] == ["unet", "SegResNet"]
    assert planned.runs == sum(part.runs for _, part in planned.parts) == 24
    assert planned.training == pytest.approx(sum(part.training for _, part in planned.parts))


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        ("SegResNet", ["SegResNet"]),
        ("SegResNet,unet", ["SegResNet", "unet"]),
        ("unet,monai.networks.nets.UNETR", ["unet", "UNETR"]),
        ("monai.networks.nets.SegResNet", ["SegResNet"]),
    ],
)
def test_the_networks_of_a_study_are_named_by_their_labels(tmp_path, monkeypatch, networks, expected):
    own = ("unet", {"name": "monai.networks.nets.SegResNet", "label": "SegResNet", "arguments": {"init_filters": 8}})
    of_study = NAMED if "." in networks else own
    folder = write_networks_study(tmp_path / "study", of_study, losses=("dice",), cases=4, folds=2)
    known = {choice.key: choice.setting for choice in Study.open(folder).networks}
    configs: list[StudyConfig] = []
    monkeypatch.setattr(run, "run_study", lambda config, *_, **__: configs.append(config))
    for option in ("--networks", "--comparison.networks"):
        call("run", folder, option, networks)
    assert len(configs) == 2
    for config in configs:
        assert [choice.key for choice in config.networks()] == expected
        assert all(known.get(choice.key, choice.setting) == choice.setting for choice in config.networks())


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_label_that_a_study_does_not_have_is_told(tmp_path, command):
    folder = write_networks_study(tmp_path / "study", losses=("dice",), cases=4, folds=2)
    for word, meant in (("SegResnet", "; did you mean 'SegResNet'?\n"), ("swin", ".\n")):
        refused = call(command, folder, "--networks", f"unet,{word}")
        assert refused.returncode == 2
        assert refused.stderr == (
            f"voxloss: comparison.networks: {folder} has no network {word!r}; it has unet, SegResNet, and a new one is "
            f"unet or an import path such as monai.networks.nets.SegResNet{meant}"
        )


def test_networks_are_an_option_of_run_and_plan(phantom, tmp_path):
    refused = call("run", "demo", "--data", phantom, "--study", tmp_path / "s", "--networks", "unet, unet")
    assert "The network 'unet' is listed twice" in refused.stderr


def with_moved_images(folder: Path, moved: Path) -> dict[str, Any]:
    """Move the images of a study into a folder of their own, and return the configuration with it."""
    described: dict[str, Any] = yaml.safe_load((folder / "study.yaml").read_text())["config"]
    for name, kind in (("image", "images"), ("label", "labels")):
        (moved / kind).mkdir(parents=True)
        for case in (folder / "images").iterdir():
            (case / f"{name}.nii.gz").rename(moved / kind / f"{case.name}.nii.gz")
    described["data"]["root"] = str(moved)
    return described


@pytest.mark.slow
def test_open_study_tries_a_new_network_before_anything_changes_also_where_the_images_moved(tmp_path):
    folder = write_networks_study(tmp_path / "study", losses=("dice",), cases=4, folds=2, skip={("dice", 1, 0)})
    before = (folder / "study.yaml").read_bytes()
    described = with_moved_images(folder, tmp_path / "moved")
    described["comparison"]["networks"].append("nothing.Here")
    with pytest.raises(InputError, match="there is no module 'nothing'"), open_study(config_from(described), folder):
        pass
    assert (folder / "study.yaml").read_bytes() == before


@pytest.mark.slow
def test_the_folder_of_a_run_without_weights_is_named_with_its_network(tmp_path):
    folder = write_networks_study(tmp_path / "study", losses=("dice",), cases=4, folds=2)
    place = folder / "networks" / "SegResNet" / "runs" / "dice" / "fold-1" / "seed-0"
    shutil.rmtree(place / "predictions")
    notices: list[str] = []
    described = with_moved_images(folder, tmp_path / "moved")
    with open_study(config_from(described), folder, notice=notices.append):
        pass
    assert [notice for notice in notices if "finished run" in notice] == [
        "1 finished run (the first: SegResNet, dice, fold 1, seed 0) lack predictions, and weights to make them with; "
        f"their scores are kept. To train a run again, remove its folder, such as {place}"
    ]
