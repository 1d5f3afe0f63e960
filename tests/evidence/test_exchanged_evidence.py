"""Exports from others: what they may hold, and that nothing of them is read as markup."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_up_evidence import GAINS, export

from voxloss.evidence.export import Export, read_export, read_exports, write_export
from voxloss.evidence.report import write_report
from voxloss.utilities.errors import InputError

MARKUP = "<img src=x>"


def changed(folder: Path, **content: Any) -> Path:
    """Change an export's description, and let its digest be that of its scores, as a contributor could."""
    path = folder / "evidence.yaml"
    old = yaml.safe_load(path.read_text(encoding="utf-8"))
    digest = hashlib.blake2b((folder / "scores.csv").read_bytes(), digest_size=16).hexdigest()
    digests = {**old["digests"], **content.pop("digests", {}), "scores": digest}
    path.write_text(yaml.safe_dump({**old, **content, "digests": digests}), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"runs": {}}, "`runs`"),
        ({"runs": {"states": {"done": "x"}, "seconds": {}}}, "`runs`"),
        ({"runs": {"states": {"done": -1}, "seconds": {}}}, "`runs`"),
        ({"runs": {"states": {}, "seconds": {"dice": "long"}}}, "`runs`"),
        ({"runs": {"states": {}, "seconds": {"dice": -5.0}}}, "`runs`"),
        ({"runs": {"states": {}, "seconds": {"dice": float("inf")}}}, "`runs`"),
        ({"runs": {"states": {}, "seconds": {}, "machines": [{"gpu": "one"}]}}, "`runs`"),
        ({"series": {"crops": -0.1}}, "a share between 0 and 1"),
        ({"series": {"crops": float("nan")}}, "a share between 0 and 1"),
        ({"series": {"../crops": 0.1}}, "cannot be the name of a series"),
        ({"notes": "one sentence"}, "`notes`"),
        ({"data_set": ""}, "data set"),
        ({"data_set": "two\nlines"}, "data set"),
        ({"source": {}}, "`source`"),
        ({"digests": {"batches": {"equal": True}}}, "`digests`"),
        ({"digests": {"weights": 3}}, "`digests`"),
        ({"unlearned": {"lesion": ["boundary"]}}, "boundary"),
        ({"losses": dict.fromkeys([*GAINS, "boundary"])}, "boundary"),
    ],
)
def test_a_description_that_no_page_can_show_is_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    write_export(tmp_path / "a", export("a", cases=10))
    with pytest.raises(InputError, match=r"a/evidence\.yaml") as caught:
        read_export(changed(tmp_path / "a", **content))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_one_loss_is_no_comparison(tmp_path: Path) -> None:
    write_export(tmp_path / "a", export("a", gains={"dice": 0.0}, cases=10))
    with pytest.raises(InputError, match=r"a/evidence\.yaml: .* two losses"):
        read_export(tmp_path / "a")


def test_two_studies_of_a_data_set_cannot_both_count_as_real(tmp_path: Path) -> None:
    """Whoever adds one is told; folders that two people filled meet in the report."""
    for name in ("a", "b"):
        write_export(tmp_path / name, export(name, seed=ord(name), data_set="liver", cases=10))
    with pytest.raises(InputError, match="a and b are both of the data set liver, which counts once") as caught:
        read_exports(tmp_path)
    assert "kind: variant" in str(caught.value)
    read_export(changed(tmp_path / "b", kind="variant"))
    assert len(read_exports(tmp_path)) == 2


def hostile(name: str, **more: Any) -> Export:
    return export(name, seed=ord(name[-1]), gains={**GAINS, MARKUP: 0.09}, noise=0.002, cases=10, **more)


def test_nothing_of_an_export_is_read_as_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("forest", "scores_by_rarity"):  # SVG is escaped by Matplotlib
        monkeypatch.setattr(f"voxloss.evidence.figures.{name}", lambda *_: None)
    exports = [hostile(f"set-{n}", data_set=f"{MARKUP}{n}") for n in range(2)]
    exports.append(hostile("step-1", kind="rarer", data_set=MARKUP, series={"s": 0.1}))
    for number, one in enumerate(exports):
        one.scores["case"] = MARKUP + one.scores["case"]
        write_export(tmp_path / "results" / one.name, one)
        runs = {"states": {MARKUP: 1}, "seconds": {}, "machines": [{"runs": 1, "processor": MARKUP}]}
        source = {"from": "voxloss" if number else MARKUP, "configuration": MARKUP}
        changed(tmp_path / "results" / one.name, runs=runs, source=source, notes=[MARKUP])
    write_report(tmp_path / "results", tmp_path / "pages", pairs=[(MARKUP, "dice"), ("dice", MARKUP)])
    write_export(tmp_path / "only" / "set", hostile("set", data_set=MARKUP))
    write_report(tmp_path / "only", tmp_path / "one")  # the first sentence names a data set that is alone
    pages = {path: path.read_text(encoding="utf-8") for path in tmp_path.glob("*/*.md")}
    assert len(pages) == 10
    assert [str(path) for path, text in pages.items() if MARKUP in text] == []
    assert sum("&lt;img src=x&gt;" in text for text in pages.values()) > 4
