"""The trainers of all losses as attributes of a module, where nnU-Net looks for them."""

from voxloss.nnunet.trainer import TRAINERS

globals().update(TRAINERS)
