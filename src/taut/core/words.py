"""Saying the nearest valid word beside a wrong one."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, words: Iterable[str]) -> str:
    """Return `: did you mean 'x'?` for the nearest of `words`, or a list of them when none is near."""
    import difflib  # 5 ms that only an error should cost

    known = sorted({str(each) for each in words})
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f": did you mean {near[0]!r}?"
    return f": there is {', '.join(known[:20])}" if known else ": there is none"
