"""Names for links."""

import re
import unicodedata


def slugify(title: str, most: int = 40) -> str:
    """'Crème brûlée, twice!' -> 'creme-brulee-twice'; at most so many characters, and no dash at either end."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    joined = re.sub(r"[^a-z0-9]+", "-", plain.lower())
    return joined.strip("-")[:most].rstrip("-")


def unique_slug(title: str, taken) -> str:
    """The slug, with -2, -3, ... behind it where it is taken."""
    slug, number = slugify(title), 1
    found = slug
    while found in taken:
        number += 1
        found = f"{slug}-{number}"
    return found
