"""Contenders in processes of their own: who fails is left behind, and nobody stays."""

import time

import numpy as np
import pytest

from gte_core import GTEConfig
from gte_integrations.bench.analysis import Analysis
from gte_integrations.bench.contenders import CONTENDERS, Contender, choose
from gte_integrations.bench.memory import device_peak, host_peak, reset_peaks
from gte_integrations.bench.processes import Child, ChildError
from gte_integrations.bench.race import Race, Runner
from gte_integrations.bench.report import Machine, percentile
from gte_integrations.bench.run import BenchSettings
from gte_integrations.bench.worker import Session
from gte_integrations.bench.workloads import Workload

QUERIES = Workload("queries", ("a b", "c"), (4, 3))
MANY = Workload("passages", ("a",) * 40, (3,) * 40)
ALONE = Workload("one-query", ("a b", "c"), (4, 3), one_at_a_time=True)
MACHINE = Machine("cpu", "CPU", 2, 2, None, (), "2", {"float32": 1e9}, 1e9)
ABSENT = Contender("flagembedding", "no_such_package", "flagembedding", "float32")
BROKEN = Contender("transformers", "json", "no_such_module", "float32")


class FakeChild:
    """Answers at once with the times it was given; after those it fails."""

    def __init__(self, vectors, times):
        self.vectors, self.times, self.closed, self.asked = vectors, list(times), False, []

    def ask(self, request):
        self.asked.append((request["workload"], request["variant"]))
        if not self.times:
            raise ChildError("out of memory")
        if request["vectors"]:
            np.save(request["vectors"], self.vectors)
        return {"seconds": [self.times.pop(0)], "host_peak": 1000, "device_peak": None}

    def close(self):
        self.closed = True


def runner(name, times, *, variants=None, vectors=((1, 0), (0, 1)), dtype="float32"):
    start = dict.fromkeys(("interpreter_s", "imports_s", "load_s", "first_pass_s", "total_s"), 1.0)
    child = FakeChild(np.array(vectors, np.float32), times)
    if variants is None:
        variants = ("dense",) if name.startswith("gte") else ("batch 32",)
    return Runner(CONTENDERS[name], child, dtype, variants, start, {("", "load"): (2000, None)})


@pytest.fixture
def race(tmp_path):
    said = []
    with Race(tmp_path, {"original": tmp_path}, "cpu", [QUERIES], said.append) as race:
        race.said = said
        yield race


def analysed(race, rounds=2):
    race.warm_up()
    for number in range(rounds):
        race.round(number + 1, rounds)
    config = GTEConfig.from_dict({"model_type": "gte", "hidden_size": 8, "num_attention_heads": 4})
    return Analysis(race.finished(), [QUERIES], config, MACHINE)


class TestRace:
    def test_a_library_that_is_not_installed_is_left_out(self, race):
        race.start(ABSENT, warm=True)
        assert race.left_out == {"flagembedding": "no_such_package is not installed"}

    def test_a_contender_that_cannot_start_is_left_out_with_its_error(self, tmp_path):
        with Race(tmp_path, {"native": tmp_path}, "cpu", [QUERIES], print) as race:
            race.start(BROKEN, warm=False)
            assert "ModuleNotFoundError: No module named" in race.left_out["transformers"]
            assert race.finished() == []

    def test_a_contender_without_its_form_is_left_out(self, race):
        race.start(BROKEN, warm=False)
        assert race.left_out == {
            "transformers": "there is no checkpoint in the form that json reads"
        }

    def test_a_contender_that_fails_on_the_way_stops_nobody_else(self, race):
        weak, strong = runner("transformers", [1, 1]), runner("gte", [1] * 9)
        race.runners = [weak, strong]
        report = analysed(race)
        assert race.left_out == {"transformers": "queries: out of memory"}
        assert weak.child.closed
        assert [m.contender for m in report.measurements()] == ["gte"]
        assert report.ratios() == ()

    def test_the_default_and_the_fastest_other_variant_are_measured(self, tmp_path):
        sizes = ("batch 32", "batch 8", "batch 4", "batch 1")
        with Race(tmp_path, {}, "cpu", [MANY], print) as race:
            race.runners = [runner("sentence-transformers", [4, 3, 1, 2], variants=sizes)]
            race.warm_up()
        assert list(race.runners[0].ways) == [("passages", "batch 32"), ("passages", "batch 4")]

    def test_batches_larger_than_a_workload_are_one(self, race):
        sizes = ("batch 32", "batch 8", "batch 1")
        race.runners = [runner("sentence-transformers", [1] * 3, variants=sizes)]
        race.warm_up()
        assert list(race.runners[0].ways) == [("queries", "batch 32"), ("queries", "batch 1")]

    def test_a_variant_that_fails_leaves_the_others(self, race):
        race.runners = [runner("transformers", [1], variants=("batch 32", "batch 1"))]
        race.warm_up()
        assert race.left_out == {"transformers batch 1, queries": "out of memory"}
        assert list(race.finished()[0].ways) == [("queries", "batch 32")]

    def test_contenders_take_turns_and_each_round_begins_with_another(self, race):
        order = []
        race.runners = [
            runner("gte", [1] * 9, variants=("dense", "hybrid")),
            runner("transformers", [1] * 9, variants=("batch 32", "batch 1")),
        ]
        race.warm_up()
        for one in race.runners:
            asked = one.child.ask
            one.child.ask = lambda request, ask=asked: (
                order.append(request["variant"]) or ask(request)
            )
        race.round(1, 2)
        race.round(2, 2)
        assert order[:4] == ["dense", "batch 32", "hybrid", "batch 1"]
        assert order[4:] == ["batch 32", "hybrid", "batch 1", "dense"]

    def test_one_text_at_a_time_has_no_batch_size(self, tmp_path):
        with Race(tmp_path, {}, "cpu", [ALONE], print) as race:
            race.runners = [runner("transformers", [1] * 9, variants=("batch 32", "batch 8"))]
            race.warm_up()
            assert list(race.runners[0].ways) == [("one-query", "batch 32")]


class TestAnalysis:
    def test_ratios_are_taken_round_by_round(self, race):
        race.runners = [runner("gte", [9, 1, 2]), runner("transformers", [9, 3, 8])]
        report = analysed(race)
        [ratio] = report.ratios()
        assert (ratio.ours, ratio.peer) == ("gte", "transformers")
        assert (ratio.speedup.lowest, ratio.speedup.median, ratio.speedup.highest) == (3, 3.5, 4)

    def test_a_peer_with_other_vectors_has_no_ratio(self, race):
        other = runner("transformers", [1] * 9, vectors=((1, 0), (1, 1)))
        race.runners = [runner("gte", [1] * 9), other]
        report = analysed(race)
        assert [ratio.speedup for ratio in report.ratios()] == [None]
        cosines = [measured.smallest_cosine for measured in report.measurements()]
        assert cosines == pytest.approx([1, 0.5**0.5])

    def test_a_peer_with_other_weights_is_compared_by_speed_alone(self, race):
        other = runner("flagembedding", [2] * 9, vectors=((1, 1), (1, 1)))
        race.runners = [runner("gte", [1] * 9), other]
        report = analysed(race)
        assert report.measurements()[1].smallest_cosine is None
        assert report.ratios()[0].speedup.median == 2

    def test_rates_count_real_tokens(self, race):
        race.runners = [runner("gte", [9, 2, 0.5])]
        [measured] = analysed(race).measurements()
        assert measured.tokens_per_s.median == pytest.approx((7 / 2 + 7 / 0.5) / 2)
        assert (measured.texts_per_s.lowest, measured.texts_per_s.highest) == (1, 4)
        assert (measured.host_peak_bytes, measured.p50_ms) == (1000, None)
        assert 0 < measured.share_of_peak < 1

    def test_what_the_sparse_vectors_cost(self, race):
        race.runners = [runner("gte", [9, 9, 2, 3, 3, 2], variants=("dense", "hybrid"))]
        # The second round begins with the hybrid variant.
        [cost] = analysed(race).sparse_cost()
        assert (cost.contender, cost.workload, cost.percent) == ("gte", "queries", 50)

    def test_a_reference_that_is_not_timed_gives_cosines_alone(self, race):
        exact = runner("gte-float32", [1] * 9)
        exact.timed = False
        half = runner("gte-bfloat16", [1] * 9, dtype="bfloat16")
        race.runners = [half, exact]
        report = analysed(race)
        assert [contender.name for contender in report.contenders()] == ["gte-bfloat16"]
        [measured] = report.measurements()
        assert (measured.smallest_cosine, measured.share_of_peak) == (pytest.approx(1), None)

    @pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (0, 1)])
    def test_percentiles(self, percent, value):
        assert percentile(range(100, 0, -1), percent) == value


class TestChild:
    def test_it_is_gone_after_an_interrupt(self, tmp_path):
        with pytest.raises(KeyboardInterrupt), Child(tmp_path / "log") as child:
            raise KeyboardInterrupt
        assert child._process.returncode is not None

    def test_one_that_died_is_an_error_with_its_last_words(self, tmp_path):
        with Child(tmp_path / "log") as child:
            child._process.kill()
            child._process.wait()
            (tmp_path / "log").write_text("Loading\nKilled: out of memory\n", "utf-8")
            with pytest.raises(ChildError, match=r"ended with status -?\d+: Killed: out of memory"):
                child.ask({"action": "measure"})

    def test_what_goes_wrong_inside_is_its_message(self, tmp_path):
        with Child(tmp_path / "log") as child:
            with pytest.raises(ChildError, match="Nothing is loaded; send 'load' first"):
                child.ask({"action": "encode"})
            assert "RuntimeError: Nothing is loaded" in (tmp_path / "log").read_text("utf-8")


class TestWorker:
    def test_a_contender_is_loaded_and_encodes(self, small_checkpoint, small, tmp_path):
        texts = '[{"name": "one-query", "texts": ["w1 w2", "w3"], "one_at_a_time": true}]'
        (tmp_path / "workloads.json").write_text(texts, "utf-8")
        session = Session(time.time())
        loaded = session.answer(
            {
                "action": "load",
                "module": "gte",
                "directory": str(small_checkpoint),
                "device": "cpu",
                "dtype": "float32",
                "first_text": "w1",
                "workloads": str(tmp_path / "workloads.json"),
            }
        )
        assert (loaded["dtype"], loaded["variants"]) == ("float32", ("dense", "hybrid"))
        parts = loaded["start"]
        assert parts.pop("total_s") == pytest.approx(sum(parts.values()), abs=0.01)
        file = tmp_path / "vectors.npy"
        request = {"workload": "one-query", "variant": "hybrid", "vectors": str(file)}
        answer = session.answer({"action": "encode", **request})
        assert len(answer["seconds"]) == 2
        assert answer["host_peak"] > 10**7
        np.testing.assert_allclose(np.load(file), small.encode_dense(["w1 w2", "w3"]), atol=1e-6)

    def test_the_peak_can_be_forgotten(self):
        held = bytearray(200_000_000)
        before = host_peak()
        del held
        reset_peaks("cpu")
        assert host_peak() <= before
        assert device_peak("cpu") is None


class TestChoose:
    def test_a_cpu_without_instructions_for_it_is_spared_bfloat16(self):
        names = [contender.name for contender in choose([], "cpu", ["avx2"])]
        assert "gte-bfloat16" not in names
        assert {"gte", "gte-float32", "gte-int8", "transformers"} <= set(names)
        assert "gte-bfloat16" in [c.name for c in choose([], "cpu", ["avx512_bf16"])]

    def test_on_a_gpu_peers_compute_in_bfloat16_too(self):
        names = [contender.name for contender in choose([], "cuda:0", [])]
        assert {"gte-bfloat16", "transformers-bfloat16", "flagembedding"} <= set(names)

    def test_what_is_asked_for_is_taken_once(self):
        assert choose(["gte-float16"] * 2, "cpu", []) == [CONTENDERS["gte-float16"]]

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"contenders": ("gtee",)}, "There is no contender 'gtee'; allowed are gte, gte-float"),
            ({"workloads": ("query",)}, "There is no workload 'query'; allowed are queries, pass"),
            ({"rounds": 0}, "rounds is 0, but must be at least 1"),
        ],
    )
    def test_settings_that_make_no_sense(self, wrong, message):
        with pytest.raises(ValueError, match=message):
            BenchSettings(**wrong)
