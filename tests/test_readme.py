"""The README's Python runs as it stands."""

import re
from pathlib import Path

import torch

README = Path(__file__).parents[1] / "README.md"


def test_python_of_the_readme():
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2
    names = {
        "network": torch.nn.Conv3d(1, 3, 3, padding=1),
        "images": torch.randn(2, 1, 4, 6, 8),
        "labels": torch.randint(0, 3, (2, 4, 6, 8)),
    }
    for block in blocks:
        exec(block, names)
    assert names["network"].weight.grad.abs().sum() > 0
    logits = names["network"](names["images"])
    assert names["loss"](logits, names["labels"]).isfinite()
