"""Tables larger than memory: parts in the object store, and the steps from raw rows to the split on them.

What a step does to a part is written in `housing_assets.ml`, as for tables in memory; here is only which rows
meet in which part. Who works on the parts is an engine's to decide (`housing_assets.engines`).
"""
