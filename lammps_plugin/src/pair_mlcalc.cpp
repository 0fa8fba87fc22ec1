#include "pair_mlcalc.h"

#include "graph.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "error.h"
#include "force.h"
#include "library.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"

#include <algorithm>
#include <cmath>
#include <cstring>

using namespace LAMMPS_NS;
using mlcalc::CONSERVATIVE;
using mlcalc::DIRECT;
using mlcalc::ENERGY;
using mlcalc::JOINT;
using mlcalc::VIRIAL;

Pair *new_pair_mlcalc(LAMMPS *lmp) { return new PairMlcalc(lmp); }

PairMlcalc::PairMlcalc(LAMMPS *lmp) : Pair(lmp)
{
  single_enable = 0;
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  no_virial_fdotr_compute = 1;
  respa_enable = 1;
  unit_convert_flag = 0;
  // how often the potential was evaluated, for `compute pair`: joint, direct alone, conservative alone
  nextra = 3;
  pvector = new double[nextra]();
}

PairMlcalc::~PairMlcalc()
{
  delete[] pvector;
  if (!allocated) return;
  memory->destroy(setflag);
  memory->destroy(cutsq);
  if (cutghost) memory->destroy(cutghost);
}

// ---------------------------------------------------------------------- commands

void PairMlcalc::settings(int narg, char **arg)
{
  if (narg < 1 || narg % 2 == 0)
    error->all(FLERR, "pair_style mlcalc: write a potential's name or file, then pairs of keyword and value "
                      "(device, dtype, threads, fast, forces, backend)");
  asked = mlcalc::Settings();
  asked.potential = arg[0];
  asked.host_threads = comm->nthreads;
  forces = Forces::CONSERVATIVE;
  for (int k = 1; k < narg; k += 2) keyword(arg[k], arg[k + 1]);

  if (strcmp(update->unit_style, "metal") != 0 && strcmp(update->unit_style, "real") != 0)
    error->all(FLERR, "pair_style mlcalc: units are {}; write units metal (eV) or units real (kcal/mol)",
               update->unit_style);
  const bool real = strcmp(update->unit_style, "real") == 0;
  energy_unit = real ? utils::get_conversion_factor(utils::ENERGY, utils::METAL2REAL) : 1.0;

  if (asked.native && comm->nprocs > 1)
    error->all(FLERR, "pair_style mlcalc: backend native runs in one process, here are {}; start LAMMPS without mpirun, "
                      "with threads N, or leave out backend native", comm->nprocs);

  std::string problem;
  try {
    backend = mlcalc::make_backend(asked);
    model = backend->model();
  } catch (const std::exception &failure) {
    problem = failure.what();
  }
  agree(problem);
  check_potential();
}

void PairMlcalc::keyword(const std::string &word, const std::string &value)
{
  if (word == "device") asked.device = value;
  else if (word == "fast") asked.fast = value;
  else if (word == "dtype" && (value == "float32" || value == "float64")) asked.dtype = value;
  else if (word == "threads" && utils::is_integer(value) && value.size() < 6 && std::stoi(value) > 0)
    asked.threads = std::stoi(value);
  else if (word == "forces" && value == "conservative") forces = Forces::CONSERVATIVE;
  else if (word == "forces" && value == "direct") forces = Forces::DIRECT;
  else if (word == "forces" && value == "inner") forces = Forces::INNER;
  else if (word == "forces" && value == "outer") forces = Forces::OUTER;
  else if (word == "backend" && (value == "python" || value == "native")) asked.native = value == "native";
  else
    error->all(FLERR, "pair_style mlcalc: got {} {}; choose from device cpu|cuda|…, dtype float32|float64, threads N "
                      "(1 or more), fast POTENTIAL, forces conservative|direct|inner|outer, backend python|native",
               word, value);
}

// What no run with this potential could do without.
void PairMlcalc::check_potential()
{
  const bool slow = forces == Forces::CONSERVATIVE || forces == Forces::OUTER;
  if (slow && !(model.provides & CONSERVATIVE))
    error->all(FLERR, "pair_style mlcalc: {} has no conservative forces; write forces direct", model.name);
  if (forces != Forces::CONSERVATIVE && !(model.provides & DIRECT))
    error->all(FLERR, "pair_style mlcalc: {} has no direct forces; write forces conservative, or name another "
                      "potential for the inner steps: fast POTENTIAL", model.name);
}

void PairMlcalc::coeff(int narg, char **arg)
{
  if (!allocated) allocate();
  if (narg != 2 + atom->ntypes)
    error->all(FLERR, "pair_coeff of mlcalc: got {} elements for {} atom types; write pair_coeff * * and the element of "
                      "each type, such as H O (NULL leaves a type alone)", std::max(0, narg - 2), atom->ntypes);
  map_element2type(narg - 2, arg + 2);
  number_of_type.assign(atom->ntypes + 1, 0);
  for (int type = 1; type <= atom->ntypes; type++) {
    if (map[type] < 0) continue;
    static const std::vector<std::string> SYMBOLS = utils::split_words(
        "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr "
        "Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir "
        "Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl "
        "Mc Lv Ts Og");
    const auto place = std::find(SYMBOLS.begin(), SYMBOLS.end(), elements[map[type]]);
    if (place == SYMBOLS.end())
      error->all(FLERR, "pair_coeff of mlcalc: got element {}; write chemical symbols such as H, O",
                 elements[map[type]]);
    number_of_type[type] = place - SYMBOLS.begin() + 1;
  }
}

void PairMlcalc::allocate()
{
  allocated = 1;
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  memory->create(cutghost, n, n, "pair:cutghost");
  for (int i = 0; i < n; i++) std::fill_n(setflag[i], n, 0);
  map = new int[n];
}

// ---------------------------------------------------------------------- before a run

void PairMlcalc::init_style()
{
  refuse_settings_that_drop_pairs();
  const bool alone = comm->nprocs == 1;
  if (!alone && model.energy_depth == 0)
    error->all(FLERR, "pair_style mlcalc: {} does not say how far its atoms see, or finds its own neighbours, and runs "
                      "in one process only; start LAMMPS without mpirun, with threads N or on a GPU", model.name);
  if (in_respa() && forces == Forces::CONSERVATIVE && !(model.provides & DIRECT))
    error->all(FLERR, "pair_style mlcalc: {} has no direct forces for run_style respa; name another potential for the "
                      "inner steps (fast POTENTIAL) or write run_style verlet", model.name);

  std::string problem;
  std::vector<int64_t> numbers;
  for (const int64_t number : number_of_type)
    if (number > 0) numbers.push_back(number);
  try {
    read_box();
    backend->check(numbers, box);
  } catch (const std::exception &failure) {
    problem = failure.what();
  }
  agree(problem);

  choose_depth();
  ghostneigh = alone ? 0 : 1;
  if (model.cutoff > 0)
    neighbor->add_request(this, alone ? NeighConst::REQ_FULL : NeighConst::REQ_FULL | NeighConst::REQ_GHOST);
  // an edge may be as long as cutoff and skin before the lists are built anew
  if (!alone) comm->cutghostuser = std::max(comm->cutghostuser, depth * (model.cutoff + neighbor->skin));
  n_inner = inner_steps_of_run_style();
  n_since_outer = joint_wanted = 0;
  stale = true;
}

void PairMlcalc::refuse_settings_that_drop_pairs()
{
  if (domain->dimension != 3) error->all(FLERR, "pair_style mlcalc: the box has two dimensions; write dimension 3");
  if (!atom->tag_enable) error->all(FLERR, "pair_style mlcalc: atoms have no IDs; write atom_modify id yes");
  if (force->newton_pair == 0)
    error->all(FLERR, "pair_style mlcalc: newton is off, and forces on ghost atoms would be lost; write newton on");
  if (atom->molecular != Atom::ATOMIC)
    for (int k = 1; k < 4; k++)
      if (force->special_lj[k] == 0 && force->special_coul[k] == 0)
        error->all(FLERR, "pair_style mlcalc: special_bonds would leave bonded pairs out of the neighbour lists; write "
                          "special_bonds lj/coul 1 1 1 (or a weight just above 0 for the sake of other styles)");
  if (neighbor->nex_type || neighbor->nex_group || neighbor->nex_mol || neighbor->includegroup)
    error->all(FLERR, "pair_style mlcalc: neigh_modify exclude or include leaves pairs out; remove it");
  if (comm->nprocs > 1 && comm->mode != Comm::SINGLE)
    error->all(FLERR, "pair_style mlcalc: comm_modify mode is not single; write comm_modify mode single");
}

bool PairMlcalc::in_respa() const
{
  return update->whichflag == 1 && utils::strmatch(update->integrate_style, "^respa");
}

// A direct force on an own atom needs whole features of its neighbours, and so reaches one edge farther than an energy.
void PairMlcalc::choose_depth()
{
  depth = 0;
  if (comm->nprocs == 1) return;
  depth = model.energy_depth;
  if (forces != Forces::CONSERVATIVE || in_respa()) depth = std::max(depth, model.direct_depth);
}

// 0 if it cannot be told before a first outer step: more than two levels.
int PairMlcalc::inner_steps_of_run_style() const
{
  if (!in_respa()) return 0;
  const auto *levels = static_cast<int *>(lammps_extract_global(lmp, "respa_levels"));
  const auto *step = static_cast<double *>(lammps_extract_global(lmp, "respa_dt"));
  if (!levels || !step || *levels != 2) return 0;
  return static_cast<int>(std::lround(step[1] / step[0]));
}

double PairMlcalc::init_one(int i, int j)
{
  // LAMMPS wants some reach, also where the potential finds its own neighbours
  const double cut = model.cutoff > 0 ? model.cutoff : 1.0;
  cutghost[i][j] = cutghost[j][i] = cut;
  return cut;
}

void PairMlcalc::init_list(int, NeighList *ptr)
{
  list = ptr;
  stale = true;
}

// ---------------------------------------------------------------------- forces

void PairMlcalc::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  const int tallied = forces == Forces::INNER ? 0 : wanted_for_tally(eflag, vflag);
  const bool by_atom = tallied && (eflag_atom || vflag_atom);
  switch (forces) {
    case Forces::CONSERVATIVE:
      evaluate(CONSERVATIVE | tallied, by_atom);
      add_forces(1, 0);
      break;
    case Forces::DIRECT:
    case Forces::INNER:
      evaluate(DIRECT | tallied, by_atom);
      add_forces(0, 1);
      break;
    case Forces::OUTER:
      evaluate(JOINT | tallied, by_atom);
      add_forces(1, -1);
      break;
  }
  if (tallied) tally();
}

// r-RESPA calls the inner force n times, then the outer one at the positions of the last of them. So the last inner
// call makes the one evaluation that gives both forces, and keeps what the outer call will add.
void PairMlcalc::compute_inner()
{
  n_since_outer++;
  joint_wanted = 0;
  if (update->setupflag || n_since_outer == n_inner) {
    const bool virial = update->vflag_global == update->ntimestep || update->vflag_atom == update->ntimestep;
    joint_by_atom = update->eflag_atom == update->ntimestep || update->vflag_atom == update->ntimestep;
    joint_wanted = (JOINT | (virial ? VIRIAL : 0)) & (model.provides | JOINT);
    evaluate(joint_wanted, joint_by_atom);
  } else
    evaluate(DIRECT, false);
  add_forces(0, 1);
}

void PairMlcalc::compute_outer(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  const int wanted = JOINT | wanted_for_tally(eflag, vflag);
  const bool by_atom = eflag_atom || vflag_atom;
  const bool enough = (joint_wanted & wanted) == wanted && (joint_by_atom || !by_atom);
  if (!enough) evaluate(wanted, by_atom);
  if (!update->setupflag) n_inner = n_since_outer;
  n_since_outer = joint_wanted = 0;
  add_forces(1, -1);
  tally();
}

int PairMlcalc::wanted_for_tally(int eflag, int vflag)
{
  const int wanted = eflag ? ENERGY : 0;
  if (!vflag || model.provides & VIRIAL) return vflag ? wanted | VIRIAL : wanted;
  if (domain->box_change)
    error->all(FLERR, "pair_style mlcalc: {} has no virial, so the box cannot follow a pressure; keep the box as it is",
               model.name);
  if (comm->me == 0 && !told_no_virial)
    error->warning(FLERR, "pair_style mlcalc: {} has no virial; pressure and stress lack its part", model.name);
  told_no_virial = true;
  return wanted;
}

void PairMlcalc::read_box()
{
  const double *h = domain->h; // xx, yy, zz, yz, xz, xy
  box = {{h[0], 0, 0, h[5], h[1], 0, h[4], h[3], h[2]}, {}};
  for (int k = 0; k < 3; k++) box.periodic[k] = domain->periodicity[k];
}

void PairMlcalc::refresh_graph()
{
  // setups build lists without counting
  if (!stale && !update->setupflag && neighbor->ncalls == n_builds) return;
  const mlcalc::Atoms<tagint> atoms{atom->nlocal, atom->nlocal + atom->nghost, atom->tag, atom->type, atom->x,
                                    number_of_type};
  if (model.cutoff > 0) {
    const mlcalc::Lists lists{list->numneigh, list->firstneigh, NEIGHMASK, model.cutoff + neighbor->skin};
    graph = mlcalc::make_graph(atoms, &lists, box, depth);
  } else
    graph = mlcalc::make_graph(atoms, nullptr, box, depth);
  const size_t n = graph.atom.size();
  positions.resize(3 * n);
  found.energies.assign(n, 0);
  found.conservative.assign(3 * n, 0);
  found.direct.assign(3 * n, 0);
  found.virials.assign(9 * n, 0);
  if (graph.n_counted > 0) backend->set_graph(graph, box, positions, found);
  n_builds = neighbor->ncalls;
  stale = false;
}

void PairMlcalc::evaluate(int wanted, bool by_atom)
{
  if (comm->me == 0) pvector[(wanted & JOINT) == JOINT ? 0 : wanted & CONSERVATIVE ? 2 : 1]++;
  std::string problem;
  try {
    read_box();
    refresh_graph();
    for (size_t k = 0; k < graph.atom.size(); k++) {
      const double *x = atom->x[graph.atom[k]];
      for (int d = 0; d < 3; d++) {
        if (!std::isfinite(x[d]))
          throw std::runtime_error("the position of an atom is not finite; the run has diverged: shorten the timestep or "
                                   "relax the structure first");
        positions[3 * k + d] = x[d];
      }
    }
    if (graph.n_counted > 0) {
      backend->evaluate(wanted, by_atom);
      if (wanted & CONSERVATIVE) check_finite(found.conservative);
      if (wanted & DIRECT) check_finite(found.direct);
    }
  } catch (const std::exception &failure) {
    problem = failure.what();
  }
  agree(problem);
}

void PairMlcalc::check_finite(const std::vector<double> &values) const
{
  for (size_t k = 0; k < values.size(); k++)
    if (!std::isfinite(values[k]))
      throw std::runtime_error("the force on atom " + std::to_string(atom->tag[graph.atom[k / 3]]) +
                               " is not finite; shorten the timestep or relax the structure first");
}

// An error of one process is an error of all: none of them may wait for the others for ever.
void PairMlcalc::agree(const std::string &error_here)
{
  if (comm->nprocs == 1) {
    if (!error_here.empty()) error->all(FLERR, "pair_style mlcalc: " + error_here);
    return;
  }
  int mine = error_here.empty() ? comm->nprocs : comm->me, first;
  MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, world);
  if (first == comm->nprocs) return;
  int length = error_here.size();
  MPI_Bcast(&length, 1, MPI_INT, first, world);
  std::string text = error_here;
  text.resize(length);
  MPI_Bcast(&text[0], length, MPI_CHAR, first, world);
  error->all(FLERR, "pair_style mlcalc: " + text);
}

void PairMlcalc::add_forces(double conservative, double direct)
{
  double **f = atom->f;
  if (graph.n_counted == 0) return;
  for (size_t k = 0; k < graph.atom.size(); k++)
    for (int d = 0; d < 3; d++) {
      double force = 0;
      if (conservative != 0) force += conservative * found.conservative[3 * k + d];
      if (direct != 0) force += direct * found.direct[3 * k + d];
      f[graph.atom[k]][d] += energy_unit * force;
    }
}

void PairMlcalc::tally()
{
  if (graph.n_counted == 0) return;
  constexpr int PLACE[6] = {0, 4, 8, 1, 2, 5}; // xx, yy, zz, xy, xz, yz
  const bool has_virial = model.provides & VIRIAL;
  if (eflag_global) eng_vdwl += energy_unit * found.energy;
  if (vflag_global && has_virial)
    for (int c = 0; c < 6; c++) virial[c] += energy_unit * found.virial[PLACE[c]];
  for (size_t k = 0; k < graph.atom.size(); k++) {
    const int i = graph.atom[k];
    if (eflag_atom) eatom[i] += energy_unit * found.energies[k];
    if (vflag_atom && has_virial)
      for (int c = 0; c < 6; c++) vatom[i][c] += energy_unit * found.virials[9 * k + PLACE[c]];
  }
}

double PairMlcalc::memory_usage()
{
  const double n_edges = graph.centre.size(), n_atoms = graph.atom.size();
  return Pair::memory_usage() + 40 * n_edges + 172 * n_atoms;
}
