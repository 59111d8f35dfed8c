"""The Python packages of the engine in Slicer, and their installation on request."""

import importlib.metadata
import re
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from crossmoda.errors import InputError

REQUIREMENTS = Path(__file__).resolve().parents[2] / "Resources" / "requirements.txt"


def missing() -> list[str]:
    """Return the requirements that are not met, torch first; reads package metadata and imports nothing."""
    return ([] if _installed("torch") else ["torch"]) + [
        line for line in _requirements() if not _installed(_name(line))
    ]


def versions() -> dict[str, str]:
    """Return the versions of the packages by name; empty for a missing package."""
    return {name: _installed(name) for name in ("torch", *(_name(line) for line in _requirements()))}


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


def _install_packages(requirements: list[str]) -> None:
    try:
        import slicer.packaging as packaging
    except ImportError:  # Slicer 5.10 and older
        if not slicer.util.confirmOkCancelDisplay(_("Install {names}?").format(names=", ".join(requirements))):
            raise RuntimeError(_("declined")) from None
        slicer.util.pip_install(" ".join(requirements))
        return
    packaging.pip_ensure(requirements, requester="CrossModa")


def _install_offline(requirements: list[str], folder: Path) -> None:
    if not any(folder.glob("*.whl")):
        raise InputError(_("{folder} holds no wheels (*.whl); choose another folder.").format(folder=folder))
    names = ", ".join(requirements)
    if not slicer.util.confirmOkCancelDisplay(_("Install {names} from {folder}?").format(names=names, folder=folder)):
        raise InputError(_("Not installed: declined."))
    slicer.util.pip_install(["--no-index", "--find-links", str(folder), *requirements])


def _requirements() -> list[str]:
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _name(requirement: str) -> str:
    return re.split(r"[<>=!~;\[ ]", requirement)[0]


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
