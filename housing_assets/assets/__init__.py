"""The assets of the graph, one file each, with their blocking checks beside them.

An asset body loads, calls `housing_assets.ml`, and annotates; the arithmetic lives there.
"""
