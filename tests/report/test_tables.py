"""What the tables say, and their four renderings."""

import html.parser
import io
import math

import pandas as pd
import pytest
from latex import compile_latex, needs_latex
from rich.console import Console
from score_tables import intervals_of, pairs_of

from voxloss.report.names import loss_name, slugs
from voxloss.report.tables.formats import Cell, Table, escape_latex, to_console, to_html, to_latex, to_markdown
from voxloss.report.tables.paper_numbers import PAPER_RESULTS
from voxloss.report.tables.scores import interval_text, p_text, scores_table, short_p_text, significance_matrix, stars
from voxloss.report.tables.verdict import sizes_table

METRICS = ("dice", "precision", "recall")
LOSSES_OF_THE_PAPER = tuple(PAPER_RESULTS["kits19"])


THREE_PAIRS = pairs_of(
    [
        ("kidney", "dice", "dice", "focal", -1.5, 0.01, 0.0209, 10),
        ("kidney", "dice", "mixed_focal", "focal", 3.0, 1e-5, 2.52e-5, 10),
        ("kidney", "dice", "mixed_focal", "dice", 0.0, 1.0, 1.0, 9),
    ]
)
LOSSES = ("focal", "dice", "mixed_focal")


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (1.0, "1.00"),
        (0.9996, "1.00"),
        (0.209, "0.209"),
        (0.0962, "0.0962"),
        (0.095, "0.0950"),
        (0.00468, "0.00468"),
        (0.00099999, "0.00100"),
        (8.30e-4, "8.30 × 10⁻⁴"),
        (2.52e-5, "2.52 × 10⁻⁵"),
        (1.234e-12, "1.23 × 10⁻¹²"),
        (math.nan, "n/a"),
    ],
)
def test_p_is_written_as_in_the_paper(p, text):
    assert p_text(p) == text


@pytest.mark.parametrize(
    ("p", "mark"),
    [(0.05, ""), (0.0499, "*"), (0.01, "*"), (0.0099, "**"), (0.001, "**"), (0.0009, "‡"), (math.nan, "")],
)
def test_stars_at_their_limits(p, mark):
    assert stars(p) == mark


def test_short_p_fits_the_console():
    assert [short_p_text(p) for p in (1.0, 0.00468, 0.0009, math.nan)] == ["1.000", "0.005", "<0.001", "n/a"]


def test_interval_text():
    assert interval_text(0.94, 0.02) == "0.940 ± 0.020"
    assert interval_text(0.94, math.nan) == "0.940"
    assert interval_text(math.nan, math.nan) == "n/a"
    assert interval_text(0.94, math.nan, 0.9, 0.96) == "0.940 (0.900 to 0.960)"
    assert interval_text(3.26, 0.5, digits=1) == "3.3 ± 0.5"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("mixed_focal", "Mixed Focal loss"),
        ("focal-gamma=3", "Focal loss (γ = 3)"),
        ("focal-alpha=0.1+0.9-gamma=3", "Focal loss (α = 0.1+0.9, γ = 3)"),
        ("combo-smooth=-1-weight=-0.5", "Combo loss (smooth = -1, λ = -0.5)"),
        ("my_loss", "my_loss"),
        ("focal-3", "focal-3"),
        ("focal-gamma", "focal-gamma"),
        ("<b>", "<b>"),
    ],
)
def test_loss_names(key, name):
    assert loss_name(key) == name


def test_slugs_are_safe_and_different():
    names = ["tumour", "Enhancing tumour", "enhancing-tumour", "../../x", "日本", "<script>", ""]
    result = slugs(names)
    assert result["Enhancing tumour"] == "enhancing-tumour" and result["enhancing-tumour"] == "enhancing-tumour-2"
    assert result["../../x"] == "x" and result["日本"] == "class"
    assert len(set(result.values())) == len(names)


def scores_of_two(**changes):
    entries = {
        ("focal", "dice"): ("focal", "kidney", "dice", 0.94, 0.02, 0, 0, 0.94),
        ("focal", "precision"): ("focal", "kidney", "precision", 0.95, 0.01, 2, 0, 0.80),
        ("dice", "dice"): ("dice", "kidney", "dice", 0.93, 0.03, 0, 0, 0.93),
        ("dice", "precision"): ("dice", "kidney", "precision", 0.95, math.nan, 0, 0, 0.95),
    }
    return scores_table(intervals_of(entries.values()), ("focal", "dice"), ("kidney",), METRICS[:2], "Scores", "Words.")


def test_scores_table_cells():
    table = scores_of_two()
    assert [cell.text for cell in table.rows[0]] == ["Focal loss", "0.940 ± 0.020", "0.950 ± 0.010†"]
    assert [cell.text for cell in table.rows[1]] == ["Dice loss", "0.930 ± 0.030", "0.950"]
    assert table.groups == (("kidney", 2),) and table.header == ("Loss", "DSC", "Precision")


def test_best_is_bold_by_what_counts_for_ranking():
    table = scores_of_two()
    assert [cell.bold for cell in table.rows[0]] == [False, True, False]
    assert [cell.bold for cell in table.rows[1]] == [False, False, True]


def test_undefined_and_failed_are_counted_in_a_note():
    assert scores_of_two().notes == (
        "† Undefined scores, not in the mean. Focal loss: 2 undefined in Precision of kidney.",
    )
    failed = [("x", "kidney", metric, math.nan, math.nan, 0, 9, 0.0) for metric in METRICS]
    table = scores_table(intervals_of(failed), ("x",), ("kidney",), METRICS, "", "")
    assert [cell.text for cell in table.rows[0]] == ["x", "n/a†", "n/a†", "n/a†"]
    assert "x: 9 failed in every column" in table.notes[0]


def test_losses_with_the_same_numbers_are_counted_once():
    rows = [
        (loss, "kidney", "precision", 0.9, 0.01, number, 0, 0.8)
        for loss, number in (("dice", 2), ("focal", 2), ("tversky", 3))
    ]

    def note(losses):
        [text] = scores_table(intervals_of(rows), losses, ("kidney",), ("precision",), "", "").notes
        return text.removeprefix("† Undefined scores, not in the mean. ")

    assert note(("dice", "focal")) == "Every loss: 2 undefined in Precision of kidney."
    assert note(("dice",)) == "Dice loss: 2 undefined in Precision of kidney."
    assert note(("dice", "focal", "tversky")) == (
        "Dice loss, Focal loss: 2 undefined in Precision of kidney; Tversky loss: 3 undefined in Precision of kidney."
    )


def test_equal_to_three_decimals_are_both_best():
    rows = [
        (loss, "kidney", "dice", mean, 0.01, 0, 0, mean) for loss, mean in (("a", 0.7944), ("b", 0.7941), ("c", 0.79))
    ]
    table = scores_table(intervals_of(rows), ("a", "b", "c"), ("kidney",), ("dice",), "", "")
    assert [row[1].bold for row in table.rows] == [True, True, False]


def test_lower_is_better_in_millimetres_and_infinite_is_never_the_best():
    rows = [("a", "kidney", "hd95", 3.2, 0.5, 1, 0, math.inf), ("b", "kidney", "hd95", 4.126, 0.5, 0, 0, 4.126)]
    table = scores_table(intervals_of(rows), ("a", "b"), ("kidney",), ("hd95",), "", "")
    assert [(row[1].text, row[1].bold) for row in table.rows] == [("3.20 ± 0.50†", False), ("4.13 ± 0.50", True)]


def test_matrix_is_lower_triangular_with_sign_and_stars():
    matrix = significance_matrix(THREE_PAIRS, "kidney", "dice", LOSSES, "rank_sum")
    assert [[cell.text for cell in row[1:]] for row in matrix.rows] == [
        ["–", "", ""],
        ["0.0209*", "–", ""],
        ["2.52 × 10⁻⁵‡", "1.00", "–"],
    ]
    assert [cell.shade for cell in matrix.rows[1]] == ["", "negative", "", ""]
    assert [cell.shade for cell in matrix.rows[2]] == ["", "positive", "", ""]
    assert "9 to 10 cases" in matrix.caption and "3 pairs" in matrix.caption


def test_markdown():
    text = to_markdown(significance_matrix(THREE_PAIRS, "kidney", "dice", LOSSES, "rank_sum"))
    assert "| Dice loss | 0.0209\\* ▼ | – |  |" in text
    assert "| Mixed Focal loss | 2.52 × 10⁻⁵‡ ▲ | 1.00 | – |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {5}


HOSTILE = r'<script>alert(1)</script> & | * _ $x$ # % { } ~ ^ \ "q" [red]'


def hostile_table():
    cells = (Cell(HOSTILE), Cell("0.1 ± 0.2†", bold=True), Cell("2.52 × 10⁻⁵‡", shade="negative", strong=True))
    return Table(HOSTILE, HOSTILE, ("", HOSTILE, "x"), (cells,), ((HOSTILE, 2),), (HOSTILE,))


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.seen, self.data = set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)

    def handle_data(self, data):
        self.data += data


def test_html_escapes_everything():
    tags = Tags(str(to_html(hostile_table())))
    assert tags.seen == {"div", "table", "thead", "tbody", "tr", "td", "th", "strong", "p"}
    assert tags.data.count(HOSTILE) == 4


def test_html_has_the_ends_of_an_interval_below_the_mean():
    texts = ("0.940 (0.900 to 1.000)", "−0.1 (−0.2 to 0.0)†", "0.940 ± 0.020", "0.3 (a to b)")
    table = Table("t", "", ("Loss", *"abcd"), ((Cell("x"), *map(Cell, texts)),))
    html = str(to_html(table))
    assert '<td>0.940 <span class="ends">(0.900 to 1.000)</span></td>' in html
    assert '<td>−0.1 <span class="ends">(−0.2 to 0.0)†</span></td>' in html
    assert "<td>0.940 ± 0.020</td><td>0.3 (a to b)</td>" in html


def test_markdown_has_no_html():
    text = to_markdown(hostile_table())
    assert "<" not in text and r"\|" in text


def test_console_prints_names_as_they_are():
    stream = io.StringIO()
    Console(file=stream, width=300).print(to_console(hostile_table()))
    assert HOSTILE in stream.getvalue()


@pytest.mark.parametrize("n_losses", [7, 8])
def test_console_matrix_fits_80_columns(n_losses):
    names = (
        "focal",
        "dice",
        "tversky",
        "cosine_tversky",
        "focal_tversky",
        "combo",
        "mixed_focal",
        "dice_cross_entropy",
    )
    losses = names[:n_losses]
    pairs = pairs_of([("k", "dice", r, c, 1.0, 0.001, 0.0042, 9) for i, r in enumerate(losses) for c in losses[:i]])
    stream = io.StringIO()
    matrix = significance_matrix(pairs, "k", "dice", losses, "signed_rank", numbered=True, p_format=short_p_text)
    Console(file=stream, width=80).print(to_console(matrix))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    for place, loss in enumerate(losses):
        row = next(line for line in lines if line.strip().startswith(f"{place + 1} {loss_name(loss)} "))
        assert row.count("0.004**") == place


def test_console_leaves_names_their_width_beside_intervals():
    rows = [[name, *["0.049 (0.000 to 0.162)†"] * 3] for name in ("Dice + cross entropy", "Focal Tversky loss")]
    table = Table("t", "", ("Loss", "DSC", "Precision", "Recall"), tuple(tuple(map(Cell, row)) for row in rows))
    stream = io.StringIO()
    Console(file=stream, width=80).print(to_console(table))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) <= 2 + 1 + 2 * 2
    assert sum(line.count("(0.000 to 0.162)†") for line in lines) == 6


def test_console_verdict_keeps_names_on_one_line():
    rows = [(Cell("Dice + cross entropy"), Cell("yes"), Cell("0.654"), Cell("−0.123 (−0.223 to 0.123)"),
             Cell("not distinguishable"))]  # fmt: skip
    table = Table("t", "", ("Loss", "May be best", "Mean", "Difference from the best", "Result"), tuple(rows))
    stream = io.StringIO()
    Console(file=stream, width=80).print(to_console(table))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and sum("Dice + cross entropy" in line for line in lines) == 1
    assert len(lines) == 1 + 2 + 1 + 2  # title, headings, rule, row with its interval


def test_nothing_is_bold_in_a_column_that_would_be_bold_throughout():
    sizes = pd.DataFrame(
        [
            {"loss": loss, "small": 0.5, "middle": 0.6, "large": 0.7, "missed": 0.0, "n": 9,
             "small_may_be_best": True, "middle_may_be_best": loss == "dice", "large_may_be_best": False}
            for loss in ("dice", "focal")
        ]
    )  # fmt: skip
    table = sizes_table(sizes, "tumour", "dice")
    assert [[cell.bold for cell in row] for row in table.rows] == [
        [False, False, True, False, False], [False] * 5,
    ]  # fmt: skip
    equal = [(loss, "kidney", "dice", 0.0, 0.0, 0, 0, 0.0) for loss in ("a", "b")]
    table = scores_table(intervals_of(equal), ("a", "b"), ("kidney",), ("dice",), "", "")
    assert not any(cell.bold for row in table.rows for cell in row)


def test_latex_escapes():
    assert escape_latex("a_b & 5 % ± 2.52 × 10⁻⁵") == r"a\_b \& 5 \% $\pm$ 2.52 $\times$ 10$^{-5}$"
    assert escape_latex("\\{") == r"\textbackslash{}\{"


def test_latex_shape():
    text = to_latex(significance_matrix(THREE_PAIRS, "kidney", "dice", LOSSES, "rank_sum", numbered=True), "tab:x")
    assert r"\toprule" in text and r"\cellcolor[HTML]{EEBF99}0.0209*" in text
    assert r"\cellcolor[HTML]{99D8C7}2.52 $\times$ 10$^{-5}$$\ddagger$" in text
    assert text.count("{") == text.count("}")


@needs_latex
def test_latex_compiles(tmp_path):
    tables = [hostile_table(), scores_of_two(), significance_matrix(THREE_PAIRS, "kidney", "dice", LOSSES, "rank_sum")]
    compile_latex("\n".join(to_latex(table, f"tab:{place}") for place, table in enumerate(tables)), tmp_path)
