"""The losses of a study's configuration: their names, parameters and keys; the package's, and those of users."""

import hashlib
import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, cast

from voxloss.utilities.errors import InputError
from voxloss.utilities.imports import import_attribute, parts_of_module

if TYPE_CHECKING:
    from torch import nn

    from voxloss.losses.own import LabelForm

LONGEST_KEY = 200  # bytes; file systems take 255 for a folder's name
TUNED = "-tuned"  # ends the key of a loss at the setting that a search chose


@dataclass(frozen=True)
class LossChoice:
    """A loss of the study.

    Args:
        name: Its catalogue name, or the import path of a loss of the user's own, which has a dot.
        parameters: Those that differ from the loss's defaults.
        title: What the page calls an own loss; None: as its class says.
        labels: The form of labels that an own loss takes (`voxloss.losses.own.OwnLoss`).
        tuned: Whether it is the loss at the setting that a search chose for each fold (`comparison.tuning`);
            `parameters` are those that it is listed with.
    """

    name: str
    parameters: dict[str, Any]
    title: str | None = None
    labels: str = "index"
    tuned: bool = False

    @classmethod
    def of(cls, entry: str | dict[str, Any]) -> Self:
        """From an entry of `comparison.losses`: a name, or a mapping with `name` and parameters.

        The mapping of an own loss may also have `title` and `labels`.

        Raises:
            InputError: A mapping without a name, or a title or form of labels that is none.
        """
        if isinstance(entry, str):
            return cls(entry, {})
        name = entry.get("name")
        if not isinstance(name, str):
            raise InputError(f"A loss is a name or a mapping with `name` and its parameters; received {entry!r}.")
        parameters = {key: value for key, value in entry.items() if key != "name"}
        if "." not in name:
            return cls(name, parameters)
        title, labels = parameters.pop("title", None), parameters.pop("labels", "index")
        if title is not None and (not isinstance(title, str) or not title.strip()):
            raise InputError(f"{name}: the title must be a text; received {title!r}.")
        if labels not in ("index", "channel", "one_hot"):
            raise InputError(f"{name}: labels must be index, channel or one_hot; received {labels!r}.")
        return cls(name, parameters, title, labels)

    @property
    def listed(self) -> "LossChoice":
        """The loss as `comparison.losses` lists it."""
        return replace(self, tuned=False)

    @property
    def own(self) -> bool:
        """Whether it is a loss of the user's own, named by its import path."""
        return "." in self.name

    @property
    def key(self) -> str:
        """Its folder's name and its value in the tables' `loss` column: focal, focal-gamma=3, mypackage.MyLoss.

        A long one is cut and ends with a digest, since it names a folder. A tuned loss has "-tuned" after it.
        """
        if self.tuned:
            return self.listed.key + TUNED
        named = self.parameters if self.labels == "index" else self.parameters | {"labels": self.labels}
        key = "-".join([self.name, *(f"{name}={_short(value)}" for name, value in sorted(named.items()))])
        if len(key.encode()) <= LONGEST_KEY:
            return key
        digest = hashlib.blake2b(key.encode(), digest_size=6).hexdigest()
        return f"{key.encode()[: LONGEST_KEY - 20].decode(errors='ignore')}-{digest}"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        named = [str(value["name"])] if "name" in value else []
        return ",".join([*named, *(f"{key}={_short(item)}" for key, item in value.items() if key != "name")])
    if isinstance(value, list | tuple):
        return "+".join(_short(item) for item in value)
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace("/", "_")


def loss_choices(entries: Sequence[str | dict[str, Any]]) -> list[LossChoice]:
    """The losses that `comparison.losses` lists, in order; names and parameters are not checked.

    Raises:
        InputError: An entry without a name, or the same loss twice.
    """
    choices = [LossChoice.of(entry) for entry in entries]
    keys = [choice.key for choice in choices]
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(f"The loss {key!r} is listed twice in comparison.losses.")
    return choices


def build_loss(choice: LossChoice, ignore_index: int | None = None) -> "nn.Module":
    """Build a loss, called as `loss(logits, labels)`, which leaves the voxels of a label out.

    Raises:
        InputError: An own loss cannot be imported or built, or cannot ignore voxels.
        TypeError, ValueError: A loss of the package is unknown, or a parameter is unknown or has a wrong value.
    """
    from voxloss.losses import get_loss  # imports torch, which listing a study's losses need not wait for
    from voxloss.losses.own import own_loss

    if ignore_index is not None and choice.parameters.get("ignore_index") is not None:
        raise InputError(f"{choice.name}: ignore_index cannot be set, as the data set itself ignores a value.")
    if not choice.own:
        reading = {} if ignore_index is None else {"ignore_index": ignore_index}
        return get_loss(choice.name, **choice.parameters | reading)
    part = import_attribute(choice.name, "the loss")
    try:
        form = cast("LabelForm", choice.labels)
        return own_loss(choice.name, part, choice.parameters, labels=form, ignore_index=ignore_index)
    except ValueError as error:
        raise InputError(f"the loss {error}") from error


def takes_whole_numbers(choice: LossChoice, parameter: str) -> bool:
    """Whether a parameter of a loss is annotated as a whole number."""
    from voxloss.losses.catalogue import loss_class  # imports torch, as in `build_loss`

    if not choice.own:
        return loss_class(choice.name).arguments[parameter].type is int
    found = _signature(choice).get(parameter)
    return found is not None and found.annotation in (int, "int")


def listed_value(choice: LossChoice, parameter: str, learning_rate: float) -> Any:
    """Return the value of a searched parameter without a search: as listed, or the loss's default; None without one.

    Args:
        choice: The loss.
        parameter: Its parameter, or "learning_rate".
        learning_rate: That of the study.
    """
    from voxloss.losses.catalogue import loss_class  # as above

    if parameter == "learning_rate":
        return learning_rate
    if parameter in choice.parameters:
        return choice.parameters[parameter]
    if not choice.own:
        return loss_class(choice.name).arguments[parameter].default
    found = _signature(choice).get(parameter)
    return None if found is None or found.default is found.empty else found.default


def _signature(choice: LossChoice) -> Mapping[str, inspect.Parameter]:
    """The parameters of an own loss; none where its signature is not known."""
    try:
        return inspect.signature(import_attribute(choice.name, "the loss")).parameters
    except (TypeError, ValueError):
        return {}


def _trains_background(loss: "nn.Module") -> bool:
    """Whether the gradient reaches the first output, as it does with any loss of a softmax."""
    import torch  # as above

    logits = torch.zeros(1, 3, 4, 4, 4, requires_grad=True)
    labels = torch.arange(64).reshape(1, 4, 4, 4) % 3
    (gradient,) = torch.autograd.grad(loss(logits, labels), logits)
    return bool(gradient[:, 0].any())


def check_losses(choices: Sequence[LossChoice]) -> None:
    """Build every loss once, to check its name and parameters.

    Raises:
        InputError: An unknown loss, a parameter that is unknown or has a value that it cannot have, or a package that
            the loss needs is not installed.
    """
    from voxloss.losses import Compound, Loss  # imports torch, which listing losses need not wait for

    for choice in choices:
        try:
            loss = build_loss(choice)
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            unknown = str(error).startswith("unknown loss")
            if unknown and (module := parts_of_module(choice.name)):
                raise InputError(f"the loss {module}") from error
            hint = "; a loss of your own is named by its import path, such as mypackage.MyLoss"
            raise InputError(f"{error}{hint if unknown else ''}") from error
        if not choice.own and loss.name != choice.name:
            raise InputError(f"the loss {choice.name!r} is called {loss.name!r} in a study")
        parts = [part for part in loss.modules() if isinstance(part, Loss) and not isinstance(part, Compound)]
        if any(part.reduction != "mean" or part.class_reduction == "none" for part in parts):
            raise InputError(f"the loss {choice.key!r} gives several values, but training needs one")
        if any(part.activation == "sigmoid" for part in parts) and not _trains_background(loss):
            raise InputError(
                f"the loss {choice.key!r} does not train the network's output for the background, and a study predicts "
                "the class with the largest output; leave include_background at true, or take activation softmax"
            )
        if isinstance(loss, Loss) and loss.formula.tubes and importlib.util.find_spec("skimage") is None:
            raise InputError(
                f"the loss {choice.key!r} needs scikit-image, which is not installed: pip install 'voxloss[skeletons]'"
            )
