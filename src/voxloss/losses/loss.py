"""The base of the losses. A loss is a dataclass of its parameters with a method `terms`; the rest is derived."""

import dataclasses
import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self, dataclass_transform, get_type_hints

import torch
from torch import Tensor, nn

from voxloss.losses import documentation
from voxloss.losses.conventions import symbols_of
from voxloss.losses.curves import Curve, Power
from voxloss.losses.documentation import Documentation
from voxloss.losses.parameters import (
    AbsentClass,
    Activation,
    BatchReduction,
    Check,
    Fraction,
    IgnoredSamples,
    IgnoreScope,
    Inputs,
    NonNegative,
    OptionalInteger,
    OptionalSwitch,
    Overlap,
    Pool,
    Reduction,
    RegionWeights,
    check_of,
)
from voxloss.losses.terms import Formula, Pixelwise, Region, Sum, Term, needs
from voxloss.losses.voxel_pass.further.passes import HardestVoxels
from voxloss.losses.voxel_pass.statistics import voxel_statistics
from voxloss.losses.voxel_pass.targets import TIED, warn_of_probabilities

FIRST_CALLS = 3  # of a module, in which labels are checked at once on any device

_EXAMPLE = """\
>>> import torch, voxloss
>>> logits, labels = torch.zeros(1, 3, 2, 2), torch.tensor([[[0, 1], [2, 0]]])
"""


@dataclasses.dataclass(frozen=True)
class Argument:
    """A parameter of a loss. `shared` says that all losses have it; `type` is for people and editors."""

    type: Any
    check: Check
    default: Any
    shared: bool


@dataclass_transform(kw_only_default=True, eq_default=False)
@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class Loss(nn.Module):
    """Base of the losses, with the parameters that all of them share.

    A loss is a subclass with typed fields and a method `terms`; the types of `voxloss.losses.parameters` carry the
    checks. A parameter can be set at any time: the new value is checked, and the loss computes with it. Nothing is in
    the state dict.

        from voxloss.losses.curves import Power
        from voxloss.losses.parameters import Positive

        class RootDiceLoss(voxloss.Loss):
            "Dice loss with a root of the error."

            root: Positive = 2.0

            def terms(self):
                return self.region(0.5, Power(1 / self.root))

    Args:
        activation: "softmax" over the channels, or "sigmoid", which makes every channel its own two-class problem.
        inputs: "logits" of the network, or "probabilities", the same after softmax or sigmoid. Logits are more exact:
            a probability near 1 has lost the digits of its complement.
        include_background: False drops channel 0 from the region terms; pixelwise terms keep every voxel. None drops
            it under softmax only.
        ignore_index: Label whose voxels all terms ignore and do not count.
        ignore_scope: In multi-hot or soft targets, a value of ignore_index takes its voxel out of all channels
            ("voxel"), or with sigmoid out of its own "channel" alone: a structure that a sample has no labels for adds
            nothing, and its channel gets no gradient. Pixelwise means are then over the counted voxels of each channel,
            and a mean over classes is over those with a counted voxel.
        class_reduction: Sum or mean over the classes of the region terms; "none" gives one value per class, to which
            pixelwise terms add the part of each class.
        class_weight: One weight per class in the region terms, which multiplies its cost (a mean is then divided by the
            sum of the weights), or "inverse_volume": V_min / V_c, with V_c the voxels of class c in the target of a
            sample (or of the pool), V_min the smallest of them that is not 0, and 1 for an absent class.
        overlap: How a region term compares p with the target t. "product": TP = Σ p·t, FP = Σ p·(1-t),
            FN = Σ (1-p)·t. "minimum": TP = Σ min(p, t), FP = Σ max(p-t, 0), FN = Σ max(t-p, 0), equal for targets of 0
            and 1, and least at p = t for soft targets. "squared", where false positives and missed voxels weigh the
            same: TP = Σ p·t, FP = FN = Σ (p-t)²/2, so that the Dice index is 2·Σ p·t / (Σ p² + Σ t²).
        label_smoothing: ε of the pixelwise term, whose target is (1-ε)·t + ε/C, with sigmoid (1-ε)·t + ε/2; region
            terms keep t.
        reduction: "mean" is the loss of the batch. "none" gives the loss of each sample by itself, as if it were a
            batch, (B,), and "sum" the sum of these.
        pool: Region sums per "sample", whose values are then averaged; over the "batch"; or over the "world", the
            batches of all ranks of torch.distributed as one, pixelwise terms too. With "world" every rank must call the
            loss; the value is the same on all, and the gradients averaged over the ranks (DistributedDataParallel
            does it) are those of the whole batch.
        absent_class: "keep", or "skip" the region terms of classes that the target does not have (per sample, or in
            the batch, as `pool` says); a mean is then over the other classes.
        ignored_samples: "skip" averages region terms over the samples with a voxel that is not ignored; with "keep" a
            sample without one counts as 0.
        smooth: s, added to the numerator and the denominator of the index.
        validate: Whether to check the values of labels and voxel weights. None checks them in every call on the CPU;
            on other devices in the first three, and on CUDA after that without waiting for the device, so that a later
            call raises the error. True always checks at once, False never.

    Shape:
        logits: (B, C, *spatial), any floating type.
        labels: (B, *spatial) or (B, 1, *spatial), whole numbers of any type, up to three spatial axes; or soft or
            multi-hot targets (B, C, *spatial) in [0, 1]. With a single channel always such a target. A tensor on the
            device of the logits; an array or nested lists are copied there.
        voxel_weight: (B, *spatial) or (B, 1, *spatial), optional, not negative; multiplies every voxel's part of the
            sums, but not the number of voxels. It is a weight, not a mask: a voxel of weight 0
            counts in means, and NaN in its logits gets out.
        mask: (B, *spatial) or (B, 1, *spatial), optional; voxels where it is 0 or False are ignored and do not count,
            like those of ignore_index, whatever their logits are.
        sample_weight: (B,), optional, not negative; multiplies the loss of each sample, and does not change what a mean
            divides by.
        regions: (B, F, *spatial), optional, whole numbers; the number of the lesion whose region the voxel is in, for
            the F classes that can have lesions (all but the background under softmax; with F = 1 also (B, *spatial)).
            `lesion_regions` makes them. Without them, losses per lesion find the lesions in every call; other losses
            ignore them.
        distances: (B, F, *spatial), optional; the signed distance to the border of each class, for all classes, or all
            but the background under softmax. `distance_maps` makes them. Without them, losses of distances measure
            them in every call; other losses ignore them.
        skeletons: (B, *spatial), or with sigmoid and soft or multi-hot targets (B, C, *spatial), optional; not 0 at the
            voxels of a structure that are close to its skeleton. `skeleton_tubes` makes them. Without them, the losses
            that need them make them in every call, with scikit-image; other losses ignore them.
        value: scalar, or one per sample or class as `reduction` and `class_reduction` say; float32 for logits of
            float32 or less, else float64. Gradients of gradients, forward mode and the transforms of torch.func take a
            slower pass with more memory.

    Raises:
        ValueError: A parameter is set to a value that it cannot have (the message quotes the value); shapes or types
            do not fit; or, as `validate` says, a label is out of range.
    """

    activation: Activation = "softmax"
    inputs: Inputs = "logits"
    include_background: OptionalSwitch = True
    ignore_index: OptionalInteger = None
    ignore_scope: IgnoreScope = "voxel"
    class_reduction: Reduction = "sum"
    class_weight: RegionWeights = None
    overlap: Overlap = "product"
    label_smoothing: Fraction = 0.0
    reduction: BatchReduction = "mean"
    pool: Pool = "sample"
    absent_class: AbsentClass = "keep"
    ignored_samples: IgnoredSamples = "skip"
    smooth: NonNegative = 1e-6
    validate: OptionalSwitch = None

    name: ClassVar[str]
    arguments: ClassVar[Mapping[str, Argument]]  # own ones first
    documentation: ClassVar[Documentation]
    source: ClassVar[str] = ""
    equations: ClassVar[str] = ""  # where in the source
    value_range: ClassVar[str] = ""
    conventions: ClassVar[tuple[str, ...]] = ()
    _writes_init: ClassVar[bool] = False  # whether the class, or one above it, has an `__init__` of its own
    _has_methods: ClassVar[bool] = False  # beside `terms`, which may set attributes of any name

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not cls.arguments:  # a Compound: made of other losses, without parameters of its own
            return
        for name in cls.arguments:
            if name in vars(cls) and name not in inspect.get_annotations(cls):
                raise TypeError(f"{cls.__name__}.{name} needs a type to be the parameter's default")
        cls._has_methods = cls._has_methods or any(
            inspect.isfunction(value) and name != "terms" and not name.startswith("__annotate")
            for base in (cls, *cls.__bases__)
            if base is cls or not issubclass(base, Loss)
            for name, value in vars(base).items()
        )
        for method in ("__eq__", "__hash__", "__repr__"):  # modules are hashed by identity, also where the author of a
            setattr(cls, method, getattr(cls, method))  # loss puts @dataclass before it, which keeps what a class has
        docstring = inspect.cleandoc(vars(cls)["__doc__"] or "")
        cls._writes_init = cls._writes_init or "__init__" in vars(cls)
        dataclasses.dataclass(kw_only=True, eq=False, repr=False, init=not cls._writes_init)(cls)
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", cls.__name__)
        cls.name = words.removesuffix(" Loss").lower().replace(" ", "_")
        cls.arguments = _arguments(cls)
        if cls._writes_init:  # its signature and docstring are those of its author
            return
        cls.documentation = _documentation(cls, docstring, words.capitalize())
        cls.__doc__ = documentation.write(
            dataclasses.replace(
                cls.documentation, arguments={name: argument_text(cls, name) for name in cls.arguments}
            ),
            reference(cls),
        )
        parameters = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=argument.default, annotation=argument.type)
            for name, argument in cls.arguments.items()
        ]
        itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        cls.__init__.__signature__ = inspect.Signature([itself, *parameters])  # type: ignore[attr-defined]

    def __new__(cls, *values: Any, **parameters: Any) -> Self:
        """Refuse unknown parameters, and those without a name, with the way out."""
        if cls.arguments and not cls._writes_init:
            if values:
                raise TypeError(f"{cls.__name__} takes its parameters by name{_by_name(cls, values[0])}")
            for name in parameters:
                if name not in cls.arguments:
                    raise TypeError(f"{cls.__name__} has no parameter {name!r}{way_out(cls, name)}")
        return super().__new__(cls)

    if TYPE_CHECKING:

        def __call__(
            self,
            logits: Tensor,
            labels: Tensor,
            voxel_weight: Tensor | None = None,
            *,
            mask: Tensor | None = None,
            sample_weight: Tensor | None = None,
            regions: Tensor | None = None,
            distances: Tensor | None = None,
            skeletons: Tensor | None = None,
        ) -> Tensor:
            """Return the loss."""

    def __post_init__(self) -> None:
        super().__init__()
        self.__dict__["_formula"] = self._build()

    def __setattr__(self, name: str, value: Any) -> None:
        argument = self.arguments.get(name)
        if argument is None:
            self._refuse_slip(name, value)
            super().__setattr__(name, value)
            return
        state = self.__dict__
        value = argument.check(name, value)
        if "_formula" not in state:  # `__init__` sets all parameters before the formula is built
            state[name] = value
            return
        before, state[name] = state[name], value
        try:
            state["_formula"] = self._build()
        except BaseException:
            state[name] = before
            raise

    def _refuse_slip(self, name: str, value: Any) -> None:
        """Refuse a new attribute whose name is nearly that of a parameter, which would change nothing."""
        if (
            self._has_methods
            or "_formula" not in self.__dict__
            or name.startswith("_")
            or isinstance(value, (nn.Module, nn.Parameter))
            or hasattr(self, name)
        ):
            return
        if meant := closest(name, self.arguments, cutoff=0.75):
            raise AttributeError(f"{type(self).__name__} has no parameter {name!r}{meant}")

    def terms(self) -> Term | tuple[Term, ...]:
        """Return the terms whose sum is the loss, for the current parameters.

        Called whenever a parameter is set. Values of several parameters that do not fit together are refused by a
        ValueError here.
        """
        raise NotImplementedError(f"{type(self).__name__} has no terms")

    def region(
        self, delta: float, curve: Curve | None = None, background_curve: Curve | None = None, scale: float = 1.0
    ) -> Region:
        """Return a region term with the shared parameters of this loss; without a curve the cost is 1 - index."""
        if self.overlap == "squared" and delta != 0.5:
            raise ValueError(
                f'overlap="squared" needs false positives and missed voxels to weigh the same, delta=0.5, not {delta}'
            )
        return Region(
            delta=delta,
            curve=Power(1.0) if curve is None else curve,  # as a default argument torch.compile does not take it
            background_curve=background_curve,
            scale=scale,
            **self.of_classes(),
        )

    def hardest(self, share: float) -> HardestVoxels:
        """Return the hardest voxels, `share` per cent of all, for a pixelwise term."""
        if self.ignore_scope == "channel":
            raise ValueError(
                'ignore_scope="channel" leaves voxels that count in some channels alone, and cannot be ranked with the '
                'others: use ignore_scope="voxel"'
            )
        return HardestVoxels(share, "sample" if self.reduction != "mean" else self.pool)

    def of_classes(self) -> dict[str, Any]:
        """The shared parameters of a term that is a cost of each class, keyword arguments of `terms.OfClasses`."""
        names = (
            *("smooth", "include_background", "class_reduction", "absent_class", "ignored_samples"),
            *("class_weight", "overlap"),
        )
        return {name: getattr(self, name) for name in names}

    def includes_background(self) -> bool:
        """Whether channel 0 counts in the terms that are a cost of each class."""
        return self.activation == "sigmoid" if self.include_background is None else self.include_background

    def _build(self) -> Formula:
        terms = self.terms()
        parts = terms if isinstance(terms, tuple) else (terms,)
        if self.reduction != "mean" and self.pool == "world":
            raise ValueError(f'reduction={self.reduction!r} takes each sample by itself, and pool="world" all together')
        if self.ignore_scope == "channel" and self.activation == "softmax":
            raise ValueError(TIED)
        self._check_kinds({part.kind for part in parts})
        if self.class_reduction == "none":
            parts = tuple(
                dataclasses.replace(part, by_class=True) if isinstance(part, Pixelwise) else part for part in parts
            )
        return Sum(parts, self.pool)

    def _check_kinds(self, kinds: set[str]) -> None:
        """Refuse parameters of a kind of term that the loss does not have."""
        of_kinds: dict[str, tuple[tuple[str, ...], Any]] = {
            "class_weight": (("region", "lesion", "boundary", "order"), None),
            "overlap": (("region",), "product"),
            "label_smoothing": (("pixelwise",), 0),
        }
        for name, (having, default) in of_kinds.items():
            if kinds.isdisjoint(having) and getattr(self, name) != default:
                hint = f": {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
                raise ValueError(
                    f"{name} is a parameter of {having[0]} terms, and {type(self).__name__} has none{hint}"
                )

    @property
    def formula(self) -> Formula:
        """The loss as a function of `VoxelStatistics`, for sharing a pass over the voxels."""
        formula: Formula = self.__dict__["_formula"]
        return formula

    @property
    def reading(self) -> dict[str, Any]:
        """The parameters of the pass over the voxels, keyword arguments of `voxel_statistics`."""
        reading: dict[str, Any] = {
            "activation": self.activation,
            "inputs": self.inputs,
            "ignore_index": self.ignore_index,
            "ignore_scope": self.ignore_scope,
            "validate": self.validate,
        }
        if self.formula.exponents or any(isinstance(one, HardestVoxels) for one in self.formula.further):
            reading["label_smoothing"] = self.label_smoothing
        return reading

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        voxel_weight: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        sample_weight: Tensor | None = None,
        regions: Tensor | None = None,
        distances: Tensor | None = None,
        skeletons: Tensor | None = None,
    ) -> Tensor:
        """Return the loss; the class's docstring has the shapes."""
        formula, reading = self.formula, self.reading
        if not torch.compiler.is_compiling() and isinstance(logits, Tensor) and not logits.is_meta:
            calls = self.__dict__.get("_calls", 0)
            if calls < FIRST_CALLS:
                self.__dict__["_calls"] = calls + 1
                if reading["validate"] is None:
                    reading["validate"] = True
            if calls == 0 and reading["validate"] and reading["inputs"] == "logits":
                warn_of_probabilities(logits)
        statistics = voxel_statistics(
            logits,
            labels,
            voxel_weight=voxel_weight,
            mask=mask,
            sample_weight=sample_weight,
            regions=regions,
            distances=distances,
            skeletons=skeletons,
            **needs(formula),
            **reading,
        )
        if self.reduction == "mean":
            value = formula(statistics)
        else:
            values = [formula(sample) for sample in statistics.samples()]
            value = torch.stack(values) if values else formula(statistics)[None][:0]
            value = value.sum(0) if self.reduction == "sum" else value
        return value.to(torch.promote_types(logits.dtype, torch.float32))

    def extra_repr(self) -> str:
        """Return the loss's own parameters, and shared ones that differ from its defaults."""
        values = {name: getattr(self, name) for name in self.arguments}
        return ", ".join(
            f"{name}={value!r}"
            for name, value in values.items()
            if not self.arguments[name].shared or value != self.arguments[name].default
        )


# What parameters of other libraries' losses are called or done here.
_ELSEWHERE = {
    "weight": "weights of the classes are class_weight in region terms; in the pixelwise term they are alpha of the "
    "focal loss, FocalLoss(gamma=0, alpha=[...]) for the cross entropy, which divides by the number of voxels and not "
    "by the sum of the weights",
    "class_weight": "weights of the classes in the pixelwise term are alpha, FocalLoss(gamma=0, alpha=[...]) for the "
    "cross entropy",
    "squared_pred": 'it is overlap="squared"',
    "soft_label": 'it is overlap="minimum"',
    "jaccard": "it is JaccardLoss",
    "from_logits": 'it is inputs="logits" or "probabilities"',
    "apply_softmax": 'it is inputs="logits" or "probabilities"',
    "other_act": 'it is inputs="probabilities", of what is already activated',
    "pos_weight": 'it is beta / (1 - beta) with activation="sigmoid"',
    "softmax": 'it is activation="softmax"',
    "sigmoid": 'it is activation="sigmoid"',
    "apply_nonlin": "it is activation",
    "to_onehot_y": "labels are taken as they are, without one-hot encoding",
    "batch": 'it is pool="batch"',
    "batch_dice": 'it is pool="batch"',
    "do_bg": "it is include_background",
    "ddp": 'it is pool="world"',
    "smooth_nr": "it is smooth, of numerator and denominator",
    "smooth_dr": "it is smooth, of numerator and denominator",
    "eps": "it is smooth",
    "ignore_label": "it is ignore_index",
    "size_average": "it is class_reduction",
    "lambda_dice": "weights of parts are those of Compound",
    "lambda_ce": "weights of parts are those of Compound",
    "weight_ce": "weights of parts are those of Compound",
    "weight_dice": "weights of parts are those of Compound",
}


def way_out(loss: type[Loss], name: str) -> str:
    """Return what to write instead of a parameter that a loss does not have, to complete a sentence about it."""
    if name in _ELSEWHERE:
        return f": {_ELSEWHERE[name]}"
    if name in ("alpha", "beta") and "delta" in loss.arguments and "tversky" in loss.name:
        return ": with alpha on false positives and beta on false negatives, alpha + beta = 1, delta is that beta"
    return f"{closest(name, loss.arguments)}; it accepts {', '.join(loss.arguments)}"


def _by_name(loss: type[Loss], value: Any) -> str:
    """Return how to write a value that was given to the class of a loss without a name, to complete a sentence."""
    if isinstance(value, Tensor):
        return f"; the loss of logits and labels is {loss.__name__}()(logits, labels)"
    for name, argument in loss.arguments.items():
        try:
            return f", such as {name}={argument.check(name, value)!r}"
        except ValueError:
            continue
    return f": {', '.join(loss.arguments)}"


def closest(word: str, words: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the question whether the closest of `words` was meant; empty where none is close."""
    matches = difflib.get_close_matches(str(word), list(words), n=1, cutoff=cutoff)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def argument_text(loss: type[Loss], name: str) -> str:
    """Return the meaning of a parameter, its values and its default."""
    argument = loss.arguments[name]
    required = argument.default is inspect.Parameter.empty
    default = "required" if required else f"default {value_text(argument.default)}"
    return f"{loss.documentation.arguments.get(name, '')} Must be {argument.check.allowed}; {default}.".strip()


def reference(loss: type[Loss]) -> str:
    """Return source and equations of a loss; empty if the class names none."""
    equations = f" ({loss.equations})" if loss.equations else ""
    return f"{loss.source}{equations}." if loss.source else ""


def value_text(value: Any) -> str:
    """Write a value as in a call, thirds as fractions."""
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    return {4 / 3: "4/3", 1 / 3: "1/3", 0.25 / 3: "1/12"}.get(value) or repr(value)


def _arguments(loss: type[Loss]) -> dict[str, Argument]:
    shared = [field.name for field in dataclasses.fields(Loss)]
    types, annotated = get_type_hints(loss), get_type_hints(loss, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(loss)}
    arguments = {}
    for name in [*(name for name in fields if name not in shared), *shared]:
        default = fields[name].default
        default = inspect.Parameter.empty if default is dataclasses.MISSING else default
        arguments[name] = Argument(types[name], check_of(annotated[name]), default, name in shared)
    return arguments


def _documentation(loss: type[Loss], docstring: str, title: str) -> Documentation:
    """The class's own docstring, completed by those of its bases."""
    own, inherited = documentation.read(docstring, title), loss.documentation
    texts = inherited.arguments | own.arguments
    shape = inherited.shape | own.shape
    if loss.value_range and "value" not in own.shape:
        everywhere = Loss.documentation.shape.get("value", "")  # under `python -OO` there are no docstrings
        shape["value"] = f"{everywhere} In {loss.value_range}.".strip()
    return dataclasses.replace(
        own,
        where=symbols_of(own.equation, own.where),
        arguments={name: texts[name] for name in loss.arguments if name in texts},
        shape=shape,
        raises=inherited.raises | own.raises,
        example=f"{_EXAMPLE}{own.example}" if own.example else "",
    )


Loss.arguments = _arguments(Loss)
Loss.documentation = documentation.read(inspect.cleandoc(Loss.__doc__ or ""), "Loss")
