"""Public reports: files that end other programs, hostile names, strangers on the network."""

import contextlib
import gzip
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from report_inputs import AXES, GRID, a_label, a_scan, segmentation

from crossmoda import volume
from crossmoda.cache import CachedStep
from crossmoda.dataset import corrections
from crossmoda.dataset.label_reading import read_label
from crossmoda.deeds.transform import read_transform
from crossmoda.errors import InputError
from crossmoda.output import csv_text, printable
from crossmoda.volume import Grid
from crossmoda.weights import _are_limits

# --- files that end other programs ---


@pytest.mark.parametrize("field", ["kinds", "labels", "space directions", "space origin", "space units", "units"])
def test_a_header_line_of_1500_characters_ends_no_process(tmp_path: Path, field: str) -> None:
    volume.write(a_scan(), tmp_path / "scan.nrrd")
    head, _, data = (tmp_path / "scan.nrrd").read_bytes().partition(b"\n\n")
    lines = [line for line in head.split(b"\n") if not line.startswith(field.encode() + b":")]
    line = field.encode() + b": " + b"x" * 1500
    (tmp_path / "scan.nrrd").write_bytes(b"\n".join([*lines, line]) + b"\n\n" + data)
    try:
        assert volume.read(tmp_path / "scan.nrrd").grid.size == GRID.size
    except InputError as error:
        assert "scan.nrrd" in str(error)


def test_a_damaged_transform_is_read_by_a_process_of_its_own_first(tmp_path: Path) -> None:
    (tmp_path / "t.tfm").write_bytes(b"#Insight Transform File V1.0\nTransform: \xe4\nParameters: 1e999 x\n")
    with pytest.raises(InputError, match=r"t\.tfm cannot be read as a transform"):
        read_transform(tmp_path / "t.tfm", guarded=True)


def test_a_header_that_asks_for_more_memory_than_a_head_needs_is_refused_unread(tmp_path: Path) -> None:
    header = (
        "NRRD0004\ntype: float\ndimension: 3\nspace: left-posterior-superior\nsizes: 2000 2000 1000\n"
        "space directions: (0.1,0,0) (0,0.1,0) (0,0,0.1)\nspace origin: (0,0,0)\nendian: little\nencoding: gzip\n\n"
    )
    (tmp_path / "bomb.nrrd").write_bytes(header.encode() + gzip.compress(bytes(10**6)))
    with pytest.raises(InputError, match=r"1000 x 2000 x 2000 voxels need 14\.9 GB, more than 3 GB"):
        volume.read(tmp_path / "bomb.nrrd")
    wide = Grid((40, 40, 40), (20.0, 20.0, 20.0), (-400.0, 0.0, 0.0), AXES)
    volume.write(a_scan(wide), tmp_path / "wide.nii.gz")
    with pytest.raises(InputError, match="800 x 800 x 800 mm in size"):
        volume.read(tmp_path / "wide.nii.gz")


def test_pipes_are_no_data_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "scan.nii")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        volume.read(tmp_path / "scan.nii")


@pytest.mark.parametrize(("text", "is_read"), [("1.0", True), ("x", False), ("9" * 400, False), ("-1", False)])
def test_an_odd_value_of_a_segment_is_read_or_named(tmp_path: Path, text: str, is_read: bool) -> None:
    path = segmentation(tmp_path / "label.seg.nrrd", {"VS": 1, "Cochlea": 2}, a_label().array)
    path.write_bytes(path.read_bytes().replace(b"Segment0_LabelValue:=1", b"Segment0_LabelValue:=" + text.encode()))
    if is_read:
        assert np.array_equal(read_label(path).array, a_label().array)
    else:
        with pytest.raises(InputError, match="impossible value or layer of the segment VS"):
            read_label(path)


@pytest.mark.parametrize("content", ["[" * 10**5, '{"status": ' + "9" * 5000 + "}", "\x00", "[]", "null"])
def test_hostile_records_of_our_own_stores_are_passed_over(tmp_path: Path, content: str) -> None:
    volume.write(a_scan(), tmp_path / "a_hrT2.nii.gz")
    store = tmp_path / "corrections" / "a"
    store.mkdir(parents=True)
    (store / "correction.json").write_text(content)
    assert corrections.all_corrections(tmp_path) == {}
    (store / "finished.json").write_text(content)
    assert CachedStep(store).results() is None


# --- security and privacy ---


def test_names_are_plain_text_in_a_terminal_and_in_a_spreadsheet() -> None:
    assert printable("a\x1b]0;title\x07b") == "a\\x1b]0;title\\x07b"
    assert csv_text(["name", "number"], [["=cmd|'/C calc'!A0", "-1.5"], ["@x", -2.0]]).splitlines()[1:] == [
        "'=cmd|'/C calc'!A0,-1.5",
        "'@x,-2.0",
    ]


def test_markup_in_the_name_of_a_patient_is_text(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        volume.write(a_label(), tmp_path / folder / "[bold]x[nothing].nii.gz")
    code, _, err = run("evaluate", tmp_path / "a", tmp_path / "b")
    assert code == 0, err


def test_a_limit_that_is_no_number_does_not_switch_a_warning_off() -> None:
    assert not _are_limits({"VS": float("nan")}) and not _are_limits({"VS": float("inf")})


def refuse_strangers(address: str) -> None:
    """Try to enter a scheduler without its certificate, in processes: a refused client may block this one later."""
    unsecured, foreign = "None", "__import__('crossmoda.study.cluster').study.cluster.security()"
    strangers = [(address, unsecured), (address.replace("tls://", "tcp://"), unsecured), (address, foreign)]
    for where, security in strangers:
        code = f"import distributed; distributed.Client({where!r}, timeout=2, security={security}); print('entered')"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode and "entered" not in done.stdout, where
        assert not re.search("Import|Syntax|Attribute|Name", done.stderr.splitlines()[-1])


def test_a_client_without_the_certificate_of_a_study_is_refused() -> None:
    distributed = pytest.importorskip("distributed")
    from crossmoda.study import cluster
    from crossmoda.study.settings import ClusterSettings

    with contextlib.closing(cluster.local_cluster(ClusterSettings(workers=1, threads=1))) as local:
        assert local.scheduler_address.startswith("tls://127.0.0.1")
        refuse_strangers(local.scheduler_address)
        with distributed.Client(local, security=local.security, set_as_default=False) as own:
            assert own.submit(sum, [1, 2]).result(timeout=30) == 3


def test_the_certificates_of_slurm_are_for_the_user_alone_and_strangers_are_refused(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    pytest.importorskip("dask_jobqueue")
    from crossmoda.study import cluster
    from crossmoda.study.settings import ClusterSettings

    options = {"interface": "lo", "shared_temp_directory": str(tmp_path / "shared")}
    made = cluster.unsubmitted_slurm_cluster(ClusterSettings(kind="slurm", threads=1), options)
    with contextlib.closing(made):
        assert made.scheduler_address.startswith("tls://")
        script = made.job_script()
        files = [Path(found[1]) for found in re.finditer(r"--tls-(?:ca-file|cert|key) (\S+)", script)]
        assert len(files) == 3 and "PRIVATE KEY" not in script
        assert all(file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "shared", *files))
        refuse_strangers(made.scheduler_address)
        with distributed.Client(made, security=made.security, set_as_default=False, timeout=30) as own:
            assert own.scheduler_info()["address"] == made.scheduler_address
