"""Turn images on disk into arrays: layouts, reading and writing on the stored grid, checks, preparation."""
