"""The published design, written afresh: a data frame per request, and scikit-learn inside an async handler.

It validates with the service's request model, so that both answer the same bodies. Reporting each request to
Weights & Biases, which the published service does inside the handler when it has a key, is left out.
"""

from pathlib import Path
from typing import Annotated, Any

import joblib
import pandas as pd
import typer
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.servers.running import run
from housing_serving.features import RAW_FEATURES
from housing_serving.schemas import PredictionRequest


class Prediction(BaseModel):
    """A price without an interval."""

    predicted_price: float
    confidence_interval: dict[str, float] | None = None


class PredictionResponse(BaseModel):
    """One prediction per instance, in their order."""

    predictions: list[Prediction]
    model_version: str


def create_app(pipeline: Any) -> FastAPI:  # noqa: ANN401 (whatever scikit-learn has fitted)
    """The published routes that matter here, on a fitted pipeline."""
    app = FastAPI(title="reference")

    @app.post("/api/v1/predict")
    async def predict(request: PredictionRequest) -> PredictionResponse:
        frame = pd.DataFrame([instance.model_dump() for instance in request.instances])
        missing = set(RAW_FEATURES) - set(frame.columns)
        if missing:
            raise ValueError(f"missing columns: {missing}")
        # Bedrooms that are null in all instances would be a column of objects.
        frame["total_bedrooms"] = frame["total_bedrooms"].astype("float64")
        prices = pipeline.predict(frame[list(RAW_FEATURES)])
        return PredictionResponse(
            predictions=[Prediction(predicted_price=float(price)) for price in prices],
            model_version="reference",
        )

    @app.get("/health/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app


def main(port: int, pipeline: Annotated[Path, typer.Argument(help="Written by joblib.")]) -> None:
    """Serve a pipeline on a port of this machine."""
    run(create_app(joblib.load(pipeline)), port)


if __name__ == "__main__":
    typer.run(main)
