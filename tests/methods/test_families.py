"""Any timm model converts, trains one step, exports and agrees with ONNX Runtime.

The ``test_*`` models are checked always; one small model per family with
`pytest -m slow --dist load tests/methods/test_families.py`.
"""

from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from timm.models import model_entrypoint
from torch import nn

from zoo.backbone import create_backbone, with_normalization
from zoo.budget import Budget
from zoo.errors import UserError
from zoo.export.exporter import export_model
from zoo.lowrank.factorize import factorize
from zoo.methods import METHODS
from zoo.runs.file_metadata import Metadata
from zoo.runtime.complexity import count_params

FAMILIES = [
    "beit_base_patch16_224",
    "eca_botnext26ts_256",
    "mobileone_s1",
    "cait_xxs24_224",
    "coat_tiny",
    "convit_tiny",
    "convmixer_768_32",
    "convnext_atto",
    "cpubone_nano",
    "crossvit_tiny_240",
    "csatv2",
    "cs3darknet_focus_s",
    "cspnext_tiny",
    "davit_tiny",
    "deit_tiny_patch16_224",
    "densenet121",
    "dla46x_c",
    "dpn48b",
    "edgenext_xx_small",
    "efficientformer_l1",
    "efficientformerv2_s0",
    "mobilenetv2_035",
    "efficientvim_m1",
    "efficientvit_b0",
    "efficientvit_m0",
    "eva02_tiny_patch14_224",
    "fasternet_t0",
    "fastvit_t8",
    "focalnet_tiny_srf",
    "gcvit_xxtiny",
    "ghostnet_050",
    "hardcorenas_a",
    "hgnetv2_b0",
    "hiera_tiny_224",
    "sam2_hiera_tiny",
    "hrnet_w18_small",
    "iformer_t",
    "inception_next_atto",
    "inception_resnet_v2",
    "inception_v3",
    "inception_v4",
    "lcnetv2_small",
    "levit_128s",
    "lowformer_b0",
    "mambaout_femto",
    "coatnet_nano_rw_224",
    "poolformer_s12",
    "gmlp_ti16_224",
    "mobilenetv3_small_050",
    "mobilevit_xxs",
    "mvitv2_tiny",
    "naflexvit_base_patch16_gap",
    "nasnetalarge",
    "nest_tiny",
    "nextvit_small",
    "eca_nfnet_l0",
    "pit_ti_224",
    "pnasnet5large",
    "pvt_v2_b0",
    "rdnet_tiny",
    "regnetx_002",
    "repghostnet_050",
    "repvit_m0_9",
    "res2net50_48w_2s",
    "resnest14d",
    "resnet10t",
    "resnetv2_18",
    "rexnet_100",
    "selecsls42",
    "legacy_seresnet18",
    "sequencer2d_s",
    "shvit_s1",
    "skresnet18",
    "starnet_s050",
    "swiftformer_xs",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "swinv2_cr_tiny_224",
    "tiny_vit_5m_224",
    "tnt_s_legacy_patch16_224",
    "tresnet_m",
    "twins_svt_small",
    "vgg11",
    "visformer_tiny",
    "vit_tiny_patch16_224",
    "vit_tiny_r_s16_p8_224",
    "vit_relpos_small_patch16_224",
    "samvit_base_patch16_224",
    "vitamin_small_224",
    "volo_d1_224",
    "ese_vovnet19b_slim",
    "legacy_xception",
    "xception41",
    "xcit_nano_12_p16_224",
]
"""One small model of each timm family; those of a few families with nothing small are left out, see `TOO_LARGE`."""

TOO_LARGE = {"deepseek_vit", "gemma4_vit", "qwen3_vit", "mobilenetv5"}
"""Families whose smallest classifier needs more memory or time than a test machine has."""

NATIVE_SIZE = {"crossvit_tiny_240": 240, "efficientformer_l1": 224}
"""Models that cannot be built for 64 pixels, with the size they are checked at."""

UNSUPPORTED: dict[str, str] = {
    # NFNets standardize each weight when it is used, so that hardly a layer of theirs is a plain convolution.
    "test_nfnet": "compression 0.5 cannot be reached here",
    "eca_nfnet_l0": "ScaledStdConv2d computes its weight",
}
"""Models that cannot go all the way, with the reason that zoo gives."""


def metadata(arch: str, shape: tuple[int, int, int]) -> Metadata:
    names, half = tuple("abcdefghij"), (0.5,) * 3
    return Metadata("0", arch, "robust_lowrank", "digits", shape, names, half, half, 0, 0, 0, 0, {}, "0", "", "")


def go_all_the_way(arch: str, folder: Path, size: int = 64) -> None:
    shape = (3, size, size)
    method = METHODS.get("robust_lowrank")(init="random")
    model = create_backbone(arch, 10, shape)
    dense = count_params(model)
    ranks = method.plan(model, Budget(compression=0.5))
    model = with_normalization(method.convert(model, ranks), (0.5,) * 3, (0.25,) * 3).train()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(method.parameter_groups(model, 1e-4), lr=0.001)
    for _ in range(2):  # where a branch starts multiplied by zero, its weights move in the second step
        optimizer.zero_grad()
        loss = method.loss(model, torch.rand(4, *shape), torch.arange(4))["loss"]
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
    changed = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert sum(changed) > 0.5 * len(changed)
    deployed = method.deploy(model).eval()
    assert 0.5 <= 1 - count_params(deployed) / dense <= 0.52
    export_model(deployed, metadata(arch, shape), folder / "model.onnx")


SOON = ("test_byobnet", "test_convnext", "test_efficientnet", "test_mambaout", "test_maxvit", "test_resnet", "test_vit")
"""Tried in every run of the suite; the others need `pytest -m slow --dist load tests/methods/test_families.py`."""


@pytest.mark.parametrize(
    "arch", [pytest.param(x, marks=() if x in SOON else pytest.mark.slow) for x in timm.list_models("test_*")]
)
def test_models_made_for_tests(arch: str, tmp_path: Path) -> None:
    if arch in UNSUPPORTED:
        with pytest.raises(UserError, match=UNSUPPORTED[arch]):
            go_all_the_way(arch, tmp_path)
    else:
        go_all_the_way(arch, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("arch", FAMILIES)
def test_one_model_of_each_family(arch: str, tmp_path: Path) -> None:
    if arch in UNSUPPORTED:
        with pytest.raises(UserError, match=UNSUPPORTED[arch]):
            go_all_the_way(arch, tmp_path, NATIVE_SIZE.get(arch, 64))
    else:
        go_all_the_way(arch, tmp_path, NATIVE_SIZE.get(arch, 64))


def test_every_family_of_timm_has_a_member_here() -> None:
    listed = {model_entrypoint(arch).__module__ for arch in FAMILIES}
    families = {model_entrypoint(arch).__module__ for arch in timm.list_models()}
    assert {f.rpartition(".")[2] for f in families - listed} <= TOO_LARGE


def test_a_layer_whose_weight_the_model_reads_itself() -> None:
    """BEiT passes ``self.qkv.weight`` to F.linear: factorized and folded layers still have a weight."""

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(12, 30, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, self.qkv.weight)

    model, x = Reads(), torch.rand(3, 12)
    expected = model(x)
    torch.testing.assert_close(factorize(model, {"qkv": 12})(x), expected, atol=1e-5, rtol=1e-4)
    low = factorize(Reads(), {"qkv": 3})
    torch.testing.assert_close(METHODS.get("lowrank")().deploy(low)(x), low(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("shape", "grid"),
    [((3, 48, 32), (12, 8)), ((1, 32, 48), (8, 12)), ((3, 28, 20), (14, 10)), ((3, 96, 128), (6, 8))],
)
def test_a_vision_transformer_sees_every_pixel_of_images_that_are_not_square(
    shape: tuple[int, int, int], grid: tuple[int, int]
) -> None:
    model = create_backbone("test_vit", 10, shape).eval()
    assert model.patch_embed.grid_size == grid
    assert tuple(side * patch for side, patch in zip(grid, model.patch_embed.patch_size, strict=True)) == shape[1:]
    assert model(torch.rand(2, *shape)).shape == (2, 10)


def test_a_model_that_fails_on_such_images_is_not_built() -> None:
    """crossvit is built for 64 pixels without a word, and its forward pass fails."""
    with pytest.raises(UserError, match="crossvit_tiny_240 cannot be built for 64 x 64 images"):
        create_backbone("crossvit_tiny_240", 10, (3, 64, 64))


def test_pretrained_weights_that_cannot_be_fetched_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"weights of resnet18\.a1_in1k cannot be fetched"):
        create_backbone("resnet18.a1_in1k", 10, (3, 96, 96), pretrained=True)


def test_without_a_network_pretrained_weights_are_not_tried_for_again_and_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """huggingface_hub would take half a minute for each file, and print a line for each time."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"weights of resnet18\.a1_in1k cannot be fetched"):
        create_backbone("resnet18.a1_in1k", 10, (3, 96, 96), pretrained=True)
    assert capfd.readouterr() == ("", "")
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_the_original_stem_on_small_images() -> None:
    original = create_backbone("resnet18", 10, (3, 32, 32), stem="original")
    assert original.conv1.kernel_size == (7, 7)
    assert create_backbone("resnet18", 10, (3, 32, 32)).conv1.kernel_size == (3, 3)
    with pytest.raises(UserError, match="give --stem original"):
        create_backbone("resnet18.a1_in1k", 10, (3, 32, 32), pretrained=True)
