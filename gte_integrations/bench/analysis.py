"""From times and vectors to rates, shares, cosines and ratios."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from gte_core import GTEConfig
from gte_integrations.bench.flops import flops
from gte_integrations.bench.race import Runner, Way
from gte_integrations.bench.report import (
    ContenderReport,
    Machine,
    Measurement,
    Ratio,
    SparseCost,
    Spread,
    Start,
    percentile,
)
from gte_integrations.bench.workloads import Workload

# Below this cosine two vectors are not of the same network, whatever the rounding of the type.
_SAME_WORK = {"float32": 0.999}
_SAME_WORK_IN_LESS = 0.99


class Analysis:
    """What follows from a race.

    Args:
        runners: those that came through.
        workloads: what they encoded.
        config: of the network.
        machine: that they ran on.
    """

    def __init__(
        self,
        runners: Sequence[Runner],
        workloads: Sequence[Workload],
        config: GTEConfig,
        machine: Machine,
    ) -> None:
        self._all = runners
        self._timed = [runner for runner in runners if runner.timed]
        self._workloads: dict[str, Workload] = {workload.name: workload for workload in workloads}
        self._config = config
        self._machine = machine

    def contenders(self) -> tuple[ContenderReport, ...]:
        """Who was measured."""
        return tuple(map(_contender, self._timed))

    def measurements(self) -> tuple[Measurement, ...]:
        """Every contender, variant and workload."""
        return tuple(
            self._measurement(runner, way) for runner in self._timed for way in runner.ways
        )

    def ratios(self) -> tuple[Ratio, ...]:
        """Our dense vectors against those of every peer and variant."""
        ours = [runner for runner in self._timed if runner.contender.is_ours]
        peers = [runner for runner in self._timed if not runner.contender.is_ours]
        return tuple(
            self._ratio(mine, peer, way) for mine in ours for peer in peers for way in peer.ways
        )

    def sparse_cost(self) -> tuple[SparseCost, ...]:
        """Both vectors against the dense ones alone."""
        return tuple(self._sparse_costs())

    def _measurement(self, runner: Runner, way: Way) -> Measurement:
        workload = self._workloads[way[0]]
        seconds = _seconds(runner, way)
        n_tokens = sum(workload.n_tokens)
        calls = [call for calls in runner.ways[way] for call in calls]
        alone = workload.one_at_a_time
        host, device = runner.peaks[way]
        return Measurement(
            contender=runner.contender.name,
            variant=way[1],
            workload=workload.name,
            seconds=tuple(seconds),
            tokens_per_s=Spread.of([n_tokens / each for each in seconds]),
            texts_per_s=Spread.of([len(workload.texts) / each for each in seconds]),
            share_of_peak=self._share_of_peak(runner, workload, median(seconds)),
            p50_ms=1000 * percentile(calls, 50) if alone else None,
            p99_ms=1000 * percentile(calls, 99) if alone else None,
            smallest_cosine=self._cosine(runner, way),
            host_peak_bytes=host,
            device_peak_bytes=device,
        )

    def _share_of_peak(self, runner: Runner, workload: Workload, seconds: float) -> float | None:
        peak = self._machine.gemm_flops.get(runner.dtype)
        return flops(self._config, workload.n_tokens) / seconds / peak if peak else None

    def _cosine(self, runner: Runner, way: Way) -> float | None:
        if self._reference is None or not runner.contender.same_weights:
            return None
        true = _vectors(self._reference.vectors[way[0], "dense"])
        return float(np.einsum("ij,ij->i", _vectors(runner.vectors[way]), true).min())

    @cached_property
    def _reference(self) -> Runner | None:
        ours = (runner for runner in self._all if runner.contender.is_ours)
        return next((runner for runner in ours if runner.dtype == "float32"), None)

    def _ratio(self, mine: Runner, peer: Runner, way: Way) -> Ratio:
        pairs = zip(_seconds(mine, (way[0], "dense")), _seconds(peer, way), strict=True)
        speedup = Spread.of([theirs / own for own, theirs in pairs])
        return Ratio(
            ours=mine.contender.name,
            peer=peer.contender.name,
            variant=way[1],
            workload=self._workloads[way[0]].name,
            speedup=speedup if self._does_the_same(peer, way) else None,
        )

    def _does_the_same(self, peer: Runner, way: Way) -> bool:
        cosine = self._cosine(peer, way)
        return cosine is None or cosine >= _SAME_WORK.get(peer.dtype, _SAME_WORK_IN_LESS)

    def _sparse_costs(self) -> Iterator[SparseCost]:
        for runner in self._timed:
            for name, variant in runner.ways:
                if variant == "hybrid":
                    dense = _seconds(runner, (name, "dense"))
                    both = _seconds(runner, (name, "hybrid"))
                    more = [b / d for b, d in zip(both, dense, strict=True)]
                    percent = 100 * (median(more) - 1)
                    workload = self._workloads[name].name
                    yield SparseCost(runner.contender.name, workload, percent)


def _contender(runner: Runner) -> ContenderReport:
    hosts, devices = zip(*runner.peaks.values(), strict=True)
    of_device = [peak for peak in devices if peak is not None]
    return ContenderReport(
        name=runner.contender.name,
        is_ours=runner.contender.is_ours,
        dtype=runner.dtype,
        start=Start(**runner.start),
        host_peak_bytes=max(hosts),
        device_peak_bytes=max(of_device) if of_device else None,
    )


def _seconds(runner: Runner, way: Way) -> list[float]:
    return [sum(calls) for calls in runner.ways[way]]


def _vectors(path: Path) -> NDArray[np.float64]:
    stored = np.load(path).astype(np.float64)
    vectors: NDArray[np.float64] = stored / np.linalg.norm(stored, axis=1, keepdims=True)
    return vectors
