"""Which numbers of the log stand together in one picture, and what each picture tells, in plain words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from spanelectra.argument_groups import OBJECTIVES


@dataclass(frozen=True)
class Panel:
    """One picture of curves.

    Attributes:
        key: its name in the page.
        title: heading.
        metrics: metric -> what its curve is called.
        unit: of the vertical axis.
        sentence: what the picture means.
        baseline: which line of reference is drawn, see :func:`spanelectra.report.curve_charts.baseline`.
        needs: groups of metrics; without one of each group there is nothing to compare, and no picture.
        only_above_zero: no picture where all is 0.
        is_exact: known without noise, and so never smoothed.
        from_zero: the vertical axis begins at 0.
    """

    key: str
    title: str
    metrics: dict[str, str]
    unit: str
    sentence: str
    baseline: str | None = None
    needs: tuple[frozenset[str], ...] = ()
    only_above_zero: bool = False
    is_exact: bool = False
    from_zero: bool = False


@dataclass(frozen=True)
class Section:
    """Pictures under one heading."""

    key: str
    title: str
    sentence: str
    panels: tuple[Panel, ...]


def _detection(head: str, title: str, tokens: str) -> tuple[Panel, Panel]:
    """Accuracy, and precision with recall, of one head's verdicts."""
    return (
        Panel(
            f"{head}_accuracy",
            f"{title}: right verdicts",
            {f"{head}_accuracy": "the discriminator", f"{head}_majority_accuracy": "always the commoner verdict"},
            f"share of {tokens}",
            "Where the two curves meet, the discriminator does no better than giving one verdict always. "
            "Verdicts count as 'replaced' above a probability of one half.",
        ),
        Panel(
            f"{head}_precision_recall",
            f"{title}: precision and recall",
            {f"{head}_precision": "precision", f"{head}_recall": "recall"},
            "share",
            "Precision: how many of the tokens called replaced were. Recall: how many of the replaced ones were found. "
            "A recall near 0 means that it hardly ever dares to say 'replaced'.",
        ),
    )


SECTIONS = (
    Section(
        "balance",
        "Generator against discriminator",
        "The two learn from each other: the generator's fills are the discriminator's exercises.",
        (
            Panel(
                "balance",
                "Who is ahead",
                {
                    "generator_accuracy": "generator: best guess is right",
                    "replaced_rate": "masked tokens that sampling changed",
                    "ato_auc": "discriminator: AUC over all tokens",
                    "sbpo_auc": "discriminator: AUC from span boundaries",
                },
                "share, or AUC",
                "Healthy: the generator's accuracy climbs while the discriminator's AUC stays clearly above 0.5, "
                "which is guessing. If nearly all masked tokens are changed, the generator is still weak; if it "
                "restores most of them, the discriminator sees few fakes to learn from.",
                "chance",
                (frozenset({"generator_accuracy", "replaced_rate"}), frozenset({"ato_auc", "sbpo_auc"})),
            ),
        ),
    ),
    Section(
        "losses",
        "Losses",
        "Lower is better. A loss is what the optimiser lowers: minus the logarithm of the probability that the model "
        "gave to the truth, in nats (divide by 0.693 for bits), averaged over the tokens that are scored.",
        (
            Panel(
                "loss",
                "All losses together",
                {"loss": "weighted sum"},
                "weighted sum of nats",
                "The sum that is optimised, each loss times its weight: runs with other objectives or weights do not "
                "compare here. In joint training it jumps at the step where the discriminator joins; held-out points "
                "hold all losses from the start.",
            ),
            Panel(
                "mlm_loss",
                "MLM: the generator fills masked tokens",
                {"mlm_loss": "MLM"},
                "nats per masked token",
                "From the masked token's own state. Below the dashed line it knows more than how common each token "
                "is. In training a few masked tokens are left visible, which makes the training curve lower than the "
                "held-out one.",
                "unigram",
            ),
            Panel(
                "sbgo_loss",
                "SBGO: the generator fills spans from their boundaries",
                {"sbgo_loss": "SBGO"},
                "nats per masked token",
                "From the two tokens beside the span and the position in it, which is harder than MLM for long spans.",
                "unigram",
            ),
            Panel(
                "ato_loss",
                "ATO: the discriminator judges every token",
                {"ato_loss": "ATO"},
                "nats per token",
                "The dashed line is what it costs to give every token the same probability: the share of replaced "
                "ones. The curve may rise while the generator gets better, for its fakes get harder.",
                "ato_base_rate",
            ),
            Panel(
                "sbpo_loss",
                "SBPO: the discriminator judges spans by their boundaries",
                {"sbpo_loss": "SBPO"},
                "nats per token",
                "Only the two tokens beside a span are read; as many untouched spans are judged as masked ones. The "
                "dashed line is guessing.",
                "sbpo_base_rate",
            ),
            Panel(
                "correction_loss",
                "Correction: the discriminator names what replaced tokens were",
                {"correction_loss": "correction", "correction_unigram_loss": "guessing the same by frequency"},
                "nats per replaced token",
                "It reads the corrupted text and names the original where the generator's fill was wrong. The curve "
                "may rise while the generator gets better, for what that still gets wrong is harder.",
            ),
        ),
    ),
    Section(
        "generator",
        "The generator",
        "It is there to make fakes: it has to get better than word frequencies, but need not get perfect.",
        (
            Panel(
                "generator_accuracy",
                "Best guesses that are right",
                {"generator_accuracy": "MLM", "sbgo_accuracy": "SBGO"},
                "share of masked tokens",
                "How often the likeliest token, by either head, is the one that stood in the text.",
            ),
            Panel(
                "generator_entropy",
                "How undecided it is",
                {"generator_entropy": "entropy of MLM"},
                "nats",
                "0 is certainty. An entropy well below the loss means that it is surer than it should be.",
            ),
            Panel(
                "replaced_rate",
                "Masked tokens that sampling changed",
                {"replaced_rate": "changed"},
                "share of masked tokens",
                "The rest was restored by luck or skill and counts as original. It falls as the generator learns.",
            ),
        ),
    ),
    Section(
        "discriminator",
        "The discriminator",
        "An encoder to keep. What counts is how well it tells replaced tokens from original ones.",
        (
            Panel(
                "auc",
                "How well it ranks: AUC",
                {
                    "ato_auc": "ATO, all tokens",
                    "ato_masked_auc": "ATO, masked tokens",
                    "sbpo_auc": "SBPO, masked and untouched spans",
                    "sbpo_masked_auc": "SBPO, masked spans",
                },
                "AUC",
                "The chance that a replaced token gets a higher probability of being one than an original token does: "
                "1 is perfect, 0.5 guessing. It does not depend on how many tokens are replaced.",
                "chance",
            ),
            *_detection("ato", "ATO, all tokens", "tokens"),
            *_detection("ato_masked", "ATO, masked tokens", "masked tokens"),
            *_detection("sbpo", "SBPO, masked and untouched spans", "tokens of spans"),
            *_detection("sbpo_masked", "SBPO, masked spans", "tokens of masked spans"),
            Panel(
                "correction_accuracy",
                "Replaced tokens that are corrected",
                {"correction_accuracy": "correction"},
                "share of replaced tokens",
                "How often the likeliest token is the one that stood in the text.",
            ),
        ),
    ),
    Section(
        "optimisation",
        "Optimisation",
        "What the optimiser did.",
        (
            Panel(
                "largest_losses",
                "Largest loss of a single batch",
                {f"{name}_loss_max": name if len(name) > 4 else name.upper() for name in OBJECTIVES},
                "nats",
                "Since the line of the log before. A spike that comes down again is harmless; one that stays is a step "
                "that broke something: lower the learning rate.",
            ),
            Panel(
                "largest_sum",
                "Largest weighted sum of a single batch",
                {"loss_max": "weighted sum"},
                "weighted sum of nats",
                "The same for all losses together, each times its weight.",
            ),
            Panel(
                "left_out",
                "Steps left out",
                {"nonfinite_steps": "so far", "nonfinite_steps_in_a_row": "in a row"},
                "steps",
                "Their loss or gradient was no number, and so they changed nothing.",
                only_above_zero=True,
                is_exact=True,
            ),
            Panel(
                "learning_rate",
                "Learning rate",
                {"learning_rate": "learning rate"},
                "learning rate",
                "Warm-up, then decay.",
                is_exact=True,
            ),
            Panel(
                "grad_norm",
                "Gradient norm",
                {"grad_norm": "gradient norm"},
                "Euclidean norm",
                "Before clipping. Single spikes are clipped and harmless; a norm that grows for long precedes "
                "divergence.",
                from_zero=True,
            ),
        ),
    ),
    Section(
        "speed",
        "Speed",
        "Without the time that evaluations and checkpoints took. A step of joint training gets slower when the "
        "discriminator joins.",
        (
            Panel(
                "tokens_per_second",
                "Throughput",
                {"tokens_per_second": "tokens a second"},
                "tokens per second",
                "Dips mean that the machine was shared or waited for data.",
                from_zero=True,
            ),
            Panel(
                "model_flops_utilisation",
                "Utilisation",
                {"model_flops_utilisation": "model-FLOPs utilisation"},
                "share of the machine's peak",
                "The model's arithmetic per second, as a share of what a large matrix product reached on this machine "
                "when the run began.",
                from_zero=True,
            ),
        ),
    ),
)


def sections_for(metrics: Iterable[str]) -> list[Section]:
    """The sections, panels and metrics that these metrics fill; what no panel knows gets panels of its own."""
    present = list(dict.fromkeys(metrics))
    known = {name for section in SECTIONS for panel in section.panels for name in panel.metrics}
    others = tuple(
        Panel(f"other_{place}", name.replace("_", " "), {name: name}, name.replace("_", " "), "A number of the log.")
        for place, name in enumerate(present)
        if name not in known
    )
    sections = [*SECTIONS, Section("other", "Other numbers of the log", "", others)]
    filled = []
    for section in sections:
        panels = [_with_metrics(panel, present) for panel in section.panels]
        if kept := tuple(panel for panel in panels if panel.metrics):
            filled.append(dataclasses.replace(section, panels=kept))
    return filled


def _with_metrics(panel: Panel, present: list[str]) -> Panel:
    kept = {name: label for name, label in panel.metrics.items() if name in present}
    compares = all(group & kept.keys() for group in panel.needs)
    return dataclasses.replace(panel, metrics=kept if compares else {})
