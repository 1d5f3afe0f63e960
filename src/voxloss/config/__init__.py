"""A study's configuration: its keys, their checks, the presets, and where each value comes from."""
