"""Prediction of whole volumes by overlapping windows, averaged as probabilities."""

from collections.abc import Callable

import numpy as np
import torch

from voxloss.config import PatchesConfig, TrainingConfig
from voxloss.data.patches import padding_before
from voxloss.training.networks import outputs
from voxloss.training.precision import autocast


@torch.no_grad()
def predict_probabilities(
    network: torch.nn.Module,
    image: np.ndarray,
    setting: PatchesConfig,
    training: TrainingConfig = TrainingConfig(),  # noqa: B008, a frozen value
    before_windows: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Class probabilities of a prepared volume.

    Args:
        network: logits of patches of `setting.size`, the first where there are several; its device is used for the
            windows.
        image: float32 (channels, *spatial). A volume smaller than a patch is padded like a training patch.
        setting: patch size, overlap (part of a patch) and the windows' weights.
        training: tells the precision of the network's arithmetic.
        before_windows: called before every few windows; what it raises ends the prediction.

    Returns:
        float32 (classes, *spatial); they sum to one over the classes.
    """
    from monai.inferers import sliding_window_inference

    if setting.size is None:
        raise ValueError("the patch size is not set")
    network.eval()
    device = next(network.parameters()).device
    axes = list(zip(image.shape[1:], setting.size, strict=True))
    before = [padding_before(extent, size) for extent, size in axes]
    padding = [(start, max(0, size - extent - start)) for start, (extent, size) in zip(before, axes, strict=True)]
    padded = np.stack([np.pad(channel, padding, constant_values=channel.min()) for channel in image])

    def probabilities(windows: torch.Tensor) -> torch.Tensor:
        before_windows()
        windows = windows.contiguous(memory_format=torch.channels_last_3d)
        with autocast(device, training):
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
