"""The pages for other frameworks: what is generated is current, and their Python parses."""

import ast
import re
from pathlib import Path

import pytest

from voxloss.losses.cards.coming_from import coming_from

DOCS = Path(__file__).parents[1] / "docs"


def test_coming_from_is_that_of_the_catalogue():
    assert (DOCS / "coming-from.md").read_text(encoding="utf-8") == coming_from()


@pytest.mark.parametrize("page", ["nnunet.md", "monai.md", "lightning.md"])
def test_python_of_the_pages_parses(page):
    """tests/peers runs that of MONAI and Lightning."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        ast.parse(block)
