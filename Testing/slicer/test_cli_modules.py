"""The CLI modules as Slicer and other hosts see them: description, call, progress, errors, hard kill."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import SimpleITK as sitk

PROJECT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.with_suffix(".py") for path in PROJECT.glob("CrossModa*/*.xml"))


@pytest.fixture
def launcher(tmp_path):
    """Make an executable of a CLI module, as other hosts of CLI modules want it."""

    def make(script: Path) -> str:
        path = tmp_path / script.stem
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two images of one structure, the second in inverted contrast and 2 mm aside, with its label."""
    folder = tmp_path_factory.mktemp("pair")
    z, y, x = np.indices((24, 40, 40)).astype(float)
    rng = np.random.default_rng(0)
    texture = sum(
        np.sin(x * a + phase) * np.cos(y * b) * np.sin(z * c + phase)
        for a, b, c, phase in rng.uniform(0.15, 0.6, (12, 4))
    )
    fixed = texture + 4 * (((x - 20) ** 2 + (y - 20) ** 2 + (z - 12) ** 2) < 49)
    moving = -np.roll(fixed, 2, axis=2)
    label = np.roll(((x - 20) ** 2 + (y - 20) ** 2 + (z - 12) ** 2) < 49, 2, axis=2)
    for name, array in (("fixed", fixed), ("moving", moving), ("label", label.astype(np.uint8))):
        image = sitk.GetImageFromArray(array.astype(np.float32) if name != "label" else array)
        image.SetSpacing((1.0, 1.0, 1.5))
        image.SetOrigin((5.0, -7.0, 3.0))
        sitk.WriteImage(image, str(folder / f"{name} é.nii.gz"))
    return folder


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_slicers_own_parser_accepts_the_description(application, script):
    import slicer

    module = getattr(slicer.modules, script.stem.lower())
    node = module.logic().CreateNodeInScene()
    names = [
        node.GetParameterName(group, index)
        for group in range(node.GetNumberOfParameterGroups())
        for index in range(node.GetNumberOfParametersInGroup(group))
    ]
    slicer.mrmlScene.RemoveNode(node)
    assert len(names) > 5
    assert len(names) == len(set(names))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_directory_is_always_a_required_parameter(script):
    """The module's own panel passes ``.`` for a directory that was not chosen."""
    directories = list(ElementTree.parse(script.with_suffix(".xml")).iter("directory"))
    assert [item.findtext("name") for item in directories if item.find("index") is None] == []


@pytest.mark.bed
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_another_host_reads_the_same_description_from_the_program_and_from_the_file(script, launcher):
    ctk_cli = pytest.importorskip("ctk_cli")
    said, written = ctk_cli.CLIModule(launcher(script)), ctk_cli.CLIModule(str(script.with_suffix(".xml")))
    assert said.title == written.title
    assert [item.identifier() for item in said.parameters()] == [item.identifier() for item in written.parameters()]
    arguments, options, _outputs = said.classifyParameters()
    assert [item.index for item in arguments] == list(range(len(arguments)))
    assert all(item.longflag for item in options)


@pytest.fixture
def run_as_panel(application, scene):
    """Run a CLI module in Slicer's engine with all defaults that its own panel passes; return its node."""
    import slicer
    from testbed import cli_engine

    def run(name: str, **chosen):
        module = getattr(slicer.modules, name.lower())
        node = module.logic().CreateNodeInScene()
        defaults = cli_engine.panel_values(node)
        node = slicer.cli.run(module, node, {**defaults, **chosen}, wait_for_completion=True, update_display=False)
        assert node.GetStatus() == node.Completed, node.GetErrorText() + node.GetOutputText()
        return node

    return run


def load_target(folder: Path):
    """Return the volume node of a data set's hrT2 scan."""
    import slicer

    from crossmoda.dataset import open_dataset

    return slicer.util.loadVolume(str(open_dataset(folder).targets[0].image))


@pytest.mark.bed
def test_propagate_runs_with_the_values_of_its_own_panel(scene, run_as_panel, sample_folder, tmp_path, monkeypatch):
    import slicer

    monkeypatch.chdir(tmp_path)
    names = dict.fromkeys(("confidence", "disagreement"), "vtkMRMLScalarVolumeNode")
    names["label"] = "vtkMRMLLabelMapVolumeNode"
    outputs = {name: scene.AddNewNodeByClass(kind, name) for name, kind in names.items()}
    quick = {"levels": 1, "linear": "none", "outline": "atlases", "tumor_side": "left", "device": "cpu"}
    quick["initialization"] = "image"
    target = load_target(sample_folder)
    node = run_as_panel("CrossModaPropagate", target=target, atlases=str(sample_folder), **outputs, **quick)
    values = {name: node.GetParameterAsString(name) for name in ("contributed", "excluded", "side", "reused")}
    assert values == {"contributed": "3", "excluded": "0", "side": "left", "reused": "0"}
    label, confidence = (slicer.util.arrayFromVolume(outputs[name]) for name in ("label", "confidence"))
    assert label.shape == slicer.util.arrayFromVolume(target).shape == confidence.shape
    assert float(node.GetParameterAsString("vs_volume_mm3")) > 0 and set(np.unique(label)) == {0, 1, 2}
    assert list(tmp_path.iterdir()) == [], "an optional folder is not the current one"


@pytest.fixture
def label_node(scene):
    """An empty label map node."""
    return scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "label")


@pytest.mark.bed
def test_fuse_runs_with_the_values_of_its_own_panel(label_node, run_as_panel, label_maps):
    import slicer

    node = run_as_panel("CrossModaFuse", folder=str(label_maps), label=label_node)
    assert node.GetParameterAsString("fused") == "10"
    volume = 4 / 3 * np.pi * 300**1.5 / 2  # of the ellipsoid
    assert slicer.util.arrayFromVolume(label_node).sum() == pytest.approx(volume, rel=0.1)


@pytest.mark.bed
def test_register_runs_with_the_values_of_its_own_panel(scene, label_node, run_as_panel, pair):
    import slicer

    images = {name: slicer.util.loadVolume(str(pair / f"{name} é.nii.gz")) for name in ("fixed", "moving")}
    label = slicer.util.loadLabelVolume(str(pair / "label é.nii.gz"))
    node = run_as_panel("CrossModaRegister", **images, moving_label=label, warped_label=label_node)
    assert float(node.GetParameterAsString("mean_displacement_mm")) > 0
    assert slicer.util.arrayFromVolume(label_node).any()


@pytest.mark.bed
def test_predict_runs_with_the_values_of_its_own_panel(label_node, run_as_panel, sample_folder, weights):
    import slicer

    target = load_target(sample_folder)
    node = run_as_panel("CrossModaPredict", image=target, label_map=label_node, weights=str(weights))
    assert node.GetParameterAsString("processor")
    assert slicer.util.arrayFromVolume(label_node).shape == slicer.util.arrayFromVolume(target).shape


@pytest.mark.bed
def test_train_runs_with_the_values_of_its_own_panel(run_as_panel, sample_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = {"epochs": 1, "field": "scan", "width": 0.125, "device": "cpu"}
    node = run_as_panel("CrossModaTrain", data=str(sample_folder), output=str(tmp_path / "run"), **quick)
    assert Path(node.GetParameterAsString("weights")).parent == tmp_path / "run"
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "an optional folder is not the current one"


@pytest.mark.bed
def test_another_host_runs_the_registration(pair, tmp_path, launcher):
    """The command line is made by ctk-cli's reading of the XML; the label must arrive where the structure is."""
    ctk_cli = pytest.importorskip("ctk_cli")
    program = launcher(PROJECT / "CrossModaRegister/CrossModaRegister.py")
    arguments, options, _outputs = ctk_cli.CLIModule(program).classifyParameters()
    files = {
        "fixed": pair / "fixed é.nii.gz",
        "moving": pair / "moving é.nii.gz",
        "moving_label": pair / "label é.nii.gz",
        "warped_label": tmp_path / "warped label.nii.gz",
    }
    command = [program, "--returnparameterfile", str(tmp_path / "returned.txt")]
    for item in options:
        if item.identifier() in files:
            command += ["--" + item.longflag.lstrip("-"), str(files[item.identifier()])]
    command += [str(files[item.identifier()]) for item in arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "", "Slicer takes anything on stderr as an error"
    assert "<filter-start>" in done.stdout
    assert done.stdout.count("<filter-progress>") > 5
    assert "folding_percent" in (tmp_path / "returned.txt").read_text("utf-8")
    fixed = sitk.GetArrayFromImage(sitk.ReadImage(str(files["fixed"])))
    warped = sitk.GetArrayFromImage(sitk.ReadImage(str(files["warped_label"]))) == 1
    z, y, x = np.indices(fixed.shape)
    truth = (x - 20) ** 2 + (y - 20) ** 2 + (z - 12) ** 2 < 49
    before = np.roll(truth, 2, axis=2)

    def dice(a, b):
        return 2 * (a & b).sum() / (a.sum() + b.sum())

    assert dice(warped, truth) > dice(before, truth) + 0.03


@pytest.mark.bed
def test_a_bad_input_is_one_sentence_on_stderr_and_exit_code_2(tmp_path):
    script = PROJECT / "CrossModaRegister/CrossModaRegister.py"
    missing = str(tmp_path / "nowhere.nii.gz")
    done = subprocess.run([sys.executable, str(script), missing, missing], capture_output=True, text=True)
    assert done.returncode == 2
    assert "nowhere.nii.gz" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def label_maps(tmp_path_factory):
    """Ten label maps of one target, large enough for the fusion to take a while."""
    folder = tmp_path_factory.mktemp("label maps")
    rng = np.random.default_rng(0)
    z, y, x = np.indices((48, 160, 160)).astype(float)
    for number in range(10):
        shift = rng.uniform(-4, 4, 3)
        ball = ((x - 110 - shift[0]) ** 2 + (y - 80 - shift[1]) ** 2 + (2 * (z - 24 - shift[2])) ** 2) < 300
        sitk.WriteImage(sitk.GetImageFromArray(ball.astype(np.uint8)), str(folder / f"{number}.nrrd"))
    return folder


@pytest.fixture
def commands(pair, label_maps, tmp_path):
    """The command line of a registration and of a fusion that write into ``tmp_path``."""
    return {
        "CrossModaRegister": [
            *("--warped", str(tmp_path / "result.nii.gz")),
            *(str(pair / "fixed é.nii.gz"), str(pair / "moving é.nii.gz")),
        ],
        "CrossModaFuse": [
            *("--label", str(tmp_path / "result.nii.gz"), "--disagreement", str(tmp_path / "disagreement.nrrd")),
            str(label_maps),
        ],
    }


def start(name: str, arguments: list[str]) -> subprocess.Popen:
    script = PROJECT / f"CrossModaRegister/{name}.py"
    return subprocess.Popen(
        [sys.executable, str(script), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.bed
@pytest.mark.parametrize("name", ["CrossModaRegister", "CrossModaFuse"])
def test_a_hard_kill_half_way_leaves_no_output_under_its_name(commands, tmp_path, name):
    process = start(name, commands[name])
    for line in process.stdout:
        if (found := re.search(r"<filter-progress>([\d.]+)", line)) and float(found[1]) > 0.4:
            break
    process.kill()
    process.communicate()
    assert process.returncode == -9, "killed before it was done"
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".partial-")] == []


@pytest.mark.bed
@pytest.mark.parametrize("name", ["CrossModaRegister", "CrossModaFuse"])
def test_progress_arrives_while_the_work_goes_on_and_stderr_stays_empty(commands, tmp_path, name):
    """A pipe is buffered by the block: an unflushed tag would arrive with the end of the process."""
    process = start(name, commands[name])
    early = []
    for line in process.stdout:
        if (found := re.search(r"<filter-progress>([\d.]+)", line)) and process.poll() is None:
            early.append(float(found[1]))
    assert process.stderr.read() == "", "Slicer takes anything on stderr as an error"
    assert process.wait() == 0
    assert len(early) > 5
    assert early == sorted(early)
    assert (tmp_path / "result.nii.gz").is_file()


@pytest.mark.bed
def test_warnings_go_to_stdout_and_an_unforeseen_error_is_one_sentence():
    code = (
        "import warnings\nfrom crossmoda import slicer_cli\n"
        "def work(progress):\n    warnings.warn('be careful')\n    progress(0.5, 'a < b')\n    raise KeyError('oops')\n"
        "slicer_cli.run('Test', work)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "UserWarning: be careful" in done.stdout
    assert "Traceback" in done.stdout
    assert "a &lt; b" in done.stdout, "text in tags is escaped"
    assert len(done.stderr.strip().splitlines()) == 1
    assert "oops" in done.stderr


@pytest.mark.bed
@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("CrossModaRegister/CrossModaRegister.py", ["fixed é.nii.gz", "moving é.nii.gz"]),
        ("CrossModaSeg/CrossModaPredict.py", ["fixed é.nii.gz", "out.nii.gz"]),
    ],
)
def test_cuda_where_there_is_none_says_what_to_do(pair, tmp_path, script, arguments):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    done = subprocess.run(
        [sys.executable, str(PROJECT / script), "--device", "cuda", *arguments],
        capture_output=True,
        text=True,
        cwd=pair,
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "No CUDA device is available: 'cuda'. Choose device 'auto' or 'cpu'."
    assert not (pair / "out.nii.gz").exists()
