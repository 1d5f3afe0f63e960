"""Names of trainers and what a training notes about its loss; needs neither torch nor nnU-Net."""

from pathlib import Path

PREFIX = "nnUNetTrainerVoxloss"
RECORD = "voxloss.json"  # in a fold's folder: which loss it was trained with


def trainer_name(loss: str) -> str:
    """The trainer's class name: "mixed_focal" has nnUNetTrainerVoxlossMixedFocal."""
    return PREFIX + "".join(part.capitalize() for part in loss.split("_"))


def trainers_folder() -> Path:
    """The folder that nnU-Net's environment variable `nnUNet_extTrainer` must name."""
    return Path(__file__).parent / "external"
