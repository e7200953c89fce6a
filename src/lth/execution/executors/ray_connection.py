"""Joining a Ray cluster, or starting one that only this machine can reach."""

from __future__ import annotations

import logging
import os
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from lth.errors import LthError, UsageError
from lth.execution.executors.local import room as cores
from lth.execution.resources import Resources

TRIES = 4  # of joining a cluster that answers and is not ready
PAUSE_SECONDS = 5.0  # between them
LOOPBACK = "127.0.0.1"
TOKEN = ".ray/auth_token"  # in the home folder: `ray start --head` makes it


def library() -> Any:
    """Ray itself, imported when it is used.

    It reads some variables then. The second, in spite of its name, keeps what is started here on the loopback; with the
    third it shows the token that a cluster asks for, where there is one here.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & {*os.environ} or (Path.home() / TOKEN).exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    return import_module("ray")


def lost() -> tuple[type[Exception], ...]:
    """What is raised where a node, a worker, or the cluster is gone."""
    return library().exceptions.RayError, ConnectionError


def _join(ray: Any, address: str, options: dict[str, Any]) -> None:
    """Join a cluster. One that answers and gives up is asked again: just after its start it is not ready."""
    for _ in range(TRIES - 1):
        try:
            ray.init(address, **options)
            return
        except ConnectionAbortedError:
            time.sleep(PAUSE_SECONDS)
    ray.init(address, **options)


def connect(name: str) -> None:
    ray = library()

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    given = os.environ.get("RAY_ADDRESS")
    try:
        with warnings.catch_warnings():  # what it warns of is said below, in a line
            warnings.simplefilter("ignore")
            _join(ray, name if "://" in name else given or "auto", quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if "://" in name or given:
            said = str(error).strip().splitlines() or [type(error).__name__]
            why = said[-1] if said[0].endswith(":") else said[0]  # a heading tells less than the end of its traceback
            raise UsageError(
                f"no Ray cluster answers at {name if '://' in name else f'RAY_ADDRESS={given}'}: {why}; "
                f"start one there (ray start --head), copy its ~/{TOKEN} here, or give another address"
            ) from None
        ray.init("local", include_dashboard=False, num_cpus=cores(Resources("torch", "cpu", "float32", 1)), **quiet)
        if (listening := ray.nodes()[0]["NodeManagerAddress"]) != LOOPBACK:
            raise LthError(
                f"Ray, imported before lth could tell it to stay on {LOOPBACK}, would listen on {listening}; "
                "set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before Ray is imported, or start a cluster of your own"
            ) from None
