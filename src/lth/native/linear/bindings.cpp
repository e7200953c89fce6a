// Python bindings of the engine: check arguments, hold references to them, and release the GIL.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <mutex>
#include <optional>

#include "dataset.hpp"
#include "dispatch.hpp"
#include "shared/optimizer_names.hpp"

namespace py = pybind11;

namespace {

constexpr int64_t most_iterations = int64_t(1) << 62;

using lth::Array;
using lth::Dataset;
using lth::Layer;
using lth::refuse;

class PyNetwork {
public:
    PyNetwork(const std::vector<int32_t>& sizes, const std::vector<Array<bool>>& masks,
              const std::vector<Array<float>>& weights, const std::vector<Array<float>>& biases,
              const std::string& optimizer, double momentum, double beta1, double beta2, double eps,
              double weight_decay, double clip, double dropout, uint64_t dropout_key, int64_t iteration,
              const std::optional<std::string>& isa)
        : network_(lth::kernels_named(isa.value_or("")), checked(sizes, masks, weights, biases), pointers(masks),
                   {lth::optimizer_named(optimizer), momentum, beta1, beta2, eps, weight_decay, dropout, clip,
                    dropout_key}) {
        if (!(dropout >= 0 && dropout < 1)) refuse("dropout must be in [0, 1)");
        if (!(clip >= 0)) refuse("clip must not be negative");
        network_.iteration = counted("iteration", iteration);
        for (size_t l = 0; l < weights.size(); ++l) {
            Layer& layer = *network_.layers[l];
            std::vector<float> alive;
            for (const lth::Weight& w : layer.survivors()) alive.push_back(weights[l].at(w.row, w.column));
            layer.write(alive.data(), layer.weights.value);
            std::copy_n(biases[l].data(), layer.outputs, layer.biases.value.data());
            layer.refresh();
        }
    }

    Array<float> train(const Dataset& data, const Array<int64_t>& indices, const Array<int64_t>& ends,
                       const Array<double>& rates) {
        const std::vector<int64_t> until(ends.data(), ends.data() + ends.size());
        check(data, indices.data(), indices.size());
        if (rates.size() != ends.size()) refuse("lrs and ends must have an entry for each iteration");
        int64_t begin = 0;
        for (const int64_t end : until) {
            if (end <= begin || end > indices.size()) refuse("ends must rise and stay within indices");
            begin = end;
        }
        Array<float> losses(ends.size());
        float* const out = losses.mutable_data();
        const py::gil_scoped_release release;
        const std::lock_guard<std::mutex> lock(mutex_);
        network_.train(data.view(), indices.data(), until, rates.data(), out);
        return losses;
    }

    std::pair<double, int64_t> evaluate(const Dataset& data, const std::optional<Array<int64_t>>& indices) {
        const int64_t count = indices ? indices->size() : data.view().count;
        const int64_t* const which = indices ? indices->data() : nullptr;
        check(data, which, indices ? count : 0);
        if (count == 0) refuse("there are no examples to evaluate");
        const py::gil_scoped_release release;
        const std::lock_guard<std::mutex> lock(mutex_);
        const lth::Score score = network_.evaluate(data.view(), which, count);
        return {score.loss, score.correct};
    }

    py::list weights() const {
        py::list all;
        for (const auto& layer : network_.layers) {
            Array<float> dense({layer->outputs, layer->inputs});
            std::fill_n(dense.mutable_data(), dense.size(), 0.0f);
            const Array<float> alive = read(*layer, layer->weights.value);
            int64_t k = 0;
            for (const lth::Weight& w : layer->survivors()) dense.mutable_at(w.row, w.column) = alive.at(k++);
            all.append(dense);
        }
        return all;
    }

    py::list biases() const {
        py::list all;
        for (const auto& layer : network_.layers) all.append(Array<float>(layer->outputs, layer->biases.value.data()));
        return all;
    }

    py::dict state() const {
        py::dict state;
        each([&](const std::string& name, const Layer& layer, const lth::Aligned<float>& values, bool bias) {
            state[name.c_str()] = bias ? Array<float>(layer.outputs, values.data()) : read(layer, values);
        });
        state["iteration"] = Array<int64_t>(1, &network_.iteration);
        state["updates"] = Array<int64_t>(1, &network_.updates);
        return state;
    }

    void load_state(const py::dict& state) {
        each([&](const std::string& name, const Layer& layer, const lth::Aligned<float>&, bool bias) {
            found(state, name, bias ? layer.outputs : layer.weight_count());
        });
        const int64_t iteration = counted(state, "iteration");
        // version 0.1 had only this one
        const int64_t updates = state.contains("updates") ? counted(state, "updates") : iteration;
        each([&](const std::string& name, Layer& layer, lth::Aligned<float>& values, bool bias) {
            const Array<float> saved = found(state, name, bias ? layer.outputs : layer.weight_count());
            bias ? void(std::copy_n(saved.data(), saved.size(), values.data())) : layer.write(saved.data(), values);
            layer.refresh();
        });
        network_.iteration = iteration;
        network_.updates = updates;
    }

    int64_t iteration() const { return network_.iteration; }
    int64_t updates() const { return network_.updates; }
    std::string isa() const { return network_.kernels.name; }
    std::vector<std::string> formats() const {
        std::vector<std::string> names;
        for (const auto& layer : network_.layers) names.emplace_back(layer->dense() ? "dense" : "sparse");
        return names;
    }

private:
    static const std::vector<int32_t>& checked(const std::vector<int32_t>& sizes, const std::vector<Array<bool>>& masks,
                                               const std::vector<Array<float>>& weights,
                                               const std::vector<Array<float>>& biases) {
        const size_t depth = sizes.size() - 1;
        if (sizes.size() < 2 || *std::min_element(sizes.begin(), sizes.end()) < 1) refuse("sizes must be 2 or more");
        if (masks.size() != depth || weights.size() != depth || biases.size() != depth) {
            refuse("masks, weights and biases must have an entry for each layer");
        }
        for (size_t l = 0; l < depth; ++l) {
            const auto fits = [&](const py::array& a) {
                return a.ndim() == 2 && a.shape(0) == sizes[l + 1] && a.shape(1) == sizes[l];
            };
            if (!fits(masks[l]) || !fits(weights[l]) || biases[l].ndim() != 1 || biases[l].size() != sizes[l + 1]) {
                refuse("layer " + std::to_string(l) + ": mask and weight must be [out, in] and bias [out]");
            }
        }
        // The booleans of a file may have any byte value, but a C++ bool must be 0 or 1.
        for (const auto& mask : masks) {
            const auto* const bytes = static_cast<const unsigned char*>(static_cast<const py::array&>(mask).data());
            if (std::any_of(bytes, bytes + mask.size(), [](unsigned char byte) { return byte > 1; })) {
                refuse("a mask has a value that is neither true nor false");
            }
        }
        return sizes;
    }

    static std::vector<const bool*> pointers(const std::vector<Array<bool>>& masks) {
        std::vector<const bool*> all;
        for (const auto& mask : masks) all.push_back(mask.data());
        return all;
    }

    void check(const Dataset& data, const int64_t* indices, int64_t count) const {
        const lth::Images images = data.view();
        const int32_t inputs = network_.layers.front()->inputs, outputs = network_.layers.back()->outputs;
        if (images.features != inputs) {
            refuse("images have " + std::to_string(images.features) + " features, the network takes " +
                   std::to_string(inputs));
        }
        if (data.classes() > outputs) {
            refuse("labels go up to " + std::to_string(data.classes() - 1) + ", the network has " +
                   std::to_string(outputs) + " outputs");
        }
        if (std::any_of(indices, indices + count, [&](int64_t i) { return i < 0 || i >= images.count; })) {
            throw py::index_error("an index is outside the dataset");
        }
    }

    static Array<float> read(const Layer& layer, const lth::Aligned<float>& values) {
        Array<float> out(layer.weight_count());
        layer.read(values, out.mutable_data());
        return out;
    }

    // Keep iterations far from integer overflow.
    static int64_t counted(const std::string& name, int64_t count) {
        if (count < 0 || count > most_iterations) {
            refuse("\"" + name + "\" is " + std::to_string(count) + ", expected 0 to " + std::to_string(most_iterations));
        }
        return count;
    }

    static int64_t counted(const py::dict& state, const std::string& name) {
        if (!state.contains(name.c_str())) refuse("the state has no \"" + name + "\"");
        const auto value = py::cast<py::array>(state[name.c_str()]);
        if (value.dtype().kind() != 'i' || value.size() != 1) refuse("\"" + name + "\" must be one whole number");
        return counted(name, *py::cast<Array<int64_t>>(value).data());
    }

    static Array<float> found(const py::dict& state, const std::string& name, int64_t size) {
        if (!state.contains(name.c_str())) refuse("the state has no \"" + name + "\"");
        const auto given = py::cast<py::array>(state[name.c_str()]);
        if (!py::isinstance<py::array_t<float>>(given)) refuse("\"" + name + "\" must be float32");
        auto values = py::cast<Array<float>>(given);
        if (values.size() != size) {
            refuse("\"" + name + "\" has " + std::to_string(values.size()) + " numbers, not " + std::to_string(size));
        }
        return values;
    }

    template <class Visit>
    void each(Visit visit) const {
        const char* const first = lth::is_adam(network_.settings.optimizer) ? "exp_avg." : "momentum_buffer.";
        for (size_t l = 0; l < network_.layers.size(); ++l) {
            Layer& layer = *network_.layers[l];
            for (const bool bias : {false, true}) {
                lth::Trained& trained = bias ? layer.biases : layer.weights;
                const std::string name = std::to_string(l) + (bias ? ".bias" : ".weight");
                visit(name, layer, trained.value, bias);
                if (!trained.first.empty()) visit(first + name, layer, trained.first, bias);
                if (!trained.second.empty()) visit("exp_avg_sq." + name, layer, trained.second, bias);
            }
        }
    }

    lth::Network network_;
    std::mutex mutex_;
};

#ifdef LTH_SANITIZED
// Write beyond the end of an array, by a kernel: a working sanitizer ends the program here.
void overrun() {
    const lth::Kernels& kernels = *lth::usable_kernels().front();
    lth::Aligned<float> bias(2), out(kernels.lanes);
    kernels.fill(bias.data(), 2, out.data());
}
#endif

}  // namespace

PYBIND11_MODULE(_core, m) {
    m.doc() = "Training of masked Linear + ReLU chains at a cost that follows the surviving weights.";
    m.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const lth::Kernels* kernels : lth::usable_kernels()) names.emplace_back(kernels->name);
        return names;
    }, "The instruction sets that run here, best first.");

#ifdef LTH_SANITIZED
    m.def("overrun", &overrun);
#endif

    py::class_<Dataset>(m, "Dataset",
                        "Images [n, features] (uint8, scaled by 1/255, or float32; not copied) and labels [n].")
        .def(py::init<py::array, const Array<int64_t>&>(), py::arg("images"), py::arg("labels"))
        .def("__len__", [](const Dataset& data) { return data.view().count; });

    py::class_<PyNetwork>(m, "Network", "A chain of masked Linear + ReLU layers and its optimizer.")
        .def(py::init<const std::vector<int32_t>&, const std::vector<Array<bool>>&, const std::vector<Array<float>>&,
                      const std::vector<Array<float>>&, const std::string&, double, double, double, double, double,
                      double, double, uint64_t, int64_t, const std::optional<std::string>&>(),
             py::arg("sizes"), py::arg("masks"), py::arg("weights"), py::arg("biases"), py::kw_only(),
             py::arg("optimizer") = "adam", py::arg("momentum") = 0.9, py::arg("beta1") = 0.9,
             py::arg("beta2") = 0.999, py::arg("eps") = 1e-8, py::arg("weight_decay") = 0.0,
             py::arg("clip") = 0.0, py::arg("dropout") = 0.0, py::arg("dropout_key") = 0, py::arg("iteration") = 0,
             py::arg("isa") = py::none())
        .def("train", &PyNetwork::train, py::arg("dataset"), py::arg("indices"), py::arg("ends"), py::arg("lrs"),
             "One update for each of `ends`, on indices[ends[i-1]:ends[i]] at rate lrs[i]; the losses before them.")
        .def("evaluate", &PyNetwork::evaluate, py::arg("dataset"), py::arg("indices") = py::none(),
             "Mean loss and number of correct answers.")
        .def("weights", &PyNetwork::weights, "Dense [out, in] arrays, 0 where masked.")
        .def("biases", &PyNetwork::biases)
        .def("state", &PyNetwork::state, "All that a continuation needs; survivors only, in row-major order.")
        .def("load_state", &PyNetwork::load_state, py::arg("state"))
        .def_property_readonly("iteration", &PyNetwork::iteration,
                               "Iteration of the training: that which it began at, and the updates done since.")
        .def_property_readonly("updates", &PyNetwork::updates, "Updates done by this optimizer.")
        .def_property_readonly("isa", &PyNetwork::isa)
        .def_property_readonly("formats", &PyNetwork::formats, "\"dense\" or \"sparse\", for each layer.");
}
