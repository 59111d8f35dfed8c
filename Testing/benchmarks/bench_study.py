"""Throughput of a study: the same registrations with 1, 2, ... workers.

``python Testing/benchmarks/bench_study.py --data FOLDER --workers 1 2`` takes the first atlases and one target of a
data set in crossMoDA's layout; without ``--data`` one is simulated. Starting the workers and loading the compiled
program are not counted: each worker does one registration before the clock starts.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

from crossmoda import dataset, deeds, fusion, propagation
from crossmoda.propagation.atlases import examine
from crossmoda.study import cluster, tasks
from crossmoda.study.executor import Executor
from crossmoda.study.settings import ClusterSettings


def seconds(data: dataset.Dataset, atlases: int, workers: int, threads: int, folder: Path) -> float:
    """Return the wall seconds of one registration per atlas with ``workers`` workers."""
    examined = [examine(case) for case in data.sources[: atlases + 1]]
    target = data.targets[0]
    job = tasks.Job(
        target, folder, propagation.Settings(), deeds.Settings(device="cpu"), fusion.Settings(), folder / "stop"
    )
    settings = ClusterSettings(workers=workers, threads=threads)
    with cluster.connected(settings, {}) as client:
        client.wait_for_workers(workers)
        executor = Executor(client, retries=0, patience_s=600)
        first = {worker: folder / f"warm_{number}" for number, worker in enumerate(client.nthreads())}
        client.gather(
            [
                client.submit(
                    tasks.register, dataclasses.replace(job, folder=place), examined[-1], False, False, workers=[worker]
                )
                for worker, place in first.items()
            ]
        )
        done: list[object] = []
        begun = time.perf_counter()
        for atlas in examined[:atlases]:
            executor.submit(done.append, tasks.register, job, atlas, False, False, name=f"register-{atlas.id}")
        executor.work(lambda: None)
        spent = time.perf_counter() - begun
    failed = [item for item in done if isinstance(item, tasks.Failed)]
    if failed or len(done) != atlases:
        raise SystemExit(f"{len(failed)} registrations failed: {failed[:1]}")
    return spent


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="data set (default: simulated)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--threads", type=int, default=1, help="threads per worker")
    parser.add_argument("--registrations", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.data or Path(scratch) / "data"
        if options.data is None:
            from crossmoda.simulation import simulate_dataset

            simulate_dataset(folder, sources=options.registrations + 1, targets=1, tests=0, base="phantom")
        data = dataset.open_dataset(folder)
        print("| workers | registrations | wall s | registrations per minute | throughput |\n|---|---|---|---|---|")
        base = 0.0
        for workers in options.workers:
            spent = seconds(data, options.registrations, workers, options.threads, Path(scratch) / f"{workers}")
            base = base or spent
            each = 60 * options.registrations / spent
            print(
                f"| {workers} | {options.registrations} | {spent:.1f} | {each:.1f} | {base / spent:.2f} |", flush=True
            )


if __name__ == "__main__":
    main()
