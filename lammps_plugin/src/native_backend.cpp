// The back-end without Python: the programs of a compiled package (mlcalc export), run by libtorch. Its headers, which
// compile slowly, are read in this file alone.

#include "backend.h"
#include "package.h"
#include "program_inputs.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <algorithm>
#include <dlfcn.h>
#include <fstream>
#include <stdexcept>

namespace mlcalc {

namespace {

using torch::inductor::AOTIModelPackageLoader;

// What a program of each kind computes, the cheaper first.
const std::vector<std::pair<std::string, int>> KINDS{
    {"direct", ENERGY | DIRECT}, {"conservative", ENERGY | CONSERVATIVE}, {"joint", JOINT}};

constexpr int64_t FEWEST = 2; // entries in a list: the compiler took for granted that no size is 0 or 1

// torch's messages go on for pages
std::string first_line(const std::exception &error)
{
  const std::string text = error.what();
  return text.substr(0, text.find('\n'));
}

// Of the torch whose libraries are in this process: what stands in its version.py.
std::string version_of_torch()
{
  Dl_info info;
  dladdr(reinterpret_cast<void *>(&at::get_cpu_capability), &info);
  std::string folder = info.dli_fname;
  for (int up = 0; up < 2; up++) folder = folder.substr(0, folder.rfind('/'));
  std::ifstream file(folder + "/version.py");
  for (std::string line; std::getline(file, line);) {
    const size_t start = line.find("__version__ = '");
    if (start != std::string::npos) return line.substr(start + 15, line.rfind('\'') - start - 15);
  }
  return "(no version found in " + folder + ")";
}

std::string description_in(const std::string &path)
{
  if (!std::ifstream(path)) throw std::runtime_error("potential: no file " + path + "; make it with mlcalc export");
  try {
    caffe2::serialize::PyTorchStreamReader archive(path);
    if (!archive.hasRecord("extra/mlcalc.json")) return "";
    const auto [data, size] = archive.getRecord("extra/mlcalc.json");
    return {static_cast<const char *>(data.get()), size};
  } catch (const std::exception &error) {
    throw std::runtime_error("potential: " + path + " is no whole package (" + first_line(error) +
                             "); copy it or export it again");
  }
}

Package checked_package(const std::string &path)
{
  const std::string here = version_of_torch(), there = MLCALC_TORCH_VERSION;
  if (here != there)
    throw std::runtime_error("backend native was built for torch " + there + ", here is " + here +
                             "; build the plugin anew (pip install --force-reinstall --no-deps ./lammps_plugin)");
  const Package package = parse_package(description_in(path), path);
  check_package(package, here, at::get_cpu_capability());
  return package;
}

void check_settings(const Settings &settings, const Package &package)
{
  if (!settings.fast.empty())
    throw std::runtime_error("backend native has one potential; leave out fast, or backend native");
  if (settings.device != "cpu")
    throw std::runtime_error("device: got " + settings.device + "; compiled packages run on the cpu");
  if (!settings.dtype.empty() && settings.dtype != package.dtype)
    throw std::runtime_error("dtype: got " + settings.dtype + "; " + package.path + " was compiled for " +
                             package.dtype + ": leave it out, or export again with --dtype");
}

class NativeBackend : public Backend {
 public:
  explicit NativeBackend(const Settings &settings) :
      package(checked_package(settings.potential)), inputs(package),
      dtype(package.dtype == "float64" ? at::kDouble : at::kFloat)
  {
    check_settings(settings, package);
    if (settings.threads > 0) at::set_num_threads(settings.threads);
    for (const auto &[kind, computes] : KINDS) {
      if (std::find(package.kinds.begin(), package.kinds.end(), kind) == package.kinds.end()) continue;
      try {
        programs.push_back({computes, std::make_unique<AOTIModelPackageLoader>(package.path, kind)});
      } catch (const std::exception &error) {
        throw std::runtime_error("potential: the code in " + package.path + " cannot be loaded (" + first_line(error) +
                                 "); export it again");
      }
    }
  }

  Model model() override
  {
    Model model;
    model.name = package.name;
    model.cutoff = package.cutoff;
    for (const auto &program : programs) model.provides |= program.computes;
    if (model.provides & CONSERVATIVE) model.provides |= VIRIAL;
    return model;
  }

  void check(const std::vector<int64_t> &numbers, const Box &) override
  {
    std::string known;
    for (const auto &symbol : package.symbols) known += (known.empty() ? "" : ", ") + symbol;
    for (const int64_t number : numbers)
      if (std::find(package.species.begin(), package.species.end(), number) == package.species.end())
        throw std::runtime_error("structure: it holds atomic number " + std::to_string(number) + ", but potential '" +
                                 package.name + "' knows only " + known +
                                 "; remove these atoms or load a potential trained for them");
  }

  void set_graph(const Graph &graph, const Box &box, const std::vector<double> &positions, Contribution &to) override
  {
    this->graph = &graph, this->box = &box, this->positions = &positions, this->to = &to;
    inputs.set_graph(graph);
  }

  void evaluate(int wanted, bool by_atom) override
  {
    inputs.update(*graph, *box, *positions);
    const int needed = (wanted & ~VIRIAL) | (wanted & VIRIAL ? CONSERVATIVE : 0);
    for (const auto &program : programs)
      if ((program.computes & needed) == needed) return run(program, wanted, by_atom);
    // no joint program: one for each force
    for (const auto &program : programs)
      if (program.computes & needed & ~ENERGY)
        run(program, program.computes & CONSERVATIVE ? wanted & ~DIRECT : DIRECT, by_atom);
  }

 private:
  struct Program {
    int computes;
    std::unique_ptr<AOTIModelPackageLoader> code;
  };

  const Package package;
  ProgramInputs inputs;
  const at::ScalarType dtype;
  std::vector<Program> programs;
  const Graph *graph = nullptr;
  const Box *box = nullptr;
  const std::vector<double> *positions = nullptr;
  Contribution *to = nullptr;

  std::vector<at::Tensor> tensors()
  {
    std::vector<at::Tensor> all;
    for (const auto &name : package.tensors) {
      if (name == "vectors") {
        const auto n_edges = static_cast<int64_t>(inputs.vectors.size() / 3);
        all.push_back(at::from_blob(inputs.vectors.data(), {n_edges, 3}, at::kDouble).to(dtype));
      } else {
        auto &values = inputs.index[name];
        all.push_back(at::from_blob(values.data(), {static_cast<int64_t>(values.size())}, at::kLong));
      }
      if (all.back().size(0) < FEWEST)
        throw std::runtime_error("backend native: " + name + " has " + std::to_string(all.back().size(0)) +
                                 " entries, and compiled code needs 2 or more; leave out backend native");
    }
    return all;
  }

  void run(const Program &program, int wanted, bool by_atom)
  {
    const c10::InferenceMode no_derivatives;
    std::vector<at::Tensor> outputs;
    const auto arguments = tensors();
    try {
      outputs = program.code->run(arguments);
    } catch (const std::exception &error) {
      throw std::runtime_error("the compiled evaluation failed (" + first_line(error) + "); leave out backend native");
    }
    for (auto &output : outputs) output = output.to(at::kDouble).contiguous();
    const double *energies = outputs.front().const_data_ptr<double>();
    if (wanted & ~DIRECT) write_energies(energies);
    if (wanted & (CONSERVATIVE | VIRIAL)) write_derivatives(outputs.at(1).const_data_ptr<double>(), wanted, by_atom);
    if (wanted & DIRECT) {
      const double *direct = outputs.back().const_data_ptr<double>();
      to->direct.assign(direct, direct + outputs.back().numel());
    }
  }

  void write_energies(const double *energies)
  {
    const auto &species = inputs.index["species"];
    to->energy = 0;
    for (size_t k = 0; k < species.size(); k++) {
      to->energies[k] = energies[k] + package.energy_offsets[species[k]];
      to->energy += to->energies[k];
    }
  }

  // The equations of mlcalc/potentials/autodiff.py; slope: of the energy by the edge vectors.
  void write_derivatives(const double *slope, int wanted, bool by_atom)
  {
    const auto &centre = inputs.index["centre"], &neighbour = inputs.index["neighbour"];
    if (wanted & CONSERVATIVE) std::fill(to->conservative.begin(), to->conservative.end(), 0);
    if (wanted & VIRIAL) {
      std::fill(to->virial, to->virial + 9, 0);
      if (by_atom) std::fill(to->virials.begin(), to->virials.end(), 0);
    }
    for (size_t e = 0; e < centre.size(); e++) {
      const int64_t ends[2] = {centre[e], neighbour[e]};
      const double *g = slope + 3 * e, *r = &inputs.vectors[3 * e];
      if (wanted & CONSERVATIVE)
        for (int d = 0; d < 3; d++) {
          to->conservative[3 * ends[0] + d] += g[d];
          to->conservative[3 * ends[1] + d] -= g[d];
        }
      if (!(wanted & VIRIAL)) continue;
      for (int c = 0; c < 9; c++) {
        const double part = -0.5 * (r[c / 3] * g[c % 3] + r[c % 3] * g[c / 3]);
        to->virial[c] += part;
        if (!by_atom) continue;
        for (const int64_t end : ends) to->virials[9 * end + c] += 0.5 * part;
      }
    }
  }
};

} // namespace

} // namespace mlcalc

extern "C" __attribute__((visibility("default"))) mlcalc::Backend *
mlcalc_native_backend(const mlcalc::Settings &settings)
{
  return new mlcalc::NativeBackend(settings);
}
