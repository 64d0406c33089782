"""Text in columns."""


def wrap(text: str, width: int) -> list:
    """Lines of at most `width` characters, broken between words; a longer word has a line of its own."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    if line:
        lines.append(line)
    return lines


def table(rows) -> str:
    """Columns as wide as their widest cell, two blanks between them, no blank at the end of a line."""
    rows = [[str(cell) for cell in row] for row in rows]
    count = max((len(row) for row in rows), default=0)
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(count)]
    lines = ["  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip() for row in rows]
    return "\n".join(lines)
