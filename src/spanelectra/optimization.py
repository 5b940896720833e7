"""Optimisers: fused AdamW, and Muon for the matrices of the layers with AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

# Coefficients of the quintic Newton-Schulz iteration (Jordan et al. 2024, "Muon").
_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Nearest orthogonal matrix, roughly: all singular values are driven to about 1 by a Newton-Schulz iteration.

    torch.optim.Muon does this in bfloat16, which costs several times AdamW's step on a processor without bfloat16
    units; here it runs in the matrix's own type.

    Args:
        matrix: (…, rows, columns) float; leading axes are a batch.
        steps: iterations; five bring every singular value near 1 within about a third.
    """
    a, b, c = _QUINTIC
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz for groups marked ``muon``; AdamW for the other groups.

    One optimiser for both, so that schedulers, clipping and checkpoints of the Hugging Face trainer see one. Like
    torch's fused optimisers it leaves everything as it was in a step for which its attribute ``found_inf`` (a scalar
    tensor) is not 0, without asking the device.

    Args:
        groups: parameter groups; a group with ``muon=True`` holds two-dimensional parameters only.
        momentum: of the muon groups (Nesterov).
        betas, eps: of the AdamW groups.
        fused: use the fused AdamW kernel.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        fused: bool = True,
    ) -> None:
        defaults = {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas, "eps": eps,
            "fused": fused, "muon": False,
        }  # fmt: skip
        super().__init__(list(groups), defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of all groups."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["muon"]:
                self._muon_step(parameters, group, None if found_inf is None else found_inf.bool())
            elif parameters:
                self._adamw_step(parameters, group, found_inf)
        return loss

    def _muon_step(self, parameters: list[Tensor], group: dict[str, Any], skipped: Tensor | None) -> None:
        # matrices of one shape are orthogonalised together
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for parameter in parameters:
            by_shape.setdefault(parameter.shape, []).append(parameter)
        for shape, same in by_shape.items():
            updates = []
            for parameter in same:
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                buffer, gradient = state["momentum_buffer"], parameter.grad
                assert gradient is not None
                _assign(buffer, buffer.lerp(gradient, 1 - group["momentum"]), skipped)
                updates.append(gradient.lerp(buffer, group["momentum"]))
            # tall matrices get the larger step that keeps their outputs' scale
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for parameter, update in zip(same, orthogonalise(torch.stack(updates)), strict=True):
                decayed = parameter.mul(1 - group["lr"] * group["weight_decay"])
                _assign(parameter, decayed.add_(update, alpha=-group["lr"] * scale), skipped)

    def _adamw_step(self, parameters: list[Tensor], group: dict[str, Any], found_inf: Tensor | None) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter in parameters]
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters],  # type: ignore[misc]
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=group["fused"],
            found_inf=found_inf,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def _assign(target: Tensor, value: Tensor, skipped: Tensor | None) -> None:
    """Set ``target`` to ``value``, or leave it where the scalar ``skipped`` says so."""
    target.copy_(value if skipped is None else torch.where(skipped, target, value))


def parameter_groups(model: nn.Module, weight_decay: float, muon_learning_rate: float | None) -> list[dict[str, Any]]:
    """Sort trainable parameters into groups.

    Biases, gains and other vectors get no weight decay. With ``muon_learning_rate`` the matrices inside encoder
    layers form a group of their own; embeddings, heads and projections to the vocabulary stay with AdamW, as Muon's
    authors advise.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    matrices = [p for n, p in named if p.dim() == 2 and (".layer." in n or ".layers." in n)]
    muon = {id(parameter) for parameter in matrices} if muon_learning_rate is not None else set()
    rest = [parameter for _, parameter in named if id(parameter) not in muon]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    if muon:
        groups.append({"params": matrices, "weight_decay": weight_decay, "lr": muon_learning_rate, "muon": True})
    return [group for group in groups if group["params"]]


def build_optimizer(
    model: nn.Module,
    *,
    optimizer: str,
    learning_rate: float,
    muon_learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    eps: float,
) -> torch.optim.Optimizer:
    """Fused AdamW, or :class:`Muon` with AdamW, over a model's trainable parameters."""
    if optimizer == "muon":
        groups = parameter_groups(model, weight_decay, muon_learning_rate)
        return Muon(groups, lr=learning_rate, weight_decay=weight_decay, betas=betas, eps=eps)
    groups = parameter_groups(model, weight_decay, None)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)
