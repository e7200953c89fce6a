// Python bindings of layers with few surviving weights.
#include "bindings.hpp"

#include "sparse_conv.hpp"
#include "sparse_linear.hpp"

namespace lth::conv {

void bind_sparse(py::module_& m) {
    m.attr("sparse_block") = sparse_block;
    m.def("sparse_forward", [](int64_t parts, int64_t inputs, int64_t outputs, uintptr_t ends, uintptr_t columns,
                               int64_t examples, uintptr_t x, uintptr_t values, uintptr_t bias, uintptr_t y) {
        const Sparse s{inputs, outputs, at<int64_t>(ends), at<int32_t>(columns)};
        const py::gil_scoped_release release;
        in_parts(parts, examples, [&](int64_t, int64_t first, int64_t count) {
            sparse_forward(s, count, at<bf16>(x) + first * inputs, at<float>(values), at<float>(bias),
                                 at<bf16>(y) + first * outputs);
        });
    });
    m.def("sparse_backward", [](int64_t parts, int64_t inputs, int64_t outputs, int64_t weights, uintptr_t ends,
                                uintptr_t columns, int64_t examples, uintptr_t x, uintptr_t values, uintptr_t y_gradient,
                                uintptr_t x_gradient, uintptr_t value_gradients) {
        const Sparse s{inputs, outputs, at<int64_t>(ends), at<int32_t>(columns)};
        const py::gil_scoped_release release;
        in_parts(parts, examples, [&](int64_t part, int64_t first, int64_t count) {
            sparse_backward(s, count, at<bf16>(x) + first * inputs, at<float>(values),
                                  at<bf16>(y_gradient) + first * outputs,
                                  from(at<bf16>(x_gradient), first * inputs),
                                  at<float>(value_gradients) + part * weights);
        });
    });
    m.def("sparse_width", &sparse_width, "Whether images of so many pixels a row can be convolved sparsely.");
    m.def("sparse_convolve", [](int64_t parts, int64_t rows, int64_t columns, uintptr_t ends, uintptr_t column, int64_t n,
                                int64_t h, int64_t w, uintptr_t x, uintptr_t values, uintptr_t bias, uintptr_t y) {
        const SparseKernels s{rows, columns, at<int64_t>(ends), at<int32_t>(column)};
        const py::gil_scoped_release release;
        in_parts(parts, n, [&](int64_t, int64_t first, int64_t count) {
            sparse_convolve(s, count, h, w, at<bf16>(x) + first * h * w * columns, at<float>(values),
                                  at<float>(bias), at<bf16>(y) + first * h * w * rows);
        });
    });
    m.def("sparse_convolve_values", [](int64_t parts, int64_t rows, int64_t columns, uintptr_t ends, uintptr_t column,
                                       int64_t n, int64_t h, int64_t w, uintptr_t x, uintptr_t y_gradient,
                                       uintptr_t value_gradients) {
        const SparseKernels s{rows, columns, at<int64_t>(ends), at<int32_t>(column)};
        const py::gil_scoped_release release;
        in_parts(parts, rows, [&](int64_t, int64_t first, int64_t count) {
            sparse_convolve_values(s, first, count, n, h, w, at<bf16>(x), at<bf16>(y_gradient),
                                         at<float>(value_gradients));
        });
    });
}

}  // namespace lth::conv
