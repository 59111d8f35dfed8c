"""Digital subjects on disk for the experiments."""

from pathlib import Path

import numpy as np

from crossmoda import volume
from crossmoda.simulation import Settings as Simulation
from crossmoda.simulation import simulate_subject


def simulation_settings(seed: int, testing: bool, tumor_volume: float | None = 0.0) -> Simulation:
    """Return how a subject is scanned: training subjects vary more, and only the region of the ears is scanned."""
    tumor = {"healthy": True} if tumor_volume is None else {"tumor_volume": tumor_volume}
    if testing:
        return Simulation(**tumor)
    rng = np.random.default_rng([seed, 11])
    return Simulation(
        field_of_view=112,
        slices=56,
        noise=float(rng.uniform(0.02, 0.07)),
        contrast=float(rng.uniform(0.03, 0.15)),
        bias=float(rng.uniform(0, 0.4)),
        rotation=8.0,
        deformation=float(rng.uniform(3, 5)),
        **tumor,
    )


def shapes_of(shapes: Path | None, folder: Path, group: str) -> Path | None:
    """Return a folder with the expert label maps of one group of patients: 3 of 5 train, 1 of 5 develops, 1 of 5 tests.

    No patient's tumor is in two groups.
    """
    if shapes is None:
        return None
    from crossmoda.simulation.shapes import shape_files

    members = {"test": (0,), "dev": (1,), "train": (2, 3, 4)}[group]
    (folder / group).mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(shape_files(shapes.resolve())):
        if number % 5 in members and not (folder / group / file.name).exists():
            (folder / group / file.name).symlink_to(file)
    return folder / group


def simulate(
    folder: Path,
    base: str,
    seed: int,
    base_folder: Path | None,
    shapes: Path | None = None,
    testing: bool = False,
    *,
    tumor_volume: float | None = 0.0,
    side: str | None = None,
) -> list[Path]:
    """Write one subject and return the paths of its images (labels lie beside them).

    The tumor has a shape of ``shapes`` with its own volume, or is drawn with ``tumor_volume`` (mm3; 0: any volume;
    None: no tumor).
    """
    modalities = ("hrT2",) if testing else ("ceT1", "hrT2")
    size = "_healthy" if tumor_volume is None else f"_{tumor_volume:.0f}mm3" if tumor_volume else ""
    paths = [folder / f"{base}_{seed}{size}_{modality}.nii.gz" for modality in modalities]
    if all(path.exists() and label_of(path).exists() for path in paths):
        return paths
    settings = simulation_settings(seed, testing, tumor_volume)
    subject = simulate_subject(
        seed, base=base, side=side, settings=settings, base_folder=base_folder, shapes_folder=shapes
    )
    scans = {"ceT1": (subject.cet1, subject.cet1_label), "hrT2": (subject.hrt2, subject.hrt2_label)}
    for path, modality in zip(paths, modalities, strict=True):
        image, label = scans[modality]
        volume.write(image.with_array(np.round(image.array).clip(0, 65535).astype(np.uint16)), path)
        volume.write(label, label_of(path))
    return paths


def label_of(image: Path) -> Path:
    """Return the label map beside an image."""
    return image.with_name(image.name.replace(".nii.gz", "_label.nii.gz"))
