// From the edges of a graph to what a compiled program takes. It is the index work of mlcalc/potentials/network.py,
// painn.py, three_body_baseline.py and density_network.py, in the same order. Plain C++.

#pragma once

#include "backend.h"
#include "package.h"

#include <map>

namespace mlcalc {

class ProgramInputs {
 public:
  // Throws std::runtime_error if a program takes what is not known here.
  explicit ProgramInputs(const Package &package);

  // What does not change with positions.
  void set_graph(const Graph &graph);
  // Everything else. Throws if atoms are on top of each other.
  void update(const Graph &graph, const Box &box, const std::vector<double> &positions);

  std::vector<double> vectors;                       // three for each edge within the cutoff, Å
  std::map<std::string, std::vector<int64_t>> index; // the other tensors, by the names in the package

 private:
  const Package &package;
  std::map<int64_t, int64_t> place_of_species; // by atomic number
  std::vector<double> squared;                 // of edges, Å²

  bool takes(const std::string &name) const { return index.count(name) > 0; }
  void find_edges(const Graph &graph, const Box &box, const std::vector<double> &positions);
  void find_triples();
  void find_density();
  void find_pairs();
};

} // namespace mlcalc
