"""The model in service: empty at first, filled once one can be loaded, read by every request."""

import asyncio
import logging

from housing_serving.settings import ServingSettings
from housing_serving.sources import LoadedModel, ModelUnavailable, load_model

logger = logging.getLogger(__name__)


class ModelSlot:
    """Holds the loaded model and looks for one until there is."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._problem = ""
        self.model: LoadedModel | None = None
        # Set after the first look, whether it found a model or not.
        self.looked = asyncio.Event()

    @property
    def retry_seconds(self) -> float:
        """When the next look is due at the latest."""
        return self._settings.housing_model_poll_seconds

    async def fill(self) -> None:
        """Look for a model every poll interval until one is loaded."""
        while self.model is None:
            # In a thread: the service answers its health routes while a download takes its time.
            self.model = await asyncio.to_thread(self._look)
            self.looked.set()
            if self.model is None:
                await asyncio.sleep(self._settings.housing_model_poll_seconds)

    def _look(self) -> LoadedModel | None:
        try:
            model = load_model(self._settings)
        except ModelUnavailable as error:
            self._report(str(error))
            return None
        except Exception:  # whatever it was, the service must live to look again
            logger.exception("loading the model failed")
            return None
        logger.info(
            "model loaded",
            extra={"model_version": model.bundle.manifest.model_version, "source": model.source},
        )
        return model

    def _report(self, problem: str) -> None:
        # The same problem every few seconds is one line, not a flood.
        if problem != self._problem:
            logger.warning("no model", extra={"reason": problem})
        self._problem = problem
