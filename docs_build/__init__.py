"""What the documentation site adds to `docs/` while it is built: the reference, read from the code.

Nothing in it is typed by hand, so nothing in it can be out of date. Pages of prose are in `docs/`.
"""
