"""What was measured as tables to read."""

from collections.abc import Sequence

from rich.table import Table

from benchmarks.measuring import Figure, Reading, readable, spread
from housing_assets.ml.published import PUBLISHED, Comparison


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


def comparison_table(title: str, comparison: Comparison, note: str, *, published: bool) -> Table:
    """Ours next to the published forest on the same rows, with the ratio as the column that counts.

    Args:
        title: Of the table.
        comparison: What was found.
        note: Below the table.
        published: Whether the rows were held out as in the published scores, which are shown then.
    """
    table = Table(title=title, title_justify="left", caption_justify="left", caption=note)
    table.add_column("figure")
    for name in ("ours", "published forest, fitted here", "ratio", "95 % interval"):
        table.add_column(name, justify="right")
    shown = PUBLISHED if published else ()
    for one in shown:
        table.add_column(f"published: {one.model}", justify="right")
    for row in comparison.table.to_dict("records"):
        sides = (readable(row["ours"]), readable(row["published_forest"]))
        known = row["figure"] in comparison.ratios
        ratio = (f"{row['ratio']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}") if known else ("", "")
        scores = [getattr(one, row["figure"]) for one in shown]
        table.add_row(
            row["figure"], *sides, *ratio, *("" if one is None else readable(one) for one in scores)
        )
    return table
