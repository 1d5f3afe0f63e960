"""Time and peak memory of preparing the largest case of KiTS19, 278 million voxels, by the paper's settings.

    python benchmarks/preparation.py MASK.nii.gz

MASK is KiTS19's case_00151/segmentation.nii.gz; its image is made up here, of the real type (int16) and with noise as a
CT's, so that it compresses no better. Preparing happens in a process of its own, whose peak is printed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np

PREPARE = """
import json, resource, sys, time
from pathlib import Path
from voxloss.data import kits19
from voxloss.data.preprocess import Preparation, prepare_case
from voxloss.data.prepare_all import memory_needed
import torch
data, cache = Path(sys.argv[1]), Path(sys.argv[2])
dataset = kits19.load(data)
preparation = Preparation((-79, 304), (3.22, 1.62, 1.62), "zscore")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
case = prepare_case(dataset.cases[0], dataset, preparation, cache)
seconds = time.perf_counter() - start
start = time.perf_counter()
prepare_case(dataset.cases[0], dataset, preparation, cache)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
planned = memory_needed(dataset.cases[0], preparation)
print(json.dumps({"seconds": seconds, "again": time.perf_counter() - start, "peak": peak * 1024,
                  "before": before * 1024, "planned": planned, "shape": case.shape}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mask", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        case = Path(folder) / "data" / "case_00151"
        case.mkdir(parents=True)
        mask = nibabel.load(arguments.mask)
        (case / "segmentation.nii.gz").symlink_to(arguments.mask.resolve())
        generator = np.random.default_rng(0)
        body = np.add.outer(np.arange(mask.shape[1]), np.arange(mask.shape[2])) // 2 - 200
        image = np.empty(mask.shape, np.int16, order="F")
        for number in range(len(image)):
            image[number] = body + generator.integers(-40, 41, body.shape)
        nibabel.save(nibabel.Nifti1Image(image, mask.affine), case / "imaging.nii.gz")
        print(f"{' × '.join(map(str, mask.shape))} voxels, {(case / 'imaging.nii.gz').stat().st_size / 1e6:.0f} MB")
        del image
        start = time.perf_counter()
        result = subprocess.run(
            [sys.executable, "-c", PREPARE, str(case.parent), str(Path(folder) / "cache")],
            check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        total = time.perf_counter() - start
    numbers = json.loads(result.stdout)
    shape = " × ".join(map(str, numbers["shape"]))
    print(f"prepared to {shape} in {numbers['seconds']:.1f} s ({total:.1f} s with imports)")
    print(f"peak memory {numbers['peak'] / 1e9:.2f} GB, of it {numbers['before'] / 1e9:.2f} GB before;", end=" ")
    print(f"planned for {numbers['planned'] / 1e9:.2f} GB; from the cache {1000 * numbers['again']:.0f} ms")


if __name__ == "__main__":
    main()
