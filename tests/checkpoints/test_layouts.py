"""Whatever layout a checkpoint is in, the backbone's logits are those of the model that it was saved from."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from make_run import shake
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.backbone import create_backbone
from zoo.checkpoints import Checkpoint, is_checkpoint, load_checkpoint_, read_checkpoint, sizes_in

ARCH, SHAPE, CLASSES = "test_resnet", (3, 96, 96), 10
State = dict[str, Tensor]


def model_of(arch: str = ARCH, classes: int = CLASSES, seed: int = 0, **options: object) -> nn.Module:
    torch.manual_seed(seed)
    return shake(timm.create_model(arch, num_classes=classes, **options)).eval()


def state(seed: int = 0, classes: int = CLASSES) -> State:
    return model_of(seed=seed, classes=classes).state_dict()


def prefixed(prefix: str, tensors: State) -> State:
    return {prefix + name: tensor for name, tensor in tensors.items()}


LAYOUTS: dict[str, Callable[[State], object]] = {
    "bare": lambda x: x,
    "state_dict": lambda x: {"state_dict": x, "epoch": 3},
    "model": lambda x: {"model": x, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
    "timm's training script": lambda x: {"state_dict": x, "args": argparse.Namespace(lr=0.1), "metric": 0.5},
    "module.": lambda x: {"state_dict": prefixed("module.", x)},
    "torch.compile": lambda x: prefixed("_orig_mod.", x),
    "nested": lambda x: {"model": prefixed("module._orig_mod.model.backbone.", x)},
    "Lightning": lambda x: {
        "state_dict": {**prefixed("model.", x), "criterion.weight": torch.ones(10)},
        "hyper_parameters": {"lr": 0.1},
        "pytorch-lightning_version": "2.6.6",
    },
    "another name for the network": lambda x: {"state_dict": prefixed("net.resnet.", x)},
    "averaged beside raw": lambda x: {"state_dict": state(seed=1), "state_dict_ema": x},
    "torch's average": lambda x: {
        "model": state(seed=1),
        "model_ema": {"n_averaged": torch.tensor(7), **prefixed("module.", x)},
    },
    "average in the module": lambda x: {
        "state_dict": {**prefixed("model.", state(seed=1)), **prefixed("ema_model.", x)}
    },
    "before num_batches_tracked": lambda x: {k: v for k, v in x.items() if not k.endswith("num_batches_tracked")},
    "half precision": lambda x: {k: v.half().to(v.dtype) if v.is_floating_point() else v for k, v in x.items()},
}


@torch.no_grad()
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".pth", ".ckpt"])
def test_a_pickle_in_any_layout_gives_the_same_logits(layout: str, suffix: str, tmp_path: Path) -> None:
    expected = model_of()
    file = tmp_path / f"x{suffix}"
    torch.save(LAYOUTS[layout](expected.state_dict()), file, _use_new_zipfile_serialization=suffix == ".pth")
    found = create_backbone(ARCH, CLASSES, SHAPE).eval()
    load_checkpoint_(found, read_checkpoint(file))
    images = torch.rand(2, *SHAPE)
    tolerance = 1e-2 if layout == "half precision" else 1e-5
    assert torch.allclose(found(images), expected(images), atol=tolerance)


@pytest.mark.parametrize("prefix", ["", "model.", "backbone.", "module.model."])
def test_safetensors_with_any_prefix(prefix: str, tmp_path: Path) -> None:
    expected = model_of()
    save_file(prefixed(prefix, expected.state_dict()), tmp_path / "x.safetensors")
    found = create_backbone(ARCH, CLASSES, SHAPE)
    assert load_checkpoint_(found, read_checkpoint(tmp_path / "x.safetensors")).notes == ()
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in expected.state_dict().items())


def test_the_averaged_weights_are_named() -> None:
    found = create_backbone(ARCH, CLASSES, SHAPE)
    loaded = load_checkpoint_(found, Checkpoint(Path("x"), state(), entry="state_dict_ema"))
    assert loaded.notes == ("the averaged weights in state_dict_ema",)


@pytest.mark.parametrize("beside", [{}, {"label_names": [f"c{i}" for i in range(10)]}])
def test_a_folder_in_timm_s_layout(beside: dict[str, object], tmp_path: Path) -> None:
    expected = model_of()
    about = {"input_size": [3, 160, 160], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    save_file(expected.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": ARCH, "num_classes": 10, "pretrained_cfg": about, **beside}
    (tmp_path / "config.json").write_text(json.dumps(config))
    read = read_checkpoint(tmp_path)
    assert (read.arch, read.input_size, read.mean, read.std) == (ARCH, (3, 160, 160), (0.5,) * 3, (0.25,) * 3)
    assert read.class_names == (tuple(beside["label_names"]) if beside else None)
    assert not load_checkpoint_(create_backbone(ARCH, CLASSES, SHAPE), read).new_head


def test_a_folder_whose_weights_are_in_several_files(tmp_path: Path) -> None:
    tensors = list(state().items())
    parts = {"model-1-of-2.safetensors": dict(tensors[:50]), "model-2-of-2.safetensors": dict(tensors[50:])}
    for name, part in parts.items():
        save_file(part, tmp_path / name)
    weight_map = {name: file for file, part in parts.items() for name in part}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert read_checkpoint(tmp_path).tensors.keys() == dict(tensors).keys()


def huggingface_resnet(tensors: State) -> State:
    """The names of transformers' ResNetForImageClassification."""
    names = {"conv1": "embedder.embedder.convolution", "bn1": "embedder.embedder.normalization", "fc": "classifier.1"}
    kinds = {"conv": "convolution", "bn": "normalization"}

    def name_of(name: str) -> str:
        module, _, what = name.rpartition(".")
        if module in names:
            return f"{'' if module == 'fc' else 'resnet.'}{names[module]}.{what}"
        stage, block, *rest = module.split(".")
        where = f"resnet.encoder.stages.{int(stage[-1]) - 1}.layers.{block}"
        if rest[0] == "downsample":
            return f"{where}.shortcut.{'convolution' if rest[1] == '0' else 'normalization'}.{what}"
        return f"{where}.layer.{int(rest[0][-1]) - 1}.{kinds[rest[0][:-1]]}.{what}"

    return {name_of(name): tensor for name, tensor in tensors.items()}


def huggingface_transformer(tensors: State) -> State:
    """The names of transformers' ViTForImageClassification."""
    ends = {"cls_token": "vit.embeddings.cls_token", "pos_embed": "vit.embeddings.position_embeddings"}
    modules = {"patch_embed.proj": "vit.embeddings.patch_embeddings.projection", "norm": "vit.layernorm"}
    modules["head"] = "classifier"
    inner = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.output.dense"}
    inner |= {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
    result: State = {"vit.pooler.dense.weight": torch.ones(3, 3)}
    for name, tensor in tensors.items():
        module, _, what = name.rpartition(".")
        _, number, layer = [*module.split(".", 2), "", ""][:3]
        block = f"vit.encoder.layer.{number}"
        if name in ends:
            result[ends[name]] = tensor
        elif module in modules:
            result[f"{modules[module]}.{what}"] = tensor
        elif layer == "attn.qkv":
            for part, value in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                result[f"{block}.attention.attention.{part}.{what}"] = value.clone()
        else:
            result[f"{block}.{inner[layer]}.{what}"] = tensor
    return result


@torch.no_grad()
@pytest.mark.parametrize(
    ("arch", "options", "renamed"),
    [
        ("resnet18", {}, huggingface_resnet),
        ("resnet50", {}, huggingface_resnet),
        ("vit_tiny_patch16_224", {"img_size": 96}, huggingface_transformer),
    ],
)
def test_a_folder_in_hugging_face_s_layout(arch: str, options: dict, renamed: Callable, tmp_path: Path) -> None:
    expected = model_of(arch, **options)
    save_file(renamed(expected.state_dict()), tmp_path / "model.safetensors")
    config = {"architectures": ["X"], "id2label": {str(i): f"name {i}" for i in reversed(range(10))}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.2] * 3}))
    read = read_checkpoint(tmp_path)
    found = create_backbone(arch, CLASSES, SHAPE).eval()
    assert load_checkpoint_(found, read).notes == ("Hugging Face's names",)
    images = torch.rand(2, *SHAPE)
    assert torch.allclose(found(images), expected(images), atol=1e-5)
    assert read.class_names == tuple(f"name {i}" for i in range(10))
    assert read.mean == (0.5, 0.5, 0.5)


def test_class_names_beside_the_weights(tmp_path: Path) -> None:
    for names in (["cat", "dog"], {"dog": 1, "cat": 0}):
        key = "class_names" if isinstance(names, list) else "class_to_idx"
        torch.save({"state_dict": state(classes=2), key: names}, tmp_path / "x.pth")
        assert read_checkpoint(tmp_path / "x.pth").class_names == ("cat", "dog")


def test_another_number_of_classes_means_a_new_head() -> None:
    found = create_backbone(ARCH, 4, SHAPE)
    head = found.state_dict()["fc.weight"].clone()
    loaded = load_checkpoint_(found, Checkpoint(Path("x"), state()))
    assert loaded.notes == ("a new head for 4 classes, the checkpoint has 10",)
    assert loaded.new_head
    assert torch.equal(found.state_dict()["fc.weight"], head)
    without = {name: tensor for name, tensor in state().items() if not name.startswith("fc.")}
    assert load_checkpoint_(found, Checkpoint(Path("x"), without)).notes[0].endswith("the checkpoint has none")


@torch.no_grad()
def test_channels_are_adapted_as_timm_does() -> None:
    stem = next(name for name, x in state().items() if x.ndim == 4)
    for channels in (1, 4):
        found = create_backbone(ARCH, CLASSES, (channels, 96, 96))
        loaded = load_checkpoint_(found, Checkpoint(Path("x"), state()))
        expected = timm.models.adapt_input_conv(channels, state()[stem])
        assert torch.equal(found.state_dict()[stem], expected)
        assert loaded.notes == (f"{stem} adapted to {channels} channels",)


def test_positions_are_resized_to_the_images() -> None:
    tensors = model_of("vit_tiny_patch16_224", img_size=96).state_dict()
    found = create_backbone("vit_tiny_patch16_224", CLASSES, (3, 160, 160))
    assert load_checkpoint_(found, Checkpoint(Path("x"), tensors)).notes == ("pos_embed resized to these images",)


def test_the_sizes_of_the_ends_are_read_off() -> None:
    assert sizes_in(Checkpoint(Path("x"), prefixed("module.", state(classes=7))), ARCH) == (7, 3)


def test_a_run_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert is_checkpoint(tmp_path / "run")
    (tmp_path / "run" / "card.json").write_text("{}")
    assert not is_checkpoint(tmp_path / "run")
    assert is_checkpoint(tmp_path / "missing.pth")
    assert not is_checkpoint(Path("resnet18.robust_lowrank80_c10"))
