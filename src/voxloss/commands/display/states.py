"""The colour of each state of a run."""

STYLES = {
    "done": "green",
    "running": "cyan",
    "pending": "dim",
    "failed": "red",
    "diverged": "magenta",
    "pruned": "yellow",
}
