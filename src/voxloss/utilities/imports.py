"""Parts that users write themselves, named by their import path, and digests of their source text."""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from voxloss.utilities.errors import InputError

MOST_NAMED = 10  # of a module's classes and functions, in a message
# Packages whose versions are recorded, and whose source text is therefore no part of the digest.
_RECORDED = ("builtins", "torch", "voxloss", "typing", "abc")


def import_attribute(path: str, what: str) -> Any:
    """Import what a path such as "mypackage.module.name" names; the working directory is searched last.

    Args:
        path: The import path: a module, a dot and the name of a class, a function or another attribute.
        what: What it is, to begin the message: "the loss", "network.name".

    Raises:
        InputError: There is no such module or attribute, or the module cannot be imported; the message names the
            module, the attribute and the way out.
    """
    module, _, name = path.rpartition(".")
    if not module or not all(part.isidentifier() for part in path.split(".")):
        if name == "py":
            file = Path(path)
            raise InputError(
                f"{what} {path!r} is not an import path: write {file.stem}.NAME, the name of a class or function in "
                f"the file, and start voxloss in the folder {str(file.parent)!r}."
            )
        raise InputError(f"{what} {path!r} is not an import path such as mypackage.{name or 'MyLoss'}.")
    begin = f"{what} {path} cannot be imported"
    loaded = _module(module, begin)
    try:
        return getattr(loaded, name)
    except AttributeError:
        close = get_close_matches(name, [other for other in vars(loaded) if not other.startswith("_")], n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else _own_parts(loaded)
        raise InputError(f"{begin}: the module {module} ({_place(loaded)}) has no {name!r}{hint}.") from None


def parts_of_module(module: str) -> str:
    """Say that NAME is a module of the working directory, and what it has, or nothing if there is none.

    Raises:
        InputError: It cannot be imported.
    """
    if not module.isidentifier() or not Path(f"{module}.py").is_file():
        return ""
    return f"{module} is the module {module}.py{_own_parts(_module(module, f'{module}.py cannot be imported'))}"


def _own_parts(module: ModuleType) -> str:
    """Say which classes and functions a module defines, without those that it imports."""
    named = [
        f"{module.__name__}.{name}"
        for name, part in vars(module).items()
        if not name.startswith("_") and (inspect.isroutine(part) or inspect.isclass(part))
        if getattr(part, "__module__", None) == module.__name__
    ]
    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return f"; it has {', '.join(named[:MOST_NAMED])}{more}" if named else ""


def _module(module: str, begin: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:  # last, so that no file in it hides a package
        sys.path.append(here)
        importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        if module == missing or module.startswith(f"{missing}."):
            raise InputError(
                f"{begin}: there is no module {missing!r}; install it, or start voxloss in the folder that holds "
                f"{missing.split('.')[0]}.py (now {here})."
            ) from error
        raise InputError(f"{begin}: {module} needs the module {missing!r}; install it.") from error
    except Exception as error:  # the module's own code may raise anything
        reason = " ".join(str(error).split())
        raise InputError(f"{begin}: {module} fails with {type(error).__name__}: {reason}.") from error


def _place(module: ModuleType) -> str:
    return str(getattr(module, "__file__", None) or "no file")


def source_digests(part: Any) -> dict[str, str | None]:
    """Return digests of the source text of a class, function or object, and of the file that defines it.

    Returns:
        `source`: of the function, or of the class with those of its bases that are not torch's or voxloss's; None if
        its text is not at hand. `file`: of the whole file; None likewise.
    """
    texts = list(_texts(part))
    digest = hashlib.blake2b("\n".join(texts).encode(), digest_size=16).hexdigest() if texts else None
    defining = inspect.unwrap(part) if inspect.isroutine(part) or inspect.isclass(part) else type(part)
    file = getattr(sys.modules.get(getattr(defining, "__module__", ""), None), "__file__", None)
    whole = Path(file) if file is not None and file.endswith(".py") else None
    content = whole.read_bytes() if whole is not None and whole.is_file() else None
    return {
        "source": digest,
        "file": None if content is None else hashlib.blake2b(content, digest_size=16).hexdigest(),
    }


def _texts(part: Any) -> Iterator[str]:
    if inspect.isroutine(part):
        parts: tuple[Any, ...] = (inspect.unwrap(part),)
    else:
        kind = part if inspect.isclass(part) else type(part)
        parts = tuple(base for base in kind.__mro__ if base.__module__.split(".")[0] not in _RECORDED)
    for one in parts:
        try:
            yield inspect.getsource(one)
        except (OSError, TypeError):
            continue
