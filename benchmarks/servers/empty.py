"""The ceiling: FastAPI with the service's request and response models, and no model behind them."""

import typer
from fastapi import FastAPI

from benchmarks.servers.running import run
from housing_serving.schemas import ConfidenceInterval, Prediction, PredictionRequest, PredictionResponse

PRICE = 200_000.0


def create_app() -> FastAPI:
    """One route that validates the request and answers every instance with the same price."""
    app = FastAPI(title="empty")

    @app.post("/api/v1/predict")
    async def predict(request: PredictionRequest) -> PredictionResponse:
        interval = ConfidenceInterval(lower=PRICE, upper=PRICE, level=0.9)
        return PredictionResponse(
            predictions=[
                Prediction(predicted_price=PRICE, confidence_interval=interval, warnings=[])
                for _ in request.instances
            ],
            model_version="empty",
        )

    @app.get("/health/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app


def main(port: int) -> None:
    """Serve on a port of this machine."""
    run(create_app(), port)


if __name__ == "__main__":
    typer.run(main)
