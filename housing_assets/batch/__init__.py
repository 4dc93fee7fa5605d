"""Prices of whole tables: rows in files are read, checked, priced and written piece by piece.

What belongs here: everything between the bytes of an input and the bytes of a result, which `housing predict`
and the asset `batch_predictions` share. Where inputs lie and results go is theirs; no Dagster, no storage.
"""
