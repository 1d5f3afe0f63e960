"""Bfloat16 on a CPU, in memory that is full of NaN before anyone writes to it."""

import subprocess
import sys

import pytest

POISONED = """
import ctypes
libc = ctypes.CDLL("libc.so.6")
M_PERTURB, M_MMAP_THRESHOLD = -6, -3
assert libc.mallopt(M_MMAP_THRESHOLD, 1 << 30) and libc.mallopt(M_PERTURB, 256)  # new memory is 0xFF...: NaN
import torch
assert torch.empty(1000).isnan().all()
torch.set_num_threads(1)
from torch import nn
from voxloss.config.schema import StudyConfig, TrainingConfig
from voxloss.training.precision import autocast, place

cpu, setting = torch.device("cpu"), TrainingConfig(precision="bfloat16")
torch.manual_seed(0)

def gradient(layer, image, upstream=None):
    layer.weight.grad = None
    with autocast(cpu, setting if upstream is None else TrainingConfig()):
        out = layer(image)
    upstream = torch.randn(out.shape) if upstream is None else upstream
    out.backward(upstream.to(out.dtype))
    return layer.weight.grad.clone(), upstream

for make in (nn.Conv3d, nn.ConvTranspose3d):
    for kernel, dilation in ((3, 1), (5, 1), (3, 2)):
        for size in ((2, 4, 4), (2, 6, 5), (3, 3, 7), (4, 2, 2), (8, 8, 8)):
            layer = make(6, 8, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False)
            image = torch.randn(2, 6, *size)
            exact = make(6, 8, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False)
            exact.load_state_dict(layer.state_dict())
            place(layer, cpu, StudyConfig(training=setting))
            ours, upstream = gradient(layer, image.to(memory_format=torch.channels_last_3d))
            truth, _ = gradient(exact, image, upstream)
            error = float((ours - truth).norm() / truth.norm())
            assert error < 0.01, (make.__name__, kernel, dilation, size, error)
print("checked")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="fills new memory by glibc's mallopt")
def test_gradients_of_small_convolutions_do_not_read_uninitialised_memory():
    result = subprocess.run([sys.executable, "-c", POISONED], capture_output=True, text=True)
    assert result.stdout.strip() == "checked", result.stderr[-2000:]
