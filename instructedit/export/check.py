"""What was written, loaded as others load it, and held against the edit on the edit's own requests.

Knows transformers and peft as their users do; the base is loaded a second time.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from instructedit.base.model import Base
from instructedit.base.progress import quiet_progress
from instructedit.data.tokenise import TokenisedText, tokenise
from instructedit.export.card import EditFacts
from instructedit.export.delta import DELTA
from instructedit.export.origin import Origin
from instructedit.export.snippets import Form
from instructedit.methods.base import Edit


@dataclass(frozen=True)
class Checked:
    """What came out.

    Args:
        requests: how many were asked.
        difference: the largest difference of any logit at any token from the edit's own.
        likeliest: the share of target tokens that are the likeliest: of the base, under the edit, as written.
    """

    requests: int
    difference: float
    likeliest: tuple[float, float, float]

    def told(self) -> str:
        """One sentence for the card and the terminal."""
        if not self.requests:
            return "Not checked: the edit's file does not say what was asked for."
        before, edited, written = self.likeliest
        return (
            f"Checked by loading it again, on {self.requests} of the edit's own requests: no logit is further than "
            f"{self.difference:.2g} from the edit's own. Target tokens that are the likeliest: {before:.0%} before, "
            f"{edited:.0%} under the edit, {written:.0%} as written."
        )


@torch.no_grad()
def check_written(folder: Path, form: Form, edit: Edit, base: Base, origin: Origin, facts: EditFacts) -> Checked:
    """Load what was written and ask it what the edit was made for.

    Args:
        folder: where it lies.
        form: what it is.
        edit: the edit, which is applied to ``base``.
        base: the base the edit belongs to.
        origin: where transformers finds the base.
        facts: the edit's requests.

    Raises:
        InputError: a request is longer than the context.
    """
    texts = [
        tokenise(base.tokenizer, str(request.get("instruction") or "") + request["prompt"], target, base.max_tokens)
        for request in facts.requests
        if isinstance(target := request.get("target"), str)
    ]
    if not texts:
        return Checked(0, 0.0, (0.0, 0.0, 0.0))
    model = _loaded(folder, form, base, origin)
    difference, hits, tokens = 0.0, [0, 0, 0], 0
    for text in texts:
        ids = torch.tensor([text.ids], device=base.device)
        before = base.model(ids, use_cache=False).logits[0]
        with edit.applied():
            edited = base.model(ids, use_cache=False).logits[0]
        written = model(ids, use_cache=False).logits[0]
        difference = max(difference, float((written.float() - edited.float()).abs().max()))
        hits = [sum(pair) for pair in zip(hits, _hits(text, (before, edited, written)), strict=True)]
        tokens += text.n_target
    return Checked(len(texts), difference, (hits[0] / tokens, hits[1] / tokens, hits[2] / tokens))


def _hits(text: TokenisedText, logits: Sequence[torch.Tensor]) -> list[int]:
    """How many of the target's tokens are the likeliest, by each of several logits (tokens, vocabulary)."""
    targets = torch.tensor(text.ids[-text.n_target :])
    return [int((each[-text.n_target - 1 : -1].argmax(-1).cpu() == targets).sum()) for each in logits]


def _loaded(folder: Path, form: Form, base: Base, origin: Origin) -> nn.Module:
    with quiet_progress():
        model: nn.Module = AutoModelForCausalLM.from_pretrained(
            folder if form == "model" else origin.loads, dtype=base.dtype, trust_remote_code=False, use_safetensors=True
        ).to(base.device)
        if form == "lora":
            from peft import PeftModel

            with warnings.catch_warnings():  # peft asks transformers by a name that goes out of use
                warnings.simplefilter("ignore", FutureWarning)
                model = PeftModel.from_pretrained(model, folder)
    if form == "delta":
        delta = load_file(folder / DELTA)
        for name, weight in model.named_parameters():
            if name in delta:
                weight.add_(delta[name].to(weight))
            elif f"{name}.left" in delta:
                weight.add_((delta[f"{name}.left"].float() @ delta[f"{name}.right"].float()).to(weight))
    return model.eval()
