"""Losses that users write themselves: a subclass of `Loss`, any module, or a function of logits and labels."""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from voxloss.losses.loss import Loss

LabelForm = Literal["index", "channel", "one_hot"]

_IGNORED = "an ignored label, or voxels outside a region_of_interest"
_ROUNDING = 1e-6  # of the largest gradient, below which an ignored voxel's counts as none


class _ReturnError(TypeError, ValueError):
    """A loss returns what cannot be trained on, whatever labels it gets."""


class OwnLoss(nn.Module):
    """A module or function of logits and labels as a loss of a training.

    It gets float32 logits, whatever the network's precision is, and no autocast; labels as it wants them; and has one
    value.

    Args:
        name: Its import path.
        function: Called as `function(logits, labels)`: a module, or a function with its parameters bound.
        labels: "index": int64 (B, *spatial). "channel": int64 (B, 1, *spatial), as in MONAI. "one_hot": float32
            (B, C, *spatial).
    """

    def __init__(self, name: str, function: Callable[..., Any], labels: LabelForm = "index") -> None:
        super().__init__()
        self.name, self.labels = name, labels
        self.function = function  # a module is registered with its buffers

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss: logits (B, C, *spatial), labels (B, *spatial) or (B, 1, *spatial) of whole numbers.

        Raises:
            TypeError: The function returns something else than a tensor.
            ValueError: The function returns several values.
        """
        if labels.ndim == logits.ndim:
            labels = labels[:, 0]
        labels = labels.long()
        if self.labels == "channel":
            labels = labels[:, None]
        elif self.labels == "one_hot":
            labels = nn.functional.one_hot(labels, logits.shape[1]).movedim(-1, 1).float()
        with torch.autocast(logits.device.type, enabled=False):
            value = self.function(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels)
        if not isinstance(value, Tensor):
            raise _ReturnError(f"{self.name} returns {_article(type(value).__name__)}, but training needs a tensor")
        if value.numel() != 1:
            raise _ReturnError(
                f"{self.name} returns values of the shape {tuple(value.shape)}, but training needs one; let it return "
                "their mean"
            )
        return value.reshape(())

    def extra_repr(self) -> str:
        """Return the import path."""
        return self.name


def own_loss(
    name: str,
    part: Any,
    parameters: Mapping[str, Any] | None = None,
    *,
    labels: LabelForm = "index",
    ignore_index: int | None = None,
) -> Loss | OwnLoss:
    """Return a user's loss as `loss(logits, labels)`.

    Args:
        name: Its import path, for messages.
        part: A class, which is called with the parameters; a function of logits and labels, which gets them at every
            call; or a module, which is copied and takes none.
        parameters: Its parameters.
        labels: The form of labels that it takes, as in `OwnLoss`; "index" for subclasses of `Loss`.
        ignore_index: Label of voxels that do not count. A subclass of `Loss` ignores it; another class must have it as
            a parameter `ignore_index`, or its call must, or a function.

    Raises:
        ValueError: The parameters do not fit, the part is none of these, has trainable parameters, or cannot ignore
            voxels; the message says which and the way out.
    """
    parameters = dict(parameters or {})
    if labels not in get_args(LabelForm):
        raise ValueError(f"{name}: labels must be index, channel or one_hot, not {labels!r}")
    if isinstance(part, Loss) or (inspect.isclass(part) and issubclass(part, Loss)):
        if labels != "index":
            raise ValueError(f"{name}: a subclass of voxloss.Loss takes labels as they are; leave `labels` out")
        loss: Loss = _made(name, part, parameters)
        if ignore_index is not None:
            loss.ignore_index = ignore_index
        _refuse_trainable(name, loss)
        return loss
    if ignore_index is not None and labels == "one_hot":
        raise ValueError(
            f"{name}: the data set has ignored voxels ({_IGNORED}), which one-hot targets cannot mark; take labels: "
            "index and a parameter ignore_index"
        )
    if inspect.isclass(part) or isinstance(part, nn.Module):
        by_class = ignore_index is not None and inspect.isclass(part) and "ignore_index" in _names(part)
        module = _made(name, part, parameters | ({"ignore_index": ignore_index} if by_class else {}))
        if not callable(module):
            raise ValueError(f"{name} has no forward(logits, labels)")
        call = module.forward if isinstance(module, nn.Module) else module
        own = OwnLoss(name, module, labels)
        _refuse_trainable(name, own)
        if ignore_index is not None and not by_class:
            _require_ignoring(name, call)
            own.function = _Bound(module, {"ignore_index": ignore_index})
        return own
    if not callable(part):
        raise ValueError(
            f"{name} is {_article(type(part).__name__)}, not a class, a module or a function of logits and labels"
        )
    if ignore_index is not None:
        _require_ignoring(name, part)
        parameters["ignore_index"] = ignore_index
    _require_arguments(name, part, parameters)
    return OwnLoss(name, _Bound(part, parameters) if parameters else part, labels)


class _Bound(nn.Module):
    """A function with some of its arguments; a module stays registered, so that its buffers are moved and saved."""

    def __init__(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self.function, self.arguments = function, dict(arguments)

    def forward(self, logits: Tensor, labels: Tensor) -> Any:
        return self.function(logits, labels, **self.arguments)


def _made(name: str, part: Any, parameters: Mapping[str, Any]) -> Any:
    if not inspect.isclass(part):
        if parameters:
            raise ValueError(f"{name} is an object that exists already, so it takes no parameters; name its class")
        return copy.deepcopy(part)
    try:
        return part(**parameters)
    except Exception as error:  # a constructor of a user may raise anything
        raise ValueError(f"{name} cannot be built with the parameters {dict(parameters)}: {_reason(error)}") from error


def _names(function: Callable[..., Any]) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # some builtins have no signature
        return set()


def _require_ignoring(name: str, function: Callable[..., Any]) -> None:
    if "ignore_index" not in _names(function):
        raise ValueError(
            f"{name} cannot ignore voxels, but the data set has ignored ones ({_IGNORED}); give it a parameter "
            "ignore_index, which gets their label"
        )


def _require_arguments(name: str, function: Callable[..., Any], parameters: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(None, None, **parameters)
    except TypeError as error:
        raise ValueError(f"{name} must take logits, labels and its parameters: {error}") from error


def _refuse_trainable(name: str, module: nn.Module) -> None:
    trainable = [parameter for parameter, value in module.named_parameters() if value.requires_grad]
    if trainable:
        raise ValueError(
            f"{name} has trainable parameters ({trainable[0].removeprefix('function.')}), but the optimiser trains the "
            "network alone; make them buffers, or call requires_grad_(False)"
        )


def try_loss(
    loss: nn.Module,
    name: str,
    classes: int,
    size: Sequence[int],
    batch_size: int = 2,
    ignore_index: int | None = None,
    device: torch.device | str = "cpu",
) -> None:
    """Compute a loss and its gradient on random logits, so that a mistake shows before anything is trained.

    Args:
        loss: Called as `loss(logits, labels)`; what it keeps between calls may change.
        name: Its import path, for messages.
        classes: Number of classes.
        size: The patch.
        batch_size: Patches per step.
        ignore_index: Label of ignored voxels, which must get no gradient; None: there are none.
        device: Where the networks are trained.

    Raises:
        ValueError: The loss raises an error, is not one finite number, has no gradient, or fails on patches of the
            background alone, or ignored voxels get a gradient; the message says which.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, *size)
    values = torch.randn((batch_size, classes, *size), generator=generator)
    labels = torch.randint(classes, shape, generator=generator).to(torch.uint8)
    state = torch.random.get_rng_state()
    try:
        _gradient(loss, name, values.to(device), labels.to(device), "random labels")
        _gradient(loss, name, values.to(device), torch.zeros_like(labels).to(device), "a patch of background alone")
        if ignore_index is None:
            return
        ignored = torch.rand(shape, generator=generator) < 0.3
        labels[ignored] = ignore_index
        gradient = _gradient(loss, name, values.to(device), labels.to(device), "labels with ignored voxels").cpu()
    finally:
        torch.random.set_rng_state(state)
    if gradient.movedim(1, -1)[ignored].abs().max() > _ROUNDING * gradient.abs().max():
        raise ValueError(f"{name} trains on ignored voxels, although it takes ignore_index")


def _gradient(loss: nn.Module, name: str, values: Tensor, labels: Tensor, on: str) -> Tensor:
    logits = values.clone().requires_grad_()
    try:
        value = loss(logits, labels)
    except _ReturnError as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # of a user's loss, which may raise anything
        form = getattr(loss, "labels", "index")
        hint = f"; it got labels: {form}, and can have any of {', '.join(get_args(LabelForm))}" if form else ""
        raise ValueError(
            f"{name} fails on {on} (logits {tuple(logits.shape)}, labels {tuple(labels.shape)}): {_reason(error)}{hint}"
        ) from error
    if not value.isfinite():
        raise ValueError(f"{name} is {value.item()} on {on}, so training would end there")
    if not value.requires_grad:
        raise ValueError(
            f"{name} has no gradient: its value does not depend on the logits, or is computed without gradients, as "
            "through argmax"
        )
    (gradient,) = torch.autograd.grad(value, logits, allow_unused=True)
    if gradient is None or not gradient.isfinite().all():
        raise ValueError(f"{name} has a gradient on {on} that is not finite")
    return gradient


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
