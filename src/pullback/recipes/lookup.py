"""Look-up of recipes among those that come with the package: by method, network and data."""

from collections.abc import Iterable
from typing import NamedTuple

from pullback.errors import InputError, did_you_mean
from pullback.methods.method import find_method

FOLDER = "folder"  # the data set that is any folder of images
UNSUPERVISED = "unsupervised"
"""Training without labels, whichever the network: the method that is called as its network, or, where that method
teaches its network otherwise, the variant that `plainly` names."""

USUAL = "voxelmorph"
"""The network that learns without labels where none is named."""


class Key(NamedTuple):
    """The key of a recipe: a method, or a variant of one; the network that it trains; the data that it learns from."""

    method: str
    network: str
    data: str


def plainly(network: str) -> str:
    """Return the name of the variant without labels of a network whose own method teaches it otherwise."""
    return f"{network}-{UNSUPERVISED}"


def of_method(known: Iterable[Key], name: str) -> list[Key]:
    """Return the keys of all variants of a method, those of its default variant first.

    Raises:
        InputError: there is no such method.
    """
    called, method = find_method(name)
    names = (called, *method.keys) if name == called else (name,)
    return sorted((key for key in known if key.method in names), key=lambda key: names.index(key.method))


def in_full(known: Iterable[Key], name: str) -> Key | None:
    """Return the key that is called so in one word, `ofg-voxelmorph-folder`, also with underscores; or None."""
    wanted = name.replace("_", "-")
    listed = list(known)
    alone = _alone(listed)
    for key in listed:
        methods = (key.method, UNSUPERVISED) if key.method == alone.get(key.network) else (key.method,)
        if any("-".join((method, *key[1:])) == wanted for method in methods):
            return key
    return None


def resolve(
    known: Iterable[Key], method: str, network: str | None = None, data: str | None = None, read: bool = False
) -> Key:
    """Return the key of the recipe that fits, by the defaults where parts of it are not given.

    Args:
        known: all keys, of each method the default network and data first.
        method: its name, or `UNSUPERVISED`; of a method that has variants only, the first of them is meant. Or all
            three in one word, as runs are called: `ofg-voxelmorph-folder`.
        network, data: their names; None takes the first there is.
        read: whether a folder of images is given: then `folder` is the default data set, where there are recipes of it.

    Raises:
        InputError: no recipe is of these; the message says what there is.
    """
    known = list(known)
    if network is None and data is None:
        named = in_full(known, method)
        if named is not None:
            return named
    if method == UNSUPERVISED:
        alone = _alone(known)
        if network is not None and network not in alone:
            told = f"its networks are {', '.join(alone)}{did_you_mean(network, alone)}"
            raise InputError(f"{UNSUPERVISED}: no recipe of --network {network}; {told}")
        method = alone[network or (USUAL if USUAL in alone else next(iter(alone)))]
    every = of_method(known, method)
    if not every:
        called, described = find_method(method)
        why = "it learns by no recipe of its own" if described.register is None else "it needs no training"
        raise InputError(f"{method}: there is no recipe, for {why}; `pullback methods {called}` says how it is used")
    own = [key for key in every if key.method == every[0].method]
    fitting = [key for key in own if network in (None, key.network) and data in (None, key.data)]
    if not fitting:
        raise InputError(_missing(own, network, data))
    if data is None and read:
        fitting = [key for key in fitting if key.data == FOLDER] or fitting
    return fitting[0]


def _alone(known: Iterable[Key]) -> dict[str, str]:
    """Return the networks that learn without labels, and the names of the methods by which they do."""
    listed = list(known)
    plain = {key.network: key.method for key in listed if key.method == plainly(key.network)}
    return {key.network: key.method for key in listed if key.method == key.network and key.network not in plain} | plain


def _missing(own: list[Key], network: str | None, data: str | None) -> str:
    """Say which networks and data a method has instead."""
    networks, sets = ({key.network: None for key in own}, {key.data: None for key in own})
    wanted = " ".join(filter(None, (network and f"--network {network}", data and f"--on {data}")))
    if network is not None and network not in networks:
        told = f"its networks are {', '.join(networks)}{did_you_mean(network, networks)}"
    elif data is not None and data not in sets:
        told = f"its data are {', '.join(sets)}{did_you_mean(data, sets)}"
    else:
        told = "; ".join(f"{name} on {', '.join(k.data for k in own if k.network == name)}" for name in networks)
        told = f"there is {told}"
    return f"{own[0].method}: no recipe of {wanted}; {told}"
