"""The classifier: any timm family, normalisation inside, and messages for what cannot be built."""

import pytest
import timm
import torch
from timm.data import create_transform

from mlcls.errors import RecipeError
from mlcls.models.backbones import RESERVED_ARGS, create_backbone
from mlcls.models.classifier import build_classifier, data_config

# One tiny variant a family; mobilenetv3 has layers between its last stage and its classifier.
FAMILIES = [
    "cnn4",
    "test_resnet",
    "mobilenetv3_small_050",
    "test_efficientnet",
    "test_convnext",
    "test_vit",
    "test_vit3",
    "test_byobnet",
    "test_mambaout",
]


@pytest.mark.parametrize("backbone", FAMILIES)
def test_any_family_gives_one_logit_an_attribute_at_any_size(backbone: str) -> None:
    model = build_classifier(backbone, "mlp", 3, image_size=64)
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert model(pixels).shape == (2, 3)
    assert model.embed(pixels).shape == (2, model.features)
    assert model.attributes == 3
    assert not any(module is model.backbone.get_classifier() for module in model.head.modules())


def test_pixels_are_normalised_inside_as_timm_does_outside() -> None:
    config = data_config("test_vit")
    model = build_classifier("test_vit", "linear", 2).eval()
    pixels = torch.randint(0, 256, (1, 3, 160, 160), dtype=torch.uint8)
    transform = create_transform((3, 160, 160), mean=config["mean"], std=config["std"], crop_pct=1.0)
    normalise = transform.transforms[-1]
    expected = model.head(model.backbone(normalise(pixels.float() / 255)))
    torch.testing.assert_close(model(pixels), expected)
    torch.testing.assert_close(model(pixels.float()), expected)


def test_mean_and_std_can_be_given_and_are_not_in_the_weights() -> None:
    model = build_classifier("cnn4", "linear", 2, image_size=32, mean=(0, 0, 0), std=(1, 1, 1)).eval()
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(model.embed(pixels), model.backbone(pixels / 255))
    assert {name.partition(".")[0] for name in model.state_dict()} == {"backbone", "head"}


def test_building_is_repeatable_and_leaves_the_model_ready_to_train() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        model = build_classifier("test_resnet", "mlp", 2, image_size=64)
        assert all(module.training for module in model.modules())
        assert all(parameter.requires_grad for parameter in model.parameters())
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())
    assert states[0]["backbone.bn1.num_batches_tracked"] == 0  # the probe for the feature size left no trace


def test_backbone_arguments_reach_the_constructor() -> None:
    model = build_classifier(
        "cnn4", "linear", 2, backbone_args={"widths": [8, 16], "depth": 2}, image_size=32
    )
    assert model.features == 16
    assert len(model.backbone.blocks) == 2
    assert data_config("cnn4", {"widths": [8, 16]})["image_size"] == 224


def test_a_head_from_elsewhere() -> None:
    model = build_classifier("cnn4", "mlcls.models.heads:fc", 2, image_size=32)
    assert model.head[0].out_features == 512


@pytest.mark.parametrize("backbone", ["resnet18", "vit_tiny_patch16_224", "test_efficientnet"])
def test_data_config_is_timms_and_creates_no_model(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = timm.data.resolve_model_data_config(timm.create_model(backbone))
    monkeypatch.setattr(timm, "create_model", None)
    config = data_config(backbone)
    assert config["image_size"] == expected["input_size"][-1]
    assert {key: config[key] for key in ("interpolation", "crop_pct", "mean", "std")} == {
        key: expected[key] for key in ("interpolation", "crop_pct", "mean", "std")
    }


def test_data_config_follows_the_tag_of_the_weights() -> None:
    assert data_config("resnet18.tv_in1k")["interpolation"] == "bilinear"
    assert data_config("vit_tiny_patch16_384.augreg_in21k_ft_in1k")["image_size"] == 384


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet81"}, "--backbone: .*no model 'resnet81'; did you mean .*resnet18"),
        ({"backbone": "zzzzzz"}, "--backbone: .*timm.list_models"),
        ({"backbone": ""}, "--backbone: "),
        ({"backbone": "hf-hub:timm/resnet18"}, "--backbone: .*--weights FILE"),
        ({"backbone": "resnet18.nothing"}, "--backbone: .*no weights 'nothing'.*resnet18.a1_in1k"),
        ({"head": "mpl"}, "--head: unknown name 'mpl'; did you mean 'mlp'"),
        ({"backbone_args": {"dorp_rate": 1}}, "--backbone-args: .*dorp_rate=1"),
        ({"backbone_args": {"widths": "wide"}}, "--backbone-args: .*widths"),
        (
            {"backbone_args": {"checkpoint_path": "/etc/passwd"}},
            "--backbone-args: 'checkpoint_path'.*--weights",
        ),
        (
            {"backbone_args": {"pretrained_cfg": {"file": "x"}}},
            "--backbone-args: 'pretrained_cfg'.*--weights",
        ),
        ({"backbone_args": {"num_classes": 3}}, "--backbone-args: 'num_classes'"),
        ({"backbone_args": {"global_pool": ""}}, "--backbone cnn4: it gives no pooled features"),
        ({"image_size": 4}, "--image-size 4: .*cnn4"),
        ({"image_size": 0}, "--image-size: 0"),
        ({"backbone": "test_vit", "image_size": 100}, "--image-size 100: .*test_vit.*divisible"),
        ({"dropout": 1.0}, "--dropout: 1.0"),
        ({"attributes": 0}, "at least one attribute"),
    ],
)
def test_what_cannot_be_built_is_refused_by_its_flag(arguments: dict[str, object], message: str) -> None:
    asked = {"backbone": "cnn4", "head": "linear", "attributes": 2} | arguments
    with pytest.raises(RecipeError, match=message):
        build_classifier(**asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RESERVED_ARGS)
def test_arguments_that_lead_timm_elsewhere_are_refused_wherever_they_come_from(name: str) -> None:
    with pytest.raises(RecipeError, match=f"--backbone-args: '{name}' cannot be set here; "):
        create_backbone("cnn4", {name: "x"}, 32, "none")
    with pytest.raises(RecipeError, match=f"--backbone-args: '{name}' cannot be set here; "):
        data_config("cnn4", {name: "x"})


@pytest.mark.parametrize("backbone", ["cnn4", "test_resnet", "test_efficientnet"])
def test_the_model_can_be_traced(backbone: str) -> None:
    model = build_classifier(backbone, "mlp", 2, image_size=32).eval()
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(pixels), model(pixels))


def test_a_size_that_a_fixed_backbone_cannot_be_built_for_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"--image-size 8: .*test_vit"):
        build_classifier("test_vit", "linear", 2, image_size=8)
