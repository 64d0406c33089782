from .book import Book, Entry
from .money import format_cents, parse_cents

__all__ = ["Book", "Entry", "format_cents", "parse_cents"]
