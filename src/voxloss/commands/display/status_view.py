"""What `voxloss status` prints, once or until no process runs the study."""

import math
import time
from collections.abc import Callable, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from voxloss.commands.display.search import search_table
from voxloss.commands.display.states import STYLES
from voxloss.study.claims import live_claims
from voxloss.study.execution.executor import noted_executors
from voxloss.study.execution.queue import Queue
from voxloss.study.folder import ENDED, FINISHED
from voxloss.study.progress import RunProgress, run_progress, run_seconds_left, search_progress, study_seconds_left
from voxloss.study.rounds import Race
from voxloss.study.standing import LossStanding, standings
from voxloss.study.study import Study
from voxloss.utilities.text import count_of, duration_text

REFRESH_SECONDS = 2.0
QUEUE_SECONDS = 30.0  # between two questions to a cluster's scheduler


def status_view(study: Study, runs: Sequence[RunProgress], queues: Sequence[Queue] = ()) -> Group:
    """Lay out the runs, a row per loss and a column per fold and seed; below them the time left and the problems."""
    tables = [
        table
        for part in study.parts()
        for table in _tables(part, [one for one in runs if one.run.network == part.files.network])
    ]
    return Group(*tables, *_sentences(study, runs, queues))


def _tables(study: Study, runs: Sequence[RunProgress]) -> list[Table]:
    """Lay out the runs of one network, and its searches."""
    config, epochs = study.config, study.config.training.epochs
    network = "" if study.files.network is None else f", {study.files.network}"
    table = Table(title=escape(f"{config.name}: {study.folder}{network}"), title_justify="left")
    table.add_column("loss")
    several = len(config.comparison.seeds) > 1
    places = [(seed, fold) for seed in config.comparison.seeds for fold in range(len(study.folds))]
    for seed, fold in places:
        table.add_column(f"fold {fold}" + (f"\nseed {seed}" if several else ""))
    known = {*study.retired, *(one.run.loss.key for one in runs)}
    rows: dict[str, dict[tuple[int, int], Text]] = {loss: {} for loss in study.loss_keys if loss in known}
    for one in runs:
        rows.setdefault(one.run.loss.key, {})[one.run.seed, one.run.fold] = _cell(one, epochs)
    for loss, cells in rows.items():
        absent = Text("retired", style="dim") if loss in study.retired else Text("–")
        table.add_row(escape(loss), *(cells.get(place, absent) for place in places))
    return [table, *([] if study.tuning is None else [search_table(study)])]


def _cell(one: RunProgress, epochs: int) -> Text:
    lines: list[str] = [one.state]
    if one.state in ("running", "pending") and one.status.epoch:
        lines[0] += f" {one.status.epoch}/{epochs}"
    if one.state == "running" and one.epochs:
        lines.append(f"loss {one.epochs[-1].train_loss:.4g}")
        left = run_seconds_left(one, epochs)
        lines.append("predicting" if one.status.epoch >= epochs or left is None else f"{duration_text(left)} left")
    return Text("\n".join(lines), style=STYLES[one.state])


def queues_of(study: Study) -> list[Queue]:
    """Return what waits or works on clusters for a study, if runs are left; asks the schedulers that are at hand."""
    if all(study.status(run).state in ENDED for run in study.runs()):
        return []
    return [queue for executor in noted_executors(study.folder) if (queue := executor.queue(study.folder)) is not None]


def _sentences(study: Study, runs: Sequence[RunProgress], queues: Sequence[Queue]) -> list[Text]:
    lines = [Text(_progress_sentence(study, runs))]
    if study.comparison.design == "race":
        lines.append(Text(_race_sentence(study.race())))
    lines += [
        Text(_of_part(part, sentence))
        for part in study.parts()
        if study.comparison.design != "race" and (sentence := _standing_sentence(standings(part)))
    ]
    for one in runs:
        if one.status.reason:
            lines.append(Text(f"{one.run}: {one.state}: {one.status.reason}"))
        lines += [Text(f"{one.run}: {name} was never predicted") for name in one.status.collapsed]
        lost = [] if study.comparison.look else one.alarms(study.dataset.classes)  # which nobody would change
        lines += [Text(f"{one.run}: {alarm.sentences()}", style="bold red") for alarm in lost]
    if sentence := _workers_sentence(runs):
        lines.append(Text(sentence))
    lines += [Text(sentence) for queue in queues if (sentence := _queue_sentence(study, queue))]
    learned = [_of_part(part, sentence) for part in study.parts() for sentence in _learned_sentences(part)]
    return [*lines, *map(Text, learned)]


def _of_part(study: Study, sentence: str) -> str:
    return sentence if study.files.network is None else f"{study.files.network}: {sentence}"


def _workers_sentence(runs: Sequence[RunProgress]) -> str:
    """Say where the runs are executed, when each place was last heard of, and how many runs were taken over."""
    hosts: dict[str, list[float]] = {}
    for one in runs:
        if one.claim is not None:
            name = f"{one.claim.record.host} ({one.claim.record.executor})"
            hosts.setdefault(name, []).append(max(0.0, time.time() - one.claim.beat))
    parts = [
        f"{name}: {count_of(len(ages), 'run')}, last heartbeat {duration_text(max(ages))} ago"
        for name, ages in hosts.items()
    ]
    where = [f"At work: {'; '.join(parts)}."] if parts else []
    taken = sum(one.status.takeovers for one in runs)
    over = [f"{count_of(taken, 'run')} taken over from processes that died or fell silent."] if taken else []
    return " ".join([*where, *over])


def _queue_sentence(study: Study, queue: Queue) -> str:
    """Say how many jobs wait to be started; nothing if none does."""
    jobs = count_of(queue.submitted, "job")
    if queue.waiting is not None:
        return f"{queue.engine}: {queue.waiting} of {jobs} waiting in the queue." if queue.waiting else ""
    working = sum(claim.record.executor == queue.engine.lower() for claim in live_claims(study.folder))
    if working >= queue.submitted:
        return ""
    return f"{queue.engine}: {jobs} submitted, {working} at work; whether the others wait is not known on this machine."


def _learned_sentences(study: Study) -> list[str]:
    """Say which losses had learned which classes when scores were merged last; nothing of losses that learned all."""
    learned = study.files.read_learned()
    sentences = []
    for name in dict.fromkeys(row["class_name"] for row in learned):
        rows = [row for row in learned if row["class_name"] == name]
        not_learned = [row["loss"] for row in rows if not row["learned"]]
        if len(not_learned) == len(rows):
            sentences.append(f"No network learned to find {name}.")
        elif not_learned:
            sentences.append(f"{' and '.join(not_learned)} did not learn to find {name}.")
    return sentences


def _race_sentence(race: Race) -> str:
    left = [
        f"{one.loss} (round {look.round}, {one.difference:.3f} below {one.beaten_by})"
        for look in race.looks
        for one in look.departures
    ]
    gone = f" Left: {', '.join(left)}." if left else ""
    still = ", ".join(loss.key for loss in race.staying)
    state = "The race is over." if race.ended else f"At most {len(race.rounds)} rounds."
    return f"{state} Still in: {still}.{gone}"


def _standing_sentence(progress: Sequence[LossStanding]) -> str:
    """Say which losses are finished, in progress and retired; nothing where all are equally far."""
    if len({one.standing for one in progress}) < 2:
        return "" if not progress or progress[0].standing != "retired" else "All losses are retired."
    finished = [one.loss for one in progress if one.standing == "finished"]
    active = [f"{one.loss} ({one.ended} of {one.planned})" for one in progress if one.standing == "in progress"]
    retired = [f"{one.loss} ({one.evidence})" for one in progress if one.standing == "retired"]
    parts = {"Finished": finished, "In progress": active, "Retired": retired}
    return " ".join(f"{name}: {', '.join(losses)}." for name, losses in parts.items() if losses)


def _progress_sentence(study: Study, runs: Sequence[RunProgress]) -> str:
    finished = sum(one.state in FINISHED for one in runs)
    if finished == len(runs):
        return "The run finished." if finished == 1 else f"All {finished} runs finished."
    searches = [one for part in study.parts() for one in search_progress(part)]
    trials, planned = sum(one.finished for one in searches), sum(one.planned for one in searches)
    text = f"{finished} of {count_of(len(runs), 'run')} finished"
    if trials < planned:
        text = f"{finished} of {count_of(len(runs), 'run')} and {trials} of {count_of(planned, 'trial')} finished"
    at_once = max(study.config.execution.parallel, sum(one.state == "running" for one in runs))  # of clusters
    left = study_seconds_left(runs, study.config.training.epochs, at_once)
    if left is not None:
        text += f", about {duration_text(left)} left{' for the runs' if trials < planned else ''}"
        if not study.is_at_work():  # on trials neither
            text += " after it is resumed (no process is running it now)"
    return f"{text}."


def watch(study_folder: Callable[[], Study], console: Console, seconds: float = REFRESH_SECONDS) -> None:
    """Show the study and refresh the view until no process runs the study.

    Args:
        study_folder: Opens the study; called for every refresh, since losses may be added meanwhile.
        console: Where it is shown.
        seconds: Between two refreshes.
    """
    queues: list[Queue] = []
    asked = -math.inf
    with Live(console=console, auto_refresh=False) as live:
        while True:
            study = study_folder()
            runs = run_progress(study)
            if time.monotonic() - asked >= QUEUE_SECONDS:
                queues, asked = queues_of(study), time.monotonic()
            live.update(status_view(study, runs, queues), refresh=True)
            if not study.is_at_work():
                return
            time.sleep(seconds)
