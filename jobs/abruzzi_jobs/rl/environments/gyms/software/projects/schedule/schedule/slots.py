"""Intervals (start, end) of minutes; the end is not part of an interval."""


def overlaps(first, second):
    """Whether they share a minute: intervals that only touch do not."""
    return first[0] < second[1] and second[0] < first[1]


def merge(intervals):
    """The same minutes in as few intervals as possible, in order; those that touch become one."""
    merged = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def total_minutes(intervals):
    """Minutes that are taken by any of them, each counted once."""
    return sum(end - start for start, end in merge(intervals))


def first_free(intervals, minutes, opening=480, closing=1080):
    """The first interval of so many minutes between opening and closing that overlaps none; None where there is none."""
    start = opening
    for begin, end in merge(intervals):
        if begin - start >= minutes:
            break
        start = max(start, end)
    return (start, start + minutes) if start + minutes <= closing else None
