"""Shapes on voxel grids: connected components, bounding boxes and distances. Knows nothing of files or losses."""
