"""The trainers of all losses, as nnU-Net looks for them: attributes of a module."""

from voxloss.nnunet.trainer import TRAINERS

globals().update(TRAINERS)
