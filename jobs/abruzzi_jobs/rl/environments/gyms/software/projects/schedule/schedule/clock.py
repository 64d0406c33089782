"""Times of a day as minutes since midnight."""


def parse_time(text: str) -> int:
    """'9:05' -> 545, '12:00 am' -> 0, '12:30 pm' -> 750. Raises ValueError for what is no time."""
    body, _, half = text.strip().lower().partition(" ")
    hour, _, minute = body.partition(":")
    if not (hour.isdigit() and minute.isdigit() and len(minute) == 2):
        raise ValueError(f"not a time: {text!r}")
    hours, minutes = int(hour), int(minute)
    if half:
        if half not in ("am", "pm") or not 1 <= hours <= 12:
            raise ValueError(f"not a time: {text!r}")
        hours = hours % 12 + (12 if half == "pm" else 0)
    if hours > 23 or minutes > 59:
        raise ValueError(f"not a time: {text!r}")
    return hours * 60 + minutes


def show_time(minutes: int) -> str:
    """545 -> '09:05'."""
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
