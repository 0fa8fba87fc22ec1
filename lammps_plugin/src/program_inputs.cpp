#include "program_inputs.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <stdexcept>

namespace mlcalc {

namespace {

constexpr double SHORTEST = 0.2; // Å, as in mlcalc/structure.py

std::string atoms_of(size_t kind) { return "density.atoms." + std::to_string(kind); }

} // namespace

ProgramInputs::ProgramInputs(const Package &package) : package(package)
{
  std::set<std::string> known{"numbers", "centre", "neighbour", "vectors", "species", "own.once", "own.short"};
  for (const char *name : {"edges", "first", "second", "kind"}) known.insert(std::string("triples.") + name);
  for (const char *name : {"near", "neighbour", "place", "slots"}) known.insert(std::string("density.") + name);
  for (size_t kind = 0; kind < package.species.size(); kind++) {
    place_of_species[package.species[kind]] = kind;
    known.insert(atoms_of(kind));
  }
  for (const auto &name : package.tensors) {
    if (!known.count(name))
      throw std::runtime_error("backend native: the programs in " + package.path + " take " + name +
                               ", which it cannot make; leave out backend native");
    if (name != "vectors") index[name];
  }
}

void ProgramInputs::set_graph(const Graph &graph)
{
  index["numbers"] = graph.numbers;
  auto &species = index["species"];
  species.clear();
  for (const int64_t number : graph.numbers) species.push_back(place_of_species.at(number));
  for (size_t kind = 0; kind < package.species.size(); kind++) {
    if (!takes(atoms_of(kind))) continue;
    auto &atoms = index[atoms_of(kind)];
    atoms.clear();
    for (size_t i = 0; i < species.size(); i++)
      if (species[i] == static_cast<int64_t>(kind)) atoms.push_back(i);
  }
}

void ProgramInputs::update(const Graph &graph, const Box &box, const std::vector<double> &positions)
{
  find_edges(graph, box, positions);
  if (takes("triples.edges")) find_triples();
  if (takes("density.near")) find_density();
  find_pairs();
}

void ProgramInputs::find_edges(const Graph &graph, const Box &box, const std::vector<double> &positions)
{
  auto &centre = index["centre"], &neighbour = index["neighbour"];
  centre.clear(), neighbour.clear(), vectors.clear(), squared.clear();
  for (size_t e = 0; e < graph.centre.size(); e++) {
    const double *from = &positions[3 * graph.centre[e]], *to = &positions[3 * graph.neighbour[e]];
    const int64_t *shift = &graph.shift[3 * e];
    double vector[3], length = 0;
    for (int d = 0; d < 3; d++) {
      const double offset = shift[0] * box.cell[d] + shift[1] * box.cell[3 + d] + shift[2] * box.cell[6 + d];
      vector[d] = to[d] - from[d] + offset;
      length += vector[d] * vector[d];
    }
    if (!(length < package.cutoff * package.cutoff)) continue;
    if (length < SHORTEST * SHORTEST)
      throw std::runtime_error("structure: atoms " + std::to_string(graph.centre[e]) + " and " +
                               std::to_string(graph.neighbour[e]) + " are " + std::to_string(std::sqrt(length)) +
                               " Å apart; atoms nearer than 0.2 Å are taken for an error: remove one of them or check "
                               "the cell");
    centre.push_back(graph.centre[e]);
    neighbour.push_back(graph.neighbour[e]);
    vectors.insert(vectors.end(), vector, vector + 3);
    squared.push_back(length);
  }
}

// All pairs of short edges with one centre, the species of whose ends ascend.
void ProgramInputs::find_triples()
{
  const auto &centre = index["centre"], &neighbour = index["neighbour"], &species = index["species"];
  auto &edges = index["triples.edges"], &first = index["triples.first"], &second = index["triples.second"],
       &kind = index["triples.kind"];
  edges.clear(), first.clear(), second.clear(), kind.clear();
  const int64_t n_species = package.species.size();
  for (size_t e = 0; e < centre.size(); e++)
    if (squared[e] < package.three_body_cutoff * package.three_body_cutoff) edges.push_back(e);
  for (size_t j = 0; j < edges.size(); j++)
    for (size_t k = j + 1; k < edges.size() && centre[edges[k]] == centre[edges[j]]; k++) {
      size_t a = j, b = k;
      if (species[neighbour[edges[a]]] > species[neighbour[edges[b]]]) std::swap(a, b);
      first.push_back(a);
      second.push_back(b);
      const int64_t both = species[centre[edges[a]]] * n_species + species[neighbour[edges[a]]];
      kind.push_back(both * n_species + species[neighbour[edges[b]]]);
    }
}

// Near edges, and where they stand when each atom has as many slots as the one with the most.
void ProgramInputs::find_density()
{
  const auto &centre = index["centre"], &neighbour = index["neighbour"];
  auto &near = index["density.near"], &other = index["density.neighbour"], &place = index["density.place"],
       &slots = index["density.slots"];
  near.clear(), other.clear(), place.clear(), slots.clear();
  std::vector<int64_t> counts(index["numbers"].size(), 0);
  for (size_t e = 0; e < centre.size(); e++)
    if (squared[e] < package.density_cutoff * package.density_cutoff) {
      near.push_back(e);
      other.push_back(neighbour[e]);
      place.push_back(counts[centre[e]]++);
    }
  const int64_t most = counts.empty() ? 0 : *std::max_element(counts.begin(), counts.end());
  for (size_t k = 0; k < near.size(); k++) place[k] += centre[near[k]] * most;
  for (int64_t slot = 0; slot < most; slot++) slots.push_back(slot);
}

// What direct heads read: every pair once, and short edges.
void ProgramInputs::find_pairs()
{
  const auto &centre = index["centre"], &neighbour = index["neighbour"];
  std::vector<int64_t> once, near;
  for (size_t e = 0; e < centre.size(); e++) {
    if (centre[e] < neighbour[e]) once.push_back(e);
    if (squared[e] < package.short_cutoff * package.short_cutoff) near.push_back(e);
  }
  if (takes("own.once")) index["own.once"] = std::move(once);
  if (takes("own.short")) index["own.short"] = std::move(near);
}

} // namespace mlcalc
