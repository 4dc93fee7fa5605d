"""Tests of `housing_assets.ml`: the data, the features and the models, without Dagster."""
