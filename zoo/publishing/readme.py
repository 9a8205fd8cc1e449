"""The README of a published model, written from its card."""

from collections.abc import Iterable, Sequence

from zoo.attacks import format_eps
from zoo.runs.card import Card
from zoo.runs.records import Evaluation, Finding


def readme(card: Card) -> str:
    """Return the page of a published model, in Markdown; every figure in it is on the card."""
    parts = [_head(card), _results(card), _probes(card.findings), _speed(card), _use(card), _ranks(card), _origin(card)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(card: Card) -> str:
    channels, height, width = card.image_shape
    threat = card.threat_model
    facts = {
        "architecture": f"`{card.arch}` (timm)",
        "method": f"`{card.method}`" + (f" {_options(card.method_options)}" if card.method_options else ""),
        "data": f"{card.data}, {len(card.class_names)} classes, test split SHA-256 `{(card.data_sha256 or '-')[:16]}`",
        "images": f"{channels} x {height} x {width}, in [0, 1]; normalisation is part of the model",
        "threat model": f"{threat.norm}, eps {format_eps(threat.eps)}" if threat else "none",
        "parameters": f"{card.params:,} ({card.compression:.1%} fewer than {card.dense_params:,})",
        "multiply-accumulates": f"{card.macs:,} (dense {card.dense_macs:,})",
        "largest condition number": "-" if card.max_condition_number is None else f"{card.max_condition_number:.4g}",
        "Lipschitz bound": "-" if card.lipschitz_bound is None else f"{card.lipschitz_bound:.3g}",
        "weights": f"{card.weights.bytes / 1e6:.2f} MB, {card.weights.dtype}",
        "licence": card.licence or "-",
    }
    return f"# {card.name}\n\n" + _table(("", ""), facts.items())


def _options(options: dict[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in options.items())


def _results(card: Card) -> str:
    warnings = "".join(f"**{doubt.reason.capitalize()}**: {doubt.consequence}.\n\n" for doubt in card.doubts)
    rows = [(e.attack, _settings(e), e.norm or "", format_eps(e.eps) if e.norm else "", f"{e.accuracy:.2%}", f"{e.n:,}")
            for e in card.evaluations]  # fmt: skip
    return f"## Accuracy\n\n{warnings}" + _table(("attack", "settings", "norm", "eps", "accuracy", "images"), rows)


def _settings(e: Evaluation) -> str:
    return _options({key: value for key, value in e.options.items() if key in ("steps", "restarts", "gradients")})


def _probes(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    rows = [
        (f.probe, _options(dict(f.case)) or f.note, "-" if f.accuracy is None else f"{f.accuracy:.2%}", f"{f.n:,}")
        for f in findings
    ]
    return "## More than attacks\n\n" + _table(("probe", "case", "accuracy", "images"), rows)


def _speed(card: Card) -> str:
    if not card.latency:
        return ""
    rows = [(t.batch, f"{t.median_ms:.2f}", f"{t.p95_ms:.2f}", f"{t.ratio_to_dense:.2f}", t.n) for t in card.latency]
    first = card.latency[0]
    note = f"{first.provider}, {first.threads} threads, {first.hardware}."
    return (
        "## Latency\n\n"
        + _table(("batch", "median, ms", "95th percentile", "over dense", "runs"), rows)
        + f"\n\n{note}"
    )


def _use(card: Card) -> str:
    code = (
        "```python\nimport zoo\n\n"
        f'model = zoo.create_model("{card.name}", pretrained=True)  # images in [0, 1] to logits\n```'
    )
    return f"## Use\n\n{code}\n\n```bash\nzoo export {card.name}\nzoo verify {card.name}\n```"


def _ranks(card: Card) -> str:
    if not card.ranks:
        return ""
    rows = [
        (f"`{row.name}`", " x ".join(map(str, row.shape)), row.rank if row.rank is not None else "dense", row.note)
        for row in card.layers
    ]
    return "## Layers\n\n" + _table(("layer", "weight", "rank", ""), rows or card.ranks.items())


def _origin(card: Card) -> str:
    made = card.provenance
    packages = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    parity = ", ".join(f"{value:.1e} (batch {batch})" for batch, value in card.parity.items())
    files = [(f"`{f.file}`", f"{f.bytes:,}", f"`{f.sha256}`") for f in (card.weights, *card.files)]
    commands = _table(("figures", "measured again by"), ((k, f"`{v}`") for k, v in card.commands.items()))
    return (
        f"## Provenance\n\n```bash\n{made.command}\n```\n\n"
        f"Seed {made.seed}, commit `{made.commit or 'unknown'}`, {made.hardware}. {packages}.\n\n{commands}\n\n"
        + (f"Largest relative difference of the ONNX file's logits: {parity}.\n\n" if parity else "")
        + _table(("file", "bytes", "SHA-256"), files)
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
