"""The command ``crossmoda locate``."""

from pathlib import Path

import click

from crossmoda import output as files
from crossmoda import volume
from crossmoda.anatomy import ear_frame, landmarks, markups, template
from crossmoda.cli.framework import PATH, echo, echo_json, path_option, progress_bar
from crossmoda.dataset.scan_selection import select_scan
from crossmoda.errors import InputError


@click.command()
@click.argument("scan", type=PATH)
@path_option("--output", help="Landmarks of the located ears for Slicer (.mrk.json).")
@path_option("--template", "folder", help="Folder of a template instead of the bundled one.")
@click.option("--json", "as_json", is_flag=True, help="Print landmarks, frames and confidence as JSON.")
def command(scan: Path, output: Path | None, folder: Path | None, as_json: bool) -> None:
    """SCAN is T1 or T2 of the head: a file or a folder with a DICOM series. Positions are LPS mm."""
    if output is not None:
        markups.check_ending(output)
    files.check_apart([output], [scan])
    with progress_bar() as progress:
        atlas = template.load(folder) if folder else template.load()
        frames = ear_frame.ear_frames(volume.read_scan(select_scan(scan).path), atlas, progress)
    if as_json:
        echo_json(landmarks.summary(frames))
    if not frames.accepted:
        raise InputError(frames.refusal)
    if output is not None:
        landmarks.write_markups(frames, output)
    if as_json:
        return
    for frame in frames.accepted:
        for name, position in frame.landmarks.items():
            place = " ".join(f"{value:8.1f}" for value in position)
            echo(f"{frame.side:5} {name.replace('_', ' '):16} {place}")
    for note in frames.notes:
        echo(f"Note: {note}")
    if output is not None:
        echo(output)
