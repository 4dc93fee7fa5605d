"""From the bytes of a request for explanations to the bytes of its answer, off the event loop."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from starlette.concurrency import run_in_threadpool

from housing_serving.explanation import Explanation, explain_rows
from housing_serving.features import RAW_FEATURES
from housing_serving.prediction import parse_explanation
from housing_serving.schemas import HousingInstance, instance_columns
from housing_serving.sources import LoadedModel

# The largest request that makes sense has 5 kB; whatever is much larger is refused, which takes its time.
INLINE_BYTES = 48_000


@dataclass(frozen=True, slots=True)
class Explained:
    """How many instances were explained, and the answer's bytes."""

    rows: int
    body: bytes


class Explaining:
    """Explains prices, one request after the other: each keeps a processor busy that predictions need too."""

    def __init__(self) -> None:
        # Unpacking a model takes tens of megabytes for a moment, which would stay with the process.
        self.memory_was_used = False
        self._lane = ThreadPoolExecutor(1, thread_name_prefix="explanations")

    async def answer(self, body: bytes, model: LoadedModel) -> Explained:
        """The answer to a request, by a model that explains.

        Raises:
            RequestValidationError: the body is not what the schema says.
        """
        small = len(body) <= INLINE_BYTES
        request = parse_explanation(body) if small else await run_in_threadpool(parse_explanation, body)
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._lane, _explain, request.instances, model)
        self.memory_was_used = True
        return Explained(len(request.instances), answer)

    def close(self) -> None:
        """Let what is being explained end, and give up what waits."""
        self._lane.shutdown(cancel_futures=True)


def _explain(instances: Sequence[HousingInstance], model: LoadedModel) -> bytes:
    explanation = explain_rows(model.bundle, instance_columns(instances))
    answers = [_answer(explanation, row, instance) for row, instance in enumerate(instances)]
    version = str(model.bundle.manifest.model_version)
    return orjson.dumps({"explanations": answers, "model_version": version})


def _answer(explanation: Explanation, row: int, instance: HousingInstance) -> dict[str, Any]:
    contributions = explanation.by_group[row].tolist()
    # Stable, so that equal ones, as all zeros are, have the same order in every answer.
    order = np.argsort([-abs(contribution) for contribution in contributions], kind="stable")
    groups = explanation.groups
    return {
        "predicted_price": float(explanation.price[row]),
        "base_value": explanation.base_value,
        "contributions": [
            {
                "feature": groups[index],
                "value": getattr(instance, groups[index]) if groups[index] in RAW_FEATURES else None,
                "contribution": contributions[index],
            }
            for index in order.tolist()
        ],
    }
