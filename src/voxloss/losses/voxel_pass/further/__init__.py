"""Further passes over the same voxels: with a target or weights made of labels and prediction, or for other sums."""
