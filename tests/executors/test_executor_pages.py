"""The commands on the pages of the executors are ones that voxloss takes."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from study_helpers import call
from voxloss.commands.main import _parser

PAGES = Path(__file__).parents[2] / "docs" / "how-to"


def commands(page: str) -> list[list[str]]:
    text = (PAGES / page).read_text(encoding="utf-8")
    # Every second part lies between fences, and begins with the name of its language.
    blocks = [block.partition("\n") for block in text.split("```")[1::2]]
    lines = [
        line for name, _, block in blocks if not name for line in block.splitlines() if line.startswith("voxloss ")
    ]
    assert len(lines) >= 6
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.parametrize("words", [*commands("slurm.md"), *commands("ray.md")], ids=" ".join)
def test_commands_of_the_pages_are_understood(words, tmp_path):
    existing = [str(tmp_path) if word in ("DATA", "studies/mine") else word for word in words]
    _parser().parse_known_args(existing)
    if "folder" in words:  # its settings are checked by the command that prints them
        settings = [word for word in words[words.index("--execution.executor") :] if word != "--detach"]
        done = call("config", "folder", *settings)
        assert done.returncode == 0, done.stderr


def test_settings_of_the_page_make_a_configuration(tmp_path):
    text = (PAGES / "slurm.md").read_text(encoding="utf-8")
    block = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1]
    file = tmp_path / "study.yaml"
    file.write_text(block)
    done = call("config", file)
    assert done.returncode == 0, done.stderr
    for key, value in yaml.safe_load(block)["execution"].items():
        assert f"{key}:" in done.stdout, (key, value)
