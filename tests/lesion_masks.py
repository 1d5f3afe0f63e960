"""Made-up masks with lesions, for scores of lesions and their comparison with other libraries."""

import numpy as np


def blobs(seed):
    """Balls, most of them in both masks and moved by a voxel at most in the second, and specks."""
    random = np.random.default_rng(seed)
    reference, prediction = np.zeros((2, 20, 24, 22), dtype=bool)
    grid = np.indices(reference.shape)
    for _ in range(8):
        centre, radius = random.integers(0, reference.shape), random.uniform(0.5, 4.5)
        ball = sum((axis - place) ** 2 for axis, place in zip(grid, centre, strict=True)) <= radius**2
        in_reference, in_prediction = random.random(2) < 0.85
        reference |= ball & in_reference
        prediction |= np.roll(ball, random.integers(-1, 2, 3), (0, 1, 2)) & in_prediction
    return reference, prediction | (random.random(reference.shape) < 0.0008)
