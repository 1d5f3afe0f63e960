"""The configuration of a study: every value that decides its numbers, with its type, default and check.

Nothing here imports torch, so that commands start at once. `voxloss.config.files` reads configurations, and
`voxloss.config.settled` has the form in which nothing is left open.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self, get_args

from voxloss.config.checks import Check, Section
from voxloss.config.losses import LossChoice, loss_choices
from voxloss.config.metrics import metric_choices
from voxloss.config.networks import UNET, NetworkChoice, NetworkConfig, network_choices
from voxloss.config.tuning import LEARNING_RATE, Tuning
from voxloss.evaluation.lesion_rules import LesionRules

PAPER_LOSSES = ("focal", "dice", "tversky", "cosine_tversky", "focal_tversky", "combo", "mixed_focal")

# The baseline that most people train with, the paper's best, one that weighs recall higher, and plain Dice. Each more
# takes 15 more trainings in a study of five folds and three seeds.
DEFAULT_LOSSES = ("dice_cross_entropy", "mixed_focal", "focal_tversky", "dice")

# Shares of which more is better: every prediction has a finite value, and a failed run a worst one.
PrimaryMetric = Literal[
    "dice", "precision", "recall", "nsd",
    "lesion_recall", "lesion_precision", "lesion_f1", "lesion_dice",
    "panoptic_quality", "segmentation_quality", "recognition_quality", "case_sensitivity", "case_specificity",
    "lesion_recall_small", "lesion_recall_middle", "lesion_recall_large",
]  # fmt: skip

LayoutName = Literal[
    "auto", "csv", "monai", "kits19", "kits21", "kits23", "brats", "brats20", "decathlon", "nnunet", "bids",
    "folder", "patients", "pairs",
]  # fmt: skip

# Time limits of Slurm: minutes[:seconds], hours:minutes:seconds, days-hours[:minutes[:seconds]].
TIME_LIMIT = re.compile(r"(\d+-)?\d+(:\d+){0,2}")

Spacing = tuple[float, float, float]
Size = tuple[int, int, int]


@dataclass(frozen=True)
class DataConfig(Section):
    """Where the images are.

    Args:
        layout: How the files are named and paired; "auto": recognised by the names of files and folders. "brats20" is
            "brats", and "nnunet" is "decathlon".
        root: The folder that holds them, or the file of a CSV table or of a data list.
        exclude: Ids of cases to leave out.
        options: Of every layout: `classes` (name: value in the masks, or a list of values that become one class),
            `ignore` (value, or list, of voxels that count in no loss and no score), `region_of_interest` (folder or
            pattern of masks, outside which no voxel counts), `axes` ("common" turns cases that are stored in another
            order or direction than most, "stored" turns none, or letters such as "RAS"), `picture_spacing_mm` (the size
            of a voxel, or of a pixel, of files that do not tell it) and `second_reader` (folder or pattern of a second
            reader's masks, whose scores are shown beside the losses). Of brats also `modalities`, `enhancing_label` and
            `require_enhancing`, of kits21 `aggregation`, of folder `images` and `masks` (names of the subfolders), of
            pairs `image` and `label` (patterns), of folder, pairs and patients `slices` (whether a folder of pictures
            is a volume), of decathlon `splits` (file of folds), of csv and monai `base` (the folder that paths are
            relative to), of bids `suffixes`.
    """

    section: ClassVar[str] = "data"

    layout: LayoutName = "auto"
    root: str = ""
    exclude: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PreparationConfig(Section):
    """What is done to every volume once, before training.

    Args:
        clip: Intensities are clipped to this range (Hounsfield units for CT); null: no clipping.
        spacing_mm: Volumes are resampled to this voxel spacing, one number per array axis in the order that most cases
            are stored in. "median" takes the median spacing of the cases, "stored" (or null) keeps each volume's own
            grid; `voxloss predict` then resamples new cases to the spacing of the study's, if these have only one.
            Of images two numbers suffice.
        normalisation: Applied per volume and channel, after clipping and resampling.
    """

    section: ClassVar[str] = "preparation"

    clip: tuple[float, float] | None = None
    spacing_mm: Spacing | tuple[float, float] | Literal["median", "stored"] | None = "median"
    normalisation: Literal["zscore", "minmax", "none"] = "zscore"

    def __post_init__(self) -> None:
        if self.spacing_mm is None:  # what "stored" is called in older files
            object.__setattr__(self, "spacing_mm", "stored")
        super().__post_init__()

    def checks(self) -> Iterable[Check]:
        """Yield the conditions that the values must meet."""
        clip, spacing = self.clip, self.spacing_mm
        yield Check("clip", clip is None or clip[0] < clip[1], clip, "a lower and a higher value")
        yield Check("spacing_mm", not isinstance(spacing, tuple) or min(spacing) > 0, spacing, "positive")


@dataclass(frozen=True)
class SplitsConfig(Section):
    """One assignment of the cases to folds, the same for every loss.

    Args:
        folds: Number of folds.
        seed: Seed of the assignment.
        from_data: Take the folds that the data come with (splits_final.json of nnU-Net, `fold` of a table or data
            list) where there are such, in place of a random assignment; `folds` and `seed` then play no part.
        inner_share: Share of the training cases that `training.selection: inner` and
            `evaluation.thresholds_from: inner` set aside.
        patients: CSV file with the columns `case` and `patient`; all scans of a patient then stay in one fold. null:
            as the data tell (the column `patient` of a table, subjects of BIDS, ...).
    """

    section: ClassVar[str] = "splits"

    folds: int = 5
    seed: int = 0
    from_data: bool = True
    inner_share: float = 0.2
    patients: str | None = None

    def checks(self) -> Iterable[Check]:
        """Yield the conditions that the values must meet."""
        yield Check("folds", self.folds >= 2, self.folds, "at least 2")
        yield Check("seed", self.seed >= 0, self.seed, "not negative")
        yield Check("inner_share", 0 < self.inner_share < 1, self.inner_share, "between 0 and 1")


@dataclass(frozen=True)
class PatchesConfig(Section):
    """The patches that the network sees.

    Args:
        size: Voxels per array axis, in the order of preparation.spacing_mm; null: chosen from the median shape of the
            prepared cases. Of images two numbers suffice. For volumes, a size of 1 along one axis trains a 2D network
            on slices across that axis.
        batch_size: Patches per step.
        foreground_share: Probability that a patch is centred on a voxel of a foreground class (the class is drawn
            first); 0 draws positions uniformly, as the paper does.
        sampling: Which case such a patch is cut from. "cases": from each in turn, and of the classes that the case has.
            "classes": the class is drawn first, among all that the training cases have, then a case that has it, so
            that a class of few cases is seen as often as the others.
        overlap: Overlap of neighbouring windows at prediction, as a share of the patch size.
        window: Weight of a window's voxels where overlapping probabilities are averaged.
    """

    section: ClassVar[str] = "patches"

    size: Size | tuple[int, int] | None = None
    batch_size: int = 2
    foreground_share: float = 0.33
    sampling: Literal["cases", "classes"] = "cases"
    overlap: float = 0.5
    window: Literal["constant", "gaussian"] = "constant"

    def checks(self) -> Iterable[Check]:
        """Yield the conditions that the values must meet."""
        yield Check("size", self.size is None or min(self.size) >= 1, self.size, "positive")
        yield Check("batch_size", self.batch_size >= 1, self.batch_size, "at least 1")
        yield Check("foreground_share", 0 <= self.foreground_share <= 1, self.foreground_share, "from 0 to 1")
        yield Check("overlap", 0 <= self.overlap < 1, self.overlap, "at least 0 and below 1")


@dataclass(frozen=True)
class AugmentationConfig(Section):
    """Random changes of a training patch; a null range or an empty tuple switches a kind off.

    Args:
        probability: Probability of each kind except mirroring, per patch.
        rotation_degrees: Range of the angle about each axis; of images and slices, of the angle in their plane.
        scaling: Range of the factor per axis (1.25 shows a quarter more of the body).
        elastic_alpha: Range of the strength of the elastic deformation, in the unit of batchgenerators and MIScnn for
            volumes; images and slices are displaced as far as volumes are.
        elastic_sigma: Range of the smoothness of the elastic deformation, in voxels.
        mirror_axes: Array axes that are mirrored, each in half of the patches.
        brightness: Range of the factor.
        contrast: Range of the factor about the patch's mean.
        gamma: Range of the exponent.
        noise_sd: Range of the standard deviation of added Gaussian noise, in normalised intensity.
    """

    section: ClassVar[str] = "augmentation"

    probability: float = 0.15
    rotation_degrees: tuple[float, float] | None = (-15.0, 15.0)
    scaling: tuple[float, float] | None = (0.85, 1.25)
    elastic_alpha: tuple[float, float] | None = (0.0, 900.0)
    elastic_sigma: tuple[float, float] = (9.0, 13.0)
    mirror_axes: tuple[int, ...] = (0, 1, 2)
    brightness: tuple[float, float] | None = (0.5, 2.0)
    contrast: tuple[float, float] | None = (0.3, 3.0)
    gamma: tuple[float, float] | None = (0.7, 1.5)
    noise_sd: tuple[float, float] | None = (0.0, 0.05)

    def checks(self) -> Iterable[Check]:
        """Yield the conditions that the values must meet."""
        axes, probability = self.mirror_axes, self.probability
        yield Check("mirror_axes", set(axes) <= {0, 1, 2}, axes, "among the axes 0, 1 and 2")
        yield Check("probability", 0 <= probability <= 1, probability, "from 0 to 1")
        for item in fields(self):
            limits = getattr(self, item.name)
            if isinstance(limits, tuple) and item.name != "mirror_axes":
                yield Check(item.name, limits[0] <= limits[1], limits, "a lower and a higher value")


@dataclass(frozen=True)
class TrainingConfig(Section):
    """How each network is trained, identically for every loss.

    Args:
        epochs: Number of epochs.
        iterations: Optimiser steps per epoch.
        learning_rate: Adam's learning rate at the start.
        minimum_learning_rate: The schedule goes no lower.
        schedule: "polynomial": decay with power 0.9, the same for all losses. "plateau": the paper's schedule, lowered
            tenfold when the training loss has not fallen by 1e-4 (absolute) for 20 epochs, so it depends on the loss's
            scale.
        selection: Which weights become the model: those of the "last" epoch; those with the best mean foreground Dice
            on an "inner" part of the training cases; or, as in the paper, those with the lowest loss on the scored
            "fold".
        validation_batches: Batches that the validation after every epoch looks at, the same every time.
        precision: Precision of the network's arithmetic (autocast); the loss computes in float32 or better. "auto":
            bfloat16 on a CUDA device with such arithmetic of its own (compute capability 8 or higher), else float32.
    """

    section: ClassVar[str] = "training"

    epochs: int = 100
    iterations: int = 100
    learning_rate: float = 3e-4
    minimum_learning_rate: float = 1e-6
    schedule: Literal["polynomial", "plateau"] = "polynomial"
    selection: Literal["last", "inner", "fold"] = "last"
    validation_batches: int = 8
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    def checks(self) -> Iterable[Check]:
        """Yield the conditions that the values must meet."""
        for key in ("epochs", "iterations", "validation_batches"):
            yield Check(key, getattr(self, key) >= 1, getattr(self, key), "at least 1")
        yield Check("learning_rate", self.learning_rate > 0, self.learning_rate, "positive")


@dataclass(frozen=True)
class ComparisonConfig(Section):
    """What is compared, fixed before training.

    Args:
        losses: Names, or mappings of a name and parameters such as {name: focal, gamma: 3}.
        seeds: Seeds of initial weights and patches; every loss gets the same set.
        primary_class: The class that the headline is about; null: the rarest.
        primary_metric: The metric that the headline is about; one of your own is named by its import path.
        interval: What the printed 95 % interval runs over.
        tolerance_mm: Distance up to which the normalised surface Dice (nsd) counts two surfaces as matching.
        demonstration: The data cannot be evidence (synthetic images); the report says so.
        look: The study is too small to be evidence (`voxloss quick`); the report says so.
        design: "grid" trains every loss on every fold and seed. "race" trains one fold and seed of every loss after
            another, and losses that cannot be the best any more leave.
        tuning: What is searched for every loss and fold before its runs, on a part of their training cases: values of
            `learning_rate` and of parameters of losses as `LOSS.PARAMETER`. Lists alone are a grid; with `trials: N`
            two numbers are a range ([low, high] or [low, high, log]). Also `batch`, `epochs` and `prune`. Every loss is
            then trained as listed and as tuned. Empty: nothing is searched.
        networks: Networks that train every loss, to see whether their order holds: names as `network.name` takes them,
            or mappings of keys of section `network` and `label` (what the network and its folder are called), such as
            {name: monai.networks.nets.SegResNet, arguments: {init_filters: 16}}. Empty: that of section `network`.
    """

    section: ClassVar[str] = "comparison"

    losses: tuple[str | dict[str, Any], ...] = DEFAULT_LOSSES
    seeds: tuple[int, ...] = (0, 1, 2)
    primary_class: str | None = None
    primary_metric: PrimaryMetric | str = "dice"
    interval: Literal["fold", "case"] = "fold"
    tolerance_mm: float = 1.0
    demonstration: bool = False
    look: bool = False
    design: Literal["grid", "race"] = "grid"
    tuning: dict[str, Any] = field(default_factory=dict)
    networks: tuple[str | dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        self.search()
        super().__post_init__()

    def compared(self) -> list[LossChoice]:
        """The losses that are trained: those that are listed and, with a search, each of them tuned as well."""
        listed = loss_choices(self.losses)
        return [*listed, *(replace(choice, tuned=True) for choice in listed if self.tuning)]

    def search(self) -> Tuning | None:
        """The search for settings; None where nothing is searched. Raises InputError where it makes no sense."""
        return Tuning.of(self.tuning, self.losses)

    def checks(self) -> Iterable[Check]:
        """Yield the conditions that the values must meet."""
        yield Check("losses", len(self.losses) >= 1, self.losses, "at least one loss")
        yield Check("seeds", len(self.seeds) >= 1, self.seeds, "at least one seed")
        yield Check("seeds", len(set(self.seeds)) == len(self.seeds), self.seeds, "all different")
        yield Check("seeds", min(self.seeds, default=0) >= 0, self.seeds, "not negative")
        yield Check("design", self.design == "grid" or len(self.losses) > 1, self.design, "'grid' for a single loss")
        yield Check("tolerance_mm", self.tolerance_mm > 0, self.tolerance_mm, "positive")
        raced = self.design == "race" and bool(self.networks)
        why = "'grid' with comparison.networks, as a race drops losses before all networks have trained them"
        yield Check("design", not raced, self.design, why)


@dataclass(frozen=True)
class EvaluationConfig(Section):
    """How a prediction is scored.

    Args:
        lesions: What a lesion is and when two match, for all scores of lesions.
        thresholds_from: The cases on which each run's thresholds and temperatures are chosen, never those that it
            scores: "folds", those that the runs of the other folds score (same loss and seed), which costs nothing;
            or "inner", a part of its training cases (splits.inner_share), on which it is then not trained.
        probabilities: Keep the predicted probabilities, in steps of 1/255 (an error of at most 1/510), on the
            "original" grid of each case or on the smaller "prepared" one. Curves, thresholds and calibration need
            "none" of them, since every run counts its voxels by probability; the viewer's threshold slider does.
        metrics: Metrics of your own: import paths of functions of reference mask, predicted mask and spacing_mm, or
            mappings of name, title, range, higher_is_better and unit.
    """

    section: ClassVar[str] = "evaluation"

    lesions: LesionRules = field(default_factory=LesionRules)
    thresholds_from: Literal["folds", "inner"] = "folds"
    probabilities: Literal["none", "prepared", "original"] = "none"
    metrics: tuple[str | dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        metric_choices(self.metrics)
        super().__post_init__()


@dataclass(frozen=True)
class ExecutionConfig(Section):
    """Where and how fast runs are executed; nothing here decides what is compared.

    Args:
        device: "auto" takes CUDA where there is one.
        parallel: Runs at the same time. 1 on a machine with several GPUs: one for each GPU, or for each
            `devices_per_run` of them; CUDA_VISIBLE_DEVICES says which.
        threads: Threads per run; null: the cores shared among the parallel runs.
        devices_per_run: Devices that train one network together, each on an equal part of every batch; the result is
            that of one device. On the CPU, processes that share the run's threads.
        workers: Processes per run that read patches ahead (and augment them, where the CPU does that); 0: the run's
            own process; null: on CUDA a run's share of the cores, 8 at most, elsewhere 0.
        augmentation: Where patches are augmented; "auto": on the device if it is CUDA.
        channels_last: Memory layout of images and weights in which convolutions are faster.
        compile: Compile the network with torch.compile for training, which takes half a minute or more per run before
            the first step.
        memory_gb: Memory that preparing cases in parallel may take; null: three quarters of what is free.
        heartbeat_s: Seconds between two heartbeats of a process that executes a run.
        stale_after_s: Seconds without a heartbeat after which the process of another machine is presumed dead, and its
            run is taken over.
        executor: What starts the processes that execute runs: "local" on this machine, "ray" on a cluster of Ray,
            "slurm" as jobs of Slurm.
        jobs: Of Ray and Slurm: how many of them at the same time at most; null: as many as there are runs.
        address: Of Ray: the cluster, as HOST:PORT, ray://HOST:PORT or auto; null: one that is started on this machine
            and ends with the command.
        resources: Of Ray: what a process takes of its machine, such as {CPU: 8, GPU: 0.5}; else as many cores as
            `threads` (one if that is null), and a GPU where the cluster has some and `device` allows it.
        max_retries: Of Ray: how often a process is started again after its machine or itself has died; -1: always.
        partition: Of Slurm: the partition (queue); null: the cluster's default, as for the next three.
        account: Of Slurm: whom the time is charged to.
        gres: Of Slurm: generic resources of a job, such as gpu:1.
        constraint: Of Slurm: features that the node must have.
        time: Of Slurm: time limit of a job, in one of Slurm's forms (minutes, hours:minutes:seconds, days-hours), in
            quotation marks. A job that reaches it saves its run and is queued again.
        sbatch: Of Slurm: further options of sbatch in their long form, such as --mem=32G.
        setup: Of Slurm: lines of shell before Python starts in a job, such as `module load cuda`.
        python: Of Slurm: the command that starts Python in a job, such as `apptainer exec --nv image.sif python`; null:
            the Python that submits.
    """

    section: ClassVar[str] = "execution"

    device: str = "auto"
    parallel: int = 1
    threads: int | None = None
    devices_per_run: int = 1
    workers: int | None = None
    augmentation: Literal["auto", "cpu", "device"] = "auto"
    channels_last: bool = True
    compile: bool = False
    memory_gb: float | None = None
    heartbeat_s: float = 30.0
    stale_after_s: float = 300.0
    executor: Literal["local", "ray", "slurm"] = "local"
    jobs: int | None = None
    address: str | None = None
    resources: dict[str, float] = field(default_factory=dict)
    max_retries: int = 10
    partition: str | None = None
    account: str | None = None
    gres: str | None = None
    constraint: str | None = None
    time: str | int = "4:00:00"
    sbatch: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    python: str | None = None

    def checks(self) -> Iterable[Check]:
        """Yield the conditions that the values must meet."""
        yield Check("parallel", self.parallel >= 1, self.parallel, "at least 1")
        yield Check("devices_per_run", self.devices_per_run >= 1, self.devices_per_run, "at least 1")
        yield Check("workers", (self.workers or 0) >= 0, self.workers, "at least 0")
        # 0 is in studies of earlier versions: one case at a time, and the same as null.
        yield Check("memory_gb", (self.memory_gb or 0) >= 0, self.memory_gb, "positive")
        yield Check("heartbeat_s", self.heartbeat_s > 0, self.heartbeat_s, "positive")
        enough = self.stale_after_s >= 4 * self.heartbeat_s
        yield Check("stale_after_s", enough, self.stale_after_s, "at least four heartbeats (execution.heartbeat_s)")
        yield Check("threads", (self.threads or 0) >= 0, self.threads, "at least 1")
        yield Check("jobs", self.jobs is None or self.jobs >= 1, self.jobs, "at least 1")
        good = all(amount >= 0 for amount in self.resources.values())
        yield Check("resources", good, self.resources, "a mapping of resources to amounts, such as {CPU: 8, GPU: 1}")
        yield Check("max_retries", self.max_retries >= -1, self.max_retries, "at least 0, or -1 for always")
        # YAML reads 4:00:00 without quotation marks as a number, 14400.
        good = isinstance(self.time, str) and TIME_LIMIT.fullmatch(self.time) is not None
        yield Check("time", good, self.time, "in quotation marks, such as '90' (minutes), '4:00:00' or '2-12:00:00'")
        long = all(re.match(r"(#SBATCH\s+)?--[a-z]", line) for line in self.sbatch)
        yield Check("sbatch", long, self.sbatch, "options of sbatch in their long form, such as --mem=32G")


@dataclass(frozen=True)
class StudyConfig(Section):
    """A study: everything that decides its numbers, by section.

    Args:
        name: The study's name, and that of its folder.
        data: Where the images are.
        preparation: What is done to every volume once.
        splits: How cases are assigned to folds.
        patches: The patches that the network sees.
        augmentation: Random changes of training patches.
        network: The network that every loss trains, unless `comparison.networks` lists several.
        training: How it is trained.
        comparison: What is compared.
        evaluation: How a prediction is scored.
        execution: Where and how fast.
    """

    name: str = "study"
    data: DataConfig = field(default_factory=DataConfig)
    preparation: PreparationConfig = field(default_factory=PreparationConfig)
    splits: SplitsConfig = field(default_factory=SplitsConfig)
    patches: PatchesConfig = field(default_factory=PatchesConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    comparison: ComparisonConfig = field(default_factory=ComparisonConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)

    def __post_init__(self) -> None:
        self.networks()
        super().__post_init__()

    def networks(self) -> list[NetworkChoice]:
        """The networks that are compared; none where section `network` has the only one."""
        return network_choices(self.comparison.networks, self.network)

    def per_network(self) -> list[Self]:
        """The configuration of every network: section `network` has it, and `comparison.networks` is empty."""
        comparison = replace(self.comparison, networks=())
        settings = [choice.setting for choice in self.networks()] or [self.network]
        return [replace(self, network=setting, comparison=comparison) for setting in settings]

    def checks(self) -> Iterable[Check]:
        """Yield the conditions that the values must meet."""
        own = {choice.name: choice for choice in metric_choices(self.evaluation.metrics)}
        primary_metric = self.comparison.primary_metric
        allowed = f"one of {', '.join(get_args(PrimaryMetric))}, or the import path of a metric in evaluation.metrics"
        known = primary_metric in get_args(PrimaryMetric) or primary_metric in own
        yield Check("comparison.primary_metric", known, primary_metric, allowed)
        yield Check(
            "comparison.primary_metric",
            primary_metric not in own or own[primary_metric].may_be_primary,
            primary_metric,
            "a metric with the range [0, 1] of which more is better; let yours return such a share",
        )
        yield Check("name", bool(self.name) and "/" not in self.name, self.name, "a name without a slash")
        batch, devices = self.patches.batch_size, self.execution.devices_per_run
        yield Check("execution.devices_per_run", batch % devices == 0, devices, f"a divisor of the batch size, {batch}")
        metric, primary, limits = (
            self.comparison.primary_metric, self.comparison.primary_class, self.evaluation.lesions.size_limits_ml
        )  # fmt: skip
        unlimited = primary is not None and isinstance(limits, dict) and primary not in limits
        yield Check(
            "comparison.primary_metric",
            not (unlimited and metric.startswith("lesion_recall_")),
            metric,
            f"another metric, as evaluation.lesions.size_limits_ml has no limits for {primary}",
        )

        search, least = self.comparison.search(), self.training.minimum_learning_rate
        rates = () if search is None or search.learning_rate is None else search.learning_rate.ends
        yield Check(
            f"comparison.tuning {LEARNING_RATE}",
            min(rates, default=least) >= least,
            list(rates),
            f"at least training.minimum_learning_rate, {least:g}",
        )

    def warnings(self) -> list[str]:
        """Settings that are allowed and will disappoint, a sentence each."""
        found = [
            f"{choice.key} is trained with a sigmoid, and a study predicts with a softmax: its probabilities, "
            "thresholds and calibration are those of the softmax"
            for choice in loss_choices(self.comparison.losses)
            if choice.parameters.get("activation") == "sigmoid"
        ]
        steps = self.training.epochs * self.training.iterations
        initial = 0.99**steps  # what is left in the running averages of their initial values
        networks = [one.network for one in self.per_network()]
        if initial > 0.05 and any(network.name == UNET and network.norm == "batch" for network in networks):
            found.append(
                f"after {steps} steps the running averages of network.norm batch still hold {initial:.0%} of their "
                "initial values, so predictions will be poor; train longer or take --network.norm instance"
            )
        return found
