"""A configuration in which nothing is left open: what a study's folder holds and training works with."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from voxloss.config.checks import Section
from voxloss.config.networks import UNET
from voxloss.config.schema import (
    ComparisonConfig,
    PatchesConfig,
    PreparationConfig,
    Size,
    Spacing,
    StudyConfig,
    TrainingConfig,
)
from voxloss.utilities.errors import InputError


@dataclass(frozen=True)
class SettledPreparation(PreparationConfig):
    """`PreparationConfig` with the spacing in mm, or "stored" where no case is resampled."""

    spacing_mm: Spacing | Literal["stored"] = "stored"


@dataclass(frozen=True)
class SettledPatches(PatchesConfig):
    """`PatchesConfig` with the patch size."""

    size: Size = field(kw_only=True)


@dataclass(frozen=True)
class SettledComparison(ComparisonConfig):
    """`ComparisonConfig` with the primary class."""

    primary_class: str = field(kw_only=True)


@dataclass(frozen=True)
class SettledTraining(TrainingConfig):
    """`TrainingConfig` with the precision."""

    precision: Literal["float32", "bfloat16"] = field(kw_only=True)


@dataclass(frozen=True)
class SettledConfig(StudyConfig):
    """`StudyConfig` whose spacing, patch size, precision and primary class are known."""

    preparation: SettledPreparation = field(kw_only=True)
    patches: SettledPatches = field(kw_only=True)
    training: SettledTraining = field(kw_only=True)
    comparison: SettledComparison = field(kw_only=True)

    @classmethod
    def of(cls, config: StudyConfig) -> Self:
        """The same values as a settled configuration.

        Raises:
            InputError: A value is still open; the message names its key.
        """
        values = _values(config) | {
            "preparation": settled_preparation(config.preparation),
            "patches": settled_patches(config.patches),
            "training": settled_training(config.training),
            "comparison": settled_comparison(config.comparison),
        }
        return cls(**values)


def network_title(config: SettledConfig) -> str:
    """Return the network's name for readers: "2D U-Net", "3D U-Net", or its import path."""
    if config.network.name != UNET:
        return config.network.name
    return "2D U-Net" if config.patches.size.count(1) == 1 else "3D U-Net"


def settled_preparation(preparation: PreparationConfig) -> SettledPreparation:
    """Raises InputError where the spacing is still to be the cases' median."""
    if preparation.spacing_mm == "median":
        raise InputError("preparation.spacing_mm is not settled: it is still 'median'.")
    return SettledPreparation(**_values(preparation))


def settled_patches(patches: PatchesConfig) -> SettledPatches:
    """Raises InputError where the size is still to be chosen."""
    if patches.size is None:
        raise InputError("patches.size is not settled: it is still null.")
    return SettledPatches(**_values(patches))


def settled_training(training: TrainingConfig) -> SettledTraining:
    """Raises InputError where the precision is still to be the device's."""
    if training.precision == "auto":
        raise InputError("training.precision is not settled: it is still 'auto'.")
    return SettledTraining(**_values(training))


def settled_comparison(comparison: ComparisonConfig) -> SettledComparison:
    """Raises InputError where the primary class is still to be the rarest."""
    if comparison.primary_class is None:
        raise InputError("comparison.primary_class is not settled: it is still null.")
    return SettledComparison(**_values(comparison))


def _values(section: Section) -> dict[str, Any]:
    return {item.name: getattr(section, item.name) for item in fields(section)}
