"""Combine losses: several on one pass over the voxels, or one on outputs of several resolutions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from voxloss.losses.catalogue import BUILDERS, get_loss
from voxloss.losses.loss import Loss
from voxloss.losses.parameters import WEIGHTS, Overlap
from voxloss.losses.schedules import Schedule, read_schedule
from voxloss.losses.terms import Formula, numbered
from voxloss.losses.voxel_pass.statistics import Further, VoxelStatistics
from voxloss.losses.voxel_pass.targets import as_tensor


@dataclass(frozen=True)
class WeightedFormulas:
    """Σ_k weight_k · formula_k, by name."""

    formulas: dict[str, Formula]
    weights: tuple[float | Tensor, ...]

    @property
    def exponents(self) -> tuple[float | Sequence[float], ...]:
        """Each exponent that any of the formulas needs, once."""
        return tuple(dict.fromkeys(exponent for formula in self.formulas.values() for exponent in formula.exponents))

    @property
    def overlaps(self) -> tuple[Overlap, ...]:
        """Each kind of overlap that any of the formulas needs, once."""
        return tuple(dict.fromkeys(overlap for formula in self.formulas.values() for overlap in formula.overlaps))

    @property
    def lesions(self) -> bool:
        """Whether any of the formulas needs the sums over lesions."""
        return any(formula.lesions for formula in self.formulas.values())

    @property
    def tubes(self) -> bool:
        """Whether any of the formulas needs the sums in the tubes around skeletons."""
        return any(formula.tubes for formula in self.formulas.values())

    @property
    def further(self) -> tuple[Further, ...]:
        """Each further pass that any of the formulas needs, once."""
        return tuple(dict.fromkeys(one for formula in self.formulas.values() for one in formula.further))

    def terms(self, statistics: VoxelStatistics) -> dict[str, Tensor]:
        """Each formula's part of the sum by name, weighted."""
        parts = zip(self.formulas.items(), self.weights, strict=True)
        return {name: weight * formula(statistics) for (name, formula), weight in parts}

    def __call__(self, statistics: VoxelStatistics, /) -> Tensor:
        """Return the weighted sum of all terms."""
        return torch.stack(list(self.terms(statistics).values())).sum(0)


class _OfAllLosses:
    """A shared parameter of a Compound: read from its losses, which must agree, and set in all of them or in none."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, compound: "Compound | None", owner: type) -> Any:
        if compound is None:
            return self
        values = [getattr(loss, self.name) for loss in compound._parts()]
        if any(value != values[0] for value in values):
            raise AttributeError(self.name)  # which leads to `Compound.__getattr__`
        return values[0]

    def __set__(self, compound: "Compound", value: Any) -> None:
        before: list[Callable[[], None]] = []
        try:
            for loss in compound._parts():
                old = getattr(loss, self.name)
                setattr(loss, self.name, value)
                before.append(lambda loss=loss, old=old: setattr(loss, self.name, old))  # type: ignore[misc]
        except ValueError:
            for restore in before:
                restore()
            raise


def _of_all_losses() -> Any:
    return _OfAllLosses()


class Compound(Loss):
    """Σ_k weight_k · loss_k(logits, labels) on one pass over the voxels, whatever exponents the losses need.

        Compound([voxloss.get_loss("dice", include_background=False), "cross_entropy"], weights=[1, 0.5])

    The weights and the losses' own parameters can be set at any time. A shared parameter such as `pool` is that of the
    losses: it can be read where they agree, and setting it sets it in all of them.

    A weight can follow a schedule, by epochs or steps; which epoch it is is part of the state dict:

        loss = Compound(["mixed_focal", "boundary"], weights=[1, LinearSchedule(0, 0.1, epochs=100)])
        for epoch in range(300):
            loss.set_epoch(epoch)

    By name it is `get_loss("compound", losses=[...], weights=[...], ...)`, also in the configuration of a study, where
    a loss with parameters is {name: tversky, delta: 0.6}, a schedule {shape: linear, start: 0, end: 0.1, epochs: 100},
    and other parameters are those of all its losses.

    Args:
        losses: Losses of this package or their names, Compound among them; those given by name get the activation,
            ignore_index and validate of the others.
        weights: One per loss, not negative, or a schedule; 1 each by default.

    Raises:
        ValueError: No loss, a weight that is negative or missing, or losses that disagree about activation,
            ignore_index or validate, which are those of the shared pass.
        TypeError: An object that is no loss of this package.
    """

    name = "compound"
    epoch: Tensor  # a buffer, where a weight has a schedule
    arguments = {}  # noqa: RUF012 - a class variable of Loss

    activation = _of_all_losses()
    inputs = _of_all_losses()
    include_background = _of_all_losses()
    ignore_index = _of_all_losses()
    ignore_scope = _of_all_losses()
    class_reduction = _of_all_losses()
    class_weight = _of_all_losses()
    overlap = _of_all_losses()
    label_smoothing = _of_all_losses()
    reduction = _of_all_losses()
    pool = _of_all_losses()
    absent_class = _of_all_losses()
    ignored_samples = _of_all_losses()
    smooth = _of_all_losses()
    validate = _of_all_losses()

    def __init__(self, losses: Sequence[Loss | str], weights: Sequence[float | Schedule] | None = None) -> None:
        nn.Module.__init__(self)
        if not losses or isinstance(losses, str):
            raise ValueError(f"Compound needs a list of losses, received {losses!r}")
        instances = [loss for loss in losses if not isinstance(loss, str)]
        for loss in instances:
            if not isinstance(loss, Loss):
                raise TypeError(f"Compound takes losses of voxloss or their names, received {type(loss).__name__}")
        reading = _agreed(instances) if instances else {}
        reading.pop("label_smoothing", None)  # a loss given by name may have no term that it applies to
        self.losses = nn.ModuleList(get_loss(loss, **reading) if isinstance(loss, str) else loss for loss in losses)
        self.weights = (1.0,) * len(self.losses) if weights is None else weights

    def __getattr__(self, name: str) -> Any:
        if name in Loss.arguments:
            values = [getattr(loss, name) for loss in self._parts()]
            raise AttributeError(f"the losses of this Compound differ in {name}: {values}")
        return super().__getattr__(name)

    def _parts(self) -> list[Loss]:
        return list(self.losses)  # type: ignore[arg-type]

    @property
    def weights(self) -> tuple[float | Schedule, ...]:
        """The weights of the losses, numbers or schedules; any sequence can be set."""
        return self._weights

    @weights.setter
    def weights(self, weights: Sequence[float | Schedule]) -> None:
        self._weights = _numbers_or_schedules(weights, len(self.losses))
        if not any(isinstance(weight, Schedule) for weight in self._weights):
            self._buffers.pop("epoch", None)  # without a schedule there is no state
        elif "epoch" not in self._buffers:
            self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0, that the schedules of the weights are in; those of losses within, too."""
        set_epoch(self, epoch)

    def _weights_now(self) -> tuple[float | Tensor, ...]:
        return tuple(weight.at(self.epoch) if isinstance(weight, Schedule) else weight for weight in self.weights)

    @property
    def formula(self) -> Formula:
        """The weighted sum of the losses' formulas as they are now.

        Raises:
            ValueError: `losses` was made longer or shorter and `weights` was not, or some losses give one value per
                class and others do not.
        """
        if len(self.losses) != len(self.weights):
            raise ValueError(f"{len(self.losses)} losses need as many weights, received {len(self.weights)}")
        alone = {loss.class_reduction == "none" for loss in self._parts()}
        if len(alone) > 1:
            raise ValueError('class_reduction="none" must be that of all losses of a Compound, or of none')
        names = numbered([type(loss).__name__.removesuffix("Loss") for loss in self.losses])
        formulas = [loss.formula for loss in self._parts()]
        return WeightedFormulas(dict(zip(names, formulas, strict=True)), self._weights_now())

    @property
    def reading(self) -> dict[str, Any]:
        """The losses' common parameters of the pass over the voxels.

        Raises:
            ValueError: They disagree, because one of the losses was changed.
        """
        return _agreed(self._parts())

    def extra_repr(self) -> str:
        """The weights; the losses follow."""
        return f"weights={self.weights}"


def set_epoch(module: nn.Module, epoch: int) -> None:
    """Set the epoch of every `Compound` within a module, such as one that wraps a loss.

    Raises:
        ValueError: An epoch that is no whole number or is negative.
    """
    if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
        raise ValueError(f"epoch must be a whole number not below 0, received {epoch!r}")
    for part in module.modules():
        if isinstance(part, Compound) and "epoch" in part._buffers:
            part.epoch.fill_(epoch)


def _by_name(
    losses: Sequence[Loss | str | Mapping[str, Any]] = (),
    weights: Sequence[float | Schedule | Mapping[str, Any]] | None = None,
    **shared: Any,
) -> Compound:
    """Return the compound of losses by name, some with parameters; `shared` are those of all of them."""
    if isinstance(losses, str | Mapping) or not isinstance(losses, Sequence):
        raise ValueError(f"Compound needs a list of losses, received {losses!r}")
    for name in shared:
        if name not in Loss.arguments:
            raise ValueError(f"loss 'compound' has no parameter {name!r}; it accepts losses, weights and shared ones")
    made: list[Loss | str] = []
    for entry in losses:
        if isinstance(entry, str):
            made.append(get_loss(entry, **shared))
        elif isinstance(entry, Mapping):
            if not isinstance(entry.get("name"), str):
                raise ValueError(f"a loss of a Compound is a name, or a mapping with name and parameters: {entry!r}")
            made.append(get_loss(**{**shared, **entry}))
        else:
            made.append(entry)
    chosen: Any = weights
    if isinstance(weights, Sequence):
        chosen = [read_schedule(weight) if isinstance(weight, Mapping) else weight for weight in weights]
    return Compound(made, chosen)


BUILDERS["compound"] = _by_name


def _numbers_or_schedules(weights: Sequence[float | Schedule], number: int) -> tuple[float | Schedule, ...]:
    """Check weights, of which schedules have checked themselves."""
    if not isinstance(weights, list | tuple) or not any(isinstance(weight, Schedule) for weight in weights):
        return _weights(weights, number)  # type: ignore[arg-type]  # no schedule is among them
    numbers = _weights([1.0 if isinstance(weight, Schedule) else weight for weight in weights], number)
    return tuple(
        weight if isinstance(weight, Schedule) else value for weight, value in zip(weights, numbers, strict=True)
    )


def _agreed(losses: Sequence[Loss]) -> dict[str, Any]:
    """The parameters of the shared pass; that of a single term is of the losses that have it."""
    agreed: dict[str, Any] = {}
    for loss in losses:
        for name, value in loss.reading.items():
            if name in agreed and agreed[name] != value:
                raise ValueError(
                    f"the losses of a Compound must agree on {name}, which is that of their shared pass over the "
                    f"voxels; received {agreed[name]!r} and {value!r}"
                )
            agreed[name] = value
    return agreed


class DeepSupervision(nn.Module):
    """Σ_k weight_k · loss(logits_k, labels_k) over outputs of falling resolution, the finest first.

        loss = DeepSupervision(voxloss.get_loss("mixed_focal"))
        loss([logits, logits_half, logits_quarter], labels)

    Labels (and a voxel weight, mask or maps of the labels) of the finest grid are taken to the other grids by nearest
    neighbour: the voxel of index i of m is that of index floor((i + 1/2) n / m) of n. Multi-hot and soft targets too.
    Or give one for each output.

    Args:
        loss: Called as `loss(logits, labels)`, and where they are given with a third argument `voxel_weight`, `mask=`,
            `sample_weight=`, `regions=`, `distances=` and `skeletons=`.
        weights: One per output, not negative; can be set at any time. By default 1, 1/2, 1/4, … divided by their sum,
            as in nnU-Net, which however gives the coarsest of its outputs the weight 0. An output of weight 0 is left
            out.

    Raises:
        ValueError: No output, or another number of weights or labels than of outputs.
    """

    def __init__(self, loss: nn.Module, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.weights = weights

    @property
    def weights(self) -> tuple[float, ...] | None:
        """The weights of the outputs, or None for halves; any sequence can be set."""
        return self._weights

    @weights.setter
    def weights(self, weights: Sequence[float] | None) -> None:
        self._weights = None if weights is None else _weights(weights)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the schedules within the loss are in, see `Compound.set_epoch`."""
        set_epoch(self, epoch)

    def forward(
        self,
        logits: Sequence[Tensor] | Tensor,
        labels: Sequence[Tensor] | Tensor,
        voxel_weight: Sequence[Tensor] | Tensor | None = None,
        *,
        mask: Sequence[Tensor] | Tensor | None = None,
        sample_weight: Tensor | None = None,
        regions: Sequence[Tensor] | Tensor | None = None,
        distances: Sequence[Tensor] | Tensor | None = None,
        skeletons: Sequence[Tensor] | Tensor | None = None,
    ) -> Tensor:
        """The weighted sum as a scalar. A single tensor of logits is a single output with weight 1."""
        of_voxels = {"mask": mask, "regions": regions, "distances": distances, "skeletons": skeletons}
        if isinstance(logits, Tensor):  # what a network with deep supervision returns in validation
            return self._at(0, [logits], labels, voxel_weight, of_voxels, sample_weight)
        if isinstance(logits, dict):
            names = ", ".join(map(repr, logits))
            raise ValueError(f"DeepSupervision takes a list of outputs, received a dictionary of {names}")
        if not len(logits):
            raise ValueError("DeepSupervision received no output")
        _check_order(logits)
        weights = self.weights or tuple(2.0**-k / (2 - 2.0 ** (1 - len(logits))) for k in range(len(logits)))
        if len(weights) != len(logits):
            raise ValueError(f"DeepSupervision has {len(weights)} weights but received {len(logits)} outputs")
        parts = []
        for k, weight in enumerate(weights):
            if weight != 0:
                parts.append(weight * self._at(k, logits, labels, voxel_weight, of_voxels, sample_weight))
        return torch.stack(parts).sum(0)

    def _at(
        self,
        k: int,
        outputs: Sequence[Tensor],
        labels: Any,
        voxel_weight: Any,
        of_voxels: dict[str, Any],
        sample_weight: Any,
    ) -> Tensor:
        labels, voxel_weight = (_of_output(tensors, k, outputs) for tensors in (labels, voxel_weight))
        # A loss of another library may take neither weights nor a mask.
        positional = () if voxel_weight is None else (voxel_weight,)
        named = {name: _of_output(tensors, k, outputs) for name, tensors in of_voxels.items()}
        named = {name: value for name, value in (named | {"sample_weight": sample_weight}).items() if value is not None}
        value: Tensor = self.loss(outputs[k], labels, *positional, **named)
        return value

    def extra_repr(self) -> str:
        """Return the weights, where they are set."""
        return "" if self.weights is None else f"weights={self.weights}"


def nearest(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """Resize the last axes of `tensor` to `shape` by nearest neighbour, keeping its type."""
    for axis, (old, new) in enumerate(zip(tensor.shape[-len(shape) :], shape, strict=True), start=-len(shape)):
        if old != new:
            index = torch.div((torch.arange(new, device=tensor.device) * 2 + 1) * old, 2 * new, rounding_mode="floor")
            tensor = tensor.index_select(axis, index)
    return tensor


def _check_order(outputs: Sequence[Tensor]) -> None:
    """Raise ValueError unless the outputs are of equally many axes and none is finer than the one before it."""
    for k in range(1, len(outputs)):
        finer, coarser = outputs[k - 1], outputs[k]
        if finer.ndim != coarser.ndim:
            raise ValueError(
                f"DeepSupervision needs outputs of equally many axes, received {tuple(finer.shape)} and "
                f"{tuple(coarser.shape)}"
            )
        if any(new > old for old, new in zip(finer.shape[2:], coarser.shape[2:], strict=True)):
            raise ValueError(
                f"DeepSupervision needs the finest output first, but output {k} of shape {tuple(coarser.shape)} is "
                f"finer than output {k - 1} of shape {tuple(finer.shape)}: reverse the list, outputs[::-1]"
            )


def _of_output(tensors: Any, k: int, outputs: Sequence[Tensor]) -> Any:
    """Return the labels or voxel weights of output k: those given for it, or those of the finest grid, resized."""
    if tensors is None:
        return None
    if isinstance(tensors, list | tuple):
        if len(tensors) != len(outputs):
            raise ValueError(
                f"DeepSupervision received {len(outputs)} outputs but {len(tensors)} labels or voxel weights"
            )
        return tensors[k]
    finest, shape = outputs[0].shape[2:], outputs[k].shape[2:]
    tensor = as_tensor("labels", tensors, outputs[0])
    if tensor.shape[-len(finest) :] != finest or tensor.ndim not in (len(finest) + 1, len(finest) + 2):
        if k == 0:
            return tensor  # of which the loss has a sentence
        raise ValueError(
            f"labels or voxel weights of shape {tuple(tensor.shape)} do not fit the finest output of shape "
            f"{tuple(outputs[0].shape)}; give those of its grid, or a list with one for each output"
        )
    return nearest(tensor, shape) if shape != finest else tensor


def _weights(weights: Sequence[float], number: int | None = None) -> tuple[float, ...]:
    chosen: tuple[float, ...] = WEIGHTS("weights", weights)
    if number is not None and len(chosen) != number:
        raise ValueError(f"{number} losses need as many weights, received {len(chosen)}: {weights}")
    if not any(chosen):
        raise ValueError(f"at least one weight must be above 0, received {weights}")
    return chosen
