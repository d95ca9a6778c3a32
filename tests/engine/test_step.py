import math

import pytest
import torch
from torch import nn

from benchctl.engine.step import TrainingStep, learning_rate, learning_rate_at, make_optimizer, parameter_groups
from benchctl.recipe import Recipe


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(2 * 3 * 4 * 4, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 5))


def batch(n: int = 4) -> tuple[tuple[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(n, 2, 3, 4, 4, generator=generator),), torch.arange(n) % 5


def test_learning_rate_worked_example():
    # 10 steps, warm-up over 2, then half a cosine over 8
    recipe = Recipe(learning_rate=1.0, warmup_fraction=0.2)
    expected = [0.5, 1.0] + [0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    assert [learning_rate(step, 10, recipe) for step in range(10)] == pytest.approx(expected)
    constant = Recipe(learning_rate=1.0, warmup_fraction=0.2, schedule="constant")
    assert [learning_rate(step, 10, constant) for step in range(10)] == [0.5] + [1.0] * 9


def test_a_schedule_of_steps():
    """R(2+1)D's: 45 epochs, a tenth after 20, 30 and 40 of them, warm-up included."""
    recipe = Recipe(learning_rate=1.0, warmup_fraction=10 / 45, schedule="steps", drop_at=(20 / 45, 30 / 45, 40 / 45))
    rates = [learning_rate(step, 45, recipe) for step in range(45)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:] == pytest.approx([1.0] * 10 + [0.1] * 10 + [0.01] * 10 + [0.001] * 5)
    # the same where nobody knows the number of steps
    assert [learning_rate_at(share, recipe) for share in (0.3, 20 / 45, 0.99)] == pytest.approx([1.0, 0.1, 0.001])


@pytest.mark.parametrize("changes", [{"schedule": "steps"}, {"drop_at": (0.5,)}])
def test_steps_and_drops_need_each_other(changes: dict[str, object]):
    with pytest.raises(ValueError, match="schedule 'steps' and 'drop_at' need each other"):
        Recipe.model_validate(changes)


def test_another_schedule_leaves_its_drops_behind():
    steps = Recipe(schedule="steps", drop_at=(0.5,))
    assert steps.changed({"schedule": "cosine"}) == Recipe()
    assert steps.changed({"learning_rate": 1.0}).drop_at == (0.5,)


def test_nesterov_is_the_definition():
    """v = m v + g, and the step is g + m v: two steps of a constant gradient of 1 are 1.9 and 2.71 rates."""
    weight = nn.Parameter(torch.zeros(2, 2))
    holder = nn.ParameterList([weight])
    optimizer = make_optimizer(holder, Recipe(optimizer="nesterov", learning_rate=0.1, momentum=0.9, weight_decay=0.0), "cpu")
    for total in (1.9, 1.9 + 2.71):
        weight.grad = torch.ones(2, 2)
        optimizer.step()
        torch.testing.assert_close(weight.data, torch.full((2, 2), -0.1 * total))


def test_betas_are_the_recipes():
    assert make_optimizer(model(), Recipe(betas=(0.9, 0.95)), "cpu").defaults["betas"] == (0.9, 0.95)
    assert make_optimizer(model(), Recipe(), "cpu").defaults["betas"] == (0.9, 0.999)


def test_biases_and_norms_do_not_decay():
    decayed, others = parameter_groups(model(), 0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert [p.ndim for p in decayed["params"]] == [2, 2]
    assert {p.ndim for p in others["params"]} == {1}


def test_frozen_parameters_are_not_optimized():
    frozen = model()
    frozen[1].requires_grad_(False)
    optimized = {id(p) for group in make_optimizer(frozen, Recipe(), "cpu").param_groups for p in group["params"]}
    assert optimized == {id(p) for p in frozen.parameters() if p.requires_grad}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_step_is_the_definition(name: str):
    """Against torch written out: softmax cross-entropy, clipping by the global norm, one optimizer step."""
    recipe = Recipe(optimizer=name, learning_rate=0.1, weight_decay=0.0, clip_gradient_norm=0.01, label_smoothing=0.1)
    ours, reference = model(), model()
    step = TrainingStep(ours, recipe, "fp32")
    loss = step.forward(batch())
    step.backward(loss)
    step.update()

    (clips,), labels = batch()
    logits = reference(clips)
    target = torch.full_like(logits, 0.1 / 5).scatter_(1, labels[:, None], 0.9 + 0.1 / 5)
    expected = -(target * logits.log_softmax(-1)).sum(-1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    expected.backward()
    norm = torch.sqrt(sum(p.grad.square().sum() for p in reference.parameters()))
    for mine, p in zip(ours.parameters(), reference.parameters(), strict=True):
        gradient = p.grad * (0.01 / (norm + 1e-6))
        # the first step of AdamW is lr * g / (|g| + eps); of SGD with momentum, lr * g
        change = gradient if name == "sgd" else gradient / (gradient.abs() + 1e-8)
        # AdamW divides by the gradient: where it is as small as 1e-8, its rounding shows
        torch.testing.assert_close(mine, p - 0.1 * change, rtol=1e-4, atol=3e-5)
        assert mine.grad is None


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_autocast_keeps_weights_and_loss_in_fp32(precision: str):
    step = TrainingStep(model(), Recipe(), precision)
    seen: list[torch.dtype] = []
    step.model[1].register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    loss = step.forward(batch())
    assert seen == [{"bf16": torch.bfloat16, "fp16": torch.float16}[precision]]
    assert loss.dtype == torch.float32
    step.backward(loss)
    assert {p.grad.dtype for p in step.model.parameters()} == {torch.float32}


def test_fp16_scales_its_loss():
    step = TrainingStep(model(), Recipe(learning_rate=0.1), "fp16")
    assert step.scaler is not None
    before = [p.clone() for p in step.model.parameters()]
    loss = step.forward(batch())
    step.backward(loss)
    largest = max(p.grad.abs().max().item() for p in step.model.parameters())
    assert largest > 100, "gradients carry the scale"
    step.update()
    assert any(not torch.equal(a, b) for a, b in zip(before, step.model.parameters(), strict=True))
