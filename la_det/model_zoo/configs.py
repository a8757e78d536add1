"""Finding configs: "POTO/poto_r50_fpn_3x_ms_coco" is a project's config, "common/models/poto" a shared piece."""

from pathlib import Path

from detectron2.config import LazyConfig
from omegaconf import DictConfig

_HERE = Path(__file__).resolve().parent


def _root() -> Path:
    """The folder that holds projects/ and configs/: the copy inside an installed wheel, or the checkout."""
    return _HERE if (_HERE / "projects").is_dir() else _HERE.parents[1]


def project_folders() -> tuple[Path, ...]:
    """Folders of the projects, sorted."""
    return tuple(sorted(folder.parent for folder in (_root() / "projects").glob("*/configs")))


def list() -> tuple[str, ...]:
    """Names of all project configs, sorted."""
    files = [file for folder in project_folders() for file in (folder / "configs").glob("*.py")]
    return tuple(sorted(f"{file.parts[-3]}/{file.stem}" for file in files))


def get_config_file(name: str) -> Path:
    """Path of a config.

    Raises:
        KeyError: there is no config of this name.
    """
    project, _, rest = name.removesuffix(".py").partition("/")
    root = _root()
    folder = root / "configs" / "common" if project == "common" else root / "projects" / project / "configs"
    file = folder / f"{rest}.py"
    if not file.is_file():
        raise KeyError(f"no config {name!r}; la_det.model_zoo.list() names all {len(list())}")
    return file


def get_config(name: str) -> DictConfig:
    """The LazyConfig of this name.

    Raises:
        KeyError: there is no config of this name.
    """
    return LazyConfig.load(str(get_config_file(name)))
