"""The Dask cluster of a study: local processes, a running scheduler, or SLURM jobs."""

import contextlib
import difflib
import functools
import importlib
import inspect
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmoda import device
from crossmoda.errors import InputError
from crossmoda.parameters import shown
from crossmoda.study.settings import ClusterSettings

if TYPE_CHECKING:
    from distributed import Client

#: Interval at which ended SLURM jobs are replaced.
_REPLACEMENT_MS = 5000
#: Maximum number of local worker processes per core.
_MAX_WORKERS_PER_CORE = 8
#: Options of dask_jobqueue that are counts, and options that are lists of text.
_COUNTS = ("cores", "processes", "job_cpu")
_LISTS = ("job_script_prologue", "worker_extra_args", "job_extra_directives", "job_directives_skip")


def environment(threads: int) -> dict[str, str]:
    """Return environment variables that limit a worker and its libraries to ``threads`` threads."""
    names = ("CROSSMODA_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {name: str(threads) for name in (*names, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")}


def _imported(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as cause:
        raise InputError(f'{name} is not installed. Run: pip install "crossmoda[study]".') from cause


_distributed = functools.partial(_imported, "distributed", "Dask distributed")
_jobqueue = functools.partial(_imported, "dask_jobqueue", "dask-jobqueue")


@contextlib.contextmanager
def connected(settings: ClusterSettings, batch_system: Mapping[str, Any]) -> "Iterator[Client]":
    """Yield a Dask client of the cluster; a cluster started here is closed with the block.

    Raises:
        InputError: Dask is not installed, or the scheduler or the batch system cannot be reached.

    """
    distributed = _distributed()
    import dask

    # With few, large tasks a worker failure must not mark the task that happened to run on it as failed.
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": settings.retries}))
        if settings.place == "scheduler":
            client = _client_of(settings.address, min(20.0, settings.patience))
        else:
            cluster = local_cluster(settings) if settings.place == "local" else slurm_cluster(settings, batch_system)
            stack.enter_context(contextlib.closing(cluster))
            if settings.place == "slurm":
                stack.enter_context(replaced_jobs(cluster, settings.jobs))
            client = distributed.Client(cluster, security=cluster.security, set_as_default=False)
        stack.callback(client.close, timeout=5)
        yield client


def _client_of(address: str, patience_s: float) -> "Client":
    try:
        return _distributed().Client(address, timeout=patience_s, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as cause:
        raise InputError(f"Dask scheduler not reachable: {address}. Check the address, and that it runs.") from cause


def security() -> Any:
    """Return fresh certificates of one study: whoever lacks them can neither send nor read its tasks.

    Without them, every user of the computer could run code as the user of the study.

    Raises:
        InputError: the library cryptography is not installed.

    """
    _imported("cryptography", "cryptography")
    return _imported("distributed.security", "Dask distributed").Security.temporary()


def local_cluster(settings: ClusterSettings) -> Any:
    """Start worker processes on this computer.

    Raises:
        InputError: too many workers for this computer.

    """
    maximum = _MAX_WORKERS_PER_CORE * device.cores()
    if settings.local_workers > maximum:
        raise InputError(
            f"workers must be at most {maximum} on this computer with {device.cores()} cores; "
            f"got {settings.local_workers}."
        )
    return _distributed().LocalCluster(
        security=security(),
        protocol="tls://",
        worker_dashboard_address="127.0.0.1:0",
        n_workers=settings.local_workers,
        threads_per_worker=1,  # one task at a time; CrossModa starts its own threads
        processes=True,
        dashboard_address="127.0.0.1:0",
        silence_logs="CRITICAL",
        memory_limit=0,
        env=environment(settings.threads),
        preload=["crossmoda.study.worker"],
    )


def slurm_cluster(settings: ClusterSettings, batch_system: Mapping[str, Any]) -> Any:
    """Return a dask-jobqueue SLURM cluster and submit its jobs, the workers.

    Raises:
        InputError: dask-jobqueue is not installed or rejects the options, or SLURM is not available.

    """
    cluster = unsubmitted_slurm_cluster(settings, batch_system)
    if shutil.which("sbatch") is None:
        cluster.close()
        raise InputError("Command not found: sbatch. Start the study on a login node of the SLURM cluster.")
    cluster.scale(jobs=settings.jobs)
    return cluster


@contextlib.contextmanager
def replaced_jobs(cluster: Any, jobs: int) -> Iterator[None]:
    """Replace jobs whose workers were lost, by requesting the same number of jobs periodically."""
    from tornado.ioloop import PeriodicCallback

    request = PeriodicCallback(lambda: cluster.scale(jobs=jobs), _REPLACEMENT_MS)
    cluster.loop.add_callback(request.start)
    try:
        yield
    finally:
        cluster.loop.add_callback(request.stop)


def unsubmitted_slurm_cluster(settings: ClusterSettings, batch_system: Mapping[str, Any]) -> Any:
    """Return the SLURM cluster without jobs; ``job_script()`` returns the script of a job."""
    jobqueue = _jobqueue()
    options = {"cores": settings.threads, "memory": "4GiB", "walltime": "04:00:00", "processes": 1, **batch_system}
    options.setdefault("scheduler_options", {"dashboard_address": "127.0.0.1:0"})  # any free port
    if "security" not in options:
        # The certificates travel in files that only the user can read, in a folder that all nodes share.
        shared = Path(options.setdefault("shared_temp_directory", str(Path.home() / ".crossmoda-certificates")))
        shared.mkdir(mode=0o700, parents=True, exist_ok=True)
        options |= {"security": security(), "protocol": "tls://"}
    prologue = [f"export {name}={value}" for name, value in environment(settings.threads).items()]
    options["job_script_prologue"] = [*prologue, *options.get("job_script_prologue", [])]
    # One task at a time per process, regardless of its cores.
    options["worker_extra_args"] = [
        *options.get("worker_extra_args", []),
        "--nthreads",
        "1",
        "--dashboard-address",
        "127.0.0.1:0",
    ]
    try:
        cluster = jobqueue.SLURMCluster(n_workers=0, **options)
        cluster.job_script()
    except Exception as cause:  # any error of Dask for an invalid option
        reason = str(cause).strip().splitlines()[0].rstrip(".") if str(cause).strip() else type(cause).__name__
        raise InputError(
            f"Invalid options in [cluster.slurm] ({reason}). Correct them; see dask_jobqueue.SLURMCluster."
        ) from cause
    return cluster


def checked_batch_system(options: Any) -> dict[str, Any]:
    """Return the options of ``[cluster.slurm]``.

    Raises:
        InputError: not a section, or not arguments of dask_jobqueue.SLURMCluster.

    """
    if not isinstance(options, Mapping):
        raise InputError(f"slurm must be a section [cluster.slurm]; got {shown(options)}.")
    jobqueue = _jobqueue()
    known: set[str] = set()
    for maker in (jobqueue.core.Job, jobqueue.slurm.SLURMJob, jobqueue.core.JobQueueCluster):
        known |= set(inspect.signature(maker.__init__).parameters)
    known -= {"self", "scheduler", "name", "n_workers", "job_cls", "loop", "asynchronous", "base_class_kwargs"}
    for key in options:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else "See dask_jobqueue.SLURMCluster."
            raise InputError(f"Unknown key in [cluster.slurm]: {shown(key)}. {hint}")
    for key, value in options.items():
        if key in _COUNTS and (type(value) is not int or value < 1):
            raise InputError(f"{key} in [cluster.slurm] must be a positive integer; got {shown(value)}.")
        # Dask would treat text as a list of characters.
        if key in _LISTS and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise InputError(
                f'{key} in [cluster.slurm] must be a list of text, such as ["a", "b"]; got {shown(value)}.'
            )
    return dict(options)
