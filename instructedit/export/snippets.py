"""Lines of Python that load what was exported, for a card and for the end of the command; tests run them.

Knows file formats and the libraries people load them with.
"""

from typing import Literal

from instructedit.export.origin import Origin

Form = Literal["lora", "model", "delta"]
"""What an edit is exported as."""

FORMS: tuple[Form, ...] = ("lora", "model", "delta")


def loading_lines(form: Form, where: str, origin: Origin, dtype: str, local: bool) -> list[str]:
    """Return lines that end with ``model`` and ``tokenizer``.

    Args:
        form: what was exported.
        where: the folder, or its id on the Hub.
        origin: the base.
        dtype: dtype the base was edited in, such as ``"float32"``.
        local: whether the lines are for this machine, where the base may be a folder.
    """
    if form == "model":
        return [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'model = AutoModelForCausalLM.from_pretrained({where!r}, dtype="auto")',
            f"tokenizer = AutoTokenizer.from_pretrained({where!r})",
        ]
    head, base = _base_lines(origin, dtype, local)
    if form == "lora":
        return [
            "from peft import PeftModel",
            *head,
            "",
            *base,
            f"model = PeftModel.from_pretrained(model, {where!r}).eval()",
        ]
    return [
        "import torch",
        "from safetensors.torch import load_file",
        *head,
        "",
        *base,
        f"delta = load_file({where + '/delta.safetensors'!r})",
        "with torch.no_grad():",
        "    for name, weight in model.named_parameters():",
        "        if name in delta:",
        "            weight += delta[name].to(weight.dtype)",
        '        elif name + ".left" in delta:',
        '            change = delta[name + ".left"].float() @ delta[name + ".right"].float()',
        "            weight += change.to(weight.dtype)",
    ]


def asking_lines(prompt: str) -> list[str]:
    """Return lines that continue a text with ``model`` and ``tokenizer`` and print it."""
    return [
        "",
        f"question = tokenizer({prompt!r}, return_tensors='pt')",
        "print(tokenizer.decode(model.generate(**question, max_new_tokens=10, do_sample=False)[0]))",
    ]


def _base_lines(origin: Origin, dtype: str, local: bool) -> tuple[list[str], list[str]]:
    """Imports, and the lines that load the unedited base."""
    name = origin.loads if local else origin.hub_id
    if name is None and origin.loads and _is_alias(origin):
        return ["import torch", "from instructedit.base import load_base"], [
            f"base = load_base({origin.name!r}, torch.{dtype})",
            "model, tokenizer = base.model, base.tokenizer",
        ]
    name = name or f"PATH/TO/{origin.name}"
    return ["from transformers import AutoModelForCausalLM, AutoTokenizer"], [
        f'model = AutoModelForCausalLM.from_pretrained({name!r}, dtype="{dtype}")',
        f"tokenizer = AutoTokenizer.from_pretrained({name!r})",
    ]


def _is_alias(origin: Origin) -> bool:
    from instructedit.base.loading import ALIASES

    return origin.name in ALIASES
