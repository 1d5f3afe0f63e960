"""Triton's own compiler accepts the kernels, down to the machine code of a GPU, on a machine that has none."""

import subprocess
import sys

import pytest

pytest.importorskip("triton", minversion="3.5")

SCRIPT = """
import itertools

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from voxloss.losses.voxel_pass import triton as triton_kernels

# The kernels are private: what is public launches them on a GPU, which this machine need not have.
own = (triton_kernels._label_sums_kernel, triton_kernels._label_gradient_kernel)

def build(
    kernel, classes, floats, labels, activation, dense, exponents,
    squared=False, minimum=False, smoothing=0.0, tube=False,
):
    double = floats == "fp64"
    channels = triton.next_power_of_2(classes)
    label = kernel in own
    group, size = min(triton_kernels.GROUP, channels), {"fp64": 8, "fp32": 4}.get(floats, 2)
    line = triton_kernels.HALF if size == 2 else triton_kernels.LINE
    constants = dict(
        SIGMOID=activation == "sigmoid", DENSE=dense, WEIGHTED=dense or tube, IGNORES=True, EXPONENTS=exponents,
        CHANNELS=channels, BLOCK=line // size if label else max(32, 1024 // channels),
        WORK=tl.float64 if double else tl.float32,
        SQUARED=squared, MINIMUM=minimum, TUBE=tube, GROUP=group,
        GROUPS=channels // group, STAGES=triton_kernels.STAGES,
        SCALE=1 - smoothing, ADDEND=smoothing / classes, LARGEST=1e38, TINY=1e-38,
    )
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    pointers = {"logits": floats, "gradient": floats, "weight": "fp32", "target": floats if dense else labels}
    pointers |= dict.fromkeys(("exponents", "upstream"), "fp64" if double else "fp32")
    pointers |= dict.fromkeys(("partial", "counted_voxels"), "fp64")
    signature = {name: "*" + pointers[name] if name in pointers else "i32" for name in kernel.arg_names}
    constants |= {name: 1 for name in ("logits_v", "target_v", "gradient_v") if name in signature}
    signature |= dict.fromkeys(constants, "constexpr")
    aligned = [name for name in signature if name in pointers or name in ("logits_c", "voxels", "gradient_c")]
    attributes = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": triton_kernels.WARPS} if label else {}
    assert len(triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["cubin"]) > 1000

for kernel in (*own, triton_kernels._sums_kernel, triton_kernels._gradient_kernel):
    for variant in [
        (3, "fp32", "i64", "softmax", False, 1), (105, "bf16", "u8", "softmax", False, 2),
        (2, "fp16", "i32", "sigmoid", False, 1), (3, "fp32", "fp32", "softmax", True, 1),
        (1, "fp32", "fp32", "sigmoid", True, 2), (3, "fp64", "i16", "softmax", False, 0),
        (3, "fp32", "fp32", "softmax", True, 1, True, True, 0.1), (2, "fp16", "u8", "sigmoid", False, 1, True),
        (3, "bf16", "i64", "softmax", False, 1, False, False, 0.0, True),
        (3, "fp32", "fp32", "sigmoid", True, 1, True, True, 0.1, True),
    ]:
        by_label = variant[3] == "softmax" and not any((*variant[4:5], *variant[6:7], *variant[8:9]))
        if by_label or kernel not in own:
            build(kernel, *variant)
print("all built")
"""

pytestmark = pytest.mark.slow


def test_kernels_compile_for_a_gpu(monkeypatch, tmp_path):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip() == "all built", done.stderr[-3000:]
