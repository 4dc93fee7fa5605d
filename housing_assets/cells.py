"""What the cells of a table in text may hold: what counts as null, and as a number."""

import re

NULLS = frozenset({"", "NA", "N/A", "NaN", "nan", "null", "NULL"})
# Python's float() also takes 1_000, inf and Arabic digits; a published table that holds those is broken.
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
