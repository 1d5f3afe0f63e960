"""A study's configuration: what decides its numbers, typed and checked. `config_files` reads it.

Nothing here imports torch before a loss is asked for, so that commands answer at once.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from voxloss.config.checks import check_values

PAPER_LOSSES = ("focal", "dice", "tversky", "cosine_tversky", "focal_tversky", "combo", "mixed_focal")


@dataclass(frozen=True)
class DataConfig:
    """Where the images are.

    Args:
        layout: how the files are named and paired.
        root: the folder that holds them.
        exclude: case ids to leave out.
        options: options of the layout, such as `classes` of a folder or `modalities` of BraTS20.
    """

    layout: Literal["kits19", "brats20", "decathlon", "folder"] = "folder"
    root: str = ""
    exclude: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PreparationConfig:
    """What is done to every volume once, before training.

    Args:
        clip: intensities are clipped to this range (Hounsfield units for CT); null: not at all.
        spacing_mm: volumes are resampled to this spacing, per stored array axis; "median": the median of the cases';
            null: as stored.
        normalisation: per volume and channel, after clipping and resampling.
    """

    clip: tuple[float, float] | None = None
    spacing_mm: tuple[float, float, float] | Literal["median"] | None = "median"
    normalisation: Literal["zscore", "minmax", "none"] = "zscore"


@dataclass(frozen=True)
class SplitsConfig:
    """One random assignment of the cases to folds, the same for every loss.

    Args:
        folds: number of folds.
        seed: of the assignment.
        inner_share: the part of the training cases that `selection: inner` sets aside.
        patients: CSV file with the columns `case` and `patient`; scans of one patient then stay in one fold.
    """

    folds: int = 5
    seed: int = 0
    inner_share: float = 0.2
    patients: str | None = None


@dataclass(frozen=True)
class PatchesConfig:
    """The patches that the network sees.

    Args:
        size: voxels per stored array axis; null: from the median shape of the prepared cases. One axis of 1 makes the
            training two-dimensional: slices across that axis, and a 2D network.
        batch_size: patches per step.
        foreground_share: probability that a patch is centred on a voxel of a foreground class (class drawn first);
            0 draws positions uniformly, as the paper does.
        overlap: of neighbouring windows at prediction, as a part of the patch size.
        window: weight of a window's voxels when overlapping probabilities are averaged.
    """

    size: tuple[int, int, int] | None = None
    batch_size: int = 2
    foreground_share: float = 0.33
    overlap: float = 0.5
    window: Literal["constant", "gaussian"] = "constant"


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of a training patch; a null range or an empty tuple leaves that kind out.

    Args:
        probability: of each kind but mirroring, per patch.
        rotation_degrees: range of the angle about each axis.
        scaling: range of the factor per axis (1.25 shows a quarter more of the body).
        elastic_alpha: range of the elastic deformation's strength, in batchgenerators' (and MIScnn's) unit.
        elastic_sigma: range of its smoothness, in voxels.
        mirror_axes: stored array axes that are mirrored, each in half of the patches.
        brightness: range of the factor.
        contrast: range of the factor about the patch's mean.
        gamma: range of the exponent.
        noise_sd: range of the standard deviation of added Gaussian noise, in normalised intensity.
    """

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


@dataclass(frozen=True)
class NetworkConfig:
    """The 3D U-Net, or another network.

    Args:
        name: "unet3d" (of slices a 2D U-Net), or the import path of a class, such as monai.networks.nets.SegResNet.
            Where it gives several outputs in training, the loss supervises all of them.
        arguments: of the other network; in_channels, out_channels, spatial_dims and the like are given by themselves.
        filters: of unet3d: channels at the top; doubled at every level.
        depth: of unet3d: number of poolings.
        norm: of unet3d: batch normalisation is the paper's; with a batch of two and few steps its running averages are
            poor, so instance normalisation is the default elsewhere.
    """

    name: str = "unet3d"
    arguments: dict[str, Any] = field(default_factory=dict)
    filters: int = 32
    depth: int = 4
    norm: Literal["batch", "instance"] = "instance"


@dataclass(frozen=True)
class TrainingConfig:
    """How each network is trained, identically for every loss.

    Args:
        epochs: number of epochs.
        iterations: optimiser steps per epoch.
        learning_rate: Adam's, at the start.
        minimum_learning_rate: the schedule goes no lower.
        schedule: "polynomial": decay with power 0.9, the same for all losses; "plateau": the paper's, lowered tenfold
            when the training loss has not fallen by 1e-4 (absolute) for 20 epochs, so it depends on the loss's scale.
        selection: which weights are the model: those of the last epoch; of the best mean foreground Dice on an inner
            part of the training cases; or, as in the paper, of the lowest loss on the fold that is scored.
        validation_batches: batches that the validation after every epoch looks at, the same every time.
        precision: of the network's arithmetic (autocast); the loss works in float32 or better.
    """

    epochs: int = 100
    iterations: int = 100
    learning_rate: float = 3e-4
    minimum_learning_rate: float = 1e-6
    schedule: Literal["polynomial", "plateau"] = "polynomial"
    selection: Literal["last", "inner", "fold"] = "last"
    validation_batches: int = 8
    precision: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class ComparisonConfig:
    """What is compared, fixed before training.

    Args:
        losses: names, or mappings of a name and parameters: {name: focal, gamma: 3}.
        seeds: of initial weights and patches; the same set for every loss.
        primary_class: the class that the headline is about; null: the rarest.
        primary_metric: the metric that the headline is about.
        interval: what the printed 95 % interval runs over.
        tolerance_mm: distance between surfaces that the normalised surface Dice (nsd) takes for agreement.
        demonstration: the data cannot be evidence (a phantom); the report says so.
    """

    losses: tuple[str | dict[str, Any], ...] = (*PAPER_LOSSES, "dice_cross_entropy")
    seeds: tuple[int, ...] = (0, 1, 2)
    primary_class: str | None = None
    primary_metric: Literal["dice", "precision", "recall", "nsd", "lesion_recall", "lesion_precision"] = "dice"
    interval: Literal["fold", "case"] = "fold"
    tolerance_mm: float = 1.0
    demonstration: bool = False


@dataclass(frozen=True)
class ExecutionConfig:
    """Where and how fast, without effect on what is compared.

    Args:
        device: auto takes CUDA where there is one.
        parallel: runs at the same time.
        threads: per run; null: the cores shared among the parallel runs.
        workers: processes per run that read patches ahead (and augment them, where that is done on the CPU); 0: in the
            run's own process; null: on CUDA a run's share of the cores, 8 at most, elsewhere 0.
        augmentation: where patches are augmented; auto: on the device if it is CUDA.
        channels_last: memory layout of images and weights, in which convolutions are faster.
        compile: torch.compile the network for training: half a minute or more per run before the first step.
        memory_gb: that preparing cases in parallel may take; null: three quarters of what is free.
    """

    device: str = "auto"
    parallel: int = 1
    threads: int | None = None
    workers: int | None = None
    augmentation: Literal["auto", "cpu", "device"] = "auto"
    channels_last: bool = True
    compile: bool = False
    memory_gb: float | None = None


@dataclass(frozen=True)
class StudyConfig:
    """A study: everything that decides its numbers."""

    name: str = "study"
    data: DataConfig = field(default_factory=DataConfig)
    preparation: PreparationConfig = field(default_factory=PreparationConfig)
    splits: SplitsConfig = field(default_factory=SplitsConfig)
    patches: PatchesConfig = field(default_factory=PatchesConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    comparison: ComparisonConfig = field(default_factory=ComparisonConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)

    def __post_init__(self) -> None:
        check_values(self)
