"""How long entries are kept, by a clock that may be wrong."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from datetime import date

LARGEST_GAP = 0.25
"""Of the days that entries are kept: what a gap between two days counts as at most, or one day."""


def through(last_of_day: Iterable[tuple[date, int]], today: date, days: float) -> int:
    """The sequence up to which entries are older than ``days``; 0 where none is.

    last_of_day: each day on which there are entries, and the largest sequence of one.

    An entry's age is counted along the days that the entries after it and the clock show, in the
    order of the calendar. A gap between two of these days counts as LARGEST_GAP at most: a clock
    that was once in 1970 or in 2099 makes nothing older than that, and a long rest keeps entries
    longer. The days on which a station works, or only runs, count as what they are.
    """
    seen = [today.toordinal()]
    largest, age = max(1.0, LARGEST_GAP * days), 0.0
    for day, last in sorted(last_of_day, key=lambda each: each[1], reverse=True):
        number = day.toordinal()
        place = bisect_left(seen, number)
        if place < len(seen) and seen[place] == number:
            continue
        before = seen[place - 1 : place]
        after = seen[place : place + 1]
        age += sum(min(abs(number - each), largest) for each in (*before, *after))
        if before and after:
            age -= min(after[0] - before[0], largest)
        if age > days:
            return last
        seen.insert(place, number)
    return 0
