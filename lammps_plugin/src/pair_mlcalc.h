// pair_style mlcalc: any potential that mlcalc can load.

#pragma once

#include "backend.h"

#include "pair.h"

namespace LAMMPS_NS {

class PairMlcalc : public Pair {
 public:
  PairMlcalc(class LAMMPS *);
  ~PairMlcalc() override;

  void settings(int, char **) override;
  void coeff(int, char **) override;
  void init_style() override;
  double init_one(int, int) override;
  void init_list(int, class NeighList *) override;

  void compute(int, int) override;
  void compute_inner() override;
  void compute_outer(int, int) override;
  double memory_usage() override;

 private:
  // Which force this style gives. INNER and OUTER are for hybrid/overlay, where r-RESPA calls styles one by one.
  enum class Forces { CONSERVATIVE, DIRECT, INNER, OUTER };

  mlcalc::Settings asked;
  Forces forces = Forces::CONSERVATIVE;
  std::unique_ptr<mlcalc::Backend> backend;
  mlcalc::Model model;
  std::vector<int64_t> number_of_type; // atomic numbers, 0 where the style leaves a type alone
  double energy_unit = 1;              // LAMMPS's unit of energy in eV, inverted

  // valid until the neighbour lists are built anew
  mlcalc::Graph graph;
  mlcalc::Box box;
  std::vector<double> positions;
  mlcalc::Contribution found;
  int depth = 0;         // edges from an own atom to the farthest that counts; 0 for one process alone
  bool stale = true;     // the graph is of another list
  bigint n_builds = -1;  // of the neighbour lists, when the graph was made

  // multiple time stepping
  int n_inner = 0;       // inner steps in an outer one; 0 while it is not known
  int n_since_outer = 0;
  int joint_wanted = 0;  // what the last inner evaluation found beyond direct forces; 0: nothing
  bool joint_by_atom = false;
  bool told_no_virial = false;

  void allocate();
  void keyword(const std::string &, const std::string &);
  void refuse_settings_that_drop_pairs();
  void check_potential();
  void choose_depth();
  bool in_respa() const;
  int inner_steps_of_run_style() const;

  void read_box();
  void refresh_graph();
  void evaluate(int wanted, bool by_atom);
  void check_finite(const std::vector<double> &) const;
  int wanted_for_tally(int eflag, int vflag);
  void add_forces(double conservative, double direct);
  void tally();
  void agree(const std::string &error_here);
};

} // namespace LAMMPS_NS
