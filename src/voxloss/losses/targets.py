"""Deprecated name of `voxloss.losses.voxel_pass.targets`; it will be removed in 0.2."""

from voxloss.losses.deprecated import moved

moved(__name__, "voxloss.losses.voxel_pass.targets")
