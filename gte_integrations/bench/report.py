"""What a run found: plain dataclasses whose fields are those of the JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from gte_integrations.bench import ContenderName, WorkloadName


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the rounds, with the lowest and the highest."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one value."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Machine:
    """The device that was measured.

    Attributes:
        device: as torch calls it.
        name: of the processor or GPU.
        cores: logical cores of the host.
        threads: that torch computes with on the CPU.
        memory_bytes: of the GPU, None for a CPU.
        capabilities: the CPU's vector instructions that matter, or the GPU's compute capability.
        torch: its version.
        gemm_flops: the fastest matrix product found, per type, in operations a second.
        copy_bytes: read and written a second while copying a large tensor.
    """

    device: str
    name: str
    cores: int
    threads: int
    memory_bytes: int | None
    capabilities: tuple[str, ...]
    torch: str
    gemm_flops: dict[str, float]
    copy_bytes: float


@dataclass(frozen=True, slots=True)
class WorkloadReport:
    """How many texts a workload has, and of how many tokens, special tokens included."""

    name: WorkloadName
    n_texts: int
    n_tokens: int
    shortest: int
    longest: int
    one_at_a_time: bool


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds from the start of the process to the first vector, and their parts."""

    interpreter_s: float
    imports_s: float
    load_s: float
    first_pass_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class ContenderReport:
    """A library in one type.

    Attributes:
        name: as on the command line.
        is_ours: whether it is this library.
        dtype: that it computes in.
        start: of its process, with a warm page cache.
        host_peak_bytes: the most RAM its process held, weights included.
        device_peak_bytes: the most GPU memory that torch handed out, None on a CPU.
    """

    name: ContenderName
    is_ours: bool
    dtype: str
    start: Start
    host_peak_bytes: int
    device_peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One contender, called in one way, on one workload.

    Attributes:
        contender: its name.
        variant: ``"dense"`` or ``"hybrid"`` (both vectors of one pass) of this library,
            ``"batch 32"`` and so on of a peer.
        workload: its name.
        seconds: of the whole workload, one for each round.
        tokens_per_s: real tokens, without padding.
        texts_per_s: as it says.
        share_of_peak: the network's own operations a second, divided by the fastest matrix product
            of the same type; None where that was not measured.
        p50_ms: median time of one call, where texts are encoded one at a time.
        p99_ms: the time that 99 of 100 calls stay within.
        smallest_cosine: of any text's vector to that of this library in float32; None where the
            weights differ.
        host_peak_bytes: the most RAM its process held during this.
        device_peak_bytes: the most GPU memory during this, None on a CPU.
    """

    contender: ContenderName
    variant: str
    workload: WorkloadName
    seconds: tuple[float, ...]
    tokens_per_s: Spread
    texts_per_s: Spread
    share_of_peak: float | None
    p50_ms: float | None
    p99_ms: float | None
    smallest_cosine: float | None
    host_peak_bytes: int
    device_peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast our dense vectors come as a peer's, round by round.

    Attributes:
        ours: name of the contender of this library.
        peer: name of the other.
        variant: of the peer.
        workload: its name.
        speedup: the peer's seconds divided by ours; None where the peer's vectors are not ours, as
            it then does other work.
    """

    ours: ContenderName
    peer: ContenderName
    variant: str
    workload: WorkloadName
    speedup: Spread | None


@dataclass(frozen=True, slots=True)
class SparseCost:
    """What the sparse vectors add to the time of the dense ones, in percent."""

    contender: ContenderName
    workload: WorkloadName
    percent: float


@dataclass(frozen=True, slots=True)
class BenchReport:
    """A whole run.

    Attributes:
        model: whose weights.
        random_weights: whether they mean nothing; speed and shapes are those of real ones.
        rounds: in which all contenders took turns.
        quick: whether it only shows that all works.
        versions: of the installed packages that take part.
        machine: what was measured of it.
        workloads: what was encoded.
        contenders: who was measured.
        measurements: contender by variant by workload.
        ratios: our contenders by peers.
        sparse_cost: our contenders that have a sparse head.
        left_out: names of contenders that were not measured to the end, and why.
    """

    model: str
    random_weights: bool
    rounds: int
    quick: bool
    versions: dict[str, str]
    machine: Machine
    workloads: tuple[WorkloadReport, ...]
    contenders: tuple[ContenderReport, ...]
    measurements: tuple[Measurement, ...]
    ratios: tuple[Ratio, ...]
    sparse_cost: tuple[SparseCost, ...]
    left_out: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """The fields, as JSON has them."""
        return asdict(self)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that this many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(percent / 100 * len(ordered)) - 1, 0)]
