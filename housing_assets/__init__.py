"""The asset graph: from raw census rows to a registered house-price model.

Importing this package reads no environment, opens no client and creates no folder;
`housing_assets.definitions` is the entry point that Dagster loads.
"""
