#include "graph.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <unordered_map>

namespace mlcalc {

namespace {

// A neighbour and the shift to it in one number, whose order is that of neighbour, then the shift's components.
constexpr int64_t SPAN = 1 << 10, HALF = SPAN / 2, ALL = SPAN * SPAN * SPAN;

int64_t packed(const int *s) { return ((s[0] + HALF) * SPAN + (s[1] + HALF)) * SPAN + (s[2] + HALF); }

void invert(const double *m, double *inverse)
{
  const double c0 = m[4] * m[8] - m[5] * m[7], c1 = m[5] * m[6] - m[3] * m[8], c2 = m[3] * m[7] - m[4] * m[6];
  const double volume = m[0] * c0 + m[1] * c1 + m[2] * c2;
  const double adjugate[9] = {c0, m[2] * m[7] - m[1] * m[8], m[1] * m[5] - m[2] * m[4],
                              c1, m[0] * m[8] - m[2] * m[6], m[2] * m[3] - m[0] * m[5],
                              c2, m[1] * m[6] - m[0] * m[7], m[0] * m[4] - m[1] * m[3]};
  for (int k = 0; k < 9; k++) inverse[k] = adjugate[k] / volume;
}

template <class Tag> class Builder {
 public:
  Builder(const Atoms<Tag> &atoms, const Lists *lists, const Box &box, int depth) :
      atoms(atoms), lists(lists), box(box), alone(depth == 0), depth(std::max(depth, 1)), original(atoms.n_all, -1),
      hop(atoms.n_all, -1)
  {
    invert(box.cell, inverse);
  }

  Graph build()
  {
    find_atoms();
    Graph graph;
    std::vector<int> node(atoms.n_all, -1);
    number(graph, node);
    if (lists) connect(graph, node);
    return graph;
  }

 private:
  const Atoms<Tag> &atoms;
  const Lists *lists;
  const Box &box;
  const bool alone;
  const int depth;
  double inverse[9];
  std::unordered_map<Tag, int> first_seen;
  std::vector<int> original; // of every atom and ghost met: the one that stands for all its images
  std::vector<int> hop;      // of originals: edges to the nearest own atom
  std::vector<int> found;    // originals: own atoms, then by hops

  bool known(int i) const { return atoms.number_of_type[atoms.type[i]] > 0; }

  template <class Visit> void each_neighbour(int i, Visit visit) const
  {
    const double *xi = atoms.x[i];
    for (int k = 0; k < lists->count[i]; k++) {
      const int j = lists->first[i][k] & lists->mask;
      const double *xj = atoms.x[j];
      const double dx = xj[0] - xi[0], dy = xj[1] - xi[1], dz = xj[2] - xi[2];
      if (dx * dx + dy * dy + dz * dz < lists->reach * lists->reach && known(j)) visit(j);
    }
  }

  // Own atoms, then the others as far as `depth` edges, each under the image that is met first.
  void find_atoms()
  {
    first_seen.reserve(2 * atoms.n_local);
    for (int i = 0; i < atoms.n_local; i++)
      if (known(i)) meet(i, 0);
    if (!lists || alone) return;
    for (size_t k = 0; k < found.size() && hop[found[k]] < depth; k++) {
      const int i = found[k], next = hop[i] + 1;
      each_neighbour(i, [&](int j) { meet(j, next); });
    }
  }

  void meet(int j, int hops)
  {
    if (original[j] >= 0) return;
    const auto [place, is_new] = first_seen.emplace(atoms.tag[j], j);
    original[j] = place->second;
    if (!is_new) return;
    hop[j] = hops;
    found.push_back(j);
  }

  // Own atoms come first, and in the order of their tags: a potential sees the same order at all times.
  void number(Graph &graph, std::vector<int> &node)
  {
    graph.n_counted = std::count_if(found.begin(), found.end(), [&](int i) { return hop[i] == 0; });
    auto by_tag = [&](int i, int j) { return atoms.tag[i] < atoms.tag[j]; };
    std::sort(found.begin(), found.begin() + graph.n_counted, by_tag);
    std::sort(found.begin() + graph.n_counted, found.end(), by_tag);
    graph.atom = found;
    for (size_t k = 0; k < found.size(); k++) {
      node[found[k]] = k;
      graph.numbers.push_back(atoms.number_of_type[atoms.type[found[k]]]);
    }
  }

  // How many lattice vectors lie between an image and the atom that stands for it.
  void shift_of(int j, int *shift) const
  {
    const double *image = atoms.x[j], *here = atoms.x[original[j]];
    const double d[3] = {image[0] - here[0], image[1] - here[1], image[2] - here[2]};
    for (int k = 0; k < 3; k++) {
      const double s = d[0] * inverse[k] + d[1] * inverse[3 + k] + d[2] * inverse[6 + k];
      shift[k] = box.periodic[k] ? static_cast<int>(std::lround(s)) : 0;
      if (std::abs(shift[k]) >= HALF) throw std::runtime_error("a cell is over 500 times smaller than the cutoff");
    }
  }

  void connect(Graph &graph, const std::vector<int> &node)
  {
    std::vector<int64_t> there(atoms.n_all, -1), back(atoms.n_all); // what stands for an edge to an image, and from it
    std::vector<std::vector<int64_t>> edges(found.size());
    size_t n_edges = 0;
    for (const int i : found) {
      if (hop[i] >= depth) continue;
      const int64_t here = node[i] * ALL;
      auto &row = edges[node[i]];
      row.reserve(row.size() + lists->count[i]);
      each_neighbour(i, [&](int j) {
        if (there[j] < 0) {
          if (original[j] < 0) original[j] = first_seen.at(atoms.tag[j]);
          int s[3];
          shift_of(j, s);
          const int minus[3] = {-s[0], -s[1], -s[2]};
          there[j] = node[original[j]] * ALL + packed(s), back[j] = packed(minus);
        }
        row.push_back(there[j]);
        n_edges++;
        // the lists of the outermost atoms are not whole, but every edge must be there both ways
        if (hop[original[j]] >= depth) edges[node[original[j]]].push_back(here + back[j]), n_edges++;
      });
    }
    graph.centre.resize(n_edges), graph.neighbour.resize(n_edges), graph.shift.resize(3 * n_edges);
    size_t place = 0;
    for (size_t centre = 0; centre < edges.size(); centre++) {
      std::sort(edges[centre].begin(), edges[centre].end());
      for (const int64_t edge : edges[centre]) {
        graph.centre[place] = centre;
        graph.neighbour[place] = edge / ALL;
        graph.shift[3 * place] = edge / (SPAN * SPAN) % SPAN - HALF;
        graph.shift[3 * place + 1] = edge / SPAN % SPAN - HALF;
        graph.shift[3 * place + 2] = edge % SPAN - HALF;
        place++;
      }
    }
  }
};

} // namespace

template <class Tag> Graph make_graph(const Atoms<Tag> &atoms, const Lists *lists, const Box &box, int depth)
{
  return Builder<Tag>(atoms, lists, box, depth).build();
}

template Graph make_graph(const Atoms<int32_t> &, const Lists *, const Box &, int);
template Graph make_graph(const Atoms<int64_t> &, const Lists *, const Box &, int);

} // namespace mlcalc
