"""The prediction service and the model-bundle reader it shares with training.

Nothing in this package imports dagster, scikit-learn, pandas or `housing_assets`.
"""

import os

# The official onnxruntime wheels report usage to their vendor unless this is set before they are imported.
# It is the one thing that importing this package does; a value that is set already wins.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
