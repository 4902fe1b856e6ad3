"""The tests mirror the packages. In the whole test run every call inside `mtan_core` is checked for types and shapes."""

from beartype import BeartypeConf, beartype

# For `--jaxtyping-packages` in pyproject.toml; as for the static checker, an int is a float too.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
