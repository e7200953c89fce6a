// Shared code of the Python bindings: addresses, shapes, and the division of work among threads.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>
#include <stdexcept>

#include "shape.hpp"

namespace lth::conv {

namespace py = pybind11;

// Each function adds its bindings to the module.
void bind_convolutions(py::module_& module);
void bind_matrices(py::module_& module);
void bind_sparse(py::module_& module);

template <class T>
T* at(uintptr_t address) { return reinterpret_cast<T*>(address); }

template <class T>
T* from(T* tensor, int64_t offset) { return tensor ? tensor + offset : nullptr; }

inline Shape only(Shape s, int64_t images) {
    s.images = images;
    return s;
}

inline int64_t inputs_of(const Shape& s) { return s.height * s.width * s.inputs; }  // height or width of an image
inline int64_t outputs_of(const Shape& s) {
    return s.height * s.width * s.outputs / (s.after == After::pool_relu ? 4 : 1);
}

// Call part(p, first, count) for each of `parts` parts of `all`, on OpenMP's threads. torch uses the same threads; two
// pools would compete for the cores.
template <class Part>
void in_parts(int64_t parts, int64_t all, const Part& part) {
    std::exception_ptr thrown;
#pragma omp parallel for num_threads(int(parts)) schedule(static, 1)
    for (int64_t p = 0; p < parts; ++p) {
        const int64_t first = all * p / parts, end = all * (p + 1) / parts;
        try {
            part(p, first, end - first);
        } catch (...) {
#pragma omp critical
            thrown = std::current_exception();
        }
    }
    if (thrown) std::rethrow_exception(thrown);
}

}  // namespace lth::conv
