from .layout import table, wrap
from .names import slugify, unique_slug

__all__ = ["slugify", "table", "unique_slug", "wrap"]
