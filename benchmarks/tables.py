"""What was measured as tables to read."""

from collections.abc import Sequence

from rich.table import Table

from benchmarks.measuring import Figure, Reading, spread


def figures_table(title: str, found: Sequence[Figure], repeats: int, seconds: float, note: str = "") -> Table:
    """Ours next to a peer, with the ratio as the column that counts."""
    measured = f"{repeats} repeats" if repeats > 1 else "1 repeat"
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = (
        f"Median (smallest to largest) of {measured}, in {seconds:.0f} s. Ratio: above 1 ours is better."
    )
    if note:
        table.caption += f"\n{note}"
    for name in ("what", "figure"):
        table.add_column(name)
    for name in ("ours", "peer", "ratio", "goal"):
        table.add_column(name, justify="right")
    table.add_column("the peer is")
    previous = ("", "")
    for figure in found:
        if previous[0] not in ("", figure.subject):
            table.add_section()
        subject = "" if figure.subject == previous[0] else figure.subject
        peer = "" if (figure.subject, figure.peer) == previous else figure.peer
        sides = (spread(figure.ours), spread(figure.theirs), spread(figure.ratios))
        table.add_row(subject, figure.name, *sides, figure.goal, peer)
        previous = (figure.subject, figure.peer)
    return table


def readings_table(title: str, found: Sequence[Reading]) -> Table:
    """Figures of ours alone, with what they shall be."""
    table = Table(title=title, title_justify="left")
    table.add_column("figure")
    table.add_column("measured", justify="right")
    table.add_column("goal")
    for reading in found:
        table.add_row(reading.name, spread(reading.values), reading.goal)
    return table
