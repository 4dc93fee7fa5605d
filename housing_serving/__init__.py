"""The prediction service and the model-bundle reader it shares with training.

Nothing in this package imports dagster, scikit-learn, pandas or `housing_assets`.
"""
