"""Tests of `housing_assets` and `housing_serving`: unit, end-to-end, browser and fault tests."""
