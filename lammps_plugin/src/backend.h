// What evaluates a potential, seen from a pair style. Neither LAMMPS types nor those of torch or Python are known here.
//
// Units are eV and Å. A back-end that fails throws std::runtime_error with a message of one line.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace mlcalc {

// What is asked of an evaluation; the bits of mlcalc.evaluation.Wanted, by the same names.
enum Wanted : int { ENERGY = 1, CONSERVATIVE = 2, DIRECT = 4, VIRIAL = 8 };
constexpr int N_WANTED = 4;
constexpr int JOINT = ENERGY | CONSERVATIVE | DIRECT;

// The arguments of pair_style mlcalc.
struct Settings {
  std::string potential;
  bool native = false;            // compiled programs without Python
  std::string fast;               // another potential for the inner steps; empty for none
  std::string device = "cpu";
  std::string dtype;              // float32 or float64; empty for the potential's own
  int threads = 0;                // 0: those of the program, or of the Python, that is in charge
  int host_threads = 1;           // of the program
};

// What a potential says of itself.
struct Model {
  std::string name;
  double cutoff = 0;    // 0: it finds its own neighbours
  int energy_depth = 0; // edges between an atom and the farthest that its energy depends on; 0: not known
  int direct_depth = 0; // the same of direct forces
  int provides = 0;     // Wanted bits
};

// Atoms and edges, valid until LAMMPS builds its neighbour lists anew.
struct Graph {
  int n_counted = 0;                      // the first atoms: those whose energies and direct forces count
  std::vector<int64_t> numbers;           // atomic numbers
  std::vector<int64_t> centre, neighbour; // sorted by centre, neighbour, shift; every edge both ways
  std::vector<int64_t> shift;             // three for each edge, in lattice vectors
  std::vector<int> atom;                  // the index in LAMMPS of each atom
};

struct Box {
  double cell[9]; // rows are lattice vectors
  bool periodic[3];
};

// What the counted atoms contribute; sizes are those of the graph. What was not wanted is left as it was.
struct Contribution {
  double energy = 0;
  std::vector<double> energies;             // eV
  std::vector<double> conservative, direct; // eV/Å, three for each atom
  double virial[9];                         // eV, −dE/dstrain
  std::vector<double> virials;              // eV, nine for each atom
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual Model model() = 0;
  // Refuses elements, or a box, that the potential does not know.
  virtual void check(const std::vector<int64_t> &numbers, const Box &box) = 0;
  // Everything is kept by address, and must live as long as the graph is used. Box and positions are read, and the
  // contribution is written, by each evaluation.
  virtual void set_graph(const Graph &graph, const Box &box, const std::vector<double> &positions,
                         Contribution &contribution) = 0;
  virtual void evaluate(int wanted, bool by_atom) = 0;
};

// Loads the back-end, with the interpreter it needs.
std::unique_ptr<Backend> make_backend(const Settings &settings);

} // namespace mlcalc
