"""The loader: packed sequences a CPU-second, and how long 1,000 shards take to be ready.

    python benchmarks/loader.py [--shards 1000] [--sequences 5000]

Ours gives tokens and document boundaries of sequences in the run's order, out of nine sources with the
flagship's weights. Beside it: datatrove's `DatatroveFolderDataset` (tokens alone, at random places of one
source's tokens), and as the limit a bare copy of random windows out of one mapped file (tokens alone). All
is in the page cache.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from normistral.dataset import PackedDataset, ShardManifest, open_sources, plan_mixture, write_shard

LENGTH = 4096
TOKENS_PER_SHARD = 150_000
MEAN_DOCUMENT = 600
WEIGHTS = {
    "nob": 48.8,
    "nno": 5,
    "swe": 15,
    "dan": 15,
    "code": 10,
    "eng": 4.6,
    "isl": 1,
    "sme": 0.6,
    "fao": 0.1,
}
ROUNDS = 5


def make_shards(folder: Path, shards: int) -> ShardManifest:
    random = np.random.default_rng(0)
    names = list(WEIGHTS)
    files: dict[str, list] = {name: [] for name in names}
    for number in range(shards):
        name = names[number] if number < len(names) else names[number % 5]
        (folder / name).mkdir(parents=True, exist_ok=True)
        lengths = random.geometric(1 / MEAN_DOCUMENT, TOKENS_PER_SHARD // MEAN_DOCUMENT) + 1
        tokens = random.integers(16, 51_200, int(lengths.sum()), dtype=np.int64)
        documents = np.split(tokens, np.cumsum(lengths)[:-1])
        relative = f"{name}/{len(files[name]):05}"
        files[name].append(replace(write_shard(folder / relative, documents, 51_200), path=relative))
    manifest = ShardManifest("0" * 64, 51_200, 2, {name: tuple(made) for name, made in files.items()})
    manifest.write(folder)
    return manifest


def ready(folder: Path) -> PackedDataset:
    manifest = ShardManifest.read(folder)
    sources = open_sources(folder, manifest)
    unique = {name: manifest.tokens(name) for name in manifest.sources}
    sequences = 100 * sum(unique.values()) // LENGTH
    plan = plan_mixture(unique, WEIGHTS, sequences, LENGTH, 100_000)
    return PackedDataset(plan, sources, seed=42, manifest=manifest.digest)


def per_cpu_second(work: Callable[[], int]) -> float:
    """Median tokens a CPU-second."""
    rates = []
    for _ in range(ROUNDS):
        started = time.process_time()
        tokens = work()
        rates.append(tokens / (time.process_time() - started))
    return statistics.median(rates)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--sequences", type=int, default=5_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        manifest = make_shards(folder, arguments.shards)
        starts = []
        for _ in range(ROUNDS):
            began, cpu = time.perf_counter(), time.process_time()
            dataset = ready(folder)
            dataset[0]
            starts.append((time.perf_counter() - began, time.process_time() - cpu))
        wall, cpu_seconds = (statistics.median(column) for column in zip(*starts, strict=True))
        print(f"{arguments.shards:,} shards ready: {wall:.3f} s of wall clock, {cpu_seconds:.3f} CPU-s")
        print(f"the first time: {starts[0][0]:.3f} s")
        dataset = ready(folder)
        count = arguments.sequences
        place = np.random.default_rng(1).integers(0, len(dataset) - count, ROUNDS + 1).tolist()

        def ours(documents: bool) -> int:
            first = place.pop() if len(place) > 1 else place[0]
            for index in range(first, first + count):
                sequence = dataset[index]
                _ = sequence.documents if documents else sequence.begins
            return count * LENGTH

        ours(True)  # every file is in the page cache and open from here on
        with_documents = per_cpu_second(lambda: ours(True))
        with_boundaries = per_cpu_second(lambda: ours(False))
        flat = folder / "flat.bin"
        flat.write_bytes(b"".join((folder / f"{f.path}.bin").read_bytes() for f in manifest.sources["nob"]))
        mapped = np.asarray(np.memmap(flat, np.uint16, "r"))
        windows = np.random.default_rng(2).integers(0, len(mapped) - LENGTH - 1, count).tolist()

        def bare() -> int:
            for start in windows:
                mapped[start : start + LENGTH + 1].astype(np.int64)
            return count * LENGTH

        limit = per_cpu_second(bare)
        peer = datatrove_rate(flat, windows)
        print("| | M tokens a CPU-s | of the limit |\n|---|---|---|")
        for name, rate in (
            ("ours, tokens and boundaries (cu_seqlens)", with_boundaries),
            ("ours, tokens and a document number for each", with_documents),
            ("datatrove DatatroveFolderDataset, tokens alone", peer),
            ("a bare copy of mapped windows, tokens alone", limit),
        ):
            print(f"| {name} | {rate / 1e6:.0f} | {rate / limit:.0%} |")
        print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, one thread")


def datatrove_rate(flat: Path, windows: list[int]) -> float:
    from datatrove.utils.dataset import DatatroveFolderDataset

    folder = flat.parent / "datatrove"
    folder.mkdir()
    (folder / "00000.ds").write_bytes(flat.read_bytes())
    dataset = DatatroveFolderDataset(str(folder), seq_len=LENGTH, token_size=2, shuffle=False)
    numbers = [start // (LENGTH + 1) for start in windows if start // (LENGTH + 1) < len(dataset)]

    def work() -> int:
        for number in numbers:
            dataset[number]
        return len(numbers) * LENGTH

    return per_cpu_second(work)


if __name__ == "__main__":
    main()
