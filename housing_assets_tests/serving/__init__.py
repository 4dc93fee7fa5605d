"""Tests of `housing_serving`, module by module and as a running process."""
