from .clock import parse_time, show_time
from .slots import first_free, merge, overlaps, total_minutes

__all__ = ["first_free", "merge", "overlaps", "parse_time", "show_time", "total_minutes"]
