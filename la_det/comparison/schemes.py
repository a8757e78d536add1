"""The configs that are compared."""

from la_det import model_zoo
from la_det.errors import UserError
from la_det.model_zoo.schemes import get_schemes

# In the order of README.md and of the tables.
SCHEMES = tuple(name for name, scheme in get_schemes().items() if scheme.compared)

# Data set -> what follows the scheme in a config's name.
ENDINGS = {
    "shapes_tiny": "_r18_fpn_shapes_tiny",
    "shapes_crowd": "_r18_fpn_shapes_crowd",
    "shapes": "_r50_fpn_shapes",
}


def config_name(scheme: str, data: str) -> str:
    """The zoo's config of a scheme on a data set of `ENDINGS`.

    Raises:
        UserError: there is no such config.
    """
    name = f"/{scheme}{ENDINGS[data]}"
    for config in model_zoo.list():
        if config.endswith(name):
            return config
    raise UserError(f"{scheme}: there is no config {name[1:]}; choose from {' '.join(SCHEMES)}")


def scheme_and_data(config: str) -> tuple[str, str]:
    """Scheme and data set of a config: the inverse of `config_name`."""
    stem = config.rpartition("/")[2]
    for data, ending in ENDINGS.items():
        if stem.endswith(ending):
            return stem.removesuffix(ending), data
    raise UserError(f"{config}: not a config on {' or '.join(ENDINGS)}")


def table_order(config: str) -> tuple[int, int, str]:
    """A key that sorts configs by project; then the compared schemes in their order, and all others by name."""
    project, _, name = config.partition("/")
    scheme, _ = scheme_and_data(config)
    projects = list(dict.fromkeys(scheme.project for scheme in get_schemes().values()))
    return projects.index(project), SCHEMES.index(scheme) if scheme in SCHEMES else len(SCHEMES), name
