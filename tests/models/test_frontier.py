"""A network cut at its frontier: the halves are the whole, for every family, whatever is frozen."""

import copy
import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlcls.learning.batchnorm import moving_buffers
from mlcls.learning.losses import LOSSES
from mlcls.learning.schedules import build_schedule
from mlcls.learning.steps import build_stepper, take_step
from mlcls.models.classifier import Classifier, build_classifier
from mlcls.models.frontier import Cut, bridge, find_cut
from mlcls.models.stages import set_trainable, train_mode

# backbone: (arguments with dropouts of every kind that it has, image size, modules far apart and within blocks)
FAMILIES: dict[str, tuple[dict[str, Any], int, str]] = {
    "cnn4": ({"drop_rate": 0.2}, 32, "blocks.1.2,blocks.3.1"),
    "resnet18": ({"drop_path_rate": 0.3}, 64, "layer2.0.conv2,layer4.1"),
    "mobilenetv2_050": ({"drop_path_rate": 0.3}, 64, "blocks.2.1.conv_pw,blocks.5"),
    "mobilenetv3_small_050": ({"drop_path_rate": 0.3}, 64, "blocks.1.0.conv_pwl,conv_head"),
    "test_efficientnet": ({"drop_path_rate": 0.3}, 64, "blocks.2.0.conv_pwl,bn2"),
    "regnetx_002": ({"drop_path_rate": 0.3}, 64, "s2.b1.conv2,s4.b3"),
    "densenet121": (
        {"block_config": (2, 3, 2, 2), "drop_rate": 0.2},
        64,
        "features.denseblock2.denselayer3,features.denseblock4.denselayer2.norm1",
    ),
    "convnext_atto": ({"drop_path_rate": 0.3}, 64, "stages.1.blocks.0.conv_dw,stages.3.blocks.1"),
    "vit_tiny_patch16_224": (
        {"depth": 4, "drop_path_rate": 0.3, "proj_drop_rate": 0.2, "global_pool": "avg"},
        64,
        "blocks.1.mlp.fc1,blocks.3.attn.proj",
    ),
    "vit_small_patch14_dinov2": (
        {"depth": 4, "drop_path_rate": 0.3, "init_values": 1.0},
        56,
        "blocks.1.attn.proj,blocks.3",
    ),
    "deit_tiny_distilled_patch16_224": ({"depth": 4, "attn_drop_rate": 0.2}, 64, "blocks.1.attn.qkv,norm"),
    "swin_tiny_patch4_window7_224": (
        {"depths": (2, 2), "num_heads": (2, 4), "embed_dim": 32, "window_size": 2, "drop_path_rate": 0.3},
        64,
        "layers.0.blocks.1.attn.qkv,layers.1.blocks.1",
    ),
    "swinv2_tiny_window8_256": (
        {"depths": (2, 2), "num_heads": (2, 4), "embed_dim": 32, "window_size": 2, "drop_path_rate": 0.3},
        64,
        "layers.0.blocks.1.attn.qkv,layers.1.blocks.1",
    ),
    "mixer_s32_224": ({"drop_path_rate": 0.3}, 64, "blocks.1.mlp_tokens.fc2,blocks.6.norm2"),
    "levit_128s": ({"drop_path_rate": 0.3}, 64, "stages.1.blocks.0.attn,stages.2.blocks.3"),
    "hiera_tiny_224": ({"stages": (1, 1, 1, 1), "drop_path_rate": 0.3}, 64, "blocks.1.mlp.fc2,blocks.3"),
}
# Their head gets one token of many, strided in memory; from a packed row it gets the same numbers in a row of
# their own, which a BatchNorm sums in another order.
STRIDED = {("vit_small_patch14_dinov2", "none")}
# Every BatchNorm of theirs follows a convolution.
FOLDABLE = (
    "cnn4",
    "resnet18",
    "mobilenetv2_050",
    "mobilenetv3_small_050",
    "test_efficientnet",
    "regnetx_002",
)
CHOICES = ("none", "last", "odd")
_built: dict[str, Classifier] = {}


def pixels(size: int, images: int = 5) -> Tensor:
    """Images from dark to bright, so that no two have nearly the same features."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, (images, 3, size, size), generator=generator)
    patches = torch.randint(0, 256, (images, 3, 2, 2), generator=generator)
    patches = patches.repeat_interleave(size // 2, 2).repeat_interleave(size // 2, 3)
    return ((noise + 3 * patches) // 4).to(torch.uint8).to(memory_format=torch.channels_last)


def classifier(backbone: str) -> Classifier:
    """A new classifier whose BatchNorms know their inputs, as if it had been trained: logits vary."""
    if backbone not in _built:
        arguments, size, _ = FAMILIES[backbone]
        torch.manual_seed(0)
        model = build_classifier(backbone, "mlp", 3, backbone_args=arguments, image_size=size)
        with torch.no_grad():
            for parameter in model.parameters():
                if not bool(
                    parameter.any()
                ):  # zeros at the end of a branch or a gate would hide the rest of it
                    parameter.uniform_(-0.2, 0.2)
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.momentum = 0.9
        with torch.no_grad():
            model(pixels(size, 6))
        for norm in norms:
            norm.momentum = 0.1
        _built[backbone] = model
    return copy.deepcopy(_built[backbone])


def unfreeze(model: Classifier, backbone: str, choice: str) -> None:
    set_trainable(model, FAMILIES[backbone][2] if choice == "odd" else choice)
    train_mode(model)


def cut_of(backbone: str, choice: str, fold: bool = False) -> tuple[Classifier, Cut]:
    model = classifier(backbone)
    unfreeze(model, backbone, choice)
    cut = find_cut(model, FAMILIES[backbone][1], fold=fold)
    assert cut is not None
    return model, cut


def near(got: Tensor, expected: Tensor, tolerance: float) -> bool:
    difference = (got - expected).detach().abs().max()
    return bool(difference <= tolerance * expected.detach().abs().max())


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def step(model: Classifier, forward: nn.Module, given: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """One optimizer step: the logits before it and the gradients; the model is changed."""
    model.zero_grad()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1, eps=1e-3
    )
    torch.manual_seed(7)
    logits = forward(given)
    torch.nn.functional.softplus(logits).mean().backward()
    optimizer.step()
    return logits.detach(), gradients(model)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("backbone", FAMILIES)
def test_the_halves_are_the_whole(backbone: str, choice: str) -> None:
    model, cut = cut_of(backbone, choice)
    exact = (backbone, choice) not in STRIDED
    images = pixels(FAMILIES[backbone][1])
    rows = cut.trunk(images)
    assert rows.shape == (5, cut.width)
    before = rows.clone()

    model.eval()
    cut.rest.eval()
    with torch.no_grad():
        for batch in (images, images[:1]):
            expected = model(batch)
            got = cut.rest(cut.trunk(batch))
            assert torch.equal(got, expected) if exact else near(got, expected, 1e-4)
        assert float(model(images).std(0).max()) > 0.02 * float(model(images).abs().max())
        # 8 bits of each activation: as near as a network of this kind lets them be
        assert near(cut.rest(rows.bfloat16()), model(images), 0.03)
        assert near(cut.rest(rows.half()), model(images), 0.01)

    state = copy.deepcopy(model.state_dict())
    train_mode(model)
    logits, gradient = step(model, model, images)
    changed = copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    cut.rest.train()
    cut_logits, cut_gradient = step(model, cut.rest, rows)
    assert torch.equal(cut_logits, logits) if exact else near(cut_logits, logits, 1e-4)
    assert cut_gradient.keys() == gradient.keys()
    scale = max(float(g.abs().max()) for g in gradient.values())
    for name, expected in gradient.items():
        assert float((cut_gradient[name] - expected).abs().max()) <= 1e-5 * scale, name
    for name, value in model.state_dict().items():
        assert torch.allclose(value, changed[name], rtol=1e-3, atol=1e-4), name
    assert torch.equal(rows, before)  # what is cached is never written to


@pytest.mark.parametrize("backbone", [*FOLDABLE, "densenet121", "levit_128s", "convnext_atto"])
def test_folded_halves_are_the_whole_but_for_rounding(backbone: str) -> None:
    model, cut = cut_of(backbone, "last", fold=True)
    images = pixels(FAMILIES[backbone][1])
    rows = cut.trunk(images)
    model.eval()
    cut.rest.eval()
    with torch.no_grad():
        assert near(cut.rest(rows), model(images), 2e-3)
    train_mode(model)
    cut.rest.train()
    torch.manual_seed(3)
    expected = model(images)
    torch.manual_seed(3)
    assert near(cut.rest(rows), expected, 2e-3)


def test_what_follows_cheaply_from_what_is_kept_is_not_kept_too() -> None:
    _, cut = cut_of("densenet121", "last")  # its first layers each join the same maps anew
    assert len(cut.nodes) == 1
    _, cut = cut_of("vit_tiny_patch16_224", "odd")  # the residual stream, and its norm before the MLP
    assert cut.width == 17 * 192
    _, cut = cut_of("resnet18", "none")
    assert cut.width == 512


def is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


@pytest.mark.parametrize(
    "backbone", ["cnn4", "resnet18", "mobilenetv2_050", "test_efficientnet", "regnetx_002"]
)
def test_folding_leaves_no_batch_norm_behind_a_convolution(backbone: str) -> None:
    _, cut = cut_of(backbone, "none", fold=True)
    _, unfolded = cut_of(backbone, "none")
    assert any(is_batch_norm(module) for module in unfolded.trunk.modules())
    assert not any(is_batch_norm(module) for module in cut.trunk.modules())


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "levit_128s"])
def test_finding_a_cut_changes_nothing(backbone: str, choice: str) -> None:
    model = classifier(backbone)
    unfreeze(model, backbone, choice)
    model.eval()
    with torch.no_grad():
        model(pixels(64))  # some modules remember what they computed here
    train_mode(model)
    model.backbone.get_submodule(
        FAMILIES[backbone][2].split(",")[0]
    ).training ^= True  # a mode of somebody's own
    state = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    random = torch.get_rng_state()
    for fold in (False, True):
        assert find_cut(model, 64, fold=fold) is not None
    assert torch.equal(random, torch.get_rng_state())
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == trainable
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_trunk_is_frozen_whatever_is_asked_of_it() -> None:
    model, cut = cut_of("resnet18", "last")
    images = pixels(64)
    expected = cut.trunk(images)
    assert not expected.requires_grad
    cut.trunk.train()
    model.train()
    assert not any(module.training for module in cut.trunk.modules())
    with torch.no_grad():
        model(images)  # moves the classifier's statistics
    assert torch.equal(cut.trunk(images), expected)
    assert not any(parameter.requires_grad for parameter in cut.trunk.parameters())


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("backbone", ["mobilenetv2_050", "densenet121"])
def test_the_rest_is_the_classifiers_own(backbone: str, choice: str) -> None:
    model, cut = cut_of(backbone, choice)
    own = {id(parameter) for parameter in model.parameters()}
    assert {id(parameter) for parameter in cut.rest.parameters()} <= own
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert {id(p) for p in cut.rest.parameters() if p.requires_grad} == trained

    modes = {name: module.training for name, module in model.named_modules()}
    cut.rest.eval()
    assert not any(module.training for module in cut.rest.modules())
    cut.rest.train()
    assert {name: module.training for name, module in model.named_modules()} == modes
    moving = {id(b) for m in model.modules() if m.training and is_batch_norm(m) for b in m.buffers()}
    assert moving <= {id(buffer) for buffer in moving_buffers(cut.rest)}


def test_modes_are_those_of_the_stage_not_of_the_moment() -> None:
    model = classifier("mobilenetv2_050")
    set_trainable(model, "last")
    model.eval()
    cut = find_cut(model, 64, fold=False)
    assert cut is not None
    assert not cut.rest.training
    cut.rest.train()
    got = {module for module in cut.rest.modules() if module.training and any(True for _ in module.buffers())}
    train_mode(model)
    assert all(module.training for module in got)
    assert sum(is_batch_norm(module) for module in got) == sum(
        module.training and is_batch_norm(module) for module in model.modules()
    )


@pytest.mark.parametrize("images", [1, 5])
@pytest.mark.parametrize("broken", [False, True])
def test_steps_train_the_rest_as_they_train_the_whole(images: int, broken: bool) -> None:
    """A batch of one (its BatchNorm1d takes the running statistics), and a step that is skipped."""
    labels = torch.tensor([[1.0, 0.0, torch.nan]]).repeat(images, 1)
    states = []
    for halves in (False, True):
        model, cut = cut_of("mobilenetv2_050", "last")
        cut.rest.train()
        trained = cut.rest if halves else model
        given = pixels(64)[:images]
        if halves:
            given = cut.trunk(given)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, eps=1e-3)
        stepper = build_stepper(
            trained,
            lambda logits, targets: LOSSES["bce"](logits, targets) * (torch.inf if broken else 1.0),
            optimizer,
            build_schedule("none", optimizer, steps_per_epoch=1, epochs=1, settings={}),
            device=torch.device("cpu"),
            precision="fp32",
            clip_norm=1.0,
        )
        before = copy.deepcopy(model.state_dict())
        torch.manual_seed(5)
        taken = take_step(stepper, [(given, labels, torch.arange(images))], moving_buffers(trained))
        assert taken.finite is not broken
        after = model.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in after) is broken
        states.append(after)
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("backbone", ["resnet18", "convnext_atto", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("choice", ["last", "odd"])
def test_autocast_computes_what_it_computes_uncut(backbone: str, choice: str) -> None:
    model, cut = cut_of(backbone, choice)
    images = pixels(FAMILIES[backbone][1])
    model.eval()
    cut.rest.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(images)
        rows = cut.trunk(images)
        assert torch.equal(cut.rest(rows), expected)
        assert cut.rest(rows.bfloat16()).dtype == expected.dtype
        assert near(cut.rest(rows.bfloat16()).float(), expected.float(), 0.03)


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "swin_tiny_patch4_window7_224"])
@pytest.mark.parametrize("fold", [False, True])
def test_a_bridge_leads_from_the_last_stages_rows_to_the_heads(backbone: str, fold: bool) -> None:
    model = classifier(backbone)
    cuts = {}
    for choice in CHOICES:
        unfreeze(model, backbone, choice)
        cuts[choice] = find_cut(model, 64, fold=fold)
    head, last, odd = cuts["none"], cuts["last"], cuts["odd"]
    assert head is not None
    assert last is not None
    assert odd is not None
    images = pixels(64)
    expected = head.trunk(images)
    for lower in (last, odd):
        between = bridge(lower, head)
        assert between is not None
        rows = lower.trunk(images)
        kept = rows.clone()
        got = between.train()(rows)
        assert torch.equal(got, expected) if not fold else near(got, expected, 1e-3)
        assert torch.equal(rows, kept)
        assert near(between(rows.bfloat16()), expected, 0.05)
        assert not got.requires_grad
        assert not any(module.training for module in between.modules())
    assert bridge(head, last) is None


def test_no_bridge_leads_to_another_network(caplog: pytest.LogCaptureFixture) -> None:
    _, upper = cut_of("cnn4", "none")
    _, lower = cut_of("resnet18", "last")
    with caplog.at_level(logging.DEBUG, "mlcls"):
        assert bridge(lower, upper) is None
    assert "no bridge" in caplog.text


@pytest.mark.parametrize("unfreeze_", ["all", "blocks.0"])
def test_no_cut_where_nothing_frozen_comes_first(unfreeze_: str, caplog: pytest.LogCaptureFixture) -> None:
    model = classifier("cnn4")
    set_trainable(model, unfreeze_)
    with caplog.at_level(logging.DEBUG, "mlcls"):
        assert find_cut(model, 32, fold=False) is None
    assert "no frozen parameter" in caplog.text
