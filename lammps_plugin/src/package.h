// What `mlcalc export` writes beside the compiled code, as far as the back-end without Python needs it: the mlcalc.json
// of mlcalc/potentials/compiled.py. Plain C++.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mlcalc {

struct Package {
  std::string path, name, dtype, torch_version, machine;
  std::vector<std::string> kinds;        // the programs in it: direct, conservative, joint
  std::vector<std::string> instructions; // sets of instructions that the code may use
  std::vector<std::string> tensors;      // what a program takes, in order
  std::vector<std::string> symbols;      // of the species, by place in the network's list
  std::vector<int64_t> species;          // their atomic numbers
  std::vector<double> energy_offsets;    // eV, of each atom of a species
  double cutoff = 0, three_body_cutoff = 0, density_cutoff = 0, short_cutoff = 0; // Å; 0 for a part that is not there
};

// text: of mlcalc.json; path: for messages. Throws std::runtime_error if it is another format.
Package parse_package(const std::string &text, const std::string &path);

// Throws if this process has another torch or processor than the code was compiled for. torch_version: the one here;
// capability: what torch calls the processor's vector instructions.
void check_package(const Package &package, const std::string &torch_version, const std::string &capability);

} // namespace mlcalc
