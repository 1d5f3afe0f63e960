"""Docstrings, cards and functional forms come from the class, also for a loss that is defined elsewhere."""

import ast
import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import voxloss
from voxloss.commands.main import run_command
from voxloss.losses import describe, functional
from voxloss.losses.catalogue import CATALOGUE
from voxloss.losses.curves import Power
from voxloss.losses.functional import as_function
from voxloss.losses.parameters import Fraction, Positive

NAMES = voxloss.list_losses()
ORDER = ["Where:", "Args:", "Shape:", "Raises:", "Example:", "Reference:"]
PACKAGE = Path(voxloss.losses.__file__).parent
ROOT = Path(__file__).parents[2]


def both(name):
    return CATALOGUE[name], getattr(functional, f"{name}_loss")


def entries(docstring, heading):
    section = docstring.partition(f"{heading}\n")[2].partition("\n\n")[0]
    return re.findall(r"^    (\S[^:]*): ", section, re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_are_complete(name):
    for documented in both(name):
        text = documented.__doc__
        headings = [line for line in text.splitlines() if line in ORDER]
        assert headings == ORDER
        title, equation = text.split("\n\n")[:2]
        assert title.endswith(".") and equation.startswith("    ")
        expected = list(inspect.signature(documented).parameters)
        received = entries(text, "Args:")
        assert sorted(received) == sorted(expected), documented
        assert all(len(line) <= 120 for line in text.splitlines())
        assert CATALOGUE[name].source in " ".join(text.split())
        for label in ("ignore_index", "Must be", "default"):
            assert label in text


@pytest.mark.parametrize("name", NAMES)
def test_every_symbol_of_the_equation_is_defined(name):
    documentation = CATALOGUE[name].documentation
    defined = " ".join([*documentation.where, *documentation.arguments.values()])
    text = " ".join([documentation.equation, *documentation.where.values()])
    for symbol in set(re.findall(r"[α-ωλ]|TP|FP|FN|[pwtV]_\w+|\bs\b|\bC\b|index|mean_\w|Σ_c|V_min", text)) - {"π"}:
        base = symbol.split("_")[0] if symbol[0] in "pwt" and "_" in symbol else symbol
        assert base in defined, f"{symbol} of {name}"
    sides = " ".join([documentation.text, *documentation.arguments.values()])
    assert re.search("missed voxels", sides, re.IGNORECASE), "which side the loss weighs"


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(name):
    for documented in both(name):
        test = doctest.DocTestParser().get_doctest(documented.__doc__, {}, name, None, 0)
        assert len(test.examples) >= 3
        assert doctest.DocTestRunner(verbose=False).run(test).failed == 0


@pytest.mark.parametrize("name", NAMES)
def test_functions_are_the_classes(name):
    loss, function = both(name)
    assert function.__name__ == f"{name}_loss" and function.__module__ == "voxloss.losses.functional"
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2, 3, 5, generator=generator), torch.randint(0, 3, (2, 5), generator=generator)
    weight = torch.rand(2, 5, generator=generator)
    expected = loss(smooth=0.5)(logits, labels, weight)
    assert torch.equal(function(logits, labels, smooth=0.5, voxel_weight=weight), expected)
    assert torch.equal(function(logits, labels, weight, smooth=0.5), expected)


def test_card_and_help_say_the_same():
    for name in NAMES:
        card = describe(name)
        for text in (*CATALOGUE[name].documentation.where.values(), *CATALOGUE[name].documentation.arguments.values()):
            assert text in card and text in " ".join(CATALOGUE[name].__doc__.split())


def test_a_loss_is_one_class():
    """A loss of one's own has signature, checks, repr, docstring, card and functional form, and is not in the list."""
    before = dict(CATALOGUE)

    class RootDiceLoss(voxloss.Loss):
        """Root Dice loss.

            Σ_c (1 - index_c(δ))^(1/r)

        Args:
            delta: δ, weight of missed voxels.
            root: r, the root.
        """

        delta: Fraction = 0.5
        root: Positive = 2.0

        source = "nowhere"
        value_range = "[0, C]"

        def terms(self):
            return self.region(self.delta, Power(1 / self.root))

    assert list(inspect.signature(RootDiceLoss).parameters)[:2] == ["delta", "root"]
    assert repr(RootDiceLoss(root=3, smooth=1)) == "RootDiceLoss(delta=0.5, root=3.0, smooth=1.0)"
    with pytest.raises(ValueError, match="root must be a finite number above 0, received 0"):
        RootDiceLoss(root=0)
    card = describe(RootDiceLoss)
    assert card.startswith("# Root Dice loss (`root_dice`)") and "Family: region" in card
    assert "- `root`: r, the root. Must be a finite number above 0; default 2.0." in card
    assert "ignore_index: Label whose voxels" in RootDiceLoss.__doc__
    function = as_function(RootDiceLoss)
    logits, labels = torch.randn(1, 3, 6), torch.tensor([[0, 1, 2, 0, 1, 2]])
    expected = voxloss.FocalTverskyLoss(delta=0.5, gamma=3)(logits, labels)
    assert torch.equal(function(logits, labels, root=3), expected)
    assert function.__name__ == "root_dice_loss"
    assert dict(CATALOGUE) == before == {name: before[name] for name in voxloss.list_losses()}


def test_a_subclass_of_the_same_name_replaces_nothing():
    known = CATALOGUE["dice"]

    class DiceLoss(voxloss.DiceLoss):
        def terms(self):
            return self.region(0.25)

    assert DiceLoss.name == "dice" and CATALOGUE["dice"] is known and type(voxloss.get_loss("dice")) is known
    assert "smooth: s, added" in DiceLoss.__doc__ and describe("dice") == describe(known)


def test_a_loss_is_exported_in_two_places():
    """No file beside that of the class, losses/__init__.py and functional.py names a loss's class."""
    allowed = {"__init__.py", "functional.py"}
    for path in PACKAGE.rglob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        classes = {loss.__name__ for loss in CATALOGUE.values() if inspect.getsourcefile(loss) != str(path)}
        assert not names & classes or path.name in allowed, path
    exported = {loss.__name__ for loss in CATALOGUE.values()}
    assert exported <= set(voxloss.__all__) and exported <= set(dir(voxloss))


@pytest.mark.slow
def test_moved_modules_keep_their_old_names():
    script = """
import importlib, warnings
for old, new, name in [
    ("targets", ".voxel_pass.targets", "plain"),
    ("statistics", ".voxel_pass.statistics", "voxel_statistics"),
    ("formulas", ".terms", "Region"),
    ("modules", "", "TverskyLoss"),
]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(f"from voxloss.losses import {old} as moved; import voxloss.losses.{old} as again")
    assert [w.category for w in caught] == [DeprecationWarning] and "0.2" in str(caught[0].message), caught
    assert caught[0].filename == "<string>"
    real = importlib.import_module(f"voxloss.losses{new}")
    assert moved is again is real and hasattr(real, name)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_voxel_loss_is_a_deprecated_name():
    for module in (voxloss, voxloss.losses):
        with pytest.warns(DeprecationWarning, match="use Loss") as caught:
            assert module.VoxelLoss is voxloss.Loss
        assert caught[0].filename == __file__  # where else Python hides it
    assert "VoxelLoss" not in voxloss.__all__


@pytest.mark.parametrize("name", NAMES)
def test_help_card_command_and_page_say_the_same(name, capsys):
    """Everything that `help()` says, word for word, is on the card, which the command prints and the site shows."""
    card = describe(name)
    assert (ROOT / "docs" / "losses" / f"{name}.md").read_text(encoding="utf-8") == card
    assert run_command(["losses", name]) == 0
    assert capsys.readouterr().out.strip() == card.strip()
    words = " ".join(card.replace("`", "").split())
    for line in re.split(r"\n\n|\n    (?! )|:\n", CATALOGUE[name].__doc__):
        text = " ".join(line.replace("`", "").split()).removesuffix(".").removeprefix("- ")
        heading = text.removesuffix(":")
        assert text in words or heading in {"Where", "Args", "Shape", "Raises", "Example", "Reference"}, text


def test_any_docstring_can_be_read():
    class RootDiceLoss(voxloss.Loss):
        """Root of Dice.

        Args:
            as a user may write it
            root:
                Of the index: above 0.

        Returns:
            The loss.
        """

        root: Positive = 2.0

        def terms(self):
            return self.region(0.5, Power(1 / self.root))

    assert "root: Of the index: above 0. Must be a finite number above 0; default 2.0." in RootDiceLoss.__doc__
    assert "Returns:\n    The loss." in RootDiceLoss.__doc__


@pytest.mark.slow
def test_losses_work_without_docstrings(capsys):
    code = (
        "import torch, voxloss\n"
        "for name in voxloss.list_losses():\n"
        "    loss = voxloss.get_loss(name)\n"
        "    print(name, loss(torch.zeros(1, 2, 3), torch.tensor([[0, 1, 1]])).item())\n"
        "    voxloss.describe(name)\n"
    )
    without = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=False)
    exec(code)
    assert without.stdout == capsys.readouterr().out and len(without.stdout.splitlines()) == len(NAMES), without.stderr
