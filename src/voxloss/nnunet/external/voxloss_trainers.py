"""The trainers of all losses as attributes of a module, where nnU-Net looks for them."""

from voxloss.nnunet.trainer import TRAINERS, VoxlossTrainer, own_trainer

globals().update(TRAINERS)


def __getattr__(name: str) -> type[VoxlossTrainer]:
    """Return the trainer of a user's own loss: nnUNetTrainerVoxloss_mypackage.MyLoss."""
    return own_trainer(name)
