"""Parameters of a loss in nnU-Net: from a file beside the plans and from the environment."""

import json
import os
from pathlib import Path
from typing import Any

FILE = "voxloss.yaml"
VARIABLE = "VOXLOSS_PARAMETERS"


def read_parameters(loss: str, folder: Path | None) -> dict[str, Any]:
    """Read the parameters of a loss: those of FOLDER/voxloss.yaml, overridden by VOXLOSS_PARAMETERS.

    The file maps names of losses to their parameters, the variable has the parameters of the loss that is trained:

        mixed_focal: {weight: 0.5, gamma_focal: 3}      # voxloss.yaml
        VOXLOSS_PARAMETERS='{weight: 0.5, gamma_focal: 3}'

    folder: that of the data set's plans, `nnUNet_preprocessed/DATASET`.

    Raises:
        ValueError: Something else than such mappings; the message names the file or the variable.
    """
    parameters: dict[str, Any] = {}
    path = None if folder is None else folder / FILE
    if path is not None and path.is_file():
        content = _mapping(path.read_text(encoding="utf-8"), str(path))
        parameters |= _mapping(content.get(loss), f"{path}, {loss}")
    return parameters | _mapping(os.environ.get(VARIABLE), VARIABLE)


def _mapping(value: Any, source: str) -> dict[str, Any]:
    if isinstance(value, str):
        import yaml  # optional: voxloss without its bench extra does not install PyYAML

        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"{source} is not readable as YAML: {' '.join(str(error).split())}") from None
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{source} must be a mapping of names to values, received {value!r}")
    return value


def check_unchanged(path: Path, record: dict[str, Any]) -> None:
    """Refuse to resume a training with another loss or other parameters than its record has.

    Raises:
        ValueError: Naming both; or the record is damaged.
    """
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        before = {"loss": before["loss"], "parameters": before["parameters"]}
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); delete it to start this training again") from None
    now = {name: record[name] for name in before}
    if before != json.loads(json.dumps(now)):
        raise ValueError(
            f"this training began with {before['loss']} and the parameters {before['parameters']}, but now "
            f"has {now['loss']} with {now['parameters']}; use the first ones again, or another folder as nnUNet_results"
        )
