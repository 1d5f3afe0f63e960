"""Sums over each lesion and its surroundings, and the maps that say which voxel is of which lesion."""
