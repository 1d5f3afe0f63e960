"""Long tables as a study, and what is refused."""

import itertools

import pytest

from study_helpers import call
from voxloss.evaluation.scores import read_scores
from voxloss.report import build_report
from voxloss.report.record import open_record
from voxloss.study.imported import import_table
from voxloss.utilities.errors import InputError

pytestmark = [pytest.mark.usefixtures("blank_figures"), pytest.mark.slow]


def rows(losses=("ours", "theirs"), cases=6, metrics=("dice", "precision"), folds=2):
    for place, (loss, case, metric) in enumerate(itertools.product(losses, range(cases), metrics)):
        yield loss, f"patient {case}", metric, f"{0.5 + 0.4 * ((place * 7) % 10) / 10:.3f}", str(case % folds)


def write(path, lines, header="loss,case,metric,value,fold", separator=","):
    text = "\n".join([header.replace(",", separator), *(separator.join(line) for line in lines)])
    path.write_text(text + "\n", encoding="utf-8")
    return path


def test_a_table_is_reported(tmp_path):
    table = write(tmp_path / "scores of mine.csv", rows())
    made = import_table(table, tmp_path / "study")
    assert str(made) == "2 losses, 2 folds, 1 seed, 6 cases"
    scores = read_scores(tmp_path / "study" / "scores.csv")
    for (loss, case, metric, value, fold), row in zip(rows(), scores.to_dict("records"), strict=True):
        assert (row["loss"], row["case"], row["metric"], row["fold"]) == (loss, case, metric, int(fold))
        assert row["value"] == float(value) and row["class"] == "structure" and row["dataset"] == "scores of mine"
    page = build_report(tmp_path / "study").read_text()
    assert "ours" in page and "theirs" in page and "In progress" not in page


def test_several_data_sets_have_folds_and_a_table_of_their_own(tmp_path):
    lines = [(*line, "here") for line in rows()]
    lines += [(loss, case.replace("patient", "other"), *rest, "there") for loss, case, *rest in rows(folds=3)]
    table = write(tmp_path / "t.csv", lines, "loss,case,metric,value,fold,dataset")
    assert import_table(table, tmp_path / "study").folds == 5
    scores = read_scores(tmp_path / "study" / "scores.csv")
    folds = scores.groupby("dataset")["fold"].unique().map(set)
    assert folds["here"] == {0, 1} and folds["there"] == {2, 3, 4}
    page = build_report(tmp_path / "study").read_text()
    assert "By data set: DSC of structure" in page
    assert "here: 6 cases; there: 6 cases" in page
    table = write(
        tmp_path / "again.csv", [*lines, *[(*line, "there") for line in rows()]], "loss,case,metric,value,fold,dataset"
    )
    with pytest.raises(InputError, match="case patient 0 is in the data sets here and there; name the cases"):
        import_table(table, tmp_path / "other")


def test_the_least_that_a_table_needs(tmp_path):
    lines = [line[:4] for line in rows()]
    table = write(tmp_path / "t.csv", lines, "loss,case,metric,value")
    import_table(table, tmp_path / "study")
    record = open_record(tmp_path / "study")
    assert record.study.comparison.interval == "case" and len(record.study.folds) == 1
    build_report(tmp_path / "study")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_of_other_names(tmp_path, separator):
    lines = [(*line, "ignored") for line in rows()]
    table = write(tmp_path / "t.csv", lines, "Method,patient,measure,score,split,loss", separator)
    columns = "loss=Method, case=patient,metric=measure,value=score,fold=split"
    made = import_table(table, tmp_path / "study", columns)
    assert (made.losses, made.folds, made.cases) == (2, 2, 6)
    assert set(read_scores(tmp_path / "study" / "scores.csv")["loss"]) == {"ours", "theirs"}


def test_empty_values_are_undefined_and_metrics_may_be_capitals(tmp_path):
    lines = list(rows(metrics=("DICE", "Precision")))
    lines[1] = (*lines[1][:3], "", lines[1][4])
    lines[3] = (*lines[3][:3], "nan", lines[3][4])
    import_table(write(tmp_path / "t.csv", lines), tmp_path / "study")
    scores = read_scores(tmp_path / "study" / "scores.csv")
    assert list(scores["status"]).count("undefined") == 2 and set(scores["metric"]) == {"dice", "precision"}


def test_other_primary_metrics_and_classes(tmp_path):
    lines = [(*line, name) for name in ("liver", "vessel") for line in rows(metrics=("recall", "hd95"))]
    table = write(tmp_path / "t.csv", lines, "loss,case,metric,value,fold,class")
    import_table(table, tmp_path / "study")
    record = open_record(tmp_path / "study")
    assert record.study.comparison.primary_metric == "recall"
    assert record.study.comparison.primary_class == "vessel"
    import_table(table, tmp_path / "study", primary_class="liver")
    assert open_record(tmp_path / "study").study.comparison.primary_class == "liver"
    page = build_report(tmp_path / "study").read_text(encoding="utf-8")
    assert "These scores were imported" in page and "digests" not in page
    with pytest.raises(InputError, match=r"the classes of .* are liver, vessel"):
        import_table(table, tmp_path / "study", primary_class="bone")


def replaced(place, **values):
    names = ["loss", "case", "metric", "value", "fold"]
    lines = [list(line) for line in rows()]
    for name, value in values.items():
        lines[place][names.index(name)] = value
    return lines


FAULTS = {
    "an unknown metric": (replaced(2, metric="kappa"), "row 3: unknown metric 'kappa'; there are dice, precision"),
    "no number": (replaced(2, value="high"), "row 3: value must be a number or empty, got 'high'"),
    "out of range": (replaced(2, value="87.5"), "row 3: dice lies between 0 and 1, got 87.5"),
    "no fold": (replaced(2, fold="first"), "row 3: fold must be a whole number, got 'first'"),
    "a negative fold": (replaced(2, fold="-1"), "fold -1 should lie between 0 and 999"),
    "a number for a fold": (replaced(2, fold="9000000000"), "fold 9000000000 should lie between 0 and 999"),
    "no name": (replaced(2, loss=""), "row 3: loss must be a name"),
    "a path as name": (replaced(2, loss="a/b"), "'a/b' cannot be a loss's name"),
    "a score twice": (list(rows())[:4] + list(rows())[:4], "is given twice"),
    "a case in two folds": (replaced(2, fold="0"), "the splits differ: case patient 1 .* in more than one fold"),
    "a case that one lacks": (list(rows())[:-1], "loss theirs has no precision of structure for case patient 5"),
    "distances alone": ([(*line[:2], "hd95", *line[3:]) for line in rows(metrics=("dice",))], "none of the metrics"),
    "nothing": ([], "holds no score"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_refused(tmp_path, fault):
    lines, message = FAULTS[fault]
    with pytest.raises(InputError, match=message):
        import_table(write(tmp_path / "t.csv", lines), tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_undefined_values_need_dice_beside_them(tmp_path):
    lines = [
        (*line[:3], "nan" if line[:2] == ("ours", "patient 1") else line[3], *line[4:])
        for line in rows(metrics=("precision",))
    ]
    assert any(line[3] == "nan" for line in lines)
    with pytest.raises(InputError, match="precision of structure in case patient 1 has no value for loss ours"):
        import_table(write(tmp_path / "t.csv", lines), tmp_path / "study")


def test_metrics_of_some_classes_or_cases_are_named(tmp_path):
    lines = [(*line, "a") for line in rows(metrics=("dice",))] + [
        (*line, "b") for line in rows(metrics=("dice", "recall"))
    ]
    lines += [(*line, "b") for line in rows(metrics=("nsd",)) if line[1] != "patient 1"]
    import_table(write(tmp_path / "t.csv", lines, "loss,case,metric,value,fold,class"), tmp_path / "study")
    page = build_report(tmp_path / "study").read_text(encoding="utf-8")
    assert "Not compared, because only some cases have a value: NSD of b." in page
    assert page.count("The viewer is empty") == 1 and "is not in the viewer:" not in page
    header = (tmp_path / "study" / "report" / "tables" / "table1_scores.md").read_text().splitlines()[2]
    assert header == "| Loss | DSC b | Recall b | DSC a |"  # the primary class first


def test_folds_that_are_not_there_have_no_runs(tmp_path):
    lines = [(*line[:4], {"0": "0", "1": "7"}[line[4]]) for line in rows()]
    import_table(write(tmp_path / "t.csv", lines), tmp_path / "study")
    record = open_record(tmp_path / "study")
    assert {run.fold for run in record.runs} == {0, 7} and {run.state for run in record.runs} == {"done"}


def test_tables_that_are_none(tmp_path):
    with pytest.raises(InputError, match="there is no table"):
        import_table(tmp_path / "none.csv", tmp_path / "study")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match=r"empty.csv is not a table"):
        import_table(tmp_path / "empty.csv", tmp_path / "study")
    (tmp_path / "binary.csv").write_bytes(bytes(range(128, 256)))
    with pytest.raises(InputError, match=r"binary.csv is not a table"):
        import_table(tmp_path / "binary.csv", tmp_path / "study")
    wide = write(tmp_path / "wide.csv", [("a", "b", "0.3")], "method,patient,dice")
    with pytest.raises(InputError, match=r"wide.csv lacks loss, case, metric, value; it has method, patient, dice"):
        import_table(wide, tmp_path / "study")
    with pytest.raises(InputError, match="has no column 'algorithm'"):
        import_table(wide, tmp_path / "study", "loss=algorithm")
    with pytest.raises(InputError, match="--columns takes OURS=THEIRS"):
        import_table(wide, tmp_path / "study", "method=loss")


def test_command(tmp_path):
    table = write(tmp_path / "t.csv", rows())
    result = call("import", "csv", table, "--study", tmp_path / "study")
    assert result.returncode == 0 and "2 losses, 2 folds, 1 seed, 6 cases" in result.stdout
    result = call("import", "csv", table, "--study", tmp_path / "study", "--columns", "loss=nothing")
    assert result.returncode == 2 and result.stderr.count("\n") == 1
