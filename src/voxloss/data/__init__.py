"""Images on disk to arrays: layouts, reading and writing on the stored grid, checks, preparation."""
