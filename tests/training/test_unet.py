"""The network has the shape that the paper's framework gives it."""

import pytest
import torch
from torch import nn

from voxloss.training.unet import UNet, pooling_strides


def test_the_papers_patches_are_halved_on_every_axis_at_every_level():
    assert pooling_strides((80, 160, 160), 4) == [(2, 2, 2)] * 4
    assert pooling_strides((96, 96, 96), 4) == [(2, 2, 2)] * 4


def test_short_or_odd_axes_are_halved_less_often():
    assert pooling_strides((8, 48, 48), 4) == [(2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2)]
    with pytest.raises(ValueError, match=r"even and at least 4 voxels long, or 1; received \(7, 48, 48\)"):
        pooling_strides((7, 48, 48), 2)


def test_the_number_of_parameters_is_that_of_the_described_network():
    """Counted by hand: two 3x3x3 convolutions with batch normalisation a level, 2x2x2 transposed convolutions."""
    filters, depth, classes = 4, 2, 3
    expected = 0

    def double(inputs, outputs):
        return sum(27 * i * outputs + outputs + 2 * outputs for i in (inputs, outputs))

    expected += double(1, 4) + double(4, 8) + double(8, 16)
    expected += (8 * 16 * 8 + 8) + double(16, 8) + (8 * 8 * 4 + 4) + double(8, 4)
    expected += 4 * classes + classes
    network = UNet(1, classes, (8, 8, 8), filters, depth, "batch")
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_logits_have_the_images_shape_and_all_weights_learn(norm):
    network = UNet(2, 3, (8, 16, 12), filters=4, depth=3, norm=norm)
    logits = network(torch.randn(2, 2, 8, 16, 12))
    assert logits.shape == (2, 3, 8, 16, 12)
    (logits**2).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith("bias"):  # a bias before a normalisation has no effect
            assert parameter.grad.abs().sum() > 0, name


def test_batch_normalisation_averages_as_keras_does():
    network = UNet(1, 2, (8, 8, 8), filters=4, depth=1, norm="batch")
    momenta = {module.momentum for module in network.modules() if isinstance(module, torch.nn.BatchNorm3d)}
    assert momenta == {0.01}


def volumetric(axis: int) -> nn.Module:
    """The layers of a U-Net for slices across an axis as 3D layers, which an earlier version had."""
    network = UNet(2, 3, (8, 16, 12), filters=4, depth=1, norm="instance")
    kernels = [3, 3, 3]
    kernels[axis] = 1
    for parent in [*network.modules()]:
        for name, layer in [*parent.named_children()]:
            if isinstance(layer, nn.Conv3d) and layer.kernel_size != (1, 1, 1):
                padding = tuple(size // 2 for size in kernels)
                setattr(parent, name, nn.Conv3d(layer.in_channels, layer.out_channels, tuple(kernels), padding=padding))
            strides = tuple(1 if kernel == 1 else 2 for kernel in kernels)
            if isinstance(layer, nn.ConvTranspose3d):
                setattr(parent, name, nn.ConvTranspose3d(layer.in_channels, layer.out_channels, strides, strides))
            if isinstance(layer, nn.MaxPool3d):
                parent._modules[name] = nn.MaxPool3d(strides)
    return network


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_seen_by_2d_layers_as_3d_layers_see_them(axis):
    """Also with weights that 3D layers left behind."""
    size = [16, 12]
    size.insert(axis, 1)
    before, now = volumetric(axis), UNet(2, 3, tuple(size), filters=4, depth=1, norm="instance")
    assert {weight.ndim for weight in before.parameters()} == {1, 5}
    assert {weight.ndim for weight in now.parameters()} == {1, 4}
    now.load_state_dict(before.state_dict())
    image = torch.randn(2, 2, *size)
    torch.testing.assert_close(now(image), before(image))


def test_weights_of_another_network_are_refused():
    with pytest.raises(RuntimeError, match="size mismatch"):
        UNet(1, 2, (1, 8, 8), 4, 1).load_state_dict(UNet(1, 2, (8, 8, 8), 4, 1).state_dict())
