"""One formula per loss of the catalogue, by its name there. `pool` and `region` are the formulas' shared options."""

from collections.abc import Sequence
from typing import Any, Literal

from voxloss.losses.formulas import (
    GeneralisedDice,
    Pixelwise,
    Region,
    Sum,
    cosine_power,
    error_power,
    log_cosh,
    negative_index,
)
from voxloss.losses.parameters import check_fraction, check_positive, per_class

Pool = Literal["sample", "batch", "world"]
Reduction = Literal["sum", "mean"]


def _shares(weight: float | None) -> tuple[float, float]:
    """The factors of a pixelwise and a region term for λ on the first; None: both 1."""
    check_fraction("weight", weight, optional=True)
    return (1.0, 1.0) if weight is None else (weight, 1 - weight)


def cross_entropy(*, beta: float | None, pool: Pool = "sample", **region: Any) -> Sum:
    return Sum(Pixelwise(beta=beta), pool=pool)


def focal(
    *,
    alpha: float | Sequence[float],
    gamma: float | Sequence[float],
    beta: float | None,
    pool: Pool = "sample",
    **region: Any,
) -> Sum:
    return Sum(Pixelwise(per_class("gamma", gamma), per_class("alpha", alpha), beta), pool=pool)


def dice(**options: Any) -> Sum:
    return tversky(delta=0.5, **options)


def log_cosh_dice(*, pool: Pool = "sample", **region: Any) -> Sum:
    return Sum(region=Region(0.5, log_cosh, **region), pool=pool)


def generalised_dice(*, power: float, class_reduction: Reduction = "sum", pool: Pool = "sample", **region: Any) -> Sum:
    # One index of all classes: there is nothing that class_reduction could reduce.
    check_positive("power", power, or_zero=True)
    return Sum(region=GeneralisedDice(power, **region), pool=pool)


def tversky(*, delta: float, pool: Pool = "sample", **region: Any) -> Sum:
    return Sum(region=Region(delta, error_power, **region), pool=pool)


def focal_tversky(*, delta: float, gamma: float, pool: Pool = "sample", **region: Any) -> Sum:
    check_positive("gamma", gamma)
    return Sum(region=Region(delta, error_power, 1 / gamma, **region), pool=pool)


def asymmetric_focal_tversky(*, delta: float, gamma: float, pool: Pool = "sample", **region: Any) -> Sum:
    check_fraction("gamma", gamma, below_one=True)
    return Sum(region=Region(delta, error_power, 1 - gamma, background_exponent=1, **region), pool=pool)


def cosine_tversky(*, delta: float, gamma: float, pool: Pool = "sample", **region: Any) -> Sum:
    check_positive("gamma", gamma)
    return Sum(region=Region(delta, cosine_power, gamma, **region), pool=pool)


def combo(
    *,
    alpha: float | None,
    beta: float | None,
    class_reduction: Reduction = "mean",
    pool: Pool = "sample",
    **region: Any,
) -> Sum:
    check_fraction("alpha", alpha, optional=True)
    entropy, overlap = _shares(alpha)
    index = Region(0.5, negative_index, scale=overlap, class_reduction=class_reduction, **region)
    return Sum(Pixelwise(beta=beta, scale=entropy), index, pool)


def modified_combo(*, alpha: float, beta: float | None, delta: float, pool: Pool = "sample", **region: Any) -> Sum:
    check_fraction("alpha", alpha)
    return Sum(Pixelwise(beta=beta, scale=alpha), Region(delta, error_power, scale=1 - alpha, **region), pool)


def mixed_focal(
    *,
    weight: float | None,
    alpha: float | Sequence[float],
    beta: float | None,
    delta: float,
    gamma_focal: float | Sequence[float],
    gamma_tversky: float,
    pool: Pool = "sample",
    **region: Any,
) -> Sum:
    check_positive("gamma_tversky", gamma_tversky)
    pixelwise, overlap = _shares(weight)
    return Sum(
        Pixelwise(per_class("gamma_focal", gamma_focal), per_class("alpha", alpha), beta, pixelwise),
        Region(delta, error_power, 1 / gamma_tversky, overlap, **region),
        pool,
    )


def unified_focal(*, weight: float | None, delta: float, gamma: float, pool: Pool = "sample", **region: Any) -> Sum:
    check_fraction("delta", delta)
    check_fraction("gamma", gamma, below_one=True)
    pixelwise, overlap = _shares(weight)
    return Sum(
        Pixelwise(gamma, beta=delta, scale=pixelwise), Region(delta, error_power, 1 - gamma, overlap, **region), pool
    )


def asymmetric_unified_focal(
    *, weight: float | None, delta: float, gamma: float, pool: Pool = "sample", **region: Any
) -> Sum:
    check_fraction("delta", delta)
    check_fraction("gamma", gamma, below_one=True)
    pixelwise, overlap = _shares(weight)
    return Sum(
        Pixelwise(gamma, beta=delta, scale=pixelwise, foreground_gamma=0.0),
        Region(delta, error_power, 1 - gamma, overlap, background_exponent=1, **region),
        pool,
    )


def dice_focal(
    *,
    weight: float | None,
    alpha: float | Sequence[float],
    beta: float | None,
    gamma: float | Sequence[float],
    class_reduction: Reduction = "mean",
    pool: Pool = "sample",
    **region: Any,
) -> Sum:
    pixelwise, overlap = _shares(weight)
    return Sum(
        Pixelwise(per_class("gamma", gamma), per_class("alpha", alpha), beta, pixelwise),
        Region(0.5, error_power, scale=overlap, class_reduction=class_reduction, **region),
        pool,
    )


def dice_cross_entropy(
    *,
    include_background: bool | None = None,
    class_reduction: Reduction = "mean",
    pool: Pool = "batch",
    smooth: float = 1e-5,
    **region: Any,
) -> Sum:
    # nnU-Net adds its smoothing to 2·TP and to 2·TP + FP + FN, which are twice the parts of the index.
    index = Region(
        0.5,
        negative_index,
        smooth=smooth / 2,
        include_background=include_background,
        class_reduction=class_reduction,
        **region,
    )
    return Sum(Pixelwise(channel_mean=True), index, pool)
