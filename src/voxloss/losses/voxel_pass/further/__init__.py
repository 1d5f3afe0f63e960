"""Further passes over the same voxels, with a target or weights that are made of the labels and the prediction."""
