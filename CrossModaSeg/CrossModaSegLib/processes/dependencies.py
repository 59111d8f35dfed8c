"""The Python packages of the engine in Slicer, and their installation on request."""

from pathlib import Path

import slicer
from slicer.i18n import tr as _

from crossmoda import requirements
from crossmoda.errors import InputError


def missing() -> list[str]:
    """Return the requirements that are not met, torch first; reads package metadata and imports nothing."""
    return [item.text for item in requirements.in_slicer() if not item.is_met]


def versions() -> dict[str, str]:
    """Return the versions of the packages by name; empty for a missing package or one that is too old."""
    return {item.name: item.version if item.is_met else "" for item in requirements.in_slicer()}


def install(wheel_folder: str = "") -> None:
    """Install what is missing, after asking: torch through the PyTorch extension, the rest through slicer.packaging.

    With a wheel folder nothing is downloaded.

    Raises:
        InputError: the user declined, or a package could not be installed.

    """
    lacking = missing()
    try:
        if wheel_folder:
            _install_offline(lacking, Path(wheel_folder))
            return
        if "torch" in lacking:
            _install_torch()
        packages = [line for line in lacking if line != "torch"]
        if packages:
            _install_packages(packages)
    except InputError:
        raise
    except Exception as cause:  # pip, the network, a declined dialog
        raise InputError(
            _("Not installed: {cause}. Behind a firewall, use a wheel folder (see “Without internet”).").format(
                cause=cause
            )
        ) from cause


def _install_torch() -> None:
    try:
        import PyTorchUtils
    except ImportError as cause:
        raise InputError(
            _("The PyTorch extension is missing; install it in the Extensions Manager (View menu) and restart Slicer.")
        ) from cause
    if PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True) is None:
        raise InputError(_("PyTorch was not installed; it is needed to segment and to use a graphics card."))


def _install_packages(packages: list[str]) -> None:
    import slicer.packaging as packaging

    packaging.pip_ensure(packages, requester="CrossModa")


def _install_offline(lacking: list[str], folder: Path) -> None:
    """Install the packages whose wheels are there; pip would install none if one were missing."""
    wheels = {requirements.normalized(file.name.split("-")[0]) for file in folder.glob("*.whl")}
    packages = [text for text in lacking if requirements.Requirement(text).name in wheels]
    absent = ", ".join(text for text in lacking if text not in packages)
    if not packages:
        raise InputError(
            _("{folder} holds no wheels (*.whl) of {names}; choose another folder.").format(folder=folder, names=absent)
        )
    names = ", ".join(packages)
    if not slicer.util.confirmOkCancelDisplay(_("Install {names} from {folder}?").format(names=names, folder=folder)):
        raise InputError(_("Not installed: declined."))
    slicer.util.pip_install(["--no-index", "--find-links", str(folder), *packages])
    if absent:
        raise InputError(
            _("Not installed: {names}. Their wheels are not in {folder}; download them, too.").format(
                names=absent, folder=folder
            )
        )
