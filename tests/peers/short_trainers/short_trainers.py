"""The trainers of nnU-Net's external mechanism, shortened: found before the whole ones, under the same names."""

import functools
import os

import torch

from voxloss.nnunet.trainer import TRAINERS

if "VOXLOSS_TEST_COMPILE" in os.environ:
    # Torch records the graphs of forward and backward pass, and runs them without compiling C++, which takes minutes.
    torch.compile = functools.partial(torch.compile, backend="aot_eager")


class Short:
    """Two epochs of three steps, and validation without the eight mirrored copies."""

    def initialize(self):
        self.num_epochs = int(os.environ.get("VOXLOSS_TEST_EPOCHS", "2"))
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 3, 1
        super().initialize()

    def _do_i_compile(self):  # which nnU-Net never does on a CPU
        return "VOXLOSS_TEST_COMPILE" in os.environ

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):
        *others, mirror_axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = None
        return *others, mirror_axes


globals().update({name: type(name, (Short, trainer), {}) for name, trainer in TRAINERS.items()})
