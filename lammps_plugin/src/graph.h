// From atoms, ghosts and neighbour lists of one process to the graph that a potential is evaluated on.
//
// A ghost that is a periodic image of another atom here becomes that atom with a lattice shift, so one process alone has
// no ghosts left. Of several processes each sees its own atoms and, up to `depth` edges away, those of others: then
// everything that its own atoms' energies depend on is there.

#pragma once

#include "backend.h"

namespace mlcalc {

// What LAMMPS knows of atoms: its own first, ghosts after them.
template <class Tag> struct Atoms {
  int n_local, n_all;
  const Tag *tag;
  const int *type;
  double **x;
  const std::vector<int64_t> &number_of_type; // 0: a type that this pair style leaves alone
};

struct Lists {
  const int *count;    // by atom
  int *const *first;   // by atom
  int mask;            // of an entry, what is the atom's index
  double reach;        // Å; pairs farther apart are left out
};

// depth: edges from an own atom to the farthest that counts; 0: this is the only process, and every ghost is an image.
// lists: none for a potential that finds its own neighbours.
template <class Tag> Graph make_graph(const Atoms<Tag> &atoms, const Lists *lists, const Box &box, int depth);

} // namespace mlcalc
