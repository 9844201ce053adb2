"""What a mistyped name was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: object, known: Iterable) -> str:
    """``; did you mean 'x'?`` for the known name closest to `name`, or an empty string; ends an error message."""
    match = difflib.get_close_matches(str(name), [str(key) for key in known], n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""
