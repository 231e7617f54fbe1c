"""The GPT-2 family: Conv1D matrices and learned absolute positions, added inside the decoder's forward.

Knows names only; nothing about weights or loading.
"""

from instructedit.base.adaptors.adaptor import Adaptor

GPT2 = Adaptor(
    family="gpt2",
    described="GPT-2 small to XL",
    model_types=frozenset({"gpt2"}),
    decoder="transformer",
    embeddings="wte",
    blocks="h",
    norm="ln_f",
    positions="wpe",
    matrices=("mlp.c_fc", "mlp.c_proj"),
    mlp="mlp",
    activation="activation_function",
)
