"""What `voxloss status` shows, from a study's files."""

import io
import json
import threading
from dataclasses import replace

import pytest
from rich.console import Console

from study_helpers import claimed
from voxloss.commands.display import status_view as status_module
from voxloss.commands.display.runs import run_display
from voxloss.commands.display.status_view import queues_of, status_view, watch
from voxloss.config.files import load_config
from voxloss.config.settled import SettledConfig
from voxloss.data.case import Case
from voxloss.data.dataset import Dataset
from voxloss.study.claims import Worker, take
from voxloss.study.execution import slurm
from voxloss.study.progress import run_progress, run_seconds_left, study_seconds_left
from voxloss.study.study import Study, write_study
from voxloss.utilities.text import duration_text

HEADER = "epoch,train_loss,validation_loss,validation_dice,not_predicted,learning_rate,gradient_shares,seconds"


@pytest.fixture
def study(tmp_path):
    cases = []
    for number in range(4):
        files = [tmp_path / f"{kind}{number}.nii.gz" for kind in ("image", "label")]
        for file in files:
            file.write_bytes(b"not read")
        cases.append(Case(f"case{number}", (files[0],), files[1]))
    dataset = Dataset("toy", tuple(cases), ("background", "a[b]"), {0: 0, 1: 1})
    config = load_config(
        None,
        ["--comparison.losses", "[dice, focal]", "--comparison.seeds", "[0]", "--splits.folds", "2",
         "--training.epochs", "10", "--training.precision", "float32", "--execution.parallel", "2",
         "--data.root", str(tmp_path), "--patches.size", "[8,8,8]", "--preparation.spacing_mm", "[1,1,1]",
         "--comparison.primary_class", "a[b]"],
    )  # fmt: skip
    return write_study(
        tmp_path / "study", SettledConfig.of(config), dataset, [["case0", "case1"], ["case2", "case3"]], {}
    )


def train(study, place, state, epochs, epoch_seconds, **details):
    run = study.runs()[place]
    folder = study.run_folder(run).path
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{epoch},{1 / epoch},1,0.5,,1e-3,,{epoch_seconds}" for epoch in range(1, epochs + 1)]
    (folder / "history.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    study.write_status(run, state=state, epoch=epochs, **details)


def shown(study):
    stream = io.StringIO()
    Console(file=stream, width=100).print(status_view(study, run_progress(study), queues_of(study)))
    return stream.getvalue()


def note_submission(study, name, **content):
    study.files.execution.mkdir(exist_ok=True)
    (study.files.execution / name).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("states", "sentence"),
    [
        (["PENDING", "PENDING", "RUNNING"], "Slurm: 2 of 3 jobs waiting in the queue."),
        (["RUNNING"] * 3, None),
        ([], None),
        (None, "Slurm: 3 jobs submitted, 0 at work; whether the others wait is not known on this machine."),
    ],
)
def test_jobs_that_wait_in_the_queue(study, monkeypatch, states, sentence):
    """None: the commands of Slurm are not at hand, or its controller does not answer."""
    asked = []

    def answer(jobs):
        asked.append(jobs)
        return states

    monkeypatch.setattr(slurm, "_states", answer)
    note_submission(study, "slurm-17.json", jobs=3, request="{}")
    text = shown(study)
    assert asked == [["17"]]
    assert sentence in text if sentence else "Slurm" not in text
    for place in range(4):
        train(study, place, "done", 10, 3.0)
    assert "Slurm" not in shown(study)
    assert len(asked) == 1  # a study without runs to do asks nobody


def test_actors_that_are_not_at_work(study):
    note_submission(study, "ray-ab.json", address="head:6379", actors=["a", "b"], request="{}")
    train(study, 0, "running", 1, 3.0)
    train(study, 1, "running", 1, 3.0)
    first, second = (take(study.files.place(study.runs()[place]), Worker("ray")) for place in (0, 1))
    assert "Ray:" not in shown(study)
    second.release()
    assert "Ray: 2 jobs submitted, 1 at work; whether the others wait is not known" in shown(study)
    first.release()


def test_a_cluster_is_asked_seldom(study, monkeypatch):
    asked, shows = [], []
    monkeypatch.setattr(status_module, "queues_of", lambda study: asked.append(study) or [])
    monkeypatch.setattr(Study, "is_at_work", lambda study: shows.append(study) or len(shows) < 5)
    watch(lambda: study, Console(file=io.StringIO(), force_terminal=True), seconds=0)
    assert len(shows) == 5 and len(asked) == 1


def test_nothing_has_begun(study):
    assert [one.state for one in run_progress(study)] == ["pending"] * 4
    text = shown(study)
    assert "0 of 4 runs finished." in text and "left" not in text


def test_a_running_study(study):
    train(study, 0, "done", 10, 3.0, seconds=34.0)
    train(study, 1, "running", 4, 5.0)
    with claimed(study, 1):
        runs = run_progress(study)
        assert run_seconds_left(runs[1], 10) == 30.0  # six epochs of five seconds
        # 26 epochs of 50/14 s, and three predictions of 4 s, two runs at a time
        assert study_seconds_left(runs, 10, 2) == pytest.approx((26 * 50 / 14 + 3 * 4) / 2)
        text = shown(study)
    assert "running 4/10" in text and "loss 0.25" in text and "30 s left" in text
    assert "1 of 4 runs finished, about 52 s left." in text


def test_a_class_that_vanishes_is_said_while_the_run_trains_and_no_longer(study):
    train(study, 0, "running", 4, 5.0)
    history = study.run_folder(study.runs()[0]).history_file
    lines = history.read_text().splitlines()
    lines[-1] = "4,0.25,1,0.5,a[b],1e-3,cross_entropy=0.97 dice=0.03,5.0"
    history.write_text("\n".join(lines) + "\n")
    with claimed(study, 0):
        text = " ".join(shown(study).split())
    assert "dice, fold 0, seed 0: a[b] was predicted in validation patches until epoch 3 and is not in epoch 4." in text
    assert "cross_entropy had 48 % of the gradient" not in text and "the learning rate was 0.001" in text
    study.write_status(study.runs()[0], state="done")
    assert "was predicted in validation" not in shown(study)


def test_a_run_whose_process_is_gone_is_pending(study):
    train(study, 1, "running", 4, 5.0)
    assert run_progress(study)[1].state == "pending"
    text = " ".join(shown(study).split())
    assert "pending 4/10" in text and "left after it is resumed (no process is running it now)." in text


def test_the_workers_of_a_cluster_count(study):
    """There may be more of them than execution.parallel says, which is of one machine; and they may be at trials."""
    train(study, 0, "done", 10, 3.0, seconds=34.0)
    train(study, 1, "running", 4, 5.0)
    with claimed(study, 1, 2, 3):
        assert f"about {duration_text((26 * 50 / 14 + 3 * 4) / 3)} left." in shown(study)
    trial = take(study.files.place(replace(study.runs()[1], trial=0)), Worker())
    assert trial is not None
    assert "after it is resumed" not in shown(study)
    trial.release()
    assert "after it is resumed" in " ".join(shown(study).split())


def test_reasons_and_collapsed_classes_are_text(study):
    train(study, 0, "diverged", 3, 1.0, reason="the loss became [red]nan[/red]")
    train(study, 1, "done", 10, 1.0, collapsed=["a[b]"])
    text = shown(study)
    assert "the loss became [red]nan[/red]" in text and "a[b] was never predicted" in text


def test_all_runs_finished(study):
    for place in range(4):
        train(study, place, "done" if place else "diverged", 10, 1.0)
    assert "All 4 runs finished." in shown(study)


def test_a_trained_run_is_predicting(study):
    train(study, 0, "running", 10, 1.0)
    with claimed(study, 0):
        assert "predicting" in shown(study)


def test_watching_ends_with_the_work(study):
    train(study, 0, "running", 2, 1.0)
    ready, stop, stream = threading.Event(), threading.Event(), io.StringIO()

    def work():
        with claimed(study, 0):
            ready.set()
            for _ in range(3000):  # until it has been shown
                if "running 2/10" in stream.getvalue() or stop.wait(0.02):
                    break
            study.write_status(study.runs()[0], state="done", epoch=10)

    worker = threading.Thread(target=work)
    worker.start()
    assert ready.wait(60)
    watch(lambda: Study.open(study.folder), Console(file=stream, width=100, force_terminal=True), seconds=0.05)
    stop.set()
    worker.join(60)
    assert "running 2/10" in stream.getvalue() and "1 of 4 runs finished" in stream.getvalue()


def test_the_digest_of_the_data_is_in_the_study(study, tmp_path):
    first = json.loads((study.folder / "dataset.json").read_text())["digest"]
    again = write_study(tmp_path / "again", study.config, study.dataset, study.folds, {})
    assert json.loads((again.folder / "dataset.json").read_text())["digest"] == first
    study.dataset.cases[2].images[0].write_bytes(b"another")
    changed = write_study(tmp_path / "changed", study.config, study.dataset, study.folds, {})
    assert json.loads((changed.folder / "dataset.json").read_text())["digest"] != first


def lose_a_class(study):
    """One run that predicted the class for four epochs and then does not."""
    train(study, 0, "running", 5, 1.0)
    history = study.run_folder(study.runs()[0]).history_file
    *rows, last = history.read_text().splitlines()
    history.write_text("\n".join([*rows, last.replace(",0.5,,", ",0.5,a[b],")]) + "\n")


def test_a_look_says_nothing_of_classes_that_are_lost_meanwhile(study):
    lose_a_class(study)
    assert "a[b] was predicted in validation patches until epoch 4" in shown(study)
    look = replace(study, parsed=replace(study.parsed, comparison=replace(study.parsed.comparison, look=True)))
    assert "a[b]" not in shown(look)


def test_the_line_of_a_finished_run_names_the_classes_that_it_never_predicted(study):
    train(study, 0, "done", 10, 1.0, seconds=34.0, collapsed=["a[b]"])
    train(study, 1, "done", 10, 1.0, seconds=34.0)
    stream = io.StringIO()
    runs = study.runs()
    with run_display(study, runs, Console(file=stream, width=100)) as display:
        display.changed(runs[0], "done")
        display.changed(runs[1], "done")
    first, second = stream.getvalue().splitlines()
    assert first.endswith("seed 0 (1 of 4, 34 s); never predicted a[b]") and second.endswith("seed 0 (2 of 4, 34 s)")
