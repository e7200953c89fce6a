// Python bindings of convolutions for the matrix unit.
#include <algorithm>

#include "bindings.hpp"
#include "matrix_conv.hpp"
#include "shared/aligned.hpp"

namespace lth::conv {

namespace {

Shape matrix_shape(int64_t images, int64_t height, int64_t width, int64_t inputs, int64_t outputs) {
    if (!matrix_unit()) throw std::runtime_error("this processor has no matrix unit, or its use is not allowed");
    if (inputs % matrix_block || outputs % matrix_block) {
        throw std::invalid_argument("channels must be multiples of 32");
    }
    return {images, height, width, inputs, outputs, After::nothing};
}

// A buffer per Python thread: allocating megabytes for each convolution takes longer than copying.
template <int which>
bf16* room(int64_t size) {
    thread_local Aligned<bf16> kept;
    if (int64_t(kept.size()) < size) kept.resize(size);
    return kept.data();
}

void matrix_convolve(int64_t parts, const Shape& all, const bf16* x, const bf16* weight, bool turned,
                     const bf16* bias, bf16* y) {
    const int64_t pixels = all.height * all.width, most = images_at_a_time(all);
    bf16* const rows = room<0>(pixels * std::min(most, whole_blocks(all.images)) * all.inputs);
    for (int64_t done = 0; done < all.images; done += most) {
        const Shape s = only(all, std::min(most, all.images - done));
        in_parts(parts, pixels, [&](int64_t, int64_t first, int64_t count) {
            rows_of_images(s.images, pixels, s.inputs, first, count, x + done * inputs_of(s), rows);
        });
        in_parts(parts, convolve_units(s), [&](int64_t, int64_t first, int64_t count) {
            convolve(s, first, count, rows, weight, turned, bias, y + done * outputs_of(s));
        });
    }
}

}  // namespace

void bind_matrices(py::module_& m) {
    m.def("matrix_unit", &matrix_unit, "Whether this process may use a unit for products of matrices.");
    m.attr("matrix_block") = matrix_block;
    m.def("matrix_forward", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t inputs, int64_t outputs, uintptr_t x,
                               uintptr_t weight, uintptr_t bias, uintptr_t y) {
        const Shape s = matrix_shape(n, h, w, inputs, outputs);
        const py::gil_scoped_release release;
        matrix_convolve(parts, s, at<bf16>(x), at<bf16>(weight), false, at<bf16>(bias),
                        at<bf16>(y));
    });
    m.def("matrix_backward", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t inputs, int64_t outputs,
                                uintptr_t x, uintptr_t weight, uintptr_t y_gradient, uintptr_t x_gradient,
                                uintptr_t weight_gradient) {
        const Shape s = matrix_shape(n, h, w, inputs, outputs), back = matrix_shape(n, h, w, outputs, inputs);
        const py::gil_scoped_release release;
        if (x_gradient) {
            matrix_convolve(parts, back, at<bf16>(y_gradient), at<bf16>(weight), true, nullptr,
                            at<bf16>(x_gradient));
        }
        const int64_t images = whole_blocks(n);
        bf16 *const right = room<1>(h * w * images * inputs), *const left = room<2>(h * w * images * outputs);
        in_parts(parts, h * w, [&](int64_t, int64_t first, int64_t count) {
            pairs_of_images(n, h * w, inputs, first, count, false, at<bf16>(x), right);
            pairs_of_images(n, h * w, outputs, first, count, true, at<bf16>(y_gradient), left);
        });
        in_parts(parts, kernel_units(s), [&](int64_t, int64_t first, int64_t count) {
            kernel_gradients(s, first, count, right, left, at<bf16>(weight_gradient));
        });
    });
}

}  // namespace lth::conv
