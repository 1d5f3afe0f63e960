"""Write counts and durations as people do."""


def duration_text(seconds: float) -> str:
    """Write a duration: "42 s", "3 min 5 s", "12 h 30 min", "3 days 4 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 2 * 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} days {whole % 86400 // 3600} h"


def count_of(number: int, noun: str) -> str:
    """Write a count: "1 fold", "5 folds", "2 losses"."""
    return f"{number} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"
