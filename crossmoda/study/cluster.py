"""Where the tasks of a study run: processes of this computer, a Dask scheduler, or a SLURM cluster."""

import contextlib
import dataclasses
import difflib
import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from crossmoda import device, parameters
from crossmoda.errors import InputError
from crossmoda.parameters import parameter, shown

if TYPE_CHECKING:
    from distributed import Client

#: Jobs that ended are asked for again so often, milliseconds.
_REPLACEMENT_MS = 5000
#: A computer gets no more worker processes than this for each of its cores.
_MOST_PER_CORE = 8
#: Options of dask_jobqueue that are numbers of something, and those that are lists of texts.
_COUNTS = ("cores", "processes", "job_cpu")
_LISTS = ("job_script_prologue", "worker_extra_args", "job_extra_directives", "job_directives_skip")


@dataclasses.dataclass(frozen=True)
class Settings(parameters.Settings):
    """On what a study runs."""

    kind: str = parameter(
        "local",
        "Processes of this computer, a running Dask scheduler, or jobs of SLURM",
        choices=("local", "scheduler", "slurm"),
    )
    address: str = parameter("", "Address of a running Dask scheduler, such as tcp://host:8786; implies its kind")
    workers: int = parameter(
        0, "Worker processes (local) or jobs (slurm); 0: one per processor core, or one job", minimum=0, maximum=100000
    )
    threads: int = parameter(1, "Threads of each worker process", minimum=1, maximum=1024)
    retries: int = parameter(
        3, "How often a task is done again after its worker died or it failed unexpectedly", minimum=0, maximum=100
    )
    patience: float = parameter(
        600.0,
        "Time to wait for the first worker, and for another one when all are gone",
        unit="s",
        minimum=1,
        maximum=1_000_000,
    )

    def __post_init__(self) -> None:
        """Check that what belongs together is there together."""
        super().__post_init__()
        if self.kind == "scheduler" and not self.address:
            raise InputError('kind "scheduler" needs the address of the scheduler, such as tcp://host:8786.')
        if self.kind == "slurm" and self.address:
            raise InputError('Give either an address or kind "slurm", not both.')

    @property
    def place(self) -> str:
        """Where the tasks run: the kind, or ``"scheduler"`` where an address is given."""
        return "scheduler" if self.address else self.kind

    @property
    def local_workers(self) -> int:
        """How many worker processes run on this computer."""
        return self.workers or max(1, device.cores() // self.threads)

    @property
    def jobs(self) -> int:
        """How many jobs of SLURM there are at a time; one that ends before the study is replaced by another."""
        return max(1, self.workers)


def environment(threads: int) -> dict[str, str]:
    """Return the environment in which a worker and the libraries it uses take ``threads`` threads."""
    names = ("CROSSMODA_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {name: str(threads) for name in (*names, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")}


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as cause:
        raise InputError('Studies need Dask distributed; install it with: pip install "crossmoda[study]".') from cause
    return distributed


@contextlib.contextmanager
def connected(settings: Settings, batch_system: Mapping[str, Any]) -> "Iterator[Client]":
    """Give a Dask client of the cluster; a cluster that was started for it ends with the block.

    Raises:
        InputError: Dask is not installed, or the scheduler or the batch system cannot be reached.

    """
    distributed = _distributed()
    import dask

    # The tasks are large and few: one failed worker in a hundred must not blame a task that happened to be there.
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": settings.retries}))
        if settings.place == "scheduler":
            client = _client_of(settings.address, min(20.0, settings.patience))
        else:
            cluster = local_cluster(settings) if settings.place == "local" else slurm_cluster(settings, batch_system)
            stack.enter_context(contextlib.closing(cluster))
            if settings.place == "slurm":
                stack.enter_context(kept(cluster, settings.jobs))
            client = distributed.Client(cluster, set_as_default=False)
        stack.callback(client.close, timeout=5)
        yield client


def _client_of(address: str, patience_s: float) -> "Client":
    try:
        return _distributed().Client(address, timeout=patience_s, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as cause:
        raise InputError(f"No Dask scheduler answers at {address}; is it running, and is the address right?") from cause


def local_cluster(settings: Settings) -> Any:
    """Start worker processes on this computer.

    Raises:
        InputError: they are so many that the computer would come to a halt.

    """
    most = _MOST_PER_CORE * device.cores()
    if settings.local_workers > most:
        raise InputError(
            f"workers must be at most {most} on this computer, which has {device.cores()} processor cores; "
            f"got {settings.local_workers}."
        )
    return _distributed().LocalCluster(
        n_workers=settings.local_workers,
        threads_per_worker=1,  # one task at a time; its threads are CrossModa's own
        processes=True,
        dashboard_address="127.0.0.1:0",
        silence_logs="CRITICAL",
        memory_limit=0,
        env=environment(settings.threads),
        preload=["crossmoda.study.worker"],
    )


def slurm_cluster(settings: Settings, batch_system: Mapping[str, Any]) -> Any:
    """Return the SLURM cluster of dask-jobqueue whose jobs are the workers; submits them.

    Raises:
        InputError: dask-jobqueue is not installed or cannot use the options, or there is no SLURM here.

    """
    import shutil

    cluster = unsubmitted_slurm_cluster(settings, batch_system)
    if shutil.which("sbatch") is None:
        cluster.close()
        raise InputError("There is no sbatch here; start the study on a login node of the SLURM cluster.")
    cluster.scale(jobs=settings.jobs)
    return cluster


@contextlib.contextmanager
def kept(cluster: Any, jobs: int) -> Iterator[None]:
    """Ask for as many jobs again and again: Dask submits those whose workers were lost, and the others only once."""
    from tornado.ioloop import PeriodicCallback

    again = PeriodicCallback(lambda: cluster.scale(jobs=jobs), _REPLACEMENT_MS)
    cluster.loop.add_callback(again.start)
    try:
        yield
    finally:
        cluster.loop.add_callback(again.stop)


def unsubmitted_slurm_cluster(settings: Settings, batch_system: Mapping[str, Any]) -> Any:
    """Return the SLURM cluster without any job; its ``job_script()`` is what each job will be."""
    jobqueue = _jobqueue()
    options = {"cores": settings.threads, "memory": "4GiB", "walltime": "04:00:00", "processes": 1, **batch_system}
    options.setdefault("scheduler_options", {"dashboard_address": "127.0.0.1:0"})  # any free port
    prologue = [f"export {name}={value}" for name, value in environment(settings.threads).items()]
    options["job_script_prologue"] = [*prologue, *options.get("job_script_prologue", [])]
    # One task at a time per process, whatever number of cores it has.
    options["worker_extra_args"] = [*options.get("worker_extra_args", []), "--nthreads", "1"]
    try:
        cluster = jobqueue.SLURMCluster(n_workers=0, **options)
        cluster.job_script()
    except Exception as cause:  # what Dask makes of an option that it cannot use
        reason = str(cause).strip().splitlines()[0].rstrip(".") if str(cause).strip() else type(cause).__name__
        raise InputError(
            f"dask_jobqueue.SLURMCluster cannot use the options of [cluster.slurm] ({reason}); correct them."
        ) from cause
    return cluster


def _jobqueue() -> Any:
    try:
        import dask_jobqueue
    except ImportError as cause:
        raise InputError('SLURM needs dask-jobqueue; install it with: pip install "crossmoda[study]".') from cause
    return dask_jobqueue


def checked_batch_system(options: Any) -> dict[str, Any]:
    """Return the options of ``[cluster.slurm]``.

    Raises:
        InputError: it is no section, or dask_jobqueue.SLURMCluster has no such argument.

    """
    if not isinstance(options, Mapping):
        raise InputError(f"slurm must be a section, [cluster.slurm], with its options below it; got {shown(options)}.")
    jobqueue = _jobqueue()
    known: set[str] = set()
    for maker in (jobqueue.core.Job, jobqueue.slurm.SLURMJob, jobqueue.core.JobQueueCluster):
        known |= set(inspect.signature(maker.__init__).parameters)
    known -= {"self", "scheduler", "name", "n_workers", "job_cls", "loop", "asynchronous", "base_class_kwargs"}
    for key in options:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            nearest = f"; did you mean {close[0]!r}?" if close else "; see dask_jobqueue.SLURMCluster"
            raise InputError(f"[cluster.slurm] has an unknown key {shown(key)}{nearest}.")
    for key, value in options.items():
        if key in _COUNTS and (type(value) is not int or value < 1):
            raise InputError(f"{key} in [cluster.slurm] must be a whole number above 0; got {shown(value)}.")
        # Dask would take a text for a list of letters.
        if key in _LISTS and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise InputError(
                f'{key} in [cluster.slurm] must be a list of texts, such as ["one", "two"]; got {shown(value)}.'
            )
    return dict(options)
