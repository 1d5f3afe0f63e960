"""The networks of a study's configuration: the one of section `network`, or those that `comparison.networks` lists."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal

from voxloss.config.checks import Check, Section
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import did_you_mean

UNET = "unet"  # the name of our own network
LONGEST_KEY = 100  # characters; it names a folder
KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._=+,-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class NetworkConfig(Section):
    """The U-Net, or another network.

    Args:
        name: "unet" (3D, and 2D where the cases are images or the patches slices), or the import path of a class such
            as monai.networks.nets.SegResNet. Where the network returns several outputs in training, the loss supervises
            all of them. "unet3d" is the earlier name of "unet".
        arguments: Arguments of a network given by its import path; in_channels, out_channels, spatial_dims and the
            like are filled in automatically.
        filters: Channels of the U-Net at the top level; doubled at every level.
        depth: Number of poolings of the U-Net.
        norm: Normalisation of the U-Net. The paper uses batch normalisation; with a batch of two and few steps its
            running averages are poor, so instance normalisation is the default elsewhere.
    """

    section: ClassVar[str] = "network"

    name: str = UNET
    arguments: dict[str, Any] = field(default_factory=dict)
    filters: int = 32
    depth: int = 4
    norm: Literal["batch", "instance"] = "instance"

    def __post_init__(self) -> None:
        if self.name == "unet3d":  # what it is called in older files
            object.__setattr__(self, "name", UNET)
        super().__post_init__()

    def checks(self) -> Iterable[Check]:
        """Yield the conditions that the values must meet."""
        yield Check(
            "arguments",
            not self.arguments or self.name != UNET,
            self.arguments,
            "empty for unet, whose settings are network.filters, depth and norm",
        )
        yield Check("filters", self.filters >= 1, self.filters, "at least 1")
        yield Check("depth", self.depth >= 1, self.depth, "at least 1")


@dataclass(frozen=True)
class NetworkChoice:
    """A network that a study compares.

    Args:
        key: Its name in tables and on the page, and of its folder.
        setting: What section `network` has of it.
    """

    key: str
    setting: NetworkConfig


def network_choices(entries: Sequence[str | Mapping[str, Any]], section: NetworkConfig) -> list[NetworkChoice]:
    """Return the networks that `comparison.networks` lists, in order; whether they can be built is not checked.

    An entry is a name as `network.name` takes it, or a mapping of keys of section `network` and `label`. What the entry
    of a U-Net leaves out is as in section `network`.

    Args:
        entries: `comparison.networks`.
        section: Section `network`.

    Raises:
        InputError: An entry has no name, a key that there is not, a value of the wrong type or a label that cannot name
            a folder, or two entries would have the same folder.
    """
    choices = [_choice({"name": entry} if isinstance(entry, str) else entry, section) for entry in entries]
    for place, choice in enumerate(choices):
        for other in choices[:place]:
            if choice.setting == other.setting:
                raise InputError(f"The network {choice.key!r} is listed twice in comparison.networks.")
            if choice.key.casefold() == other.key.casefold():  # one folder, where a file system knows no case
                names = repr(choice.key) if choice.key == other.key else f"{other.key!r} and {choice.key!r}"
                raise InputError(
                    f"comparison.networks has two networks whose folders would be called {names}; give one of them "
                    f"another label: {{name: {choice.setting.name}, label: NAME}}."
                )
    return choices


def _choice(entry: Mapping[str, Any], section: NetworkConfig) -> NetworkChoice:
    kinds = {"name": str, "arguments": dict, "filters": int, "depth": int, "norm": str, "label": str}
    words = {str: "a text", dict: "a mapping", int: "a whole number"}
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise InputError(
            f"A network of comparison.networks is a name or a mapping with `name` and its settings; received {entry!r}."
        )
    for key, value in entry.items():
        if key not in kinds:
            raise InputError(
                f"comparison.networks: {name} has the unknown key {key!r}; the keys are {', '.join(kinds)}"
                f"{did_you_mean(str(key), kinds) or '.'}"
            )
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            raise InputError(f"comparison.networks: {key} of {name} takes {words[kinds[key]]}; received {value!r}.")
    if entry.get("norm", "batch") not in ("batch", "instance"):
        raise InputError(f"comparison.networks: norm of {name} takes batch or instance; received {entry['norm']!r}.")
    own = {item.name: entry[item.name] for item in fields(NetworkConfig) if item.name in entry}
    named = NetworkConfig(name)
    unused = [key for key in ("filters", "depth", "norm") if key in own]
    if named.name != UNET and unused:
        raise InputError(
            f"comparison.networks: {unused[0]} is a setting of unet; what {name} takes goes into its `arguments`."
        )
    same = named.name == section.name
    try:
        setting = replace(section, **({"arguments": section.arguments if same else {}} | own))
    except InputError as error:
        raise InputError(f"comparison.networks: {error}") from error
    label = entry.get("label")
    return NetworkChoice(_key(setting, own) if label is None else _checked(label), setting)


def _key(setting: NetworkConfig, own: Mapping[str, Any]) -> str:
    """Name a network by its class and by what its entry sets: unet-filters=16, SegResNet-init_filters=8."""
    listed = {key: value for key, value in own.items() if key not in ("name", "arguments")}
    listed |= own.get("arguments", {})
    text = "-".join([setting.name.rpartition(".")[2], *(f"{key}={_short(value)}" for key, value in listed.items())])
    key = re.sub(r"[^A-Za-z0-9._=+,-]", "_", text).strip("._=+,-")
    if len(key) > LONGEST_KEY:
        raise InputError(
            f"comparison.networks: the settings of {setting.name} are too long for the name of a folder; give it a "
            f"short name: {{name: {setting.name}, label: NAME, ...}}."
        )
    return key or "network"  # never the name, which may hold slashes and names a folder


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(map(_short, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _checked(label: str) -> str:
    if KEY.fullmatch(label) is None or len(label) > LONGEST_KEY:
        raise InputError(
            f"comparison.networks: the label {label!r} cannot name a folder; take letters, digits and . _ = + , - "
            f"within it, {LONGEST_KEY} characters at most."
        )
    return label
