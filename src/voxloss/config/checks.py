"""Values of a configuration that make no sense, or will disappoint."""

import dataclasses
import math
from typing import TYPE_CHECKING

from voxloss.utilities.errors import InputError

if TYPE_CHECKING:
    from voxloss.config.schema import StudyConfig


def check_values(config: "StudyConfig") -> None:
    """Raise InputError, naming the key, for values that have the right type and make no sense."""
    patches, training, comparison = config.patches, config.training, config.comparison
    checks = [
        ("name", bool(config.name) and "/" not in config.name, config.name, "a name without a slash"),
        ("splits.folds", config.splits.folds >= 2, config.splits.folds, "at least 2"),
        ("splits.seed", config.splits.seed >= 0, config.splits.seed, "not negative"),
        ("splits.inner_share", 0 < config.splits.inner_share < 1, config.splits.inner_share, "between 0 and 1"),
        ("patches.size", patches.size is None or min(patches.size) >= 1, patches.size, "positive"),
        ("patches.batch_size", patches.batch_size >= 1, patches.batch_size, "at least 1"),
        ("patches.foreground_share", 0 <= patches.foreground_share <= 1, patches.foreground_share, "from 0 to 1"),
        ("patches.overlap", 0 <= patches.overlap < 1, patches.overlap, "at least 0 and below 1"),
        (
            "network.arguments",
            not config.network.arguments or config.network.name != "unet3d",
            config.network.arguments,
            "empty for unet3d, whose settings are network.filters, depth and norm",
        ),
        ("network.filters", config.network.filters >= 1, config.network.filters, "at least 1"),
        ("network.depth", config.network.depth >= 1, config.network.depth, "at least 1"),
        ("training.epochs", training.epochs >= 1, training.epochs, "at least 1"),
        ("training.iterations", training.iterations >= 1, training.iterations, "at least 1"),
        ("training.learning_rate", training.learning_rate > 0, training.learning_rate, "positive"),
        ("training.validation_batches", training.validation_batches >= 1, training.validation_batches, "at least 1"),
        ("comparison.losses", len(comparison.losses) >= 1, comparison.losses, "at least one loss"),
        ("comparison.seeds", len(comparison.seeds) >= 1, comparison.seeds, "at least one seed"),
        ("comparison.seeds", len(set(comparison.seeds)) == len(comparison.seeds), comparison.seeds, "all different"),
        ("comparison.seeds", min(comparison.seeds, default=0) >= 0, comparison.seeds, "not negative"),
        ("comparison.tolerance_mm", comparison.tolerance_mm > 0, comparison.tolerance_mm, "positive"),
        ("execution.parallel", config.execution.parallel >= 1, config.execution.parallel, "at least 1"),
        ("execution.workers", (config.execution.workers or 0) >= 0, config.execution.workers, "at least 0"),
        ("execution.memory_gb", (config.execution.memory_gb or 1) > 0, config.execution.memory_gb, "positive"),
        ("execution.threads", (config.execution.threads or 1) >= 1, config.execution.threads, "at least 1"),
    ]
    clip, spacing = config.preparation.clip, config.preparation.spacing_mm
    checks.append(("preparation.clip", clip is None or clip[0] < clip[1], clip, "a lower and a higher value"))
    positive = not isinstance(spacing, tuple) or min(spacing) > 0
    checks.append(("preparation.spacing_mm", positive, spacing, "positive"))
    augmentation = config.augmentation
    axes, probability = augmentation.mirror_axes, augmentation.probability
    checks.append(("augmentation.mirror_axes", set(axes) <= {0, 1, 2}, axes, "among the axes 0, 1 and 2"))
    checks.append(("augmentation.probability", 0 <= probability <= 1, probability, "from 0 to 1"))
    for item in dataclasses.fields(augmentation):
        limits = getattr(augmentation, item.name)
        if isinstance(limits, tuple) and item.name != "mirror_axes":
            checks.append((f"augmentation.{item.name}", limits[0] <= limits[1], limits, "a lower and a higher value"))
    for section in dataclasses.fields(config):
        for item in dataclasses.fields(section.type) if dataclasses.is_dataclass(section.type) else ():
            value = getattr(getattr(config, section.name), item.name)
            numbers = [
                number for number in (value if isinstance(value, tuple) else (value,)) if isinstance(number, float)
            ]
            checks.append((f"{section.name}.{item.name}", all(map(math.isfinite, numbers)), value, "finite"))
    for key, good, value, wanted in checks:
        if not good:
            raise InputError(f"{key} must be {wanted}; received {value!r}.")


def warnings_about(config: "StudyConfig") -> list[str]:
    """Settings that are allowed and will disappoint."""
    steps = config.training.epochs * config.training.iterations
    initial = 0.99**steps  # what is left in the running averages of what they began with
    if config.network.name == "unet3d" and config.network.norm == "batch" and initial > 0.05:
        return [
            f"after {steps} steps the running averages of network.norm batch still hold {initial:.0%} of their initial "
            "values, so predictions will be poor; train longer or take --network.norm instance"
        ]
    return []
