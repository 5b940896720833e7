"""Muon and AdamW against slow references, and which parameter goes into which group."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from factories import joint_model, make_batch
from spanelectra.optimization import Muon, build_optimizer, orthogonalise, parameter_groups

SETTINGS = {
    "learning_rate": 3e-3,
    "muon_learning_rate": 2e-2,
    "weight_decay": 0.1,
    "betas": (0.9, 0.98),
    "eps": 1e-6,
}


def slow_orthogonalise(matrix: torch.Tensor) -> torch.Tensor:
    """Five quintic Newton-Schulz steps on one matrix, through its singular values alone."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.square().sum().sqrt()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (left * values) @ right


@pytest.mark.parametrize("shape", [(24, 24), (64, 16), (16, 64), (3, 16, 32)])
def test_orthogonalising_brings_every_singular_value_near_one(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape) * 7
    result = orthogonalise(matrix)
    values = torch.linalg.svdvals(result)
    assert result.dtype == torch.float32
    assert values.min() > 0.6 and values.max() < 1.3
    for single, expected in zip(result.reshape(-1, *shape[-2:]), matrix.reshape(-1, *shape[-2:]), strict=True):
        left, _, right = torch.linalg.svd(expected, full_matrices=False)
        cosine = (single * (left @ right)).sum() / single.norm() / (left @ right).norm()
        assert cosine > 0.98
        torch.testing.assert_close(single.double(), slow_orthogonalise(expected), atol=1e-3, rtol=1e-3)


def test_orthogonalising_ignores_scale_and_leaves_zero_at_zero():
    torch.manual_seed(1)
    matrix = torch.randn(8, 12)
    torch.testing.assert_close(orthogonalise(matrix), orthogonalise(1e3 * matrix), atol=1e-4, rtol=1e-4)
    assert torch.equal(orthogonalise(torch.zeros(8, 12)), torch.zeros(8, 12))


def random_parameters(shapes) -> list[nn.Parameter]:
    torch.manual_seed(2)
    return [nn.Parameter(torch.randn(shape)) for shape in shapes]


def set_gradients(parameters, step: int) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("fused", [True, False])
def test_groups_without_muon_are_torchs_adamw_bit_for_bit(fused):
    ours = random_parameters([(5, 7), (3,), (4, 2)])
    theirs = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    arguments = {"lr": 1e-2, "betas": (0.9, 0.98), "eps": 1e-6, "fused": fused}

    def groups(parameters):
        return [
            {"params": [parameters[0], parameters[2]], "weight_decay": 0.1},
            {"params": [parameters[1]], "weight_decay": 0.0},
        ]

    one, other = Muon(groups(ours), **arguments), torch.optim.AdamW(groups(theirs), **arguments)
    schedules = [torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5) for optimizer in (one, other)]
    for step in range(10):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        if step == 4:  # a parameter that a batch did not reach
            ours[1].grad = theirs[1].grad = None
        one.step()
        other.step()
        for schedule in schedules:
            schedule.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), step


def test_a_muon_step_equals_one_matrix_at_a_time():
    shapes = [(8, 8), (8, 8), (24, 8), (8, 24)]
    parameters = random_parameters(shapes)
    expected = [parameter.detach().double() for parameter in parameters]
    momenta = [torch.zeros_like(value) for value in expected]
    learning_rate, decay, momentum = 0.02, 0.1, 0.95
    optimizer = Muon([{"params": parameters, "muon": True, "weight_decay": decay}], lr=learning_rate, momentum=momentum)
    for step in range(4):
        set_gradients(parameters, step)
        optimizer.step()
        for index, parameter in enumerate(parameters):
            gradient = parameter.grad.double()
            momenta[index] = momentum * momenta[index] + (1 - momentum) * gradient
            update = slow_orthogonalise((1 - momentum) * gradient + momentum * momenta[index])  # Nesterov
            rows, columns = shapes[index]
            scale = max(1.0, rows / columns) ** 0.5
            expected[index] = expected[index] * (1 - learning_rate * decay) - learning_rate * scale * update
            torch.testing.assert_close(parameter.detach().double(), expected[index], atol=2e-4, rtol=2e-4)


def test_a_muon_step_has_the_size_of_its_learning_rate_whatever_the_gradients_size():
    for scale in (1e-3, 1e3):
        parameter = nn.Parameter(torch.zeros(16, 16))
        parameter.grad = scale * torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
        Muon([{"params": [parameter], "muon": True}], lr=0.5).step()
        values = torch.linalg.svdvals(parameter.detach())
        assert values.min() > 0.3 and values.max() < 0.65


def test_a_closure_is_evaluated_with_gradients():
    parameter = nn.Parameter(torch.ones(3))
    optimizer = Muon([{"params": [parameter]}], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3
    assert (parameter < 1).all()


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_a_saved_optimiser_goes_on_as_if_it_had_not_stopped(name, tmp_path):
    batch = make_batch()

    def train(model, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()

    model = joint_model("modernbert")
    optimizer = build_optimizer(model, optimizer=name, **SETTINGS)
    train(model, optimizer, 3)
    resumed = copy.deepcopy(model)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    restored = build_optimizer(resumed, optimizer=name, **SETTINGS)
    restored.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    train(model, optimizer, 3)
    train(resumed, restored, 3)
    states = zip(model.state_dict().items(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(value, other) for (_, value), other in states)


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_training_lowers_the_loss(name):
    model, batch = joint_model("modernbert").train(), make_batch()
    optimizer = build_optimizer(model, optimizer=name, **SETTINGS)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(**batch, loss_weights={"ato": 0.0, "sbpo": 0.0}).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("family", ["electra", "modernbert", "bert"])
@pytest.mark.parametrize("sharing", ["embeddings", "gradient_disentangled", "encoder"])
@pytest.mark.parametrize("muon_learning_rate", [None, 0.02])
def test_every_parameter_is_in_one_group_and_in_the_right_one(family, sharing, muon_learning_rate):
    model = joint_model(family, sharing=sharing, objectives=["mlm", "sbgo", "ato", "sbpo", "correction"])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, 0.1, muon_learning_rate)
    members = [names[id(parameter)] for group in groups for parameter in group["params"]]
    assert sorted(members) == sorted(names.values())
    assert any(group.get("muon") for group in groups) is (muon_learning_rate is not None)
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert group["weight_decay"] == (0.1 if parameter.dim() >= 2 else 0.0), name
            in_layer = ".layer." in name or ".layers." in name
            assert bool(group.get("muon")) is (muon_learning_rate is not None and in_layer and parameter.dim() == 2)
            if group.get("muon"):
                assert group["lr"] == 0.02
                assert "embedding" not in name and "head" not in name and "classifier" not in name


def test_a_frozen_parameter_is_in_no_group():
    model = joint_model("electra", sharing="none")
    model.generator.requires_grad_(False)
    grouped = {id(p) for group in parameter_groups(model, 0.1, 0.02) for p in group["params"]}
    assert grouped == {id(parameter) for parameter in model.discriminator.parameters()}


def test_the_setting_chooses_the_optimiser_and_its_numbers():
    model = joint_model("electra")
    adamw = build_optimizer(model, optimizer="adamw", **SETTINGS)
    assert type(adamw) is torch.optim.AdamW
    assert {group["lr"] for group in adamw.param_groups} == {3e-3}
    assert all(
        group["fused"] and group["betas"] == (0.9, 0.98) and group["eps"] == 1e-6 for group in adamw.param_groups
    )
    muon = build_optimizer(model, optimizer="muon", **SETTINGS)
    assert type(muon) is Muon
    assert [group["lr"] for group in muon.param_groups if group["muon"]] == [2e-2]
    assert {group["lr"] for group in muon.param_groups if not group["muon"]} == {3e-3}
