"""Configurations: presets, overrides, and mistakes that get one sentence."""

import json
import shlex

import pytest
import yaml

from voxloss.commands.shared import fail
from voxloss.config.files import config_from, load_config, parse_yaml, preset_names, to_plain
from voxloss.config.losses import LossChoice, check_losses, loss_choices
from voxloss.config.schema import StudyConfig
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import excluding


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_its_losses_exist(name):
    config = load_config(name)
    assert config.name == name
    check_losses(loss_choices(config.comparison.losses))


def test_kits19_is_the_papers_protocol():
    config = load_config("kits19")
    assert len(config.data.exclude) == 6
    assert config.preparation.clip == (-79, 304)
    assert config.preparation.spacing_mm == (3.22, 1.62, 1.62)
    assert config.patches.size == (80, 160, 160)
    assert (config.patches.batch_size, config.patches.overlap, config.patches.foreground_share) == (2, 0.5, 0)
    assert (config.training.epochs, config.training.iterations) == (500, 100)
    assert (config.training.learning_rate, config.training.minimum_learning_rate) == (3e-4, 1e-6)
    assert (config.training.schedule, config.training.selection) == ("plateau", "fold")
    assert [choice.name for choice in loss_choices(config.comparison.losses)] == [
        "focal",
        "dice",
        "tversky",
        "cosine_tversky",
        "focal_tversky",
        "combo",
        "mixed_focal",
    ]


def test_brats20_differs_where_the_paper_does():
    config = load_config("brats20")
    assert config.patches.size == (96, 96, 96)
    assert (config.training.epochs, config.training.iterations) == (400, 150)
    assert config.data.options["modalities"] == ["t1ce"]
    assert config.preparation.clip is None


def test_overrides_go_over_the_file_and_the_file_over_defaults(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("training: {epochs: 3, iterations: 4}\n")
    config = load_config(path, ["--training.iterations", "9", "--patches.size", "[8,16,16]"])
    assert (config.training.epochs, config.training.iterations) == (3, 9)
    assert config.training.learning_rate == 3e-4
    assert config.patches.size == (8, 16, 16)


def test_scalars_of_a_file_are_those_of_the_command_line(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "data: {root: 2020-01-01, exclude: [2019-03-04]}\n"
        "network: {name: a.Network, arguments: {dropout: 1e-1, scale: 1.5e3, first: 2020-01-01}}\n"
        "comparison: {losses: [{name: tversky, delta: 7e-1}]}\n"
    )
    config = load_config(file)
    assert (config.data.root, config.data.exclude) == ("2020-01-01", ("2019-03-04",))
    assert config.network.arguments == {"dropout": 0.1, "scale": 1500.0, "first": "2020-01-01"}
    assert config.comparison.losses == ({"name": "tversky", "delta": 0.7},)
    same = load_config(
        None,
        [
            "--data.root=2020-01-01",
            "--data.exclude=[2019-03-04]",
            "--network.name=a.Network",
            "--network.arguments={dropout: 1e-1, scale: 1.5e3, first: 2020-01-01}",
            "--comparison.losses=[{name: tversky, delta: 7e-1}]",
        ],
    )
    assert same == config


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["--data.exclude", "pat12"], ("pat12",)),
        (["--data.exclude=pat11,pat12"], ("pat11", "pat12")),
        (["--data.exclude", "pat11, 2019-03-04"], ("pat11", "2019-03-04")),
        (["--data.exclude", "007"], ("007",)),
        (["--data.exclude", "[pat11, pat12]"], ("pat11", "pat12")),
        (["--data.exclude", '["a, b"]'], ("a, b",)),
        (["--data.exclude", "[]"], ()),
        (excluding(["pat12"]).split(" ", 1), ("pat12",)),
    ],
)
def test_lists_of_texts_need_no_brackets_on_the_command_line(words, ids):
    assert load_config(None, words).data.exclude == ids
    assert load_config(None, [*words, "--training.epochs", "3"]).training.epochs == 3


def test_lists_of_losses_need_no_brackets_and_a_line_of_a_shell_is_one_text():
    config = load_config(None, ["--comparison.losses", "dice,mylosses.Mine", "--execution.setup", "activate"])
    assert config.comparison.losses == ("dice", "mylosses.Mine") and config.execution.setup == ("activate",)
    assert load_config(None, ["--comparison.seeds", "[0,1]"]).comparison.seeds == (0, 1)
    with pytest.raises(InputError, match="takes a list of texts"):
        load_config(None, ["--execution.setup", "module load a,b"])


@pytest.mark.parametrize("ids", [["pat12"], ["a", "b"], ["a b"], ["a,b", "it's"], ["[x]"], ["-x"]])
def test_the_option_that_leaves_cases_out_can_be_copied(ids):
    assert load_config(None, shlex.split(excluding(ids))).data.exclude == tuple(ids)


def test_commands_to_be_copied_keep_a_path_with_spaces_whole(tmp_path):
    folder = tmp_path / "LGE study"
    folder.mkdir()
    with pytest.raises(InputError) as caught:
        load_config(folder)
    command = str(caught.value).split("`")[1]
    assert shlex.split(command) == ["voxloss", "run", "folder", "--data", str(folder)]


def test_a_configuration_comes_back_from_its_plain_form():
    config = load_config("brats20", ["--comparison.losses", "[dice, {name: focal, gamma: 3}]"])
    again = config_from(yaml.safe_load(yaml.safe_dump(to_plain(config))))
    assert type(again) is StudyConfig
    assert again == config


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("training: {epoch: 3}", "epoch"),
        ("train: {epochs: 3}", "train"),
        ("training: {epochs: three}", "training.epochs"),
        ("training: {schedule: cosine}", "training.schedule"),
        ("training: {epochs: 0}", "training.epochs must be at least 1; received 0"),
        ("patches: {size: [8]}", "patches.size"),
        ("patches: {size: [8, 8, 0]}", "patches.size"),
        ("patches: {overlap: 1.0}", "patches.overlap"),
        ("preparation: {clip: [5, -5]}", "preparation.clip"),
        ("preparation: {spacing_mm: [0, 1, 1]}", "preparation.spacing_mm"),
        ("comparison: {seeds: [1, 1]}", "comparison.seeds"),
        ("comparison: {losses: []}", "comparison.losses"),
        ("splits: {folds: 1}", "splits.folds"),
        ("splits: {seed: -1}", "splits.seed"),
        ("augmentation: {mirror_axes: [1, 2, 3]}", "augmentation.mirror_axes"),
        ("augmentation: {gamma: [2, 1]}", "augmentation.gamma"),
        ("augmentation: {probability: 2}", "augmentation.probability"),
        ("- a\n- b", "is not a configuration"),
        ("a: [", "not readable as YAML"),
        ("training: {epochs: 1}\ntraining: {epochs: 2}", "the key 'training' is given twice"),
        ("training:\n  epochs: 1\n  iterations: 3\n  epochs: 2", "the key 'epochs' is given twice"),
    ],
)
def test_a_mistake_in_a_file_is_one_sentence_that_names_it(tmp_path, content, named):
    path = tmp_path / "mine.yaml"
    path.write_text(content + "\n")
    with pytest.raises(InputError) as caught:
        load_config(path)
    message = str(caught.value)
    assert named in message
    assert "\n" not in message


def test_a_key_may_replace_one_that_is_merged():
    text = "one: &short {epochs: 1, iterations: 3}\ntwo: {<<: *short, epochs: 2}\nthree: {<<: *short}\n"
    short = {"epochs": 1, "iterations": 3}
    assert parse_yaml(text, "a text") == {"one": short, "two": short | {"epochs": 2}, "three": short}


def test_an_unknown_preset_names_those_that_exist():
    with pytest.raises(
        InputError,
        match=r"'kits20' is neither a file, a study nor a preset; the presets are .*kits19.*; did you mean 'kits19'\?",
    ):
        load_config("kits20")


@pytest.mark.parametrize(
    ("losses", "named"),
    [
        ("[dise]", "dise"),
        ("[{name: focal, gama: 2}]", "gama"),
        ("[{gamma: 2}]", "gamma"),
        ("[dice, dice]", "twice"),
        ("[{name: focal, gamma: -1}]", "-1"),
    ],
)
def test_an_unusable_loss_is_named(losses, named):
    with pytest.raises(InputError, match=named):
        check_losses(loss_choices(load_config(None, ["--comparison.losses", losses]).comparison.losses))


def test_a_loss_with_other_parameters_has_them_in_its_key():
    assert LossChoice("focal", {}).key == "focal"
    assert LossChoice("focal", {"gamma": 3.0, "alpha": [0.1, 0.9]}).key == "focal-alpha=0.1+0.9-gamma=3"


def test_batch_normalisation_in_a_short_training_is_warned_about():
    short = ["--training.epochs", "6", "--training.iterations", "10"]
    [warning] = load_config("brats20", short).warnings()
    assert "after 60 steps" in warning
    assert "55%" in warning  # 0.99^60
    assert not load_config("brats20").warnings()
    assert not load_config("brats20", [*short, "--network.norm", "instance"]).warnings()


@pytest.mark.parametrize(("message", "printed"), [("a is b", "a is b."), ("a.", "a."), ("is a b?", "is a b?")])
def test_a_message_ends_with_one_mark(capsys, message, printed):
    assert fail(message) == 2
    assert capsys.readouterr().err == f"voxloss: {printed}\n"


def test_a_table_of_images_is_told_from_a_configuration(tmp_path):
    (tmp_path / "cases.csv").write_text("image,mask\na.nii.gz,b.nii.gz\n")
    with pytest.raises(InputError, match=r"is a table, so it is no configuration; .* folder --data .*cases.csv"):
        load_config(str(tmp_path / "cases.csv"))


def test_losses_of_a_sigmoid_are_noted_and_refused_where_the_background_is_not_trained():
    """A study predicts the class with the largest output, so each output must be trained."""
    sigmoid = {"name": "dice", "activation": "sigmoid"}
    [note] = load_config("folder", ["--comparison.losses", json.dumps([sigmoid, "focal"])]).warnings()
    assert note.startswith("dice-activation=sigmoid is trained with a sigmoid")
    allowed = [
        sigmoid,
        {"name": "dice", "include_background": False},
        {"name": "cross_entropy", "activation": "sigmoid"},
    ]
    check_losses(loss_choices(allowed))
    parts = {"losses": ["dice", "tversky"], "include_background": False}
    refused = [sigmoid | {"include_background": False}, {"name": "compound", "activation": "sigmoid"} | parts]
    for choice in refused:
        with pytest.raises(InputError, match="does not train the network's output for the background"):
            check_losses(loss_choices([choice]))


@pytest.mark.parametrize(("patch", "limits"), [([16, 16, 1], None), ([16, 16, 16], {"tumour": [0.004, 0.056]})])
def test_size_limits_of_one_slice_that_an_earlier_version_settled_are_open(tmp_path, patch, limits):
    """It took images for volumes, whose limits in ml would be refused for images now."""
    (tmp_path / "runs").mkdir()
    lesions = {"size_limits_ml": {"tumour": [0.004, 0.056]}}
    config = {"patches": {"size": patch}, "evaluation": {"lesions": lesions}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"format": 2, "config": config}))
    read = load_config(tmp_path).evaluation.lesions.size_limits_ml
    assert read == (limits and {"tumour": (0.004, 0.056)})
    lesions["size_limits_mm2"] = None  # of a version that knew images
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"format": 2, "config": config}))
    assert load_config(tmp_path).evaluation.lesions.size_limits_ml is not None
