import pytest

from instructedit.base import Base, Site, SiteSpec, find_sites
from instructedit.base.sites import stored_in_out
from instructedit.errors import InputError


def names(base: Base, spec: SiteSpec) -> list[str]:
    return [site.name for site in find_sites(base, spec)]


def test_default_is_every_mlp_matrix_of_the_last_three_blocks(tiny_gpt2_base: Base, tiny_llama_base: Base) -> None:
    assert find_sites(tiny_gpt2_base, SiteSpec())[:2] == (
        Site("transformer.h.1.mlp.c_fc", block=1, d_in=32, d_out=128),
        Site("transformer.h.1.mlp.c_proj", block=1, d_in=128, d_out=32),
    )
    assert len(find_sites(tiny_gpt2_base, SiteSpec())) == 6
    assert find_sites(tiny_llama_base, SiteSpec(last_blocks=1)) == (
        Site("model.layers.3.mlp.gate_proj", block=3, d_in=32, d_out=48),
        Site("model.layers.3.mlp.up_proj", block=3, d_in=32, d_out=48),
        Site("model.layers.3.mlp.down_proj", block=3, d_in=48, d_out=32),
    )


def test_sizes_match_the_weights(tiny_base: Base) -> None:
    for site in find_sites(tiny_base, SiteSpec(last_blocks=4)):
        module = tiny_base.model.get_submodule(site.name)
        shape = tuple(module.weight.shape)
        assert shape == ((site.d_in, site.d_out) if stored_in_out(module) else (site.d_out, site.d_in))


def test_order_is_the_forward_order_whatever_was_asked(tiny_llama_base: Base) -> None:
    spec = SiteSpec(last_blocks=2, matrices=("down_proj", "mlp.gate_proj"))
    expected = [f"model.layers.{block}.mlp.{matrix}" for block in (2, 3) for matrix in ("gate_proj", "down_proj")]
    assert names(tiny_llama_base, spec) == expected
    shuffled = tuple(reversed(expected))
    assert names(tiny_llama_base, SiteSpec(names=shuffled)) == expected


def test_forward_order_is_what_the_model_does(tiny_base: Base) -> None:
    called: list[str] = []
    sites = find_sites(tiny_base, SiteSpec(last_blocks=4))
    for site in sites:
        module = tiny_base.model.get_submodule(site.name)
        module.register_forward_hook(lambda *_args, name=site.name: called.append(name))
    tiny_base.model(tiny_base.tokenizer("abc", return_tensors="pt").input_ids)
    assert called == [site.name for site in sites]


def test_a_short_name_means_the_mlp_where_attention_has_it_too(tiny_gpt2_base: Base) -> None:
    assert names(tiny_gpt2_base, SiteSpec(1, ("c_proj",))) == ["transformer.h.3.mlp.c_proj"]
    assert names(tiny_gpt2_base, SiteSpec(1, ("attn.c_proj",))) == ["transformer.h.3.attn.c_proj"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (SiteSpec(last_blocks=5), "last_blocks is 5.*4 blocks.*between 1 and 4"),
        (SiteSpec(last_blocks=0), "last_blocks is 0"),
        (SiteSpec(matrices=("gate_prj",)), "'gate_prj'.*mlp.gate_proj"),
        (SiteSpec(matrices=("roj",)), "Unknown matrix.*'roj'"),
        (SiteSpec(matrices=()), "No site was chosen"),
        (SiteSpec(names=("model.layers.50.mlp.up_proj",)), r"layers\.50.*blocks 0-3.*model\.layers\.3"),
        (SiteSpec(names=("model.layers.3.mlp",)), r"'model\.layers\.3\.mlp' is not in"),
        (SiteSpec(names=("model.layers.3.mlp.up_proj",) * 2), "named twice"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(tiny_llama_base: Base, spec: SiteSpec, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_sites(tiny_llama_base, spec)
