"""PythonQt's semantics over PySide6: properties are attributes, signals are connected by their C++ signature.

Stricter than PySide6 on purpose: setting an attribute that the widget does not have, calling a constructor with
keywords and connecting a signal that does not exist fail, as they do in Slicer.
"""

import inspect
import re
import types
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

#: Qt's own warnings since the last look; tests fail on them.
warnings: list[str] = []
#: Read as methods: PySide6 itself calls them, the size hints as virtual methods.
_PLAIN = ("property", "setProperty", "metaObject", "sizeHint", "minimumSizeHint")
_properties: dict[str, tuple[int, dict[str, QtCore.QMetaProperty]]] = {}


def properties_of(thing: QtCore.QObject) -> dict[str, QtCore.QMetaProperty]:
    """Return the Qt properties of an object by name."""
    meta = QtCore.QObject.metaObject(thing)
    count, found = _properties.get(meta.className(), (-1, {}))
    if count != meta.propertyCount():
        found = {meta.property(i).name(): meta.property(i) for i in range(meta.propertyCount())}
        _properties[meta.className()] = (meta.propertyCount(), found)
    return found


def taking_fewer_arguments(slot):
    """Wrap a slot: PythonQt passes at most as many arguments as the callable takes."""
    try:
        kinds = [argument.kind for argument in inspect.signature(slot).parameters.values()]
    except (TypeError, ValueError):
        return lambda *_: slot()
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return slot
    count = sum(kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)
    return lambda *arguments: slot(*arguments[:count])


class PythonQtObject:
    """Mixin that gives a PySide6 class PythonQt's ways."""

    def __init__(self, *arguments, **keywords):
        if keywords:
            raise TypeError(f"PythonQt constructors take no keywords; got {sorted(keywords)}")
        super().__init__(*arguments)

    def __getattribute__(self, name):
        # Shiboken resolves connect and disconnect before the class's own methods, so they are caught here.
        if name in ("connect", "disconnect"):
            return types.MethodType(getattr(PythonQtObject, "_" + name), self)
        if name[0] != "_" and name not in _PLAIN:
            if name == "name":
                return QtCore.QObject.objectName(self)
            if name in properties_of(self):
                return QtCore.QObject.property(self, name)
        return super().__getattribute__(name)

    def __setattr__(self, name, value):
        if name == "name":
            QtCore.QObject.setObjectName(self, value)
        elif name in properties_of(self):
            value = list(value) if isinstance(value, tuple) else value  # PythonQt takes any sequence
            if not QtCore.QObject.setProperty(self, name, value):
                raise TypeError(f"{type(self).__name__}.{name} cannot be {value!r}")
        elif name.startswith(("_bed_", "__")):
            super().__setattr__(name, value)
        elif isinstance(value, QtCore.QObject) and QtCore.QObject.objectName(value) == name:
            pass  # PySide6's QUiLoader makes attributes of the children; PythonQt does not
        else:
            raise AttributeError(f"{type(self).__name__} has no property {name!r}")

    def _signal(self, signature):
        match = re.fullmatch(r"(\w+)\((.*)\)", signature)
        if not match:
            raise ValueError(f"{signature!r} is not a signal's signature")
        name, arguments = match.groups()
        signal = super().__getattribute__(name)
        normalized = bytes(QtCore.QMetaObject.normalizedSignature(signature)).decode()
        known = {bytes(method.methodSignature()).decode() for method in _methods(self)}
        if normalized not in known and not getattr(type(self), "_bed_signals", {}).get(signature):
            raise ValueError(f"{type(self).__name__} has no signal {signature}")
        try:
            return signal[arguments] if arguments else signal
        except (KeyError, IndexError, TypeError):
            return signal

    def _connect(self, signature, slot):
        wrapped = taking_fewer_arguments(slot)
        self.__dict__.setdefault("_bed_connections", []).append((signature, slot, wrapped))
        self._signal(signature).connect(wrapped)
        return True

    def _disconnect(self, signature=None, slot=None):
        for connection in list(self.__dict__.get("_bed_connections", [])):
            if connection[0] == signature and slot in (None, connection[1]):
                self._signal(signature).disconnect(connection[2])
                self._bed_connections.remove(connection)

    def exec_(self):
        """Run a dialog; PySide6 has the name without the underscore."""
        return self.exec()

    def className(self):
        """Return the name of the C++ class."""
        return type(self).__name__


def _methods(thing):
    meta = QtCore.QObject.metaObject(thing)
    return [meta.method(i) for i in range(meta.methodCount())]


def pythonqt_class(base, name=None):
    """Make the PythonQt look-alike of a PySide6 class."""
    return type(name or base.__name__, (PythonQtObject, base), {})


class _QtModule(types.ModuleType):
    """The module ``qt``: every class of Qt's core, GUI and widgets in one place."""

    def __getattr__(self, name):
        for module in (QtWidgets, QtGui, QtCore):
            if hasattr(module, name):
                value = getattr(module, name)
                break
        else:
            raise AttributeError(f"module 'qt' has no attribute {name!r}")
        if inspect.isclass(value) and issubclass(value, QtCore.QObject) and name not in ("QObject", "QApplication"):
            value = pythonqt_class(value)
        setattr(self, name, value)
        return value


qt = _QtModule("qt")


class UiLoader(QtUiTools.QUiLoader):
    """Loads .ui files into PythonQt look-alikes; refuses unknown classes and properties.

    The connections of MRML widgets to the scene are made as the file says, and only so: a selector that the file does
    not connect stays empty, as in Slicer.
    """

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.made = []

    def createWidget(self, class_name, parent=None, name=""):
        """Make a widget of the class named in the file."""
        import ctk
        import slicer

        for module in (slicer, ctk, qt):
            if class_name in vars(module) or (module is qt and hasattr(qt, class_name)):
                widget = getattr(module, class_name)(*([parent] if parent is not None else []))
                break
        else:
            raise LookupError(f"the test bed knows no widget {class_name}")
        QtCore.QObject.setObjectName(widget, name)
        self.made.append(widget)
        return widget

    def load(self, file, parent=None):
        """Load a .ui file."""
        tree = ElementTree.parse(Path(file.fileName()))
        widget = super().load(file, parent)
        widget._bed_made = self.made
        by_name = {QtCore.QObject.objectName(made): made for made in self.made}
        self._check_properties(tree, by_name)
        for connection in tree.iter("connection"):
            sender, receiver = (by_name[connection.findtext(end)] for end in ("sender", "receiver"))
            signal, slot = connection.findtext("signal"), connection.findtext("slot")
            if signal == "mrmlSceneChanged(vtkMRMLScene*)":
                if slot != "setMRMLScene(vtkMRMLScene*)" or not hasattr(receiver, "setMRMLScene"):
                    raise LookupError(f"{QtCore.QObject.objectName(receiver)} has no slot {slot}")
                sender.mrmlSceneChanged.connect(receiver.setMRMLScene)
        return widget

    @staticmethod
    def _check_properties(tree, by_name):
        for element in tree.iter("widget"):
            if not element.get("name"):
                continue
            known = properties_of(by_name[element.get("name")])
            for item in element.findall("property"):
                if item.get("stdset") != "0" and item.get("name") not in known:
                    raise LookupError(f"{element.get('class')} has no property {item.get('name')!r}")


qt.QUiLoader = UiLoader


def _on_message(kind, _context, message):
    if "No such signal" in message and "mrmlSceneChanged" in message:
        return  # QUiLoader cannot make connections with C++ MRML types; load() makes them
    if message.startswith("QObject::connect:  (") or ("QObject::connect" in message and "qMRMLWidget" in message):
        return
    if kind != QtCore.QtMsgType.QtDebugMsg and "propagateSizeHints" not in message:
        warnings.append(message)


def start() -> QtWidgets.QApplication:
    """Return the (offscreen) Qt application; collect Qt's warnings from now on."""
    QtCore.qInstallMessageHandler(_on_message)
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication(["testbed"])
