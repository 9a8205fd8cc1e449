import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
def faults():
    "Pages that the system gives for tensors of 64 MB, made and freed in turn."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
"""
KEPT = "from zoo.runtime.memory import keep_freed_memory; keep_freed_memory()"
GIVEN_BACK = "from zoo.runtime.memory import keep_freed_memory; keep_freed_memory(); keep_freed_memory(False)"
EVALUATED = """
from zoo.evaluation import evaluate
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
evaluate(model, torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.long), [], progress=False)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
@pytest.mark.parametrize(
    ("before", "kept"), [(KEPT, True), (GIVEN_BACK, False), (EVALUATED, True)], ids=["kept", "given back", "evaluated"]
)
def test_freed_memory_is_used_again(before: str, kept: bool) -> None:
    program = f"import torch\n{FAULTS}\n{before}\nprint([faults() for _ in range(6)][-1])"
    found = int(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)
    assert found < 50 if kept else found > 100
