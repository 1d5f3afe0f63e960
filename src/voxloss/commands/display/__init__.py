"""What the commands show on the console. Every module imports rich, so commands import them when they run."""
