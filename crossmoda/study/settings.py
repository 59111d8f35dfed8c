"""Settings of the cluster of a study."""

import dataclasses

from crossmoda import device, parameters
from crossmoda.errors import InputError
from crossmoda.parameters import parameter


@dataclasses.dataclass(frozen=True)
class ClusterSettings(parameters.Settings):
    """Settings of the cluster of a study."""

    kind: str = parameter(
        "local",
        "Cluster: processes of this computer, a running Dask scheduler, or SLURM jobs",
        choices=("local", "scheduler", "slurm"),
    )
    address: str = parameter("", "Address of a running Dask scheduler, such as tcp://host:8786")
    workers: int = parameter(
        0,
        "Number of worker processes (local; 0: one per core) or of jobs (slurm; 0: one)",
        minimum=0,
        maximum=100000,
    )
    threads: int = parameter(1, "Threads per worker process", minimum=1, maximum=1024)
    retries: int = parameter(
        3, "Retries of a task after an unexpected error or the death of its worker", minimum=0, maximum=100
    )
    patience: float = parameter(
        600.0,
        "Waiting time for the first worker, and for another when all are lost",
        unit="s",
        minimum=1,
        maximum=1_000_000,
    )

    def __post_init__(self) -> None:
        """Check that kind and address match."""
        super().__post_init__()
        if self.kind == "scheduler" and not self.address:
            raise InputError('kind "scheduler" needs the address of the scheduler, such as tcp://host:8786.')
        if self.kind == "slurm" and self.address:
            raise InputError('Conflicting settings: address and kind "slurm". Remove one of them.')

    @property
    def place(self) -> str:
        """The kind of cluster; ``"scheduler"`` if there is an address."""
        return "scheduler" if self.address else self.kind

    @property
    def local_workers(self) -> int:
        """Number of worker processes on this computer."""
        return self.workers or max(1, device.cores() // self.threads)

    @property
    def jobs(self) -> int:
        """Number of simultaneous SLURM jobs; ended jobs are replaced until the study ends."""
        return max(1, self.workers)
