"""Names of trainers, and the record of a training's loss; needs neither torch nor nnU-Net."""

from pathlib import Path

PREFIX = "nnUNetTrainerVoxloss"
OWN_PREFIX = f"{PREFIX}_"  # followed by an import path
RECORD = "voxloss.json"  # in a fold's folder: which loss it was trained with


def trainer_name(loss: str) -> str:
    """Return the class name of a loss's trainer: nnUNetTrainerVoxlossMixedFocal for "mixed_focal".

    That of a user's own loss, which has an import path, ends with it: nnUNetTrainerVoxloss_mypackage.MyLoss.
    """
    if "." in loss:
        return f"{OWN_PREFIX}{loss}"
    return PREFIX + "".join(part.capitalize() for part in loss.split("_"))


def trainers_folder() -> Path:
    """Return the folder for nnU-Net's environment variable `nnUNet_extTrainer`."""
    return Path(__file__).parent / "external"
