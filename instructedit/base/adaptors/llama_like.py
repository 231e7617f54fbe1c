"""The LLaMA-like family: Linear gate, up and down matrices, rotary positions inside the attention.

Knows names only; nothing about weights or loading.
"""

from instructedit.base.adaptors.adaptor import Adaptor

LLAMA_LIKE = Adaptor(
    family="llama-like",
    described="Llama, Mistral, Qwen2, Qwen3 and dense models of the same shape",
    model_types=frozenset({"llama", "mistral", "qwen2", "qwen3"}),
    decoder="model",
    embeddings="embed_tokens",
    blocks="layers",
    norm="norm",
    positions=None,
    matrices=("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    mlp="mlp",
    activation="hidden_act",
)
