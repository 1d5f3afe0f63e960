"""Time and memory of all metrics of a case of 512 × 512 × 200 voxels: two kidneys and a tumour, three predictions.

python benchmarks/metrics.py
"""

import resource
import time

import numpy as np

from voxloss.evaluation.metrics import case_scores

SHAPE, SPACING = (200, 512, 512), (3.0, 0.78, 0.78)
CLASSES = ("background", "kidney", "tumour")


def ellipsoid(label: np.ndarray, centre_mm: tuple[float, ...], radii_mm: tuple[float, ...], value: int) -> None:
    axes = np.ogrid[tuple(slice(0, extent) for extent in SHAPE)]
    parts = zip(axes, SPACING, centre_mm, radii_mm, strict=True)
    label[sum(((axis * step - centre) / radius) ** 2 for axis, step, centre, radius in parts) <= 1] = value


def case(shift_mm: float) -> np.ndarray:
    label = np.zeros(SHAPE, dtype=np.uint8)
    for side in (110.0, 290.0):
        ellipsoid(label, (300.0 + shift_mm, 220.0, side), (60.0, 32.0, 30.0), 1)
    ellipsoid(label, (330.0, 215.0 + shift_mm, 130.0), (22.0, 22.0, 22.0), 2)
    return label


def main() -> None:
    reference = case(0.0)
    generator = np.random.default_rng(0)
    scattered = case(3.0)
    scattered[generator.random(SHAPE) < 0.001] = 2  # false positives all over the scan
    noise = generator.integers(0, 3, SHAPE, dtype=np.uint8)
    for name, prediction in (("shifted by 3 mm", case(3.0)), ("scattered", scattered), ("noise", noise)):
        start = time.perf_counter()
        scores = case_scores(reference, prediction, CLASSES, SPACING)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        values = {score.metric: round(score.value, 3) for score in scores if score.class_name == "tumour"}
        print(f"{name}: {seconds:.1f} s, peak so far {peak:.2f} GB; tumour {values}")


if __name__ == "__main__":
    main()
