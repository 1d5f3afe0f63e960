"""Deprecated name of `voxloss.losses`; it will be removed in 0.2."""

from voxloss.losses.deprecated import moved

moved(__name__, "voxloss.losses")
