"""Predict whole volumes by overlapping windows whose probabilities are averaged."""

from collections.abc import Callable

import numpy as np
import torch

from voxloss.config.settled import SettledConfig
from voxloss.data.patches import padding_before
from voxloss.training.networks import outputs
from voxloss.training.precision import autocast, layout
from voxloss.utilities.arrays import Float32s


@torch.no_grad()
def predict_probabilities(
    network: torch.nn.Module,
    image: Float32s,
    config: SettledConfig,
    before_windows: Callable[[], None] = lambda: None,
) -> Float32s:
    """Predict the class probabilities of a prepared volume.

    Args:
        network: Maps patches of `config.patches.size` to logits; of several outputs the first is used. The windows are
            computed on its device.
        image: float32 (channels, *spatial). A volume smaller than a patch is padded like a training patch.
        config: Has patch size, overlap (share of a patch), the windows' weights, precision and memory layout.
        before_windows: Called before every few windows; an exception from it ends the prediction.

    Returns:
        float32 (classes, *spatial), which sum to one over the classes.
    """
    # MONAI takes seconds to import, which a run should not spend before it trains.
    from monai.inferers.utils import sliding_window_inference

    setting = config.patches
    network.eval()
    device = next(network.parameters()).device
    axes = list(zip(image.shape[1:], setting.size, strict=True))
    before = [padding_before(extent, size) for extent, size in axes]
    padding = [(start, max(0, size - extent - start)) for start, (extent, size) in zip(before, axes, strict=True)]
    padded = np.stack([np.pad(channel, padding, constant_values=channel.min()) for channel in image])

    def probabilities(windows: torch.Tensor) -> torch.Tensor:
        before_windows()
        windows = windows.contiguous(memory_format=layout(config))
        with autocast(device, config.training):
            logits = outputs(network(windows))[0]
        return torch.softmax(logits.float(), dim=1)

    result = sliding_window_inference(
        torch.from_numpy(padded)[None],
        roi_size=setting.size,
        sw_batch_size=setting.batch_size,
        predictor=probabilities,
        overlap=setting.overlap,
        mode=setting.window,
        sw_device=device,
        device=torch.device("cpu"),
    )
    inside = tuple(slice(start, start + extent) for start, extent in zip(before, image.shape[1:], strict=True))
    return result[0].numpy()[(slice(None), *inside)]
