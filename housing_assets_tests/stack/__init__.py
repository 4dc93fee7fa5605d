"""Tests against everything that `housing up` starts, as real processes: one stack for all of them."""
