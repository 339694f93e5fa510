"""Advice for each diagnosis: the options of the run that cause it, and options that often help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALIKE = "The images may be nearly alike: `preview` shows some. "
ADVICE = {
    "healthy": "",
    "collapse": "Every image gets the same embedding. {cause}Try a lower `base_lr`.",
    "partial collapse": "The embedding loses dimensions. Try a lower `base_lr`, a wider `d`, stronger "
    "augmentation (crop_area=0.2) or less `weight_decay`.",
    "non-convergence": "The loss stays high. {cause}Try a higher `base_lr`, or {warmup}.",
    "oscillation": "{cause}Try a lower `base_lr`, or {warmup}.",
    "divergence": "The loss is not a number. Try a lower `base_lr`, {warmup}, or "
    "precision=float32; the last checkpoint is untouched.",
    "constant features": "Training normalises by the statistics of batches, inference by their moving "
    "averages: train longer, begin with published weights (a `backbone` with +imagenet), or lower the "
    "momentum of the network's BN (in Python, ss.nets.lower_momentum).",
}

_CONTRAST_ADVICE = {  # for simclr, moco and swav
    "collapse": "Every image gets nearly the same embedding. Try another `base_lr` or `temperature`, more "
    "images to tell apart (`batch_size`, `queue`), or {warmup}.",
    "non-convergence": "The loss stays high. Try another `base_lr`, a higher `temperature`, or {warmup}.",
    "oscillation": "Try a lower `base_lr`, or {warmup}.",
    "divergence": "The loss is not a number. swav without stop-gradient does this (Sec. 6.2); otherwise try "
    "a lower `base_lr`, {warmup}, or precision=float32; the last checkpoint is untouched.",
}
_REGRESSION_ADVICE = {  # for distill
    "collapse": "Every image gets nearly the same prediction. The teacher's features may be nearly alike "
    "for these images, or `base_lr` too high.",
    "partial collapse": "The predictions lose dimensions. Try a lower `base_lr`, or less `weight_decay`.",
    "non-convergence": "The loss stays high. Try another `base_lr`, weaker views (crop_area=0.5, "
    "jitter=0.2), or a wider or deeper `backbone`.",
    "oscillation": "Try a lower `base_lr`, or {warmup}.",
}
_REDUNDANCY_ADVICE = {  # for vicreg and barlow
    "collapse": "Every image gets nearly the same embedding. Try a lower `base_lr`, {warmup}, or, "
    "with vicreg, a larger `variance_weight`.",
    "non-convergence": "The loss stays high. Try another `base_lr`, or {warmup}.",
    "oscillation": "Try a lower `base_lr`, a larger `batch_size`, or {warmup}.",
}
_OTHER_ADVICE = {  # for methods of the user's
    "collapse": "Every image gets nearly the same embedding. Check what in the loss prevents that; then try "
    "a lower `base_lr`, or {warmup}.",
}
SPECIAL_ADVICE = {  # key of `diagnosis.LIMITS` → advice that replaces ADVICE of the same name
    "contrast": _CONTRAST_ADVICE, "redundancy": _REDUNDANCY_ADVICE, "regression": _REGRESSION_ADVICE,
    "other": _OTHER_ADVICE,
}  # fmt: skip

# Diagnosis → (option, value of it that causes the diagnosis, what the paper found). With `average`, SimSiam
# needs no predictor.
CAUSES = {
    "collapse": (
        ("stop_gradient", False, "every run without stop-gradient collapsed (Fig. 2)"),
        ("predictor", "none", "without a predictor the loss collapses (Table 1 a)"),
        ("bn", "none", "without BN little is learned (Table 3 a)"),
    ),
    "non-convergence": (
        ("predictor", "fixed", "with a fixed predictor the loss stays high (Table 1 b)"),
        ("bn", "none", "without BN little is learned (Table 3 a)"),
    ),
    "oscillation": (("bn", "all", "BN on the predictor's output makes training unstable (Table 3 d)"),),
}
# Parts of the advice that a run follows already: (option, value → whether it does, part, its replacement)
NEEDLESS_ADVICE = (
    ("precision", lambda v: v == "float32", ", {warmup}, or precision=float32;", ", or {warmup};"),
    ("crop_area", lambda v: v is None or v <= 0.2, "`d`, stronger augmentation (crop_area=0.2) or", "`d` or"),
)
PAPER_WARMUP, WARMUP_SHARE = 10.0, 0.1  # epochs of Table 2, of a run of 100
CAUSED_BY_OPTIONS = ("cosine", "cross_entropy", "distance")  # losses of methods with these options


def advice(name: str, loss_type: str = "cosine", alike: bool = False, options: Mapping | None = None) -> str:
    """The advice for a diagnosis, in one or two sentences.

    name: a key of `ADVICE`. loss_type, alike: as for `diagnosis.Diagnosis`. options: options of the run with
    the method's defaults filled in; without them, the advice lists the options that may be the cause.
    """
    options = options or {}
    text = SPECIAL_ADVICE.get(loss_type, {}).get(name, ADVICE[name])
    cause = causes(name, options) if loss_type in CAUSED_BY_OPTIONS else ""
    for option, follows, part, replacement in NEEDLESS_ADVICE:
        if option in options and follows(options[option]):
            text = text.replace(part, replacement)
    if options and "queue" not in options:  # which moco alone has
        text = text.replace("(`batch_size`, `queue`)", "(`batch_size`)")
    text = text.replace("{cause}", cause).replace("{warmup}", _warmup(options))
    if options.get("base_lr"):
        tried = f"`base_lr` than {options['base_lr']:g}"
        text = text.replace("lower `base_lr`", f"lower {tried}").replace(
            "higher `base_lr`", f"higher {tried}"
        )
    return ALIKE * alike + text


def causes(name: str, options: Mapping[str, Any]) -> str:
    """The options of a run that cause a diagnosis, as sentences; "" where it has none of them.

    Without options: all options that could be the cause.
    """
    rows = [row for row in CAUSES.get(name, ()) if row[0] != "predictor" or not options.get("average")]
    if not options:
        listed = "; ".join(f"{option}={_text(value)}: {finding}" for option, value, finding in rows)
        return f"Check the options of the run ({listed}). " if rows else ""
    sentences = [
        f"This run has {option}={_text(value)}: {finding}. " for option, value, finding in rows
        if options.get(option) == value
    ]  # fmt: skip
    if not sentences:
        return ""
    return "".join(sentences) + ("Leave it out. " if len(sentences) == 1 else "Leave them out. ")


def _text(value: Any) -> str:
    return str(value).lower()


def _warmup(options: Mapping[str, Any]) -> str:
    """Advice on the warm-up: a tenth of the run, at most the paper's 10 epochs; longer than the run's own."""
    epochs, warmup = options.get("epochs"), options.get("warmup_epochs") or 0.0
    if not epochs:
        return "a warm-up of a tenth of the run (`warmup_epochs`)"
    share = float(f"{min(PAPER_WARMUP, WARMUP_SHARE * epochs):.2g}")
    if warmup >= share:
        return f"a longer warm-up than warmup_epochs={warmup:g}"
    return f"warmup_epochs={share:g}"
