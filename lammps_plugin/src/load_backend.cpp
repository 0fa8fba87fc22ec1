// Finds a Python interpreter for the back-end: the one that drives LAMMPS if there is one, else libpython is loaded.

#include "backend.h"

#include <cstdlib>
#include <dlfcn.h>
#include <stdexcept>

namespace mlcalc {

namespace {

std::string folder_of_plugin()
{
  Dl_info info;
  dladdr(reinterpret_cast<void *>(&make_backend), &info);
  const std::string path = info.dli_fname;
  return path.substr(0, path.rfind('/'));
}

// The interpreter's program, from which Python finds its packages: that of the environment the plugin is installed in.
std::string python_program(const std::string &folder)
{
  if (const char *named = std::getenv("MLCALC_PYTHON")) return named;
  // <prefix>/lib/python3.x/site-packages/mlcalc_lammps
  std::string prefix = folder;
  for (int up = 0; up < 4; up++) prefix = prefix.substr(0, prefix.rfind('/'));
  return prefix + "/bin/python3";
}

void *opened(const std::string &path, int flags, const std::string &remedy)
{
  void *handle = dlopen(path.c_str(), flags);
  if (!handle) throw std::runtime_error("cannot load " + path + " (" + dlerror() + "); " + remedy);
  return handle;
}

} // namespace

std::unique_ptr<Backend> make_backend(const Settings &settings)
{
  if (!dlsym(RTLD_DEFAULT, "Py_IsInitialized"))
    opened(MLCALC_LIBPYTHON, RTLD_NOW | RTLD_GLOBAL,
           "install the shared library of the Python that the plugin was built with, or drive LAMMPS from Python");
  const std::string folder = folder_of_plugin();
  void *library = opened(folder + "/libmlcalc_python.so", RTLD_NOW | RTLD_LOCAL, "install mlcalc-lammps anew");
  using Factory = Backend *(*) (const Settings &, const std::string &);
  auto make = reinterpret_cast<Factory>(dlsym(library, "mlcalc_python_backend"));
  return std::unique_ptr<Backend>(make(settings, python_program(folder)));
}

} // namespace mlcalc
