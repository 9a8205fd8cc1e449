"""Take one small member of every timm module through every stage, and write the table docs/families.md.

Usage: python tests/benchmarks/families.py [--only resnet10t,vgg11] [--workers 2] [--threads 1]
       [--results docs/families.json] [--table docs/families.md]

Each member runs in a separate process, at 50 % compression: convert, two training steps, export, comparison with ONNX
Runtime, file size. `--workers` processes run at once. When all members are done, each is timed beside its dense model,
one member after the other: a graph timed beside another worker's exports can look a third slower than it is. After each
member the results are saved in the JSON file, with the processor; graphs that wait to be timed are in the cache folder.
The same command therefore resumes after an interruption. The table is written from everything in the file.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from zoo.files import cache_folder

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

MARKER = "@family "
COMPRESSION = 0.5
STAGES = ("builds", "converts", "trains", "exports")
MINUTES = 15
GRAPHS = cache_folder() / "families"
"""Where graphs wait to be timed, in a folder for each member."""
DENSE, COMPRESSED = "dense.onnx", "compressed.onnx"


def take(arch: str, threads: int) -> dict[str, Any]:
    """Return what became of one member: the stages it passed, the reason why it stopped, and its figures."""
    import torch
    from test_families import NATIVE_SIZE, metadata

    from zoo.backbone import create_backbone, with_normalization
    from zoo.budget import Budget
    from zoo.errors import UserError
    from zoo.export.exporter import export_model
    from zoo.export.onnx_file import write_onnx
    from zoo.methods import METHODS
    from zoo.runtime.complexity import count_macs, count_params

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    size = NATIVE_SIZE.get(arch, 64)
    shape, found = (3, size, size), {"arch": arch, "size": size, "passed": [], "reason": ""}
    half, quarter = (0.5,) * 3, (0.25,) * 3
    dense_file, file = GRAPHS / arch / DENSE, GRAPHS / arch / COMPRESSED
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        method = METHODS.get("robust_lowrank")(init="random")
        model = create_backbone(arch, 10, shape)
        found |= {"dense_params": count_params(model), "dense_macs": count_macs(model, shape)}
        found["passed"].append("builds")
        dense = with_normalization(model, half, quarter).eval()
        try:
            write_onnx(dense, dense_file, shape, metadata(arch, shape).to_props())
        except UserError as error:
            raise UserError(f"even dense, {error}") from None
        found["dense_bytes"] = dense_file.stat().st_size
        ranks = method.plan(model, Budget(compression=COMPRESSION))
        model = with_normalization(method.convert(model, ranks), half, quarter).train()
        found["passed"].append("converts")
        optimizer = torch.optim.SGD(method.parameter_groups(model, 1e-4), lr=0.001)
        for _ in range(2):
            optimizer.zero_grad()
            loss = method.loss(model, torch.rand(4, *shape), torch.arange(4))["loss"]
            loss.backward()
            optimizer.step()
        if not torch.isfinite(loss):
            raise UserError(f"the loss is {float(loss)}")
        found["passed"].append("trains")
        deployed = method.deploy(model).eval()
        done = export_model(deployed, metadata(arch, shape), file)
        found |= {"params": count_params(deployed), "bytes": done.bytes, "parity": max(done.parity.values())}
        found["passed"].append("exports")
    except UserError as error:
        found["reason"] = str(error)
    except Exception as error:  # what timm's code raises is the result
        found["reason"] = (str(error).strip() or type(error).__name__).splitlines()[0]
    return found


def ratio(arch: str, threads: int) -> float:
    """Return the latency of a member's graph at batch 1 over that of the dense one, in turns."""
    from zoo.latency.measure import measure

    files = [GRAPHS / arch / name for name in (DENSE, COMPRESSED)]
    dense, compressed = measure(files, device="cpu", threads=threads, batches=(1,), rounds=40, seconds=0.05)
    return compressed.latency[1].ratio_to(dense.latency[1])


def in_process(arch: str, threads: int) -> dict[str, Any]:
    """Run one member in a process of its own, whose death is a result too."""
    from zoo.runs.provenance import cpu_name

    begin = time.monotonic()
    result = _in_process(arch, threads)
    return result | {"seconds": round(time.monotonic() - begin), "processor": cpu_name()}


def _in_process(arch: str, threads: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--member", arch, "--threads", str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 * MINUTES)
    except subprocess.TimeoutExpired:
        return {"arch": arch, "passed": [], "reason": f"took more than {MINUTES} minutes"}
    for line in done.stdout.splitlines():
        if line.startswith(MARKER):
            return json.loads(line.removeprefix(MARKER))
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return {"arch": arch, "passed": [], "reason": f"the process ended with code {done.returncode}: {last}"}


def table(results: dict[str, dict[str, Any]], threads: int) -> str:
    """Lay the results out as a page in Markdown, a row per timm module."""
    import timm
    from test_families import FAMILIES
    from timm.models import model_entrypoint

    rows = sorted((model_entrypoint(arch).__module__.rpartition(".")[2], r) for arch, r in results.items())
    whole = sum("exports" in r["passed"] for _, r in rows)
    head = ("module", "member", "pixels", "parameters", *STAGES, "parity", "file, MB", "of dense", "ms of dense")
    lines = [
        "# Families",
        "",
        f"One small member of each timm module with `robust_lowrank` at {COMPRESSION:.0%} compression, written by",
        "`python tests/benchmarks/families.py`.",
        f"{whole} of {len(rows)} pass every stage" + _not_tried(results, FAMILIES),
        "Parity is the largest difference of logits between PyTorch and ONNX Runtime over the largest logit.",
        "Latency is at batch 1, beside the dense model, with forms measured on this processor:",
        f"{', '.join(sorted({r['processor'] for _, r in rows}))}, threads: {threads}; timm {timm.__version__}.",
        "Each pair was timed alone on the machine.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    for module, r in rows:
        marks = ["yes" if stage in r["passed"] else "no" for stage in STAGES]
        cells = [
            module,
            r["arch"],
            str(r.get("size", "")),
            f"{r['dense_params']:,}" if "dense_params" in r else "",
            *marks,
        ]
        if "bytes" in r:
            cells += [f"{r['parity']:.0e}", f"{r['bytes'] / 1e6:.1f}", f"{r['bytes'] / r['dense_bytes']:.2f}"]
            cells.append(f"{r['ratio']:.2f}" if "ratio" in r else "")
        else:
            cells += [""] * 4
        lines.append("| " + " | ".join(cells) + " |")
    stopped = [f"- {r['arch']}: {r['reason']}" for _, r in rows if r["reason"]]
    if stopped:
        lines += ["", "Reasons for the failures:", "", *stopped]
    return "\n".join(lines) + "\n"


def _not_tried(results: dict[str, dict[str, Any]], families: list[str]) -> str:
    missing = [arch for arch in families if arch not in results]
    return f"; not tried yet: {', '.join(missing)}." if missing else "."


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="members, separated by commas; default: one of every module")
    parser.add_argument("--results", type=Path, default=ROOT / "docs/families.json")
    parser.add_argument("--table", type=Path, default=ROOT / "docs/families.md")
    parser.add_argument("--workers", type=int, default=2, help="members taken at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each worker")
    parser.add_argument("--member", help="take this one in this process and print its result")
    options = parser.parse_args()
    if options.member:
        print(MARKER + json.dumps(take(options.member, options.threads)))
        return
    from test_families import FAMILIES

    results = json.loads(options.results.read_text()) if options.results.is_file() else {}
    wanted = options.only.split(",") if options.only else FAMILIES
    missing = [arch for arch in wanted if not _is_taken(results.get(arch))]

    def keep(result: dict[str, Any]) -> None:
        results[result["arch"]] = result
        options.results.write_text(json.dumps(results, indent=1) + "\n")

    with ThreadPoolExecutor(options.workers) as pool:
        for done in as_completed([pool.submit(in_process, arch, options.threads) for arch in missing]):
            result = done.result()
            keep(result)
            passed = ", ".join(result["passed"]) or "nothing"
            print(f"{result['arch']}: {passed} {result['reason']} ({result['seconds']} s)", flush=True)
    for arch in wanted:
        if "bytes" in results[arch] and "ratio" not in results[arch]:
            keep(results[arch] | {"ratio": ratio(arch, options.threads)})
            print(f"{arch}: {results[arch]['ratio']:.2f} of the dense time", flush=True)
        shutil.rmtree(GRAPHS / arch, ignore_errors=True)
    options.table.write_text(table(results, options.threads))
    print(f"saved in {options.table}")


def _is_taken(result: dict[str, Any] | None) -> bool:
    """Tell whether nothing is left to do for a member but, with its graphs at hand, to time it."""
    if result is None:
        return False
    return "bytes" not in result or "ratio" in result or (GRAPHS / result["arch"] / COMPRESSED).is_file()


if __name__ == "__main__":
    main()
