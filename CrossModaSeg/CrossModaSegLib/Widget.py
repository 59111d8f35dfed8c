"""The panel: a tab for each role, their sections from top to bottom, and the scene they look at."""

import types

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from CrossModaSegLib.scene import cases, display, nodes
from CrossModaSegLib.sections.cases import CasesSection
from CrossModaSegLib.sections.correct import CorrectSection
from CrossModaSegLib.sections.growth import GrowthSection
from CrossModaSegLib.sections.improve import ImproveSection
from CrossModaSegLib.sections.measure import MeasureSection
from CrossModaSegLib.sections.register import RegisterSection
from CrossModaSegLib.sections.result import ResultSection
from CrossModaSegLib.sections.review import ReviewSection
from CrossModaSegLib.sections.setup import SetupSection

#: The parameters that show a result of the target, by its role.
_SHOWN = {
    "noisy label": "noisyLabel",
    "uncertainty": "uncertainty",
}


class Panel(VTKObservationMixin):
    """Holds the sections together: parameter node, scene events, updates."""

    def __init__(self, layout, logic):
        """Build the sections into a layout."""
        super().__init__()
        self.logic, self.parameters, self._gui_tag, self._target = logic, None, None, None
        self.sample = None
        self._may_preselect, self._is_entered, self._shown_tab = True, False, 0
        self.setup = SetupSection(self)
        self.cases = CasesSection(self)
        self.register = RegisterSection(self)
        self.measure = MeasureSection(self)
        self.result = ResultSection(self)
        self.growth = GrowthSection(self)
        self.review = ReviewSection(self)
        self.correct = CorrectSection(self)
        self.improve = ImproveSection(self)
        self.tabs, self.pages, self._sections_of_tab = qt.QTabBar(), [], []
        layout.addWidget(self.tabs)
        self._add_tab(_("Measure"), self.measure, self.result, self.growth, self.setup)
        self._add_tab(_("Review"), self.review, self.correct)
        self._add_tab(_("Atlases && training"), self.cases, self.register, self.improve)
        self.sections = tuple(section for sections in self._sections_of_tab for section in sections)
        for page in self.pages:
            layout.addWidget(page)
            page.setVisible(page is self.pages[0])
        layout.addStretch(1)
        self.tabs.connect("currentChanged(int)", self._on_tab)
        scan_selector, previous_selector = self.measure.ui.scanSelector, self.measure.ui.previousSelector
        self._scan_selectors = (
            scan_selector,
            previous_selector,
            self.cases.ui.volumeSelector,
            self.register.ui.targetSelector,
        )
        self._selectors = (*self._scan_selectors, self.cases.ui.labelSelector, self.register.ui.noisyLabelSelector)
        self._selectors += (self.result.ui.resultSelector,)
        for selector in (self.cases.ui.volumeSelector, self.cases.ui.labelSelector):
            selector.connect("currentNodeChanged(vtkMRMLNode*)", self.update_soon)
        scan_selector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_target)
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(30)
        self._timer.connect("timeout()", self.update)
        self.observe()

    def _add_tab(self, title: str, *sections) -> None:
        """Add a tab with sections from top to bottom; the panel is as high as the tab that is shown."""
        page = qt.QWidget()
        column = qt.QVBoxLayout(page)
        column.setContentsMargins(0, 0, 0, 0)
        for section in sections:
            column.addWidget(section.widget)
            section.widget.setMRMLScene(slicer.mrmlScene)
        self.tabs.addTab(title)
        self.pages.append(page)
        self._sections_of_tab.append(sections)

    def show_tab(self, section) -> None:
        """Show the tab with a section."""
        self.tabs.setCurrentIndex(self._sections_of_tab.index(self.tab_of(section)))

    def tab_of(self, section) -> tuple:
        """Return the sections of the tab of a section."""
        return next(sections for sections in self._sections_of_tab if section in sections)

    def _on_tab(self, number: int) -> None:
        """Show the sections of a tab; they have the keys and the stopwatch, no others."""
        before, self._shown_tab = self._shown_tab, number
        self.pages[before].setVisible(False)
        self.pages[number].setVisible(True)
        if self._is_entered:
            for section in self._sections_of_tab[before]:
                section.exit()
            for section in self._sections_of_tab[number]:
                section.enter()
        self.update_soon()

    def observe(self) -> None:
        """Observe the scene."""
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._on_scene_closing)
        self.addObserver(scene, scene.EndCloseEvent, self.open)
        self.addObserver(scene, scene.EndImportEvent, self._on_scene_loaded)
        self.addObserver(scene, scene.NodeAddedEvent, self.update_soon)
        self.addObserver(scene, scene.NodeRemovedEvent, self._on_node_removed)
        # Before the selectors, which move on to another node when theirs is removed.
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self._on_node_about_to_be_removed, priority=10.0)

    def open(self, _caller=None, _event=None) -> None:
        """Take the scene's parameter node and show it."""
        self.close()
        self.parameters = self.logic.getParameterNode()
        gui = {f"{section.name}_{name}": item for section in self.sections for name, item in vars(section.ui).items()}
        self._gui_tag = self.parameters.connectGui(types.SimpleNamespace(**gui))
        self._target = self.parameters.target  # the node, as Slicer reuses the IDs of removed nodes
        self.addObserver(self.parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self.update_soon)
        self._may_preselect = True
        self.update()

    def close(self) -> None:
        """Release the parameter node."""
        if self.parameters is not None:
            self.parameters.disconnectGui(self._gui_tag)
            self.removeObserver(self.parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self.update_soon)
            self.parameters = self._gui_tag = self._target = None

    def enter(self) -> None:
        """Select a scan if none is, and enable the keys and the stopwatch of the tab that is shown."""
        self._is_entered = True
        self._preselect()
        for section in self._sections_of_tab[self._shown_tab]:
            section.enter()
        for section in self.sections:
            section.show_style()

    def _preselect(self) -> None:
        """Select the first usable MR volume that CrossModa did not make, unless the user removed the selected one."""
        if self.parameters is None or self.parameters.target is not None or not self._may_preselect:
            return
        scans = (node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if cases.may_be_target(node))
        self.parameters.target = next(scans, None)

    def exit(self) -> None:
        """Disable the keys while another module is shown; work continues."""
        self._is_entered = False
        for section in self._sections_of_tab[self._shown_tab]:
            section.exit()

    def stop(self) -> None:
        """Stop all work."""
        if self.logic.busy:
            self.logic.queue.cancel()
        self.setup.stop()
        self.improve.stop()

    def update(self) -> None:
        """Show the state of scene and work in every section."""
        if self.parameters is not None:
            own_volumes = [node.GetID() for node in _own_volumes()]
            for selector in self._scan_selectors:
                selector.sortFilterProxyModel().hiddenNodeIDs = own_volumes
            for section in self.sections:
                section.update()
                section.show_style()

    def update_soon(self, *_arguments) -> None:
        """Update once after the events of this moment."""
        if not self._timer.isActive():
            self._timer.start()

    def _on_target(self, target) -> None:
        """Show another target with its own results, and the tumor side that was chosen for it."""
        if self._gui_tag is None or target is None or target is self._target:
            return
        before, self._target = self._target, target
        parameters = self.parameters
        side = parameters.tumorSide  # chosen before the first target: it holds for that one
        if before is not None:
            before.SetAttribute(nodes.SIDE_CHOSEN, side)
            side = "auto"
        parameters.target = target  # before the others: a written parameter shows all of them in the controls
        parameters.tumorSide = target.GetAttribute(nodes.SIDE_CHOSEN) or side
        for role, parameter in _SHOWN.items():
            setattr(parameters, parameter, _newest(target, role))
        parameters.result = _newest(target, *nodes.RESULTS)
        if not self.logic.busy:
            for section in (self.measure, self.result, self.register):
                section.say("")
        display.show_target(target)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_about_to_be_removed(self, scene, _event, node) -> None:
        if self.parameters is None or scene.IsClosing() or scene.IsImporting():
            return
        for selector in self._selectors:
            if selector.currentNode() is node:
                selector.setCurrentNode(None)
        if node is self._target:
            self._target = self.parameters.target = None
            self.parameters.tumorSide = "auto"
            self._may_preselect = False
            for section in (self.measure, self.register):
                section.report_removed_target(node.GetName())

    def _on_node_removed(self, scene, _event) -> None:
        if not scene.IsBatchProcessing():  # a scene that is being closed or loaded is not whole
            self.update_soon()

    def _on_scene_closing(self, _caller, _event) -> None:
        self.correct.closing()
        if self.logic.busy:
            self.logic.queue.cancel()
        for section in self.sections:
            section.forget()
        self.close()

    def _on_scene_loaded(self, _caller, _event) -> None:
        results = [segmentation for role in nodes.RESULTS for segmentation in nodes.products(role)]
        for label in [*results, *(row.label for row in cases.scene_rows() if row.label is not None)]:
            nodes.watch_corrections(label)
        self.open()
        if self._is_entered:
            self._preselect()


def _newest(target, *roles: str):
    """Return the newest result of a target with one of the roles, or None."""
    results = [node for role in roles for node in nodes.products(role, target)]
    results.sort(key=lambda node: nodes.provenance(node).get("created", ""))
    return results[-1] if results else None


def _own_volumes() -> list:
    """Return the volumes that CrossModa made, such as confidence and disagreement."""
    return [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if node.GetAttribute(nodes.ROLE)]
