"""Tests of `housing_assets.deployment`: records, canaries, fleets and Cloud Run."""
