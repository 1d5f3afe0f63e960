"""Names in figures: long ones on several lines, and letters that not every font has."""

import io
import warnings

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.figure import Figure

from study_files import StudyFiles
from voxloss.report.build import build_report
from voxloss.report.figures import labels
from voxloss.report.figures.labels import label_of, row_inches
from voxloss.report.figures.scores import STYLE, save_figure
from voxloss.report.names import loss_name

LONG = "compound-losses=dice+cross_entropy+focal_tversky-weights=[1.0, 0.5, 0.25]"


def test_a_long_name_is_whole_on_short_lines():
    assert label_of("dice") == "Dice loss"
    lines = label_of(LONG).split("\n")
    assert len(lines) > 2 and max(map(len, lines)) <= labels.WIDTH
    assert " ".join(lines) == loss_name(LONG)


def test_rows_grow_with_the_lines_of_their_labels():
    assert row_inches(["dice", "focal"], 0.38) == 0.38
    assert row_inches(["dice", LONG], 0.38) > 0.38
    assert row_inches([], 0.38) == 0.38


@pytest.fixture
def without_further_fonts(monkeypatch):
    """As where no font but matplotlib's own is installed."""
    monkeypatch.setattr(labels, "fonts", lambda: [labels.FONT])
    monkeypatch.setitem(STYLE, "font.family", [labels.FONT])


def save(folder, text):
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2, 1))
        figure.subplots().set_xlabel(text)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return save_figure(figure, folder, "x", "Title", "A caption.", pd.DataFrame({"a": [1]}))


@pytest.mark.usefixtures("without_further_fonts")
def test_letters_without_a_font_are_named_in_the_caption_and_nowhere_else(tmp_path):
    for text in ("tumour", "опухоль", "όγκος", "ورم", "$α_1$ ±\n2"):
        assert save(tmp_path, text).caption == "A caption."
    assert save(tmp_path, "a 肿瘤 of 肿").caption == (
        "A caption. Boxes: no font on the machine that drew this has 瘤肿; install one, such as Noto Sans CJK."
    )


def test_a_font_that_is_there_is_taken(monkeypatch):
    labels.fonts.cache_clear()
    monkeypatch.setattr(labels.font_manager, "get_font_names", lambda: ["SimHei", "DejaVu Sans", "Comic Sans MS"])
    assert labels.fonts() == ["DejaVu Sans", "SimHei"]
    labels.fonts.cache_clear()


@pytest.mark.slow
def test_a_report_of_long_names_and_other_scripts_warns_of_nothing(tmp_path):
    files = StudyFiles(
        losses=(LONG, "dice", "focal_tversky"), classes=("background", "почка", "肿瘤"), primary_class="肿瘤", cases=6,
        shifts={LONG: 0.2, "dice": 0.0, "focal_tversky": 0.5},
    )  # fmt: skip
    study = files.write(tmp_path / "study")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Glyph")
        page = build_report(study).read_text(encoding="utf-8")
    assert "肿瘤" in page and "почка" in page


@pytest.mark.parametrize(("others", "boxes"), [([], True), (["STIXGeneral"], False)])
def test_a_letter_is_drawn_in_the_first_font_that_has_it(monkeypatch, others, boxes):
    """By matplotlib itself, which warns of a box. STIX comes with it, and has 1,492 characters more."""
    monkeypatch.setitem(STYLE, "font.family", [labels.FONT, *others])
    with mpl.rc_context(STYLE), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure = Figure(figsize=(1, 1))
        figure.text(0.5, 0.5, "a \u1d81")
        figure.savefig(io.BytesIO())
    assert bool(caught) is boxes
