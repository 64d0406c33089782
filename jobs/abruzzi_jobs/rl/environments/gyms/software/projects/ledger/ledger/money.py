"""Amounts as whole cents."""


def parse_cents(text: str) -> int:
    """'12.5' -> 1250, '-0.05' -> -5, '1,200' -> 120000. Raises ValueError for anything else."""
    cleaned = text.strip().replace(",", "")
    negative = cleaned.startswith("-")
    whole, _, part = cleaned.lstrip("-").partition(".")
    if not whole.isdigit() or (part and not part.isdigit()) or len(part) > 2:
        raise ValueError(f"not an amount: {text!r}")
    cents = int(whole) * 100 + int(part.ljust(2, "0"))
    return -cents if negative else cents


def format_cents(cents: int) -> str:
    """1250 -> '12.50', -5 -> '-0.05', 120000 -> '1,200.00'."""
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100:,}.{abs(cents) % 100:02d}"
