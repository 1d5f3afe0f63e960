"""Where the values of a configuration come from, beside each of them."""

import re

import pytest
import yaml

from voxloss.config.files import load_config, preset_names, to_plain
from voxloss.config.origins import annotated_yaml

PAPER = ("paper", "MIScnn", "ours")


@pytest.mark.parametrize("preset", preset_names())
def test_it_is_still_the_configuration(preset):
    config = load_config(preset)
    assert yaml.safe_load(annotated_yaml(config, preset)) == to_plain(config)


@pytest.mark.parametrize("preset", ["kits19", "brats20"])
def test_every_value_of_the_papers_protocols_says_whether_it_is_the_papers(preset):
    printed = annotated_yaml(load_config(preset), preset).splitlines()
    values = [line for line in printed if not line.endswith(":") and not line.lstrip().startswith("##")]
    described = [line for line in values if re.search(rf" # ({'|'.join(PAPER)})\b", line)]
    signatures = [line for line in values if line.startswith("    # ")]
    assert len(described) + len(signatures) == len(values)
    assert len(described) > 45


def test_the_papers_values_are_named_the_papers():
    printed = annotated_yaml(load_config("kits19"), "kits19")
    for text, origin in (
        ("clip: [-79.0, 304.0]", "paper"),
        ("size: [80, 160, 160]", "paper"),
        ("filters: 32", "MIScnn"),
        ("gamma: [0.7, 1.5]", "paper (the kinds); MIScnn"),
        ("validation_batches: 20", "ours"),
        ("inner_share: 0.2", "ours: the default"),
    ):
        assert re.search(rf"^  {re.escape(text)} +# {re.escape(origin)}", printed, re.MULTILINE), text
    assert "    # focal(alpha=0.25, gamma=2.0, beta=None)\n" in printed


def test_every_key_is_explained_above_its_line():
    lines = annotated_yaml(load_config("folder"), "folder").splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("  batch_size: "))
    assert lines[place - 1] == "  ## Patches per step."
    assert max(map(len, (line for line in lines if line.lstrip().startswith("##")))) <= 120
    for number, line in enumerate(lines):
        if re.match(r" *\w+:", line):
            assert lines[number - 1].lstrip().startswith("## "), line


def test_the_printed_configuration_is_read_as_a_file_of_its_own(tmp_path):
    config = load_config("kits19")
    (tmp_path / "mine.yaml").write_text(annotated_yaml(config, "kits19"))
    again = load_config(tmp_path / "mine.yaml")
    assert again == config
    assert annotated_yaml(again, tmp_path / "mine.yaml") == annotated_yaml(config, "kits19")


def test_a_users_values_are_told_apart(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\ntraining:\n  epochs: 7  # as last year\n  iterations: 9\n"
        "evaluation:\n  lesions:  # of our protocol\n    threshold: 0.1\n    connectivity: 6  # thin vessels\n"
    )
    overrides = ["--patches.batch_size", "3", "--evaluation.lesions.dilation", "3"]
    overrides.append("--comparison.losses=[{name: focal, gamma: 3}]")
    printed = annotated_yaml(load_config(file, overrides), file, overrides)
    for text, origin in (
        ("epochs: 7", "as last year"),
        ("iterations: 9", "mine.yaml"),
        ("batch_size: 3", "given"),
        ("learning_rate: 0.0003", "ours: the default"),
        ("  dilation: 3", "given"),
        ("  match: touch", "ours: the default"),
        ("  threshold: 0.1", "of our protocol"),
        ("  connectivity: 6", "thin vessels"),
    ):
        assert re.search(rf"^  {re.escape(text)} +# {re.escape(origin)}$", printed, re.MULTILINE), text
    assert "    # focal(alpha=0.25, gamma=3, beta=None)\n" in printed


def test_the_values_of_a_study_are_its_own(tmp_path):
    config = to_plain(load_config(None, ["--training.epochs", "7"]))
    (tmp_path / "runs").mkdir()
    for version in ({"format": 2}, {}):
        (tmp_path / "study.yaml").write_text(yaml.safe_dump({**version, "config": config, "environment": {}}))
        printed = annotated_yaml(load_config(tmp_path), tmp_path)
        assert re.search(r"^  epochs: 7 +# study\.yaml$", printed, re.MULTILINE)
        assert "ours: the default" not in printed
