"""timm's pretrained weights where there is no network: from the cache, or told at once instead of after retries."""

import logging
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants

PATIENCE = 5.0
"""Seconds that the server has to answer."""


@contextmanager
def told_at_once() -> Iterator[None]:
    """Keep huggingface_hub's notes off the screen, and where its server cannot be reached let it use its cache alone.

    Without a connection it tries each file six times, half a minute long, with a line on the screen for each.
    """
    logger, was_offline = logging.getLogger("huggingface_hub"), constants.HF_HUB_OFFLINE
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    constants.HF_HUB_OFFLINE = was_offline or not _is_reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was_offline
        logger.setLevel(level)


def _is_reachable(address: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PATIENCE):
            return True
    except urllib.error.HTTPError:  # it answers
        return True
    except OSError:
        return False
