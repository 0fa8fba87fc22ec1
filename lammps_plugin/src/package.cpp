#include "package.h"

#include "json.h" // of LAMMPS: headers alone

#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <stdexcept>
#include <sys/utsname.h>

namespace mlcalc {

namespace {

using json = LAMMPS_NS::json;

constexpr char FORMAT[] = "mlcalc-compiled-1";

std::set<std::string> instructions_here()
{
  std::ifstream listing("/proc/cpuinfo");
  std::string line;
  while (std::getline(listing, line))
    if (line.rfind("flags", 0) == 0 || line.rfind("Features", 0) == 0) {
      std::istringstream flags(line.substr(line.find(':') + 1));
      return {std::istream_iterator<std::string>(flags), {}};
    }
  return {};
}

void refuse(const Package &package, const std::string &what, const std::string &theirs, const std::string &ours)
{
  throw std::runtime_error("potential: " + package.path + " was compiled for " + what + " " + theirs + ", here is " +
                           ours + "; export it again here (mlcalc export)");
}

} // namespace

Package parse_package(const std::string &text, const std::string &path)
{
  const json all = json::parse(text, nullptr, false);
  if (!all.is_object() || all.value("format", "") != FORMAT)
    throw std::runtime_error("potential: " + path +
                             " is no package that this version reads; make one with mlcalc export");
  if (!all.contains("inputs"))
    throw std::runtime_error("potential: " + path + " does not say what its programs take; export it again (mlcalc "
                             "export), or leave out backend native");
  Package package;
  try {
    const json &inputs = all.at("inputs");
    package.path = path;
    all.at("name").get_to(package.name);
    all.at("dtype").get_to(package.dtype);
    all.at("torch_version").get_to(package.torch_version);
    all.at("machine").get_to(package.machine);
    all.at("kinds").get_to(package.kinds);
    all.at("instructions").get_to(package.instructions);
    const auto device = all.value("device", std::string("cpu"));
    if (device != "cpu")
      throw std::runtime_error("potential: " + path + " was compiled for " + device +
                               ", and backend native runs on a CPU; export it again without --device");
    inputs.at("tensors").get_to(package.tensors);
    inputs.at("symbols").get_to(package.symbols);
    inputs.at("species").get_to(package.species);
    inputs.at("energy_offsets").get_to(package.energy_offsets);
    inputs.at("cutoff").get_to(package.cutoff);
    package.three_body_cutoff = inputs.value("three_body_cutoff", 0.0);
    package.density_cutoff = inputs.value("density_cutoff", 0.0);
    package.short_cutoff = inputs.value("short_cutoff", 0.0);
  } catch (const json::exception &error) {
    throw std::runtime_error("potential: the description in " + path + " is not whole (" + error.what() +
                             "); export it again (mlcalc export)");
  }
  return package;
}

void check_package(const Package &package, const std::string &torch_version, const std::string &capability)
{
  if (package.torch_version != torch_version) refuse(package, "torch", package.torch_version, torch_version);
  utsname here;
  uname(&here);
  if (package.machine != here.machine) refuse(package, "processor", package.machine, here.machine);
  auto known = instructions_here();
  known.insert(capability);
  for (const auto &one : package.instructions)
    if (!known.count(one)) refuse(package, "a processor with", one, "one without");
}

} // namespace mlcalc
