// Opens the library of a back-end. For the one in Python it finds an interpreter: the one that drives LAMMPS if there is
// one, else libpython is loaded.

#include "backend.h"

#include <climits>
#include <cstdlib>
#include <dlfcn.h>
#include <stdexcept>
#include <unistd.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

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

template <class Function> Function function_in(void *library, const char *name)
{
  return reinterpret_cast<Function>(dlsym(library, name));
}

std::unique_ptr<Backend> make_python_backend(const Settings &settings)
{
  if (!dlsym(RTLD_DEFAULT, "Py_IsInitialized"))
    opened(MLCALC_LIBPYTHON, RTLD_NOW | RTLD_GLOBAL,
           "install the shared library of the Python that the plugin was built with, or drive LAMMPS from Python");
  const std::string folder = folder_of_plugin();
  void *library = opened(folder + "/libmlcalc_python.so", RTLD_NOW | RTLD_LOCAL, "install mlcalc-lammps anew");
  using Factory = Backend *(*) (const Settings &, const std::string &);
  const auto make = function_in<Factory>(library, "mlcalc_python_backend");
  return std::unique_ptr<Backend>(make(settings, python_program(folder)));
}

// As mlcalc/memory.py: fresh pages for every evaluation's arrays would cost more than they are worth.
void keep_freed_memory()
{
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, INT_MAX);
  mallopt(M_TOP_PAD, 256 << 20);
#endif
}

std::unique_ptr<Backend> make_native_backend(const Settings &settings)
{
  const std::string path = folder_of_plugin() + "/libmlcalc_native.so", &file = settings.potential;
  const char *anew = "install the plugin again where torch is installed (pip install --force-reinstall --no-deps "
                     "./lammps_plugin), or leave out backend native";
  if (file.size() < 4 || file.substr(file.size() - 4) != ".pt2")
    throw std::runtime_error("backend native runs compiled packages (.pt2), got " + file +
                             "; make one with mlcalc export, or leave out backend native");
  if (access(path.c_str(), F_OK) != 0)
    throw std::runtime_error(std::string("the plugin was built without torch, and so without backend native; ") + anew);
  void *library = opened(path, RTLD_NOW | RTLD_LOCAL, anew);
  Settings known = settings;
  if (!dlsym(RTLD_DEFAULT, "Py_IsInitialized")) { // the process is a simulation and nothing else
    keep_freed_memory();
    if (known.threads == 0) known.threads = known.host_threads;
  }
  using Factory = Backend *(*) (const Settings &);
  return std::unique_ptr<Backend>(function_in<Factory>(library, "mlcalc_native_backend")(known));
}

} // namespace

std::unique_ptr<Backend> make_backend(const Settings &settings)
{
  return settings.native ? make_native_backend(settings) : make_python_backend(settings);
}

} // namespace mlcalc
