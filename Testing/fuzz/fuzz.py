"""Feed damaged files to readers and commands: each is read, or refused with one sentence, within 30 s and 4 GB.

    python Testing/fuzz/fuzz.py [--inputs 6000] [--seed 1] [--workers 2]

Inputs that failed once are in ``seeds.txt`` (kind and seed a line) and come first. A few processes read all inputs; one
that ends or hangs is replaced. The exit code is 1 if any input failed.
"""

import argparse
import collections
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from inputs import KINDS, damaged  # isort: skip

HERE = Path(__file__).resolve().parent
SEEDS = HERE / "seeds.txt"
LONGEST_S, MOST_MB = 30.0, 4096
#: Transforms are read by a process of their own first, which takes half a second; networks are built, commands run.
SHARE = {"tfm": 0.03, "h5": 0.03, "weights": 0.2, "evaluate": 0.1, "validate": 0.1, "predict": 0.03}


class Worker:
    """One reading process; it is replaced when it ends."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start a process, and a thread that collects its answers."""
        command = [sys.executable, str(HERE / "worker.py")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._collect, args=(self.process, self.answers), daemon=True).start()

    @staticmethod
    def _collect(process: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answers.put(line)
        answers.put("")

    def ask(self, kind: str, folder: Path) -> tuple[str, int]:
        """Return the outcome of one input and the memory of the process, MB."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{kind}\t{folder}\n")
            self.process.stdin.flush()
            answer = self.answers.get(timeout=LONGEST_S * 3)  # a loaded machine, and the first import
        except (queue.Empty, BrokenPipeError):
            answer = "hang"
        if "\t" in answer:
            outcome, memory = answer.rstrip("\n").rsplit("\t", 1)
            return outcome, int(memory)
        self.process.kill()
        code = self.process.wait()
        self.start()
        return ("bad: hangs" if answer == "hang" else f"bad: the process ended with {code}"), 0


def prepared(root: Path) -> dict[str, tuple[Path, bytes]]:
    """Write the sound files of each kind; return the folder and the content to damage."""
    made = {}
    for kind, (name, make) in KINDS.items():
        folder = root / kind / ("corrections/a" if kind == "record" else "")
        folder.mkdir(parents=True)
        content = make(folder)
        (folder / name).write_bytes(content)
        made[kind] = folder, content
    return made


def main() -> int:
    """Run; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    settings = parser.parse_args()
    weights = np.array([SHARE.get(kind, 1.0) for kind in KINDS])
    counts = np.maximum(np.rint(settings.inputs * weights / weights.sum()), 1).astype(int)
    known = [line.split() for line in SEEDS.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    jobs = collections.deque((kind, int(seed)) for kind, seed in known)
    for kind, count in zip(KINDS, counts, strict=True):
        jobs.extend((kind, settings.seed * 1_000_000 + number) for number in range(count))
    outcomes: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in KINDS}
    failures: list[str] = []
    most = 0
    start = time.monotonic()
    guard = threading.Lock()
    with tempfile.TemporaryDirectory(prefix="crossmoda-fuzz-") as place:

        def work(number: int) -> None:
            nonlocal most
            worker, made = Worker(), prepared(Path(place) / str(number))
            while True:
                with guard:
                    if not jobs:
                        break
                    kind, seed = jobs.popleft()
                folder, content = made[kind]
                file = folder / KINDS[kind][0]
                file.write_bytes(damaged(content, np.random.default_rng([seed, len(kind)])))
                outcome, memory = worker.ask(kind, folder)
                with guard:
                    most = max(most, memory)
                    outcomes[kind][outcome.split(":")[0]] += 1
                    if outcome.startswith("bad") or memory > MOST_MB:
                        failures.append(f"{kind} {seed}  {outcome} ({memory} MB)")
                        shutil.copy(file, Path(tempfile.gettempdir()) / f"fuzz-{kind}-{seed}-{file.name}")
            worker.process.kill()
            worker.process.wait()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(settings.workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print(f"{'kind':10} {'inputs':>7} {'read':>6} {'refused':>8} {'bad':>5}")
    for kind, counter in outcomes.items():
        print(f"{kind:10} {counter.total():7} {counter['read']:6} {counter['refused']:8} {counter['bad']:5}")
    total = sum(counter.total() for counter in outcomes.values())
    print(f"{total} inputs, {len(failures)} bad, {most} MB at most, {time.monotonic() - start:.0f} s")
    print("\n".join(failures[:40]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
