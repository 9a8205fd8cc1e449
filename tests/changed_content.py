"""Content of files changed at random, to see what becomes of it when it is read.

The tests change a few files each. ``ZOO_EXAMPLES=1000 pytest tests/runs/test_changed_files.py
tests/runs/test_changed_runs.py tests/cli/test_changed_recipes.py`` changes a thousand of each kind;
``--hypothesis-seed=N`` chooses others.
"""

import copy
import os
import random
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from zoo.errors import UserError

SEEDS = st.integers(0, 2**32)

VALUES: list[Any] = [
    None, -1, 0, 1e309, float("nan"), "", "x", "a\nb", [], {}, [1, 2], {"a": 1}, True, "8/0", "8", "1e-3", 10**30,
    "../../etc", "null", "nan", -0.5, 1.5, "auto", {"name": None}, {"name": []}, {"name": "dense", "tau": "x"},
]  # fmt: skip
"""What a key may be set to: of every type that YAML and JSON have, with values that make no sense anywhere."""


def examples(few: int) -> settings:
    """Return the settings of a test of so many examples, or of as many as the variable ZOO_EXAMPLES says."""
    most = int(os.environ.get("ZOO_EXAMPLES", few))
    phases = (Phase.explicit, Phase.generate)  # a smaller seed is no simpler change
    return settings(max_examples=most, deadline=None, phases=phases, suppress_health_check=list(HealthCheck))


def changed(content: Any, seed: int, keys: tuple[Any, ...] = (), times: int = 3) -> Any:
    """Return a copy with up to ``times`` values replaced, added or removed, at any depth.

    Args:
        content: a mapping, with mappings and lists inside.
        seed: of the choices.
        keys: further keys to set at the top.
        times: most changes.
    """
    source, content = random.Random(seed), copy.deepcopy(content)
    for _ in range(source.randint(1, times)):
        place: Any = content
        while True:
            inner = list(place) + [*keys] * (place is content) if isinstance(place, dict) else list(range(len(place)))
            if not inner:
                break
            key = source.choice(inner)
            deeper = place.get(key) if isinstance(place, dict) else place[key]
            if isinstance(deeper, dict | list) and deeper and source.random() < 0.5:
                place = deeper
                continue
            if source.random() < 0.1:
                place.pop(key, None) if isinstance(place, dict) else place.pop(key)
            else:
                place[key] = copy.deepcopy(source.choice(VALUES))
            break
    return content


def damaged(text: str, seed: int) -> str:
    """Return a text with a character or two inserted that mean something in YAML or JSON; often it stays as it is."""
    source = random.Random(seed)
    if source.random() < 0.8 or not text:
        return text
    at = source.randrange(len(text))
    return text[:at] + source.choice([":", "\t", "- ", "{", "]", "&a", "*a", "\x00", "|", ">", "#", '"']) + text[at:]


def is_read_or_refused_in_one_line(
    read: Callable[[], object], refusal: type[BaseException] | tuple[type[BaseException], ...] = UserError
) -> bool:
    """Read something; whether that succeeds, or ends in a refusal of one line. Any other error is passed on."""
    try:
        read()
    except refusal as error:
        words = str(error).strip()
        return bool(words) and "\n" not in words
    return True
