import pytest
import torch

from zoo.runs.provenance import cpu_name, hardware, in_threads


@pytest.mark.parametrize(("n", "words"), [(1, "1 thread"), (2, "2 threads"), (16, "16 threads")])
def test_threads_are_counted_in_words(n: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: n)
    assert in_threads(n) == words
    assert hardware(torch.device("cpu")) == f"{cpu_name()}, {words}"
