"""Texts of given lengths, and what they cost."""

from importlib.resources import files
from statistics import mean

import pytest
from tokenizers import Tokenizer

from gte_core import GTEConfig, GTEModel
from gte_core.testing import word_tokenizer
from gte_integrations.bench.workloads import WORKLOADS, build_workloads, flops

DEMO = files("gte_core") / "data" / "demo" / "tokenizer.json"


@pytest.fixture(scope="module", params=["demo", "words"])
def tokenizer(request, tmp_path_factory):
    if request.param == "demo":
        return DEMO
    path = tmp_path_factory.mktemp("words") / "tokenizer.json"
    word_tokenizer(5000).save(str(path))
    return path


class TestWorkloads:
    def test_lengths_are_those_of_the_workload(self, tokenizer):
        read = Tokenizer.from_file(str(tokenizer))
        built = {workload.name: workload for workload in build_workloads(tokenizer, "cpu")}
        for workload in built.values():
            assert workload.n_tokens == [len(read.encode(text).ids) for text in workload.texts]
        assert sorted(set(built["queries"].n_tokens)) == list(range(6, 28))
        assert mean(built["passages"].n_tokens) == pytest.approx(160, rel=0.05)
        assert built["texts-512"].n_tokens == [512] * 4
        assert built["long-texts"].n_tokens == [4608]

    def test_the_embedder_counts_the_same(self, demo):
        [queries] = build_workloads(DEMO, "cpu", ["queries"], quick=True)
        assert demo.encode(queries.texts).n_tokens.tolist() == queries.n_tokens

    def test_a_workload_alone_is_that_of_a_whole_run(self, tokenizer):
        alone = build_workloads(tokenizer, "cpu", ["texts-512"], quick=True)
        whole = build_workloads(tokenizer, "cpu", quick=True)
        assert alone == [workload for workload in whole if workload.name == "texts-512"]

    @pytest.mark.parametrize(("device", "queries"), [("cpu", 64), ("mps", 64), ("cuda:0", 4096)])
    def test_a_gpu_gets_more_texts(self, device, queries):
        [built] = build_workloads(DEMO, device, ["queries"])
        assert len(built.texts) == queries

    def test_a_tokenizer_without_whole_words(self, tmp_path):
        word_tokenizer(100).save(str(tmp_path / "t.json"))  # room for characters alone
        with pytest.raises(ValueError, match=r"No word of this tokenizer\.json is one token by it"):
            build_workloads(tmp_path / "t.json", "cpu")


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


def test_the_command_names_all_workloads():
    from typer.testing import CliRunner

    from gte_integrations.cli.commands import app

    help_text = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["bench", "--help"]).stdout
    assert all(name in help_text for name in WORKLOADS)
