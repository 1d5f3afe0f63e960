"""The documentation: generated pages are current, no public name is missing, and the Python on the pages works."""

import ast
import importlib
import inspect
import json
import re
from pathlib import Path

import pytest
import torch

import voxloss
from voxloss.config.keys import keys_page
from voxloss.losses.cards.coming_from import coming_from

DOCS = Path(__file__).parents[1] / "docs"


def test_coming_from_is_that_of_the_catalogue():
    assert (DOCS / "coming-from.md").read_text(encoding="utf-8") == coming_from()


def test_the_page_of_the_configuration_is_that_of_the_schema():
    assert (DOCS / "configuration.md").read_text(encoding="utf-8") == keys_page()


@pytest.mark.parametrize("page", ["nnunet.md", "monai.md", "lightning.md"])
def test_python_of_the_pages_parses(page):
    """tests/peers runs that of MONAI and Lightning."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        ast.parse(block)


def directives() -> list[str]:
    pages = (DOCS / "api").glob("*.md")
    return [
        name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]


def test_every_public_name_is_on_a_page_of_the_api():
    documented = {name.rsplit(".", 1)[1] for name in directives()}
    functions = {f"{name}_loss" for name in voxloss.list_losses()}
    public = {*voxloss.losses.__all__, *functions} - {"functional"}
    assert public - documented == set()


@pytest.mark.parametrize("name", directives())
def test_names_on_the_pages_of_the_api_exist_and_are_documented(name):
    module, _, attribute = name.rpartition(".")
    described = getattr(importlib.import_module(module), attribute)
    text = inspect.getdoc(described)
    assert text and not text.startswith(f"{attribute}("), f"{name} has no docstring of its own"


def test_every_page_is_in_the_navigation():
    """`mkdocs build --strict` says so too, but takes longer."""
    navigation = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*") if path.suffix in (".md", ".ipynb")]
    assert [page for page in pages if page not in navigation] == []


@pytest.mark.parametrize("page", ["how-to/train-with-one-loss.md", "how-to/own-loss.md"])
def test_python_of_the_how_to_pages_runs(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": "page"}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        exec(block, names)
    logits, labels = torch.randn(2, 3, 4, 4, 4), torch.randint(0, 3, (2, 4, 4, 4))
    loss = names["loss"]
    if isinstance(loss, voxloss.DeepSupervision):
        logits = [logits]
    assert loss(logits, labels).isfinite()


def test_the_notebook_was_executed_without_an_error():
    notebook = json.loads((DOCS / "how-to" / "from-images-to-verdict.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    text = json.dumps(outputs)
    assert "may be the best by mean DSC of tumour" in text and "/tmp/" not in text
