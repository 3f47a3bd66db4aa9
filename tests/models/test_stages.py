"""Freezing: the last stage of every family, and that what is frozen does not move by one bit."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import timm
import torch
from torch import nn

from mlcls.errors import RecipeError
from mlcls.models.classifier import Classifier, build_classifier
from mlcls.models.stages import (
    count_parameters,
    last_stage,
    layer_depths,
    layer_scales,
    set_trainable,
    train_mode,
    unfreezing_order,
)
from mlcls.models.weights import WeightsReport

# Tiny variants, with every kind of dropout that the family has switched on.
FAMILIES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "cnn4": ({"drop_rate": 0.3}, ("blocks.3",)),
    "test_resnet": ({"drop_path_rate": 0.3}, ("layer4",)),
    "mobilenetv3_small_050": ({"drop_path_rate": 0.3}, ("blocks.4", "blocks.5", "conv_head")),
    "test_efficientnet": ({"drop_path_rate": 0.3}, ("blocks.4", "conv_head", "bn2")),
    "test_convnext": ({"drop_path_rate": 0.3}, ("stages.3", "head")),
    "test_vit": ({"pos_drop_rate": 0.3, "proj_drop_rate": 0.3, "drop_path_rate": 0.3}, ("blocks.5", "norm")),
}
PIXELS = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def classifier(backbone: str) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(backbone, "mlp", 2, backbone_args=FAMILIES[backbone][0], image_size=32)


def train(model: Classifier, steps: int = 2) -> set[str]:
    """Train with weight decay; the names of parameters and buffers that changed."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW(
        (p for p in model.parameters() if p.requires_grad), lr=0.01, weight_decay=0.1
    )
    for _ in range(steps):
        train_mode(model)
        optimizer.zero_grad()
        model(PIXELS).square().mean().backward()
        optimizer.step()
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("backbone", FAMILIES)
def test_last_stage(backbone: str) -> None:
    assert last_stage(classifier(backbone).backbone) == FAMILIES[backbone][1]


@pytest.mark.parametrize("backbone", FAMILIES)
def test_a_frozen_backbone_stays_bit_equal_and_computes_as_in_evaluation(backbone: str) -> None:
    model = classifier(backbone)
    assert set_trainable(model, "none") == ("head",)
    changed = train(model)
    assert changed
    assert all(name.startswith("head.") for name in changed)
    train_mode(model)
    in_training = model.embed(PIXELS)
    model.eval()
    assert torch.equal(in_training, model.embed(PIXELS))


@pytest.mark.parametrize("backbone", FAMILIES)
def test_only_the_last_stage_changes(backbone: str) -> None:
    model = classifier(backbone)
    last = tuple(f"backbone.{name}" for name in FAMILIES[backbone][1])
    assert set_trainable(model, "last") == ("head", *last)
    changed = train(model)
    within = tuple(f"{name}." for name in ("head", *last))
    assert all(name.startswith(within) for name in changed)
    for name in last:
        assert any(key.startswith(f"{name}.") for key in changed)
    train_mode(model)
    assert all(module.training for name in last for module in model.get_submodule(name).modules())


@pytest.mark.parametrize("backbone", FAMILIES)
def test_all_changes_everything(backbone: str) -> None:
    model = classifier(backbone)
    set_trainable(model, "none")
    assert set_trainable(model, "all") == ("head", "backbone")
    assert all(p.requires_grad for p in model.parameters())
    changed = train(model)
    assert {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()} <= changed
    assert any("backbone" in name and "running" in name for name in changed) or backbone in (
        "test_vit",
        "test_convnext",
    )
    assert all(module.training for module in model.modules())


def test_going_back_to_a_frozen_backbone_freezes_it() -> None:
    model = classifier("test_resnet")
    set_trainable(model, "all")
    train(model, steps=1)
    set_trainable(model, "none")
    assert all(name.startswith("head.") for name in train(model))


def test_dropouts_outside_the_stages_follow_what_stands_before_them() -> None:
    model = classifier("test_vit")
    set_trainable(model, "last")
    train_mode(model)
    assert not model.backbone.pos_drop.training  # after the frozen patch embedding
    assert model.backbone.head_drop.training  # after the trainable norm
    assert not any(m.training for block in list(model.backbone.blocks)[:5] for m in block.modules())


class _NormsWithoutParameters(nn.Module):
    """A backbone whose BatchNorms have statistics but no parameters, one in each of its two parts and one between."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False))
        self.between = nn.BatchNorm2d(4, affine=False)
        self.second = nn.Sequential(
            nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5, affine=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.between(self.first(x))).mean((2, 3))


@pytest.mark.parametrize(
    ("unfreeze", "moving"),
    [
        ("none", []),
        ("second", ["second.0", "second.2"]),
        ("all", ["first.1", "between", "second.0", "second.2"]),
    ],
)
def test_statistics_without_parameters_move_only_where_the_model_trains(
    unfreeze: str, moving: Sequence[str]
) -> None:
    model = Classifier(
        _NormsWithoutParameters(),
        nn.Linear(5, 2),
        attributes=2,
        features=5,
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        weights=WeightsReport("none", 0, ()),
    )
    set_trainable(model, unfreeze)
    changed = {name for name in train(model) if name.endswith("running_mean")}
    assert changed == {f"backbone.{name}.running_mean" for name in moving}


def test_module_names_as_a_list_or_joined_by_commas() -> None:
    model = classifier("test_resnet")
    expected = ("head", "backbone.layer3", "backbone.layer4")
    assert set_trainable(model, "layer3, layer4") == expected
    assert set_trainable(model, ["layer3", "last"]) == expected
    trainable = {
        n.split(".")[1] for n, p in model.named_parameters() if p.requires_grad and n.startswith("backbone")
    }
    assert trainable == {"layer3", "layer4"}
    assert set_trainable(model, "layer4.0.conv1") == ("head", "backbone.layer4.0.conv1")
    assert count_parameters(model.backbone)[0] == model.backbone.layer4[0].conv1.weight.numel()


@pytest.mark.parametrize(
    ("unfreeze", "message"),
    [
        ("layer5", "--unfreeze: 'layer5' is no module of the backbone; did you mean 'layer"),
        (
            "xyz",
            "--unfreeze: 'xyz'.*expected none, last, all, gradual, or modules such as: conv1, bn1, layer1",
        ),
        ("maxpool", "--unfreeze: 'maxpool' has no parameters"),
        ("layer4,all", "--unfreeze: 'all' stands alone"),
        ("layer4,gradual", "--unfreeze: 'gradual' stands alone"),
        ("gradul", "did you mean 'gradual'"),
        ("layer4,", "--unfreeze: ''"),
        ("", "--unfreeze: ''"),
    ],
)
def test_an_unknown_module_is_refused_by_name(unfreeze: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        set_trainable(classifier("test_resnet"), unfreeze)


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("regnetx_002", ("s4",)),
        ("test_byobnet", ("stages.3",)),
        ("test_nfnet", ("stages.3", "final_conv")),
        ("test_vit3", ("blocks.8", "norm", "attn_pool")),
        ("swin_tiny_patch4_window7_224", ("layers.3", "norm")),
        ("xcit_nano_12_p16_224", ("blocks.11", "cls_attn_blocks", "norm")),
    ],
)
def test_last_stage_of_more_families(backbone: str, expected: tuple[str, ...]) -> None:
    with torch.device("meta"):  # the names are all that is asked, so no weights are made
        assert last_stage(timm.create_model(backbone, num_classes=0)) == expected


def test_last_stage_without_feature_info_is_the_last_coarse_group_then_the_last_child() -> None:
    model = timm.create_model("test_resnet", num_classes=0)
    del model.feature_info
    assert last_stage(model) == ("layer4",)
    assert last_stage(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU())) == ("1",)
    with pytest.raises(RecipeError, match="--unfreeze last"):
        last_stage(nn.Sequential(nn.ReLU()))


def test_counts_add_up() -> None:
    model = classifier("test_vit")
    set_trainable(model, "last")
    trainable, frozen = count_parameters(model)
    assert trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable + frozen == sum(p.numel() for p in model.parameters())


MORE_FAMILIES = (
    "regnetx_002",
    "test_byobnet",
    "test_nfnet",
    "swin_tiny_patch4_window7_224",
    "densenet121",
    "vgg11",
)


def on_meta(backbone: str) -> Classifier:
    """A classifier without weights: for its names alone."""
    with torch.device("meta"):
        model = timm.create_model(backbone, num_classes=0)
        return Classifier(
            model,
            nn.Linear(2, 2),
            attributes=2,
            features=2,
            mean=(0.5,) * 3,
            std=(0.2,) * 3,
            weights=WeightsReport("none", 0, ()),
        )


def trainable_names(model: Classifier, unfreeze: str) -> set[str]:
    set_trainable(model, unfreeze)
    return {name for name, p in model.backbone.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("backbone", [*FAMILIES, *MORE_FAMILIES])
def test_each_step_of_unfreezing_holds_those_before_it_from_the_last_stage_to_all(backbone: str) -> None:
    model = on_meta(backbone)
    order = unfreezing_order(model.backbone)
    assert 2 <= len(order) <= 5
    assert order[0] == ",".join(last_stage(model.backbone))
    assert order[-1] == "all"
    trains = [trainable_names(model, step) for step in order]
    assert all(before < after for before, after in itertools.pairwise(trains))
    assert trains[-1] == {name for name, _ in model.backbone.named_parameters()}


def test_the_steps_of_a_resnet_and_of_a_vit_with_more_blocks_than_steps() -> None:
    resnet = on_meta("test_resnet").backbone
    assert unfreezing_order(resnet) == (
        "layer4", "layer3,layer4", "layer2,layer3,layer4", "layer1,layer2,layer3,layer4", "all",
    )  # fmt: skip
    assert unfreezing_order(resnet, 2) == ("layer4", "all")
    assert unfreezing_order(resnet, 3) == ("layer4", "layer2,layer3,layer4", "all")
    vit = on_meta("test_vit3").backbone  # nine blocks
    assert unfreezing_order(vit, 4) == (
        "blocks.8,norm,attn_pool",
        "blocks.5,blocks.6,blocks.7,blocks.8,norm,attn_pool",
        "blocks.3,blocks.4,blocks.5,blocks.6,blocks.7,blocks.8,norm,attn_pool",
        "all",
    )


def test_the_steps_without_feature_info_are_groups_then_children() -> None:
    model = timm.create_model("test_resnet", num_classes=0)
    del model.feature_info
    assert unfreezing_order(model)[:2] == ("layer4", "layer3,layer4")
    assert unfreezing_order(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))) == ("2", "all")
    assert unfreezing_order(nn.Sequential(nn.Linear(2, 2))) == ("all",)


@pytest.mark.parametrize("backbone", [*FAMILIES, *MORE_FAMILIES])
def test_depths_are_whole_and_the_head_is_deepest(backbone: str) -> None:
    model = on_meta(backbone)
    depths = layer_depths(model)
    assert set(depths) == {name for name, _ in model.named_parameters()}
    top = max(depths.values())
    assert {name for name, depth in depths.items() if depth == top} == {"head.weight", "head.bias"}
    assert set(depths.values()) == set(range(top + 1))
    # from the last stage on, all lies deeper than the stem
    last = tuple(f"backbone.{name}." for name in last_stage(model.backbone))
    first = next(name for name in depths if name.startswith("backbone."))
    assert depths[first] == 0
    assert min(depth for name, depth in depths.items() if name.startswith(last)) > 0


def test_depths_of_a_resnet_a_vit_and_the_small_network() -> None:
    resnet = layer_depths(on_meta("resnet18"))
    blocks = [
        resnet[f"backbone.layer{stage}.{block}.conv1.weight"] for stage in range(1, 5) for block in range(2)
    ]
    assert blocks == list(range(1, 9))
    assert resnet["backbone.conv1.weight"] == resnet["backbone.bn1.bias"] == 0
    assert resnet["head.weight"] == 9
    vit = layer_depths(on_meta("test_vit"))
    assert vit["backbone.pos_embed"] == vit["backbone.patch_embed.proj.weight"] == 0
    assert [vit[f"backbone.blocks.{block}.attn.qkv.weight"] for block in range(6)] == list(range(1, 7))
    assert (vit["backbone.norm.weight"], vit["head.weight"]) == (6, 7)
    small = layer_depths(on_meta("cnn4"))
    convolutions = [name for name in small if name.endswith("weight") and "blocks" in name][::2]
    assert [small[name] for name in convolutions] == [0, 1, 2, 3]
    assert small["backbone.blocks.3.2.bias"] == 3  # a norm with its convolution


def test_depths_without_a_matcher_follow_the_children_and_numbered_parts() -> None:
    model = Classifier(
        nn.ModuleDict(
            {
                "stem": nn.Linear(2, 2),
                "body": nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.LayerNorm(2), nn.Linear(2, 2)),
            }
        ),
        nn.Linear(2, 2),
        attributes=2,
        features=2,
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        weights=WeightsReport("none", 0, ()),
    )
    found = {name: depth for name, depth in layer_depths(model).items() if name.endswith("weight")}
    assert found == {
        "backbone.stem.weight": 0,
        "backbone.body.0.weight": 1,
        "backbone.body.2.weight": 1,
        "backbone.body.3.weight": 2,
        "head.weight": 3,
    }


def test_scales_are_powers_of_the_decay_from_the_head_down() -> None:
    model = on_meta("test_resnet")
    scales, depths = layer_scales(model, 0.5), layer_depths(model)
    top = max(depths.values())
    assert scales == {name: 0.5 ** (top - depth) for name, depth in depths.items()}
    assert scales["head.weight"] == 1.0
    assert set(layer_scales(model, 1.0).values()) == {1.0}
