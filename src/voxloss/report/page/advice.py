"""What to do after a report: the command that would settle what is open, the loss as code, and a methods paragraph."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace

import voxloss
from voxloss.config.losses import LossChoice
from voxloss.config.settled import network_title
from voxloss.config.tuning import LEARNING_RATE
from voxloss.evaluation.planning import expected_detectable, noise_of
from voxloss.evaluation.verdict import Verdict
from voxloss.nnunet.names import trainer_name
from voxloss.report.comparison import Comparison
from voxloss.report.names import loss_name, metric_name
from voxloss.report.record import StudyRecord
from voxloss.report.tables.learned import best_unlearned_sentence, nothing_learned_sentence, unlearned_sentence
from voxloss.report.tables.race import race_sentence
from voxloss.report.tables.tuning import tuning_sentence
from voxloss.report.tables.verdict import verdict_details, verdict_sentence
from voxloss.study.folder import FINISHED
from voxloss.utilities.text import count_of, duration_text

SEEDS = (3, 5, 10)  # numbers of seeds that are suggested, the first two that are more than the study has


@dataclass(frozen=True)
class Advice:
    """What to do next.

    Args:
        steps: Sentences, each with a command or "".
        loss: The display name of the loss with the best mean; "" where no loss has learned the class.
        code: The loss as code: a heading and the text of each kind; empty where no loss has learned the class.
        methods: A paragraph for an article.
    """

    steps: tuple[tuple[str, str], ...]
    loss: str
    code: tuple[tuple[str, str], ...]
    methods: str


def advise(record: StudyRecord, comparison: Comparison) -> Advice | None:
    """Return what to do next by the verdict on the primary class; None without one."""
    verdict = comparison.verdicts.get(comparison.primary_class)
    if verdict is None:
        return None
    if comparison.none_learned(comparison.primary_class):
        return Advice(tuple(_remedies(record, comparison)), "", (), _methods(record, comparison, verdict))
    return Advice(
        steps=tuple(_steps(record, comparison, verdict)),
        loss=loss_name(verdict.losses[0]),
        code=_code(record, verdict.losses[0]),
        methods=_methods(record, comparison, verdict),
    )


def _steps(record: StudyRecord, comparison: Comparison, verdict: Verdict) -> Iterator[tuple[str, str]]:
    folder = shlex.quote(str(record.study.folder))
    race = comparison.race
    if race is not None and race.next_round is not None:
        yield "Go on with the race.", f"voxloss run {folder}"
        if not race.looks:
            return
    elif any(run.state not in ("done", "diverged") for run in record.runs) and not record.study.imported:
        yield "Finish the study: some runs are missing or failed.", f"voxloss run {folder}"
    if record.study.comparison.look:
        yield _after_look(record)
        return
    if verdict.n_folds < 2:
        yield "Use at least two folds, better five: one fold cannot judge any difference.", ""
        return
    if len(verdict.may_be_best) == 1 or verdict.pairs["same"].all():
        yield "Nothing is open on these patients. Whether it holds elsewhere, only another data set can tell.", ""
        return
    try:
        noise = noise_of(verdict, "")
    except ValueError:
        yield "Use more cases: with one case per fold, little can be judged.", ""
        return
    losses, folds, cases = len(verdict.losses), verdict.n_folds, verdict.n_cases
    staying = losses if race is None else len(race.staying)
    now = verdict.detectable
    usual = expected_detectable(noise, losses, folds, verdict.n_seeds, cases)

    def detectable(folds: int, seeds: int, cases: int) -> float:
        """What a larger study could detect: the noise says how much less than this one."""
        return expected_detectable(noise, losses, folds, seeds, cases) * (now / usual if usual > 0 else 1)

    seconds = [run.seconds for run in record.runs if run.state == "done" and run.seconds > 0]
    mean = sum(seconds) / len(seconds) if seconds else 0.0
    parallel = 1 if record.study.imported else record.study.config.execution.parallel

    def cost(runs: int) -> str:
        time = f", about {duration_text(runs * mean / parallel)} at this study's pace" if mean else ""
        each = "" if record.study.files.network is None else " with each network"
        return f"{count_of(runs, 'more run')}{each}{time}"

    def gain(after: float) -> str:
        if min(now, after) >= 1:
            return "would still not detect any difference"
        before = "none" if now >= 1 else f"{now:.3f}"
        return f"would detect differences above about {after:.3f} instead of {before}"

    steps = []
    for seeds in [number for number in SEEDS if number > verdict.n_seeds][:2]:
        after = detectable(folds, seeds, cases)
        command = f"voxloss run {folder} --seeds {','.join(map(str, range(seeds)))}"
        runs = cost(staying * folds * (seeds - verdict.n_seeds))
        steps.append((after, f"{seeds} seeds {gain(after)} ({runs}).", command))
    if 2 * folds <= cases:
        after = detectable(2 * folds, verdict.n_seeds, cases)
        other = shlex.quote(f"{record.study.folder}-{2 * folds}-folds")
        command = f"voxloss run {folder} --study {other} --splits.folds {2 * folds}"
        if record.study.dataset.own_folds is not None:
            command += " --splits.from_data false"
        runs = cost((losses if race is None else len(race.losses)) * 2 * folds * verdict.n_seeds)
        runs = runs if race is None else f"at most {runs}"
        steps.append((after, f"{2 * folds} folds {gain(after)} (a study of its own, {runs}).", command))
    after = detectable(folds, verdict.n_seeds, 2 * cases)
    steps.append((after, f"Twice as many cases {gain(after)}.", ""))
    gained = [step for step in steps if round(step[0], 3) < round(now, 3)]
    if not gained:
        yield "More seeds, folds or cases would hardly detect smaller differences.", ""
    for _, sentence, command in sorted(gained):  # what gains most first
        yield sentence, "" if record.study.imported else command


def _after_look(record: StudyRecord) -> tuple[str, str]:
    data = record.study.config.data
    words = ["voxloss", "plan", "folder", "--data", str(data.root)]
    if data.options:  # without which the data may not be understood
        words += ["--data.options", json.dumps(data.options)]
    return "This was a quick look. The plan says what a study takes.", shlex.join(words)


def _remedies(record: StudyRecord, comparison: Comparison) -> Iterator[tuple[str, str]]:
    """What to change where no loss has learned the primary class: more seeds or folds of the same would not help."""
    folder, name = shlex.quote(str(record.study.folder)), comparison.primary_class
    if record.study.imported:
        yield f"Train longer, sample more patches with {name}, or try another learning rate.", ""
        return
    if any(run.state not in ("done", "diverged") for run in record.runs):
        yield "Some runs are missing or failed; finishing them may change this.", f"voxloss run {folder}"
    if record.study.comparison.look:
        yield _after_look(record)
        return
    config = record.study.config
    share, rate = config.patches.foreground_share, config.training.learning_rate
    changes = [
        ("Train longer.", "longer", f"--training.epochs {4 * config.training.epochs}"),
        (f"Centre more patches on the foreground (now {share:.0%}).".replace("%", " %"), "centred",
         "--patches.foreground_share 0.67"),
        (f"Try another learning rate (now {rate:g}).", "rate", f"--training.learning_rate {3 * rate:g}"),
    ]  # fmt: skip
    searched = record.study.tuning is not None and record.study.tuning.learning_rate is not None
    for sentence, suffix, option in changes:
        if (suffix == "centred" and share >= 0.67) or (suffix == "rate" and searched):
            continue
        other = shlex.quote(f"{record.study.folder}-{suffix}")
        yield f"{sentence} It is a study of its own:", f"voxloss run {folder} --study {other} {option}"


def _code(record: StudyRecord, key: str) -> tuple[tuple[str, str], ...]:
    from voxloss.losses.catalogue import CATALOGUE  # torch

    choices = {key: LossChoice(key, {})}
    if not record.study.imported:
        choices |= {choice.key: _as_chosen(record, choice) for choice in record.study.losses}
    choice = choices.get(key)
    plan = "3d_fullres" if record.study.dataset.flat_axis is None else "2d"
    if choice is not None and choice.own and not record.study.imported:
        return _own_code(choice, plan)
    if choice is None or choice.name not in CATALOGUE:
        return ()
    arguments = "".join(f", {name}={value!r}" for name, value in choice.parameters.items())
    loss = f'voxloss.get_loss("{choice.name}"{arguments})'
    nnunet = (
        'pip install nnunetv2\nexport nnUNet_extTrainer="$(voxloss nnunet-trainers)"\n'
        f"nnUNetv2_train DATASET {plan} FOLD -tr {trainer_name(choice.name)}"
    )
    if choice.parameters:
        nnunet += f"\n# The trainer has the default parameters; docs/nnunet.md says how to set {arguments[2:]}."
    return (
        (
            "PyTorch",
            f"import voxloss\n\nloss = {loss}\nvalue = loss(logits, labels)  # (B, C, *spatial), (B, *spatial)\n"
            "value.backward()",
        ),
        (
            "MONAI",
            f"import voxloss\n\nloss_function = {loss}  # labels (B, 1, *spatial) as the loaders give them\n"
            "trainer = SupervisedTrainer(..., loss_function=loss_function)",
        ),
        ("nnU-Net", nnunet),
    )


def _as_chosen(record: StudyRecord, choice: LossChoice) -> LossChoice:
    """A tuned loss with the parameters that the search chose; as it is where the folds differ, which is no one loss."""
    if not choice.tuned:
        return choice
    found = [record.study.search(choice, fold).setting for fold in range(len(record.study.folds))]
    parameters = [{k: v for k, v in (one or {}).items() if k != LEARNING_RATE} for one in found]
    if any(one != parameters[0] for one in parameters):
        return replace(choice, name=choice.key)
    return replace(choice.listed, parameters=choice.parameters | parameters[0])


def _own_code(choice: LossChoice, plan: str) -> tuple[tuple[str, str], ...]:
    module, _, name = choice.name.rpartition(".")
    parameters = "".join(f", {key}={value!r}" for key, value in choice.parameters.items())
    form = "" if choice.labels == "index" else f", labels={choice.labels!r}"
    given = f", {choice.parameters!r}" if parameters else ""
    return (
        (
            "PyTorch",
            f"from {module} import {name}\nfrom voxloss.losses.own import own_loss\n\n"
            f'loss = own_loss("{choice.name}", {name}{given}{form})  # as this study called it\n'
            "value = loss(logits, labels)  # (B, C, *spatial), (B, *spatial)\nvalue.backward()",
        ),
        (
            "nnU-Net",
            'pip install nnunetv2\nexport nnUNet_extTrainer="$(voxloss nnunet-trainers)"\n'
            f"nnUNetv2_train DATASET {plan} FOLD -tr {trainer_name(choice.name)}"
            + ("\n# docs/nnunet.md says how to set the parameters." if parameters or form else ""),
        ),
    )


def _unfinished(record: StudyRecord, comparison: Comparison) -> str:
    """Say before a methods paragraph that results may still change; nothing of a finished study."""
    if record.study.imported:
        return ""
    if comparison.race is not None:
        return "" if comparison.race.next_round is None else "[Not for publication: the race is not finished.] "
    finished = sum(run.state in FINISHED for run in record.runs)
    if finished == len(record.runs):
        return ""
    of = f"{finished} of {count_of(len(record.runs), 'run')}"
    return f"[Not for publication: the study is not finished ({of}).] "


def _methods(record: StudyRecord, comparison: Comparison, verdict: Verdict) -> str:
    names = [loss_name(loss) for loss in comparison.losses]
    design = ""
    if comparison.race is not None:
        names = [loss_name(loss.key) for loss in comparison.race.losses]
        design = (
            " The losses raced: each round was one fold and seed of every loss still in, and after it losses left that "
            "could not be the best any more, with a level of 5 % spent over the rounds (Lan and DeMets 1983). "
            f"{race_sentence(comparison.race, comparison.none_learned(comparison.primary_class))}"
        )
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    measure = f"mean {metric_name(comparison.primary_metric)} of {comparison.primary_class}"
    training = ""
    if not record.study.imported:
        settings = record.study.config.training
        training = (
            f" Every loss trained the same network ({network_title(record.study.config)}) from the same initial "
            f"weights on the same batches, for {settings.epochs} epochs of {settings.iterations} steps, with the "
            f"weights {'of the last epoch' if settings.selection == 'last' else 'selected by ' + settings.selection}."
        )
    if record.study.tuning is not None:
        training += f" {tuning_sentence(record.study.tuning.trials)}"
    if record.study.dataset.has_regions:
        training += " Voxels outside each case's region of interest counted in no loss and no score."
    unlearned = comparison.unlearned(comparison.primary_class)
    result = " ".join((verdict_sentence(verdict, comparison.primary_class, comparison.primary_metric),
                       *verdict_details(verdict, comparison.primary_metric)))  # fmt: skip
    if comparison.none_learned(comparison.primary_class):
        result = (
            f"{nothing_learned_sentence(comparison.primary_class, len(verdict.losses))} "
            f"{best_unlearned_sentence(unlearned)}"
        )
    elif unlearned:
        result += f" {unlearned_sentence(unlearned)}"
    if len(verdict.losses) < len(comparison.family_losses):
        result = (
            f"The losses were chosen from {len(comparison.family_losses)} after their results were known; intervals "
            f"and tests allow for all of them. {result}"
        )
    return (
        f"{_unfinished(record, comparison)}"
        f"We compared {listed} on {count_of(verdict.n_cases, 'case')} of {record.study.dataset.name} by "
        f"{verdict.n_folds}-fold cross-validation with {count_of(verdict.n_seeds, 'seed')}, using voxloss "
        f"{voxloss.__version__}.{training}{design} Losses were compared by {measure}; undefined scores of empty "
        "predictions and failed runs counted as the worst. Each loss's variance between folds was estimated with "
        "empirical Bayes moderation (Smyth 2004); differences have simultaneous 95 % intervals (Tukey), and the set of "
        "losses that may be the best is that of Hsu's comparison with the best (Hsu 1996), with a margin of "
        f"{verdict.margin:g}. {result}"
    )
