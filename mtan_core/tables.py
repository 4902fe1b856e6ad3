"""Tables for people."""

from collections.abc import Sequence


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output: the first column to the left, numbers to the right."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table()
    for place, column in enumerate(columns):
        drawn.add_column(column, justify="left" if place == 0 else "right")
    for row in rows:
        drawn.add_row(*row)
    print(title)
    Console().print(drawn)
