"""What can be wrong with a table as a whole; what is wrong with a row is written beside the row."""


class BatchError(Exception):
    """A table cannot be priced, or its prices cannot be written; the message says why and what to do."""
