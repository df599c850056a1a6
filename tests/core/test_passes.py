import numpy as np
import pytest
import torch

from gte_core import GTEEmbedder, GTEModel, TextTooLargeError
from gte_core.runtime.passes import PackRunner

CPU = torch.device("cpu")


def accelerator_out_of_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def cpu_out_of_memory():
    torch.empty(2**60, dtype=torch.uint8)


@pytest.fixture(params=[accelerator_out_of_memory, cpu_out_of_memory])
def crowded(request, monkeypatch):
    """A device that holds 100 tokens."""
    original = GTEModel.compute_pack

    def limited(self, input_ids, layout, **options):
        if len(input_ids) > 100:
            request.param()
        return original(self, input_ids, layout, **options)

    monkeypatch.setattr(GTEModel, "compute_pack", limited)


def test_out_of_memory_halves_the_packs_and_loses_nothing(small_checkpoint, crowded, caplog):
    texts = ["w1 " * (i % 60) for i in range(40)]
    alone = GTEEmbedder.from_pretrained(small_checkpoint, dtype="float32", deterministic=True)
    expected = alone.encode(texts)
    embedder = GTEEmbedder.from_pretrained(small_checkpoint, dtype="float32")
    both = embedder.encode(texts)
    np.testing.assert_allclose(both.dense, expected.dense, atol=1e-5)
    assert both.n_tokens.tolist() == expected.n_tokens.tolist()
    assert embedder.pack_tokens <= 100
    assert "Out of memory on cpu; going on with packs of" in caplog.text


def test_a_text_that_does_not_fit_alone_is_named(small_checkpoint, crowded):
    embedder = GTEEmbedder.from_pretrained(small_checkpoint, dtype="float32")
    with pytest.raises(TextTooLargeError, match=r"texts\[1\]: its 203 tokens do not fit in the"):
        embedder.encode(["w1", "w1 " * 200, "w2"])
    assert embedder.encode("w1").dense.shape == (1, 64)


def test_other_errors_are_not_taken_for_it():
    def broken(pack):
        raise RuntimeError("expected scalar type Float but found Half")

    runner = PackRunner(CPU)
    with pytest.raises(RuntimeError, match="expected scalar type Float"):
        list(runner.run({0: 5}, broken, name_of=str))
    assert runner.max_tokens == 2048


def test_the_next_pack_is_started_before_the_last_is_read():
    events = []

    def launch(pack):
        events.append(f"start {pack}")
        return (torch.zeros(len(pack)),)

    runner = PackRunner(CPU, deterministic=True)
    for pack, _ in runner.run({7: 1, 8: 1, 9: 1}, launch, name_of=str):
        events.append(f"read {pack}")
    assert events == ["start [7]", "start [8]", "read [7]", "start [9]", "read [8]", "read [9]"]


class Device:
    """A device whose memory holds so many tokens, and a list that fills it again and again."""

    def __init__(self, holds):
        self.holds = holds
        self.failures = 0
        self.runner = PackRunner(CPU)

    def launch(self, pack):
        if 16 * len(pack) > self.holds:
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return (torch.zeros(len(pack)),)

    def compute(self, n_passes):
        for _ in range(n_passes):
            n_texts = self.runner.max_tokens // 16
            list(self.runner.run(dict.fromkeys(range(n_texts), 16), self.launch, name_of=str))


def test_the_budget_recovers_when_memory_is_free_again():
    device = Device(holds=300)
    device.compute(1)
    assert device.runner.max_tokens == 256
    device.holds = 10_000
    device.compute(400)
    assert device.runner.max_tokens == 2048


def test_small_packs_say_nothing_about_memory():
    device = Device(holds=300)
    device.compute(1)
    for _ in range(400):
        list(device.runner.run({0: 16}, device.launch, name_of=str))
    assert device.runner.max_tokens == 256


def test_a_budget_that_is_too_large_is_tried_ever_more_rarely():
    device = Device(holds=1100)
    device.compute(100)
    first = device.failures
    device.compute(2000)
    assert device.failures - first <= 6
    assert device.runner.max_tokens == 1024
