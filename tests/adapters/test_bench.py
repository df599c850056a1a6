"""``gte bench``: its arguments, its figures, its tables, and the processes that measure."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gte_core import GTEConfig, GTEEmbedder, HubError, MissingHeadError
from gte_core.testing import random_sparse_encoder
from gte_integrations.bench import machine, run, worker
from gte_integrations.cli.commands import app


def gte_bench(*arguments, columns=80):
    environment = {"COLUMNS": str(columns), "TERM": "dumb"}
    return CliRunner(env=environment).invoke(app, ["bench", *map(str, arguments)])


def recorded(dense_s=1.0, *, dtype="bfloat16", peak=1e9, has_sparse=True, vram=None):
    """What a worker answers about one round."""
    queries = {
        "name": "queries",
        "n_tokens": [8, 12],
        "flops": 5e8,
        "dense_s": dense_s,
        "both_s": 2 * dense_s if has_sparse else None,
        "alone_s": [],
    }
    alone = queries | {"name": "one-query", "alone_s": [dense_s, 3 * dense_s]}
    start = {"interpreter": 0.1, "imports": 1.0, "load": 2.0, "first_vector": 0.4}
    return {
        "revision": None,
        "device": "cpu",
        "machine": "CPU X, 2 threads, torch 2",
        "dtype": dtype,
        "start_s": start,
        "workloads": [queries, alone],
        "file_bytes": 500_000_000,
        "ram_bytes": 10**9,
        "vram_bytes": vram,
        "peak_flops": peak,
    }


class TestFigures:
    @pytest.fixture
    def speed(self):
        first = [recorded(1.0), recorded(2.0), recorded(4.0)]
        own = [recorded(0.5, peak=2e9), recorded(0.5), recorded(4.0)]
        return run.figures_of(own, first)["workloads"]

    def test_rates_count_real_tokens(self, speed):
        assert speed[0]["tokens_per_s"] == {"median": 40, "lowest": 5, "highest": 40}
        assert [speed[0][name] for name in ("n_texts", "shortest", "longest")] == [2, 8, 12]

    def test_ratios_are_taken_round_by_round(self, speed):
        assert speed[0]["times_as_fast_as_first"] == 2  # of 2, 4 and 1
        assert speed[0]["share_of_peak"] == 0.5  # of 0.5, 1 and 0.125
        assert speed[0]["time_of_both"] == 2

    def test_a_query_alone_is_compared_with_the_list(self, speed):
        assert (speed[1]["p50_ms"], speed[1]["p99_ms"]) == (1500, 12_000)
        assert speed[1]["time_alone"] == 4
        assert {speed[0][name] for name in ("p50_ms", "p99_ms", "time_alone")} == {None}

    def test_the_start_is_the_sum_of_its_parts(self):
        figures = run.figures_of([recorded()], [recorded()])
        assert figures["start_s"]["total"] == pytest.approx(3.5)
        assert (figures["ram_bytes"], figures["vram_bytes"]) == (10**9, None)

    def test_what_was_not_measured_is_null(self):
        rounds = [recorded(peak=None, has_sparse=False)]
        figures = run.figures_of(rounds, rounds)
        assert figures["peak_flops"] is None
        assert figures["workloads"][0]["share_of_peak"] is None
        assert figures["workloads"][0]["time_of_both"] is None


class TestCommand:
    @pytest.fixture
    def asked(self, monkeypatch):
        """The requests that reach a process, each answered at once."""
        requests = []

        def answer(request):
            requests.append(request)
            fast = 1e-5 if request["device"] == "cuda" else 1.0
            dtype = {"auto": "bfloat16", "float8": "float8_e4m3fn"}.get(
                request["dtype"], request["dtype"]
            )
            vram = 70 * 10**9 if request["device"] == "cuda" else None
            return recorded(fast * (1 + len(requests) % 2 / 10), dtype=dtype, peak=1e15, vram=vram)

        monkeypatch.setattr(run, "in_a_process", answer)
        return requests

    def test_types_take_turns_and_each_round_begins_with_another(self, asked):
        result = gte_bench("--model", "demo", "--dtype", "auto", "--dtype", "int8", "--rounds", 2)
        assert result.exit_code == 0, result.output
        assert [request["dtype"] for request in asked] == ["auto", "int8", "int8", "auto"]

    def test_what_is_asked_for_reaches_the_process(self, asked):
        options = ["--device", "cpu", "--workload", "queries", "--torch-compile", "--quick"]
        assert gte_bench("--model", "demo", "--rounds", 1, *options).exit_code == 0
        expected = {"model": "demo", "device": "cpu", "dtype": "auto", "workloads": ["queries"]}
        assert asked == [expected | {"torch_compile": True, "quick": True}]

    def test_tables_read_at_80_columns(self, asked):
        types = ["--dtype", "bfloat16", "--dtype", "float8"]
        result = gte_bench("--model", "demo", "--device", "cuda", *types)
        assert max(map(len, result.stdout.splitlines())) <= 80
        assert "…" not in result.stdout
        rows = [line.split() for line in result.stdout.splitlines()]
        assert ["float8", "3.50", "1.00", "2.00", "0.40", "1.00", "2.00×", "70.00"] in rows
        [shown] = [row for row in rows if row[:2] == ["queries", "bfloat16"]]
        assert shown[2] == "1,818k"
        assert re.fullmatch(r"\d+%", shown[4])
        assert shown[-1] == "1.00×"

    @pytest.mark.parametrize("columns", [40, 60, 79])
    def test_narrow_terminals_get_lists_with_every_figure(self, asked, columns):
        result = gte_bench("--model", "demo", "--device", "cuda", columns=columns)
        assert max(map(len, result.stdout.splitlines())) <= columns
        assert "…" not in result.stdout
        said = " ".join(result.stdout.replace("\u00a0", " ").split())
        assert "Start s 3.50 · imports 1.00 · load 2.00 · vector 0.40 · RAM GB 1.00" in " ".join(
            word for word in said.split() if word != "bfloat16"
        )

    def test_json_has_the_figures(self, asked):
        found = json.loads(gte_bench("--model", "demo", "--json", "--quick").stdout)
        assert (found["model"], found["random_weights"], found["quick"]) == ("demo", False, True)
        assert found["types"][0]["workloads"][0]["n_tokens"] == 20

    def test_without_the_published_model_weights_are_random(self, asked, monkeypatch):
        def refuse(*args, **options):
            raise HubError("not here")

        monkeypatch.setattr(GTEEmbedder, "from_pretrained", refuse)
        small = {"vocab_size": 400, "hidden_size": 32, "num_attention_heads": 4}
        small |= {"num_hidden_layers": 1, "intermediate_size": 64}
        config = GTEConfig.from_dict({"model_type": "gte", **small})
        monkeypatch.setattr(GTEConfig, "from_dict", lambda fields: config)
        monkeypatch.setattr(run, "_PIECES", 350)
        result = gte_bench("--rounds", 1)
        assert "random weights of the shape of" in result.stdout
        assert not Path(asked[0]["model"]).exists()  # removed with the run

    def test_a_workload_that_is_not_there(self, asked):
        result = gte_bench("--workload", "books")
        assert result.exit_code == 1
        assert result.stderr.startswith("error: There is no workload 'books'; allowed are queries,")
        assert (result.stdout, asked) == ("", [])

    def test_no_rounds_are_a_wrong_argument(self, asked):
        assert (gte_bench("--rounds", 0).exit_code, asked) == (2, [])


class TestProcess:
    def test_it_answers_in_its_last_line(self):
        program = "import sys; print('Hello'); print(sys.argv[1])"
        answer = run.in_a_process({"dtype": "auto"}, "-c", program)
        assert answer["dtype"] == "auto"
        assert answer["started"] <= time.time()

    @pytest.mark.parametrize(
        ("program", "message"),
        [
            ('print(\'{"error": "no such type"}\')', "no such type"),
            ("import sys; sys.exit('Killed: out of memory')", "with status 1: Killed: out of mem"),
        ],
    )
    def test_one_that_fails_is_an_error_with_its_words(self, program, message):
        with pytest.raises(ValueError, match=message):
            run.in_a_process({}, "-c", program)


REQUEST = {
    "started": 0.0,
    "device": "cpu",
    "dtype": "float32",
    "torch_compile": False,
    "workloads": ["queries", "one-query"],
    "quick": True,
}


class TestWorker:
    def test_it_measures_a_model(self, small_checkpoint, monkeypatch):
        monkeypatch.setattr(machine, "peak_flops", lambda *args, quick: 1e9)
        request = {**REQUEST, "model": str(small_checkpoint), "started": time.time()}
        answer = json.loads(json.dumps(worker.measure(request)))
        assert (answer["dtype"], answer["device"]) == ("float32", "cpu")
        queries, alone = answer["workloads"]
        assert (queries["name"], queries["alone_s"]) == ("queries", [])
        assert len(alone["alone_s"]) == len(alone["n_tokens"]) == 5
        assert min(queries["dense_s"], queries["both_s"], *answer["start_s"].values()) >= 0
        assert answer["ram_bytes"] > 10**7
        assert answer["file_bytes"] == (small_checkpoint / "model.safetensors").stat().st_size

    def test_what_is_wrong_is_an_answer(self, monkeypatch, capsys):
        request = {**REQUEST, "model": "demo", "dtype": "decimal"}
        monkeypatch.setattr(sys, "argv", ["worker", json.dumps(request)])
        worker.main()
        assert "dtype is 'decimal'" in json.loads(capsys.readouterr().out)["error"]

    def test_a_sparse_encoder_is_refused_with_what_times_it(self, tmp_path):
        request = {**REQUEST, "model": str(random_sparse_encoder(tmp_path))}
        with pytest.raises(MissingHeadError, match=r"is a sparse encoder.*/sparse_encoder\.py"):
            worker.measure(request)


def workers_of(process):
    """Pids of the children that have come as far as the worker's program."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [pid for pid in children if b"bench.worker" in command_of(pid)]


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""  # as of a zombie


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are listed in /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_nothing_is_left_behind(start, tmp_path, number, status):
    command = [sys.executable, "-P", "-m", "gte_integrations.cli", "bench", "--model", "demo"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = start(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (workers := workers_of(process)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)  # until subprocess has heard of it, and waits for it
    process.send_signal(number)
    assert process.wait(timeout=120) == status
    while any(map(command_of, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_from_end_to_end():
    found = json.loads(gte_bench("--model", "demo", "--quick", "--rounds", 1, "--json").stdout)
    [figures] = found["types"]
    assert figures["peak_flops"] > 1e8
    assert figures["start_s"]["total"] == pytest.approx(
        sum(seconds for part, seconds in figures["start_s"].items() if part != "total")
    )
    for speed in figures["workloads"]:
        assert speed["share_of_peak"] > 0
        assert speed["time_of_both"] > 0
        assert (speed["p50_ms"] is not None) is (speed["name"] == "one-query")
