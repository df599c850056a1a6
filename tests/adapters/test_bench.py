"""``gte bench`` from end to end, with every peer that is installed; and its face."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from gte_integrations.bench import report as reports
from gte_integrations.bench.machine import measure_machine
from gte_integrations.cli import commands as cli

OURS = "gte"
PEERS = ["transformers", "sentence-transformers"]
CHOSEN = [word for name in (OURS, *PEERS) for word in ("--contender", name)]


def gte_bench(*arguments):
    environment = {"COLUMNS": "120", "TERM": "dumb"}
    return CliRunner(env=environment).invoke(cli.app, ["bench", *map(str, arguments)])


@pytest.fixture(scope="module")
def chart(tmp_path_factory):
    return tmp_path_factory.mktemp("chart") / "speed.svg"


@pytest.fixture(scope="module")
def found(chart):
    arguments = ["--model", "demo", "--quick", "--rounds", "2", "--json", "--chart", chart]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "OMP_NUM_THREADS", "1"
        )  # several at once wait for each other on a busy machine
        result = gte_bench(*arguments, *CHOSEN)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.slow
class TestEndToEnd:
    def test_everyone_came_through(self, found):
        assert found["left_out"] == {}
        assert [contender["name"] for contender in found["contenders"]] == [OURS, *PEERS]
        assert (found["model"], found["random_weights"], found["rounds"]) == ("demo", False, 2)

    def test_peers_compute_the_same_vectors(self, found):
        cosines = [measured["smallest_cosine"] for measured in found["measurements"]]
        assert min(cosines) > 0.999

    def test_ratios_to_every_peer_on_every_workload(self, found):
        compared = {(ratio["peer"], ratio["workload"]) for ratio in found["ratios"]}
        names = {workload["name"] for workload in found["workloads"]}
        assert compared == {(peer, name) for peer in PEERS for name in names}
        assert min(ratio["speedup"]["lowest"] for ratio in found["ratios"]) > 0

    def test_the_machine_was_measured(self, found):
        machine = found["machine"]
        assert machine["gemm_flops"]["float32"] > 1e8
        assert machine["copy_bytes"] > 1e7
        assert machine["threads"] >= 1

    def test_rates_shares_and_times(self, found):
        tokens = {workload["name"]: workload["n_tokens"] for workload in found["workloads"]}
        for measured in found["measurements"]:
            rate, seconds = measured["tokens_per_s"], measured["seconds"]
            assert len(seconds) == 2
            assert rate["highest"] == pytest.approx(tokens[measured["workload"]] / min(seconds))
            assert measured["share_of_peak"] > 0
            alone = measured["workload"] == "one-query"
            assert (measured["p50_ms"] is not None) is alone
            assert not alone or measured["p50_ms"] <= measured["p99_ms"]

    def test_the_time_to_the_first_vector_has_its_parts(self, found):
        for contender in found["contenders"]:
            parts = dict(contender["start"])
            assert parts.pop("total_s") == pytest.approx(sum(parts.values()), abs=0.01)
            assert contender["host_peak_bytes"] > 10**8

    def test_both_vectors_are_measured_beside_the_dense_ones(self, found):
        assert {cost["workload"] for cost in found["sparse_cost"]} == {
            workload["name"] for workload in found["workloads"]
        }

    def test_the_chart_is_drawn(self, found, chart):
        drawn = chart.read_text("utf-8")
        assert drawn.startswith("<?xml")
        assert len(drawn) > 10_000


@pytest.fixture
def report():
    """One of everything, as a GPU would give it."""
    spread = reports.Spread(2.0, 1.0, 3.0)
    machine = reports.Machine(
        "cuda", "GPU X", 8, 8, 80 * 10**9, ("sm_90",), "2", {"bfloat16": 9e14}, 3e12
    )
    measured = reports.Measurement(
        "gte", "dense", "queries", (1.0,), spread, spread, None, None, None, None, 1, 2 * 10**9
    )
    hybrid = reports.Measurement(
        "gte", "hybrid", "queries", (1.0,), spread, spread, 0.5, None, None, 0.9999, 1, 1
    )
    peer = reports.Measurement(
        "transformers", "batch 32", "queries", (1.0,), spread, spread, 0.25, 1.0, 2.0, 0.2, 1, 1
    )
    start = reports.Start(0.1, 1.0, 2.0, 0.5, 3.6)
    return reports.BenchReport(
        model="random weights",
        random_weights=True,
        rounds=1,
        quick=False,
        versions={"torch": "2"},
        machine=machine,
        workloads=(reports.WorkloadReport("queries", 2, 20, 8, 12, False),),
        contenders=(reports.ContenderReport("gte", True, "bfloat16", start, 10**9, 10**9),),
        measurements=(measured, hybrid, peer),
        ratios=(reports.Ratio("gte", "transformers", "batch 32", "queries", None),),
        sparse_cost=(reports.SparseCost("gte", "queries", 4.2),),
        left_out={"flagembedding": "FlagEmbedding is not installed"},
    )


class TestTables:
    @pytest.fixture
    def shown(self, report, monkeypatch):
        from gte_integrations.bench import run

        monkeypatch.setattr(run, "run_bench", lambda settings, progress: report)
        result = gte_bench()
        assert result.exit_code == 0, result.output
        return result.stdout

    @pytest.mark.parametrize(
        "expected",
        [
            "random weights (the vectors mean nothing)",
            "cuda · GPU X · sm_90 · 8 cores, 8 threads · 80.00 GB",
            "bfloat16 900,000 G/s",
            "3,000.0 GB/s",
            "queries: 2 texts of 8–12 tokens, 20 in all",
            "+4.2 % time",
            "other vectors",
            "0.999900",
            "flagembedding: FlagEmbedding is not installed",
        ],
    )
    def test_everything_is_told(self, shown, expected):
        assert expected in shown

    def test_the_time_to_the_first_vector(self, shown):
        [line] = [line for line in shown.splitlines() if "gte (bfloat16)" in line]
        assert line.split()[2:7] == ["0.10", "1.00", "2.00", "0.50", "3.60"]


class TestChart:
    @pytest.mark.parametrize("name", ["speed.png", "speed.SVG"])
    def test_its_ending_decides_the_format(self, report, tmp_path, name):
        from gte_integrations.bench.chart import write_chart

        write_chart(report, tmp_path / name)
        begins = (tmp_path / name).read_bytes()[:5]
        assert begins == (b"\x89PNG\r" if name.endswith("png") else b"<?xml")

    @pytest.mark.parametrize(
        ("path", "message"),
        [("speed.pdf", "must end in .png or .svg"), ("no/folder.png", "no is not a directory")],
    )
    def test_a_path_that_cannot_be_written_is_told_before_the_run(self, path, message):
        result = gte_bench("--chart", path)
        assert result.exit_code == 1
        assert message in result.stderr

    def test_a_missing_extra_is_named_with_its_pip_line(self):
        script = (
            "import sys; sys.modules['matplotlib.figure'] = None\n"
            "from gte_integrations.cli.commands import app; app(['bench', '--chart', 'x.png'])"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "needs matplotlib; pip install 'gte-integrations[bench]'" in done.stderr
        assert done.stderr.count("\n") == 1


class TestWrongUse:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--contender", "bert"], "There is no contender 'bert'; allowed are gte, gte-float32"),
            (["--workload", "books"], "There is no workload 'books'; allowed are queries"),
            (["--model", "demo", "--device", "cuda:99"], "device is 'cuda:99', but this machine"),
            (["--model", "demo", "--device", "abacus"], "device is 'abacus', but this machine"),
        ],
    )
    def test_it_is_one_line(self, arguments, message):
        result = gte_bench("--quick", *arguments)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.startswith(f"error: {message}")
        assert result.stderr.count("\n") == 1

    def test_nobody_left_to_measure(self, report, monkeypatch):
        from gte_integrations.bench import contenders, run

        monkeypatch.setattr(run, "_measured", lambda settings, folder: report.machine)
        monkeypatch.setattr(contenders, "find_spec", lambda package: None)
        result = gte_bench("--quick", "--model", "demo", "--contender", "transformers")
        assert result.exit_code == 1
        expected = "No contender could be measured. transformers: transformers is not installed"
        assert expected in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to catch")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_nothing_is_left_behind(start, tmp_path, number, status):
    command = [sys.executable, "-P", "-m", "gte_integrations.cli", "bench", "--model", "demo"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = start(command, env=environment, stderr=subprocess.DEVNULL)
    # The log is there once the first child is.
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("gte-bench-*/machine.log")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(timeout=120) == status
    assert list(tmp_path.iterdir()) == []


def test_a_machine_is_measured_for_every_type():
    machine = measure_machine("cpu", quick=True)
    assert {"float32", "bfloat16"} <= machine.gemm_flops.keys()
    assert machine.name
