// The back-end in embedded Python: mlcalc.engines.lammps, on views of our arrays.

#include "backend.h"

#include <pybind11/embed.h>
#include <pybind11/numpy.h>

#include <array>
#include <stdexcept>

namespace py = pybind11;

namespace mlcalc {

namespace {

// Starts the interpreter, once, unless LAMMPS is driven from Python; whether it is ours. It is never ended: torch's threads
// would not bear it.
bool start_python(const std::string &program)
{
  static bool ours = false;
  if (Py_IsInitialized()) return ours;
  PyConfig config;
  PyConfig_InitPythonConfig(&config);
  config.install_signal_handlers = 0;
  PyConfig_SetBytesString(&config, &config.program_name, program.c_str());
  const PyStatus status = Py_InitializeFromConfig(&config);
  PyConfig_Clear(&config);
  if (PyStatus_Exception(status))
    throw std::runtime_error("Python cannot be started as " + program + " (" + status.err_msg +
                             "); set MLCALC_PYTHON to the python program of the environment that has mlcalc");
  PyEval_SaveThread();
  return ours = true;
}

// Runs something in Python; an exception there leaves as one line of text.
template <class Action> auto in_python(Action action)
{
  py::gil_scoped_acquire gil;
  try {
    return action();
  } catch (const py::error_already_set &error) {
    std::string text;
    try {
      text = py::module_::import("mlcalc.engines.lammps").attr("one_line")(error.value()).cast<std::string>();
    } catch (const py::error_already_set &) { // mlcalc itself is missing
      text = error.what();
      text = text.substr(0, text.find('\n')) + "; install mlcalc where " +
          py::module_::import("sys").attr("executable").cast<std::string>() + " finds it";
    }
    throw std::runtime_error(text);
  }
}

// An array of ours as numpy sees it. It is not copied: the capsule only says that somebody else owns it.
template <class T> py::array view(const T *data, std::vector<py::ssize_t> shape)
{
  static T nothing[1]; // numpy wants an address even for no elements
  py::capsule owner(&nothing, [](void *) {});
  return py::array_t<T>(std::move(shape), data ? data : nothing, owner);
}

class PythonBackend : public Backend {
 public:
  explicit PythonBackend(const Settings &settings)
  {
    in_python([&] {
      using namespace py::literals;
      evaluator = py::module_::import("mlcalc.engines.lammps")
                      .attr("Evaluator")("potential"_a = settings.potential, "fast"_a = settings.fast,
                                         "device"_a = settings.device, "dtype"_a = settings.dtype,
                                         "threads"_a = settings.threads);
      const py::object flags = py::module_::import("mlcalc.evaluation").attr("Wanted");
      const char *names[N_WANTED] = {"ENERGY", "CONSERVATIVE", "DIRECT", "VIRIAL"};
      for (size_t bits = 0; bits < wanted.size(); bits++) {
        wanted[bits] = flags(0);
        for (int k = 0; k < N_WANTED; k++)
          if (bits & (1 << k)) wanted[bits] = wanted[bits] | flags.attr(names[k]);
      }
    });
  }

  ~PythonBackend() override
  {
    if (!Py_IsInitialized()) { // the interpreter went first, and our objects with it
      evaluator.release();
      for (auto &one : wanted) one.release();
      return;
    }
    py::gil_scoped_acquire gil;
    evaluator = py::object();
    for (auto &one : wanted) one = py::object();
  }

  Model model() override
  {
    return in_python([&] {
      const py::object potential = evaluator.attr("potential");
      Model model;
      model.name = potential.attr("name").cast<std::string>();
      model.cutoff = potential.attr("cutoff").cast<double>();
      model.energy_depth = potential.attr("interaction_depth").cast<int>();
      model.direct_depth = potential.attr("direct_depth").cast<int>();
      for (int k = 0; k < N_WANTED; k++)
        if (wanted[1 << k].attr("__and__")(potential.attr("provides")).attr("value").cast<int>())
          model.provides |= 1 << k;
      return model;
    });
  }

  void check(const std::vector<int64_t> &numbers, const Box &box) override
  {
    in_python([&] { evaluator.attr("check")(view(numbers.data(), {ssize(numbers)}), view(box.periodic, {1, 3})); });
  }

  void set_graph(const Graph &graph, const Box &box, const std::vector<double> &positions, Contribution &to) override
  {
    in_python([&] {
      const py::ssize_t n_atoms = ssize(graph.numbers), n_edges = ssize(graph.centre);
      evaluator.attr("set_graph")(
          view(graph.numbers.data(), {n_atoms}), graph.n_counted,
          py::make_tuple(view(graph.centre.data(), {n_edges}), view(graph.neighbour.data(), {n_edges}),
                         view(graph.shift.data(), {n_edges, 3})),
          py::make_tuple(view(positions.data(), {n_atoms, 3}), view(box.cell, {1, 3, 3}), view(box.periodic, {1, 3})),
          py::make_tuple(view(&to.energy, {1}), view(to.energies.data(), {n_atoms}),
                         view(to.conservative.data(), {n_atoms, 3}), view(to.direct.data(), {n_atoms, 3}),
                         view(to.virial, {1, 3, 3}), view(to.virials.data(), {n_atoms, 3, 3})));
    });
  }

  void evaluate(int bits, bool by_atom) override
  {
    in_python([&] { evaluator.attr("evaluate")(wanted.at(bits), by_atom); });
  }

 private:
  py::object evaluator;
  std::array<py::object, 1 << N_WANTED> wanted; // by bits

  template <class T> static py::ssize_t ssize(const std::vector<T> &v) { return static_cast<py::ssize_t>(v.size()); }
};

} // namespace

} // namespace mlcalc

extern "C" __attribute__((visibility("default"))) mlcalc::Backend *
mlcalc_python_backend(const mlcalc::Settings &settings, const std::string &program)
{
  mlcalc::Settings known = settings;
  if (mlcalc::start_python(program)) {
    // the process is a simulation and nothing else
    mlcalc::in_python([] { py::module_::import("mlcalc.memory").attr("keep_freed_memory")(); });
    if (known.threads == 0) known.threads = known.host_threads;
  }
  return new mlcalc::PythonBackend(known);
}
