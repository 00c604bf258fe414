"""From an entrypoint, `module:Class`, to a learner; every way this can go wrong is named."""

from __future__ import annotations

import importlib
import inspect
import traceback
from pathlib import Path
from types import ModuleType

from metisfl_learner.exits import ExitCode, FatalError
from metisfl_learner.learner import Learner, LearnerContext


class EntrypointError(FatalError):
    """The entrypoint cannot be used."""

    def __init__(self, message: str) -> None:
        super().__init__(ExitCode.ENTRYPOINT, message)


def load_class(entrypoint: str) -> type[Learner]:
    """Import the class that an entrypoint names. Raises EntrypointError."""
    module_name, _, class_name = entrypoint.partition(":")
    found = getattr(_import(entrypoint, module_name), class_name, None)
    if found is None:
        raise EntrypointError(_no_such_class(entrypoint, importlib.import_module(module_name), class_name))
    if not (inspect.isclass(found) and issubclass(found, Learner)):
        raise EntrypointError(
            f"entrypoint {entrypoint}: {class_name} is not a learner; it must be a subclass of metisfl_learner.Learner"
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise EntrypointError(f"entrypoint {entrypoint}: {class_name} does not define {missing}")
    return found


def construct(entrypoint: str, learner_class: type[Learner], context: LearnerContext) -> Learner:
    """Call the class. Raises EntrypointError when its constructor raises anything."""
    try:
        return learner_class(context)
    except BaseException as error:
        raise EntrypointError(f"entrypoint {entrypoint}: the constructor raised {explain(error)}") from error


def explain(error: BaseException) -> str:
    """An exception in one line: its type, its message, and the user's line that it came from."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parent)
    own = [f for f in frames if not f.filename.startswith(package) or "examples" in Path(f.filename).parts]
    outer = [f for f in own if "site-packages" not in f.filename and not f.filename.startswith("<frozen")]
    place = (outer or own)[-1] if own else None
    return f"{text} ({Path(place.filename).name}, line {place.lineno}, in {place.name})" if place else text


def _import(entrypoint: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise EntrypointError(
                f"entrypoint {entrypoint}: there is no module '{error.name}'; in a cluster it must be in the learner "
                "image or in learner.sourceRef's ConfigMap, locally beside the Federation's file"
            ) from None
        raise EntrypointError(
            f"entrypoint {entrypoint}: importing {module_name} needs the module '{error.name}', "
            "which is not installed (in a cluster: in the learner image)"
        ) from error
    except BaseException as error:
        raise EntrypointError(f"entrypoint {entrypoint}: importing {module_name} raised {explain(error)}") from error


def _no_such_class(entrypoint: str, module: ModuleType, class_name: str) -> str:
    classes = [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Learner) and value.__module__ == module.__name__
    ]
    there = f"the learners in it are {', '.join(classes)}" if classes else "there is no learner in it"
    return f"entrypoint {entrypoint}: module '{module.__name__}' has no class '{class_name}'; {there}"
