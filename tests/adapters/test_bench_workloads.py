"""Texts of exact lengths, and what they cost."""

from importlib.resources import files
from statistics import mean

import pytest
from tokenizers import Tokenizer, models

from gte_core import GTEConfig, GTEModel
from gte_core.testing import word_tokenizer
from gte_integrations.bench.flops import flops
from gte_integrations.bench.workloads import Sizes, TextWriter, build_workloads

DEMO = files("gte_core") / "data" / "demo" / "tokenizer.json"
QUICK = Sizes.of("cpu", quick=True)


@pytest.fixture(scope="module", params=["demo", "words"])
def tokenizer(request, tmp_path_factory):
    if request.param == "demo":
        return DEMO
    path = tmp_path_factory.mktemp("words") / "tokenizer.json"
    word_tokenizer(5000).save(str(path))
    return path


class TestWorkloads:
    def test_every_text_has_exactly_its_tokens(self, tokenizer):
        read = Tokenizer.from_file(str(tokenizer))
        for workload in build_workloads(tokenizer, Sizes.of("cpu", quick=False)):
            counted = [len(read.encode(text).ids) for text in workload.texts]
            assert counted == list(workload.n_tokens), workload.name

    def test_the_embedder_counts_the_same(self, demo):
        [queries] = build_workloads(DEMO, QUICK, names=["queries"])
        assert demo.encode(queries.texts).n_tokens.tolist() == list(queries.n_tokens)

    def test_lengths_are_those_of_the_workload(self, tokenizer):
        sizes = Sizes(queries=44, passages=400, texts_512=3, long_texts=8, one_query=5)
        built = {w.name: w for w in build_workloads(tokenizer, sizes)}
        assert sorted(set(built["queries"].n_tokens)) == list(range(6, 28))
        assert mean(built["passages"].n_tokens) == pytest.approx(160, rel=0.02)
        assert built["texts-512"].n_tokens == (512, 512, 512)
        assert 1024 <= min(built["long-texts"].n_tokens) < max(built["long-texts"].n_tokens) <= 8192
        assert [name for name, w in built.items() if w.one_at_a_time] == ["one-query"]

    def test_the_seed_decides_the_texts(self, tokenizer):
        first, same, other = (build_workloads(tokenizer, QUICK, seed=seed) for seed in (0, 0, 1))
        assert first == same
        assert first != other

    def test_a_workload_alone_is_that_of_a_whole_run(self, tokenizer):
        alone = build_workloads(tokenizer, QUICK, names=["texts-512"])
        assert alone == [w for w in build_workloads(tokenizer, QUICK) if w.name == "texts-512"]

    @pytest.mark.parametrize(("device", "queries"), [("cpu", 64), ("mps", 64), ("cuda", 4096)])
    def test_a_gpu_gets_more_texts(self, device, queries):
        assert Sizes.of(device, quick=False).queries == queries


class TestTextWriter:
    def test_a_tokenizer_without_whole_words(self):
        with pytest.raises(ValueError, match=r"No word of this tokenizer\.json is one token by it"):
            TextWriter(word_tokenizer(100))  # room for characters alone

    def test_a_tokenizer_whose_words_depend_on_each_other(self):
        tokenizer = Tokenizer(models.WordLevel({"one": 0, "two": 1, "[UNK]": 2}, "[UNK]"))
        with pytest.raises(ValueError, match="has 1 tokens instead of 3: the words of this"):
            TextWriter(tokenizer).write(3)


class TestFlops:
    CONFIG = GTEConfig.from_dict({"model_type": "gte"})

    def test_one_token_costs_its_weights_twice(self):
        layers, hidden, inner = 12, 768, 3072
        weights = layers * (3 * hidden**2 + hidden**2 + 2 * hidden * inner + inner * hidden)
        assert flops(self.CONFIG, [1]) == 2 * weights + layers * 4 * hidden

    def test_attention_grows_with_the_square_of_the_length(self):
        together, apart = flops(self.CONFIG, [200]), flops(self.CONFIG, [100, 100])
        assert together - apart == 12 * 4 * 768 * (200**2 - 2 * 100**2)

    def test_the_weights_are_those_of_the_linear_layers(self, small_checkpoint):
        model = GTEModel.from_pretrained(small_checkpoint)
        linears = sum(
            parameter.numel()
            for name, parameter in model.encoder.named_parameters()
            if parameter.ndim == 2
        )
        config = GTEConfig.from_pretrained(small_checkpoint)
        attention = config.num_hidden_layers * 4 * config.hidden_size
        assert flops(config, [1]) == 2 * linears + attention
