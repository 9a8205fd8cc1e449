"""What a cut leaves of a trained network before any training: truncated weights against factors fitted to outputs.

``python tests/benchmarks/low_rank_start.py NAME --data-dir DIR`` multiplies the factors of a run out, cuts the dense
network to a budget, and prints clean and PGD-10 accuracy on validation images: for each start, with the spectra as they
come and clamped to 1 + tau, with BatchNorm's statistics as they were and taken anew over 2,000 clean training images.
"""

import argparse
import copy
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.adversaries import Threat
from zoo.adversaries.fgsm_rs import FGSMRS
from zoo.attacks.pgd import PGD
from zoo.backbone import create_backbone, with_normalization
from zoo.budget import Budget
from zoo.data import open_data, to_unit
from zoo.data._split import stratified, train_val
from zoo.hub.runs import read_run
from zoo.linalg import clamp_spectrum
from zoo.lowrank.layers import factorized_layers
from zoo.lowrank.output_fit import fit_to_outputs_
from zoo.methods.robust_lowrank import RobustLowrank
from zoo.runs.transfer import load_multiplied_out

BATCH = 100
VAL_FRACTION = 0.04
"""Of the published recipes: what is measured on was not trained on."""


@torch.no_grad()
def clamp_(model: nn.Module, tau: float) -> None:
    """Clamp the spectra of all layers, as the first thing that a training does."""
    for _, layer in factorized_layers(model):
        layer.S.copy_(layer.as_core(clamp_spectrum(layer.core_matrix, tau)[0]))


@torch.no_grad()
def estimate_batchnorm_(model: nn.Module, images: Tensor) -> None:
    """Take BatchNorm's statistics anew: the mean over batches of 100."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    for batch in images.split(BATCH):
        model(batch)
    model.eval()


def measured(model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> str:
    """Return clean and PGD-10 accuracy in percent."""
    model = model.to(memory_format=torch.channels_last)
    right = PGD(steps=10)(model, images, labels, [0.0, eps], batch_size=BATCH, gradients="bf16").robust.float().mean(1)
    return " ".join(f"{100 * share:5.1f}" for share in right.tolist())


def main() -> None:
    """Print a row per start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--compression", type=float, default=0.9)
    parser.add_argument("--macs-reduction", type=float, default=0.9)
    parser.add_argument("--convolution", default="tucker")
    parser.add_argument("--tau", type=float, default=1.0)
    parser.add_argument("--eps", type=float, default=8 / 255)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    run = read_run(options.run)
    card = run.card
    backbone = create_backbone(card.arch, len(card.class_names), card.image_shape)
    load_multiplied_out(run, backbone)
    dense = with_normalization(backbone, card.mean, card.std).eval().to(memory_format=torch.channels_last)
    source = open_data(card.data, data_dir=options.data_dir).source(train=True)
    training, validation = train_val(source.labels, VAL_FRACTION)
    tested = validation[: options.n]
    images, labels = to_unit(source.fetch(tested)), source.labels[tested]
    many = to_unit(source.fetch(training[stratified(source.labels[training], 2000, seed=1)]))
    rows = training[stratified(source.labels[training], options.images, seed=options.seed)]
    clean, classes = to_unit(source.fetch(rows)), source.labels[rows]
    pairs = zip(clean.split(BATCH), classes.split(BATCH), strict=True)
    with torch.autocast("cpu", torch.bfloat16):
        attacked = torch.cat([FGSMRS().search(dense, x, y, Threat(options.eps)) for x, y in pairs])

    method = RobustLowrank(convolution=options.convolution)
    ranks = method.plan(backbone, Budget(options.compression, macs_reduction=options.macs_reduction))
    print(f"{card.arch}, {options.convolution}, validation images {len(labels)}; clean and PGD-10 accuracy, %")
    for start, calibration in {"weights": None, "clean": clean, "attacked": attacked}.items():
        model = with_normalization(method.convert(copy.deepcopy(backbone), ranks), card.mean, card.std).eval()
        began = time.perf_counter()
        if calibration is not None:
            fit_to_outputs_(model, dense, calibration)
        print(f"{start}: fitted in {time.perf_counter() - began:.0f} s", flush=True)
        for tau in (None, options.tau):
            clamped = copy.deepcopy(model)
            if tau is not None:
                clamp_(clamped, tau)
            bound = "as they come" if tau is None else f"tau {tau:g}"
            print(f"{start:10} {bound:13} {measured(method.deploy(clamped), images, labels, options.eps)}", flush=True)
            estimate_batchnorm_(clamped, many)
            found = measured(method.deploy(clamped), images, labels, options.eps)
            print(f"{start:10} {bound:13} {found}, BatchNorm anew", flush=True)


if __name__ == "__main__":
    main()
