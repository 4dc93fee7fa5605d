"""Tests of `housing doctor`."""
