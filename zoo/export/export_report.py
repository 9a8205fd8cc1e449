"""The report of `zoo export`, as lines for the screen and as plain data."""

from collections import Counter
from dataclasses import asdict
from typing import Any

from zoo.export.choice import TIE
from zoo.export.exporter import Exported
from zoo.export.parity import LIMIT
from zoo.export.whole_graph import DENSE_FP32, MERGED, fastest
from zoo.runs import provenance
from zoo.runtimes import DEFAULT


def report(done: Exported) -> dict[str, Any]:
    """Return the report as plain data: the choice for each layer with its reason and times, parity, accuracies."""
    return {
        "file": done.path.name,
        "bytes": done.bytes,
        "params": done.params,
        "macs": done.written.macs,
        "factorized_layers": done.factorized,
        "target": done.metadata.target,
        "precision": done.metadata.precision,
        "runtime": done.metadata.runtime,
        "runtime_version": done.metadata.runtime_version,
        "runtime_parity": done.runtime_parity,
        "runtime_files": {done.beside(suffix).name: len(content) for suffix, content in done.artefact.items()},
        "parity": {str(batch): value for batch, value in done.parity.items()},
        "estimated_layers": done.estimated,
        "graphs": {str(batch): ratios for batch, ratios in done.graphs.items()},
        "layers": done.metadata.forms,
        "accuracies": [
            {"name": c.name, "fp32": asdict(c.before), done.metadata.precision: asdict(c.after), "drop": c.drop}
            for c in done.changes
        ],
        "processor": provenance.cpu_name(),
        "versions": provenance.versions(),
    }


def lines(done: Exported) -> list[str]:
    """Return the report for the screen: layers grouped by form, sizes, parity, accuracies, the file."""
    found = [*_forms(done), *_graphs(done), *_left_out(done)]
    found.append(
        f"{done.bytes / 1e6:.2f} MB, {done.params:,} parameters, {done.factorized} factorized layers"
        + (f", {done.metadata.precision}" if done.metadata.precision != "fp32" else "")
    )
    parity = ", ".join(f"{value:.1e} (batch {batch})" for batch, value in done.parity.items())
    of = "" if done.metadata.precision == "fp32" else f" of the graph before it became {done.metadata.precision}"
    found.append(f"largest difference of logits{of} from PyTorch, relative: {parity}; limit {LIMIT:.0e}")
    if done.runtime_parity is not None:
        runtime = f"{done.metadata.runtime} {done.metadata.runtime_version}"
        found.append(f"{runtime}: logits differ from ONNX Runtime's by {done.runtime_parity:.1e} of the largest")
    for change in done.changes:
        found.append(
            f"{change.name}: {change.after.accuracy:.2%} in {done.metadata.precision}, {change.before.accuracy:.2%} "
            f"in fp32, {change.after.n} images"
        )
    files = [done.path, *(done.beside(suffix) for suffix in done.artefact)]
    found.append(f"saved in {', '.join(map(str, files))}")
    return found


def _forms(done: Exported) -> list[str]:
    if not done.choices:
        return []
    alike: dict[tuple[str, str], list[str]] = {}
    for name, choice in done.choices.items():
        alike.setdefault((str(choice.form), choice.reason), []).append(name.removeprefix("backbone."))
    names = [group[0] + (f" and {len(group) - 1} more" if len(group) > 1 else "") for group in alike.values()]
    width, column = max(map(len, names)), max(len(form) for form, _ in alike)
    found = [f"{name:{width}}  {form:{column}}  {why}" for name, (form, why) in zip(names, alike, strict=True)]
    kinds = Counter(
        "one dense layer" if not c.form.rank else "padded" if c.form != c.trained else "as trained"
        for c in done.choices.values()
    )
    if done.metadata.target == "generic" or len(done.estimated) == len(done.choices):
        how = "estimated for any machine"
    else:
        where = "" if done.metadata.runtime == DEFAULT else f" in {done.metadata.runtime}"
        how = f"measured{where} on this {_machine(done)}"
    found.append(f"forms {how}: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items()))
    return found


def _graphs(done: Exported) -> list[str]:
    """Return the line with the written graph's time over the dense graph's."""
    if not done.graphs:
        return []
    best, precision, found = fastest(done.graphs), done.metadata.precision, []
    for dense, what in ((MERGED, "all layers dense"), (DENSE_FP32, "all layers dense in fp32")):
        if dense in done.graphs[1]:
            ratios = {batch: at[best] / at[dense] for batch, at in done.graphs.items()}
            first, *rest = (f"{ratio:.2f}" for ratio in ratios.values())
            more = "".join(f"; {x}, batch {batch}" for x, batch in zip(rest, list(ratios)[1:], strict=True))
            found.append(f"the whole graph takes {first} of the time that it takes with {what}, batch 1{more}")
            if max(ratios.values()) > 1 + TIE:
                found.append(f"so on this machine {precision} is smaller, but slower than the dense model in fp32")
    return found


def _left_out(done: Exported) -> list[str]:
    """Return the line on what the time limit left out."""
    left = []
    if done.estimated:
        left.append(f"the forms of {len(done.estimated)} of {len(done.choices)} layers are estimated")
    if done.uncompared:
        at = "" if not done.graphs else f" at batch {', '.join(map(str, done.uncompared))}"
        left.append(f"whole graphs were not compared{at}")
    if not left:
        return []
    again = "with a longer --time-limit, or with less running beside it, all is measured"
    return [f"the time limit of {done.time_limit:g} s is over: {' and '.join(left)}; {again}"]


def _machine(done: Exported) -> str:
    return "GPU" if done.metadata.target == "cuda" else f"processor ({provenance.cpu_name()})"
