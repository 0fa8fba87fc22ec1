"""Other people's packages: imported when they are asked for, and kept from changing the state of torch."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from mlcalc.errors import UsageError


def foreign_module(name: str, extra: str) -> Any:
    """A module of another package, imported without what its import does to torch.

    Raises
    ------
    UsageError
        if it cannot be imported, with the extra of mlcalc that installs it.
    """
    try:
        with undisturbed():
            return importlib.import_module(name)
    except Exception as error:  # a package may refuse its surroundings with any error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"potential: {extra} cannot be imported ({reason}); pip install 'mlcalc[{extra}]'") from error


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, torch is as after its import; afterwards it is as before, whatever was set inside. Words are dropped.

    Covered are the default dtype and device, determinism, precision of float32 products, grad mode, random numbers,
    the environment's variables (mace-torch makes torch.load read any pickle, for the whole process), and torch's own
    functions (torch_geometric 2.8 replaces index_select, after which metatensor cannot be imported any more).
    """
    environment = dict(os.environ)
    functions = {name: one for name, one in vars(torch).items() if inspect.isroutine(one)}
    dtype, where, grad = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
    strict = torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    precision = torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn
    flags = {key: getattr(cudnn, key) for key in ("deterministic", "benchmark")}
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.set_default_dtype(torch.float32)
            torch.set_grad_enabled(True)
            if where.type != "cpu":
                torch.set_default_device("cpu")
            yield
        finally:
            for key in os.environ.keys() - environment.keys():
                del os.environ[key]
            os.environ.update(environment)
            vars(torch).update(functions)
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(grad)
            torch.use_deterministic_algorithms(strict, warn_only=lenient)
            torch.set_float32_matmul_precision(precision)
            for key, value in flags.items():
                setattr(cudnn, key, value)
            if torch.get_default_device() != where:
                torch.set_default_device(where)
