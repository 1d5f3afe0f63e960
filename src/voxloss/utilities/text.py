"""Write counts, durations and choices as people do."""

import difflib
import json
import re
import shlex
from collections.abc import Iterable


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
    """Write a count: "1 fold", "5 folds", "2 losses", "1,200 values"."""
    return f"{number:,} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"


def not_finite_values(number: int) -> str:
    """Write how many values are NaN or infinite: "1 value that is not finite"."""
    return f"{count_of(number, 'value')} that {'is' if number == 1 else 'are'} not finite"


def one_of(values: Iterable[object]) -> str:
    """Write what may be chosen: "a", "a or b", "a, b or c"."""
    *first, last = map(str, values)
    return f"{', '.join(first)} or {last}" if first else last


def shell_word(value: object) -> str:
    """Write a path or another value as one word of a command to be copied."""
    return shlex.quote(str(value))


def excluding(case_ids: Iterable[str]) -> str:
    """Write the option that leaves cases out, to be copied: "--data.exclude pat11,pat12"; of many only its name."""
    ids = list(case_ids)
    if len(ids) > 10:
        return "--data.exclude"
    plain = all(re.fullmatch(r"\w[\w.+-]*", case_id) for case_id in ids)
    return f"--data.exclude {shlex.quote(','.join(ids) if plain else json.dumps(ids, ensure_ascii=False))}"


def did_you_mean(word: str, known: Iterable[str], lead: str = "") -> str:
    """Return "; did you mean 'x'?" for the known word closest to a wrong one, or nothing where none is close.

    Args:
        word: What was written.
        known: What could have been meant.
        lead: Put before the word in the question, for example "--".
    """
    near = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {lead + near[0]!r}?" if near else ""
