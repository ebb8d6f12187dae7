"""The runtime type checker behind the tests' import hook; as for mypy, an int will do where a float is asked for."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
