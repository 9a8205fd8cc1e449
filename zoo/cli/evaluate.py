"""Measure runs' accuracy under attack, calibration, condition numbers and Lipschitz bound, on the test split.

The figures are added to each run's card, and the robustness curve is drawn to RUN/robustness.png. The
network is measured in its deployed form, in fp32, in eval mode. RUN/outcomes.npz keeps the verdict on each image after
each search: the same command resumes after an interruption.

With --compression A,B,... the command measures networks inside a nested run, adds them to the card's curve, and draws
accuracy against multiply-accumulates to RUN/curve.png.

With --shard K/N the command evaluates one of N parts of the images and keeps its verdicts in RUN/outcomes.K-of-N.npz;
with --merge N it puts the parts together, and continues as if it had evaluated them all. With --engine ray it spreads
the parts over the workers of a cluster, or of this machine, and merges them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.cli._engine import add_engine, engine_of
from zoo.cli._evaluation import Settings, evaluate_run
from zoo.cli._jobs import add_jobs, check_jobs, each
from zoo.cli._parser import Parser
from zoo.cli._run import add_hub
from zoo.cli._size_curve import check_curve
from zoo.errors import UserError, unknown_name

if TYPE_CHECKING:
    from zoo.evaluation import Shard, Sweep
    from zoo.probes import Probe

TASK = "measure"
ATTACKS_HELP = (
    "`quick` (FGSM, PGD-20; in L1 APGD, in L0 sigma-zero), `reliable` (the constraint-relaxation attack, Linf 8/255), "
    "`standard` (AutoAttack, Linf 8/255), `full` (AutoAttack with 5 restarts, Linf 8/255 and L2 0.5), or attacks by "
    "name, such as fgsm,apgd."
)


def main(parser: Parser, argv: list[str]) -> None:
    """Parse the arguments, evaluate each run, save, and print the tables."""
    _add_arguments(parser)
    options = parser.parse_args(argv)
    settings = _settings(options)
    check_jobs(options.jobs)
    if len(options.runs) == 1:
        evaluate_run(options.runs[0], options, settings)
        return
    if len(set(options.runs)) < len(options.runs):
        raise UserError("a run is given twice: leave one out")

    from zoo.hub.runs import look_at

    for target in options.runs:
        look_at(target, options.hub)
    each(partial(_evaluate, options=options), options.runs, options.jobs)


def _evaluate(target: str, options: Any) -> None:
    """Evaluate one run of several, perhaps in a process of its own."""
    evaluate_run(target, options, _settings(options))


def _settings(options: Any) -> Settings:
    """Check what the command line requests, before any work is done."""
    engine = engine_of(options)
    return Settings(
        shard=_shard(options),
        sweeps=requested_sweeps(options.attacks, options.norms, options.eps, options.seed),
        probes=probes_of(options.probes, options.seed),
        engine=engine,
        device=device_named("auto" if engine else options.device),
    )


def _shard(options: Any) -> Shard | None:
    """Return the requested part, if any; refuse numbers and combinations without meaning."""
    from zoo.evaluation import Shard

    if options.batch_size < 1 or (options.n != "all" and options.n < 1):
        raise UserError("--batch-size and --n must be at least 1")
    if options.compression is not None:
        check_curve(options)
        if options.ood is not None:
            raise UserError("--ood is of a whole run: leave it out with --compression")
    elif options.time:
        raise UserError("--time is of networks inside a nested run: give --compression, or time a file with zoo bench")
    if options.engine is not None and (options.shard, options.merge, options.compression) != (None, None, None):
        raise UserError("--engine cuts an evaluation into parts itself: leave --shard, --merge and --compression out")
    if options.shard is None:
        return None
    if options.merge is not None:
        raise UserError("--shard and --merge cannot be combined: --merge N comes when all N parts are there")
    if options.probes is not None:
        raise UserError("--probes look at all images: leave them out with --shard, and give them with --merge")
    if options.ood is not None:
        raise UserError("--ood looks at all images: leave it out with --shard, and give it with --merge")
    return Shard.parse(options.shard)


def _add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("runs", nargs="+", type=str, metavar="RUN", help="Folders of trainings, or published models' names.")
    add_hub(parser)
    add("--attacks", type=str, default="quick", help=ATTACKS_HELP)
    add(
        "--compression",
        type=str | None,
        default=None,
        help="Of a nested run: measure networks inside it, such as 0.5,0.8,0.9.",
    )
    add("--time", type=bool, default=False, help="With --compression: milliseconds of one image on this machine too.")
    add("--probes", type=str | None, default=None, help="More than attacks: all, or names from `zoo list --probes`.")
    add(
        "--ood",
        type=str | None,
        default=None,
        metavar="DATA",
        help="Another data set, such as svhn or imagefolder: how well confidences tell its images from the run's.",
    )
    add("--ood-dir", type=Path | None, default=None, help="Where the files of --ood are.")
    add("--norms", type=str, help="Linf, L2, L1, L0 or several; default Linf,L2, or Linf where --eps is given.")
    add(
        "--eps",
        type=str,
        help="Radii in pixels of [0, 1], such as 2/255,8/255, in L0 5,10, or by norm: Linf=8/255,L2=0.5,L0=5,10.",
    )
    add(
        "--n",
        type=int | Literal["all"],
        default=1000,
        help="Test images, the same share of each class, or all.",
    )
    add("--shard", type=str | None, default=None, help="Evaluate part K of N only, such as 2/8; see --merge.")
    add(
        "--merge",
        type=int | None,
        default=None,
        help="Put the N parts of --shard together; give the same options as for the parts.",
    )
    add_engine(parser)
    add("--batch-size", type=int, default=250, help="Images at a time, at most; on a CPU fewer large ones.")
    add(
        "--gradients",
        type=Literal["fp32", "bf16"],
        default="fp32",
        help="Precision of the attacks' gradients (with bf16, Square queries in TF32); verdicts are always fp32.",
    )
    add("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="Where to compute.")
    add("--data", type=str | None, default=None, help="Data set of a run that was compressed without one.")
    add(
        "--data-dir",
        type=Path | None,
        default=None,
        help="Where the data set's files are; default: where its training found them.",
    )
    add("--download", type=bool, default=False, help="Fetch the data set's files if they are missing.")
    add_jobs(parser)
    add("--seed", type=int, default=0, help="Of the choice of images and of the attacks' random starts.")


def requested_sweeps(attacks: str | None, norms: str | None, eps: str | None, seed: int) -> list[Sweep]:
    """Return the attacks and radii that lists of words request."""
    from zoo.attacks import NORMS
    from zoo.evaluation import choose_sweeps, parse_radii

    words = words_of(norms, "norms")
    for norm in words:
        if norm not in NORMS:
            raise unknown_name("norm", norm, NORMS)
    chosen = [norm for norm in NORMS if norm in words]
    radii = parse_radii(",".join(words_of(eps, "eps"))) or None
    return choose_sweeps(words_of(attacks, "attacks"), chosen or None, radii, seed)


def probes_of(text: str | None, seed: int) -> list[Probe]:
    """Return the probes of a list of names; ``all`` means all of them."""
    from zoo.probes import PROBES

    names = words_of(text, "probes")
    return [PROBES.get(name)(seed=seed) for name in (PROBES.names() if names == ["all"] else names)]


def words_of(text: str | None, flag: str) -> list[str]:
    """Split a list at its commas."""
    if text is None:
        return []
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UserError(f"--{flag} is empty: separate its entries with commas")
    return words


def device_named(name: str) -> str:
    """Return the device of --device; refuse one that is not there."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no CUDA device here; use cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
