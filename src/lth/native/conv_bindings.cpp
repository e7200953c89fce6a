// The Python face of the convolutions. Tensors come as addresses: lth/training has arranged their types, shapes and
// layouts (lowering.py, for the built-in networks), and keeps them alive. Only what a kernel cannot do is refused here.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <exception>
#include <stdexcept>

#include "aligned.hpp"
#include "conv_kernels.hpp"
#include "matrix_conv.hpp"
#include "small_images.hpp"
#include "sparse_conv.hpp"
#include "sparse_linear.hpp"

namespace py = pybind11;
namespace conv = lth::conv;

namespace {

template <class T>
T* at(uintptr_t address) { return reinterpret_cast<T*>(address); }

bool runs() {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    return conv::built() && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
    return false;
#endif
}

// A bfloat16 dot product does two multiplications a lane. AMD's processors begin as many of them as of a float's fused
// multiply-adds; Intel's a quarter (1.3 of 5.4 in a nanosecond on Emerald Rapids).
bool floats_are_faster() {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    return __builtin_cpu_is("intel");
#else
    return false;
#endif
}

conv::Shape shape(int64_t images, int64_t height, int64_t width, int64_t inputs, int64_t outputs, int after) {
    if (height % 2 || width % 2 || inputs % 16 || outputs % 16 || after < 0 || after > 2) {
        throw std::invalid_argument("height and width must be even, channels multiples of 16");
    }
    return {images, height, width, inputs, outputs, conv::After(after)};
}

conv::Shape small_shape(int64_t images, int64_t height, int64_t width, int64_t inputs, int64_t outputs, int after) {
    if (inputs % 16 || outputs % 16 || after < 0 || after > 1) {
        throw std::invalid_argument("channels must be multiples of 16, unpooled");
    }
    return {images, height, width, inputs, outputs, conv::After(after)};
}

conv::Shape thin_shape(int64_t images, int64_t height, int64_t width, int64_t inputs, int64_t outputs, int after) {
    if (inputs > 4 || outputs % 16 || after < 0 || after > 1) {
        throw std::invalid_argument("inputs must be at most 4, outputs a multiple of 16, unpooled");
    }
    return {images, height, width, inputs, outputs, conv::After(after)};
}

conv::Shape matrix_shape(int64_t images, int64_t height, int64_t width, int64_t inputs, int64_t outputs) {
    if (!conv::matrix_unit()) throw std::runtime_error("this processor has no matrix unit, or its use is not allowed");
    if (inputs % conv::matrix_block || outputs % conv::matrix_block) {
        throw std::invalid_argument("channels must be multiples of 32");
    }
    return {images, height, width, inputs, outputs, conv::After::nothing};
}

// Room that a thread of Python's keeps: to ask the system for megabytes at each convolution takes longer than to copy.
template <int which>
conv::bf16* room(int64_t size) {
    thread_local lth::Aligned<conv::bf16> kept;
    if (int64_t(kept.size()) < size) kept.resize(size);
    return kept.data();
}

// part(p, first, count) for each of `parts` parts of `all`, on threads of their own: OpenMP's, which are torch's too, as
// those of two pools would wait for each other's cores.
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

// The same of channels, in whole panels: part(first, count).
template <class Part>
void in_panels(int64_t parts, int64_t channels, const Part& part) {
    const int64_t panel = 16 * conv::panel_of(channels);
    in_parts(parts, channels / panel, [&](int64_t, int64_t first, int64_t count) { part(first * panel, count * panel); });
}

conv::Shape only(conv::Shape s, int64_t images) {
    s.images = images;
    return s;
}

int64_t inputs_of(const conv::Shape& s) { return s.height * s.width * s.inputs; }  // of an image
int64_t outputs_of(const conv::Shape& s) {
    return s.height * s.width * s.outputs / (s.after == conv::After::pool_relu ? 4 : 1);
}

template <class T>
T* from(T* tensor, int64_t offset) { return tensor ? tensor + offset : nullptr; }

void matrix_convolve(int64_t parts, const conv::Shape& all, const conv::bf16* x, const conv::bf16* weight, bool turned,
                     const conv::bf16* bias, conv::bf16* y) {
    const int64_t pixels = all.height * all.width, most = conv::images_at_a_time(all);
    conv::bf16* const rows = room<0>(pixels * std::min(most, conv::whole_blocks(all.images)) * all.inputs);
    for (int64_t done = 0; done < all.images; done += most) {
        const conv::Shape s = only(all, std::min(most, all.images - done));
        in_parts(parts, pixels, [&](int64_t, int64_t first, int64_t count) {
            conv::rows_of_images(s.images, pixels, s.inputs, first, count, x + done * inputs_of(s), rows);
        });
        in_parts(parts, conv::convolve_units(s), [&](int64_t, int64_t first, int64_t count) {
            conv::convolve(s, first, count, rows, weight, turned, bias, y + done * outputs_of(s));
        });
    }
}

// A batch is done in `parts` parts, and gradients of weights and biases are [part, ...].
template <class N>
void convolutions(py::module_ m) {
    m.def("transform_forward", [](int64_t inputs, int64_t outputs, uintptr_t weight, uintptr_t transformed) {
        shape(0, 0, 0, inputs, outputs, 0);
        const py::gil_scoped_release release;
        conv::transform_forward(at<float>(weight), inputs, outputs, at<N>(transformed));
    });
    m.def("transform_backward", [](int64_t h, int64_t w, int64_t inputs, int64_t outputs, uintptr_t weight,
                                   uintptr_t transformed) {
        const conv::Shape s = shape(0, h, w, inputs, outputs, 0);
        const py::gil_scoped_release release;
        conv::transform_backward(s, at<float>(weight), at<N>(transformed));
    });
    m.def("forward", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t inputs, int64_t outputs, int after,
                        uintptr_t x, uintptr_t transformed, uintptr_t bias, uintptr_t y, uintptr_t chosen) {
        const conv::Shape s = shape(n, h, w, inputs, outputs, after);
        const py::gil_scoped_release release;
        in_parts(parts, n, [&](int64_t, int64_t first, int64_t count) {
            const int64_t out = first * outputs_of(s);
            conv::forward(only(s, count), at<conv::bf16>(x) + first * inputs_of(s), at<N>(transformed), at<float>(bias),
                          at<conv::bf16>(y) + out, from(at<uint8_t>(chosen), out));
        });
    });
    m.def("backward", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t inputs, int64_t outputs, int after,
                         uintptr_t x, uintptr_t transformed, uintptr_t y, uintptr_t chosen, uintptr_t y_gradient,
                         uintptr_t x_gradient, uintptr_t weight_gradients, uintptr_t bias_gradients) {
        const conv::Shape s = shape(n, h, w, inputs, outputs, after);
        const py::gil_scoped_release release;
        in_parts(parts, n, [&](int64_t part, int64_t first, int64_t count) {
            const int64_t in = first * inputs_of(s), out = first * outputs_of(s);
            conv::backward(only(s, count), at<conv::bf16>(x) + in, at<N>(transformed), at<conv::bf16>(y) + out,
                           from(at<uint8_t>(chosen), out), at<conv::bf16>(y_gradient) + out,
                           from(at<conv::bf16>(x_gradient), in), at<float>(weight_gradients) + part * 9 * inputs * outputs,
                           at<float>(bias_gradients) + part * outputs);
        });
    });
    m.def("thin_forward", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t inputs, int64_t outputs, int after,
                             uintptr_t x, uintptr_t weight, uintptr_t bias, uintptr_t y) {
        const conv::Shape s = thin_shape(n, h, w, inputs, outputs, after);
        const py::gil_scoped_release release;
        in_parts(parts, n, [&](int64_t, int64_t first, int64_t count) {
            conv::thin_forward<N>(only(s, count), at<conv::bf16>(x) + first * inputs_of(s), at<float>(weight),
                                  at<float>(bias), at<conv::bf16>(y) + first * outputs_of(s));
        });
    });
    m.def("thin_backward", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t inputs, int64_t outputs, int after,
                              uintptr_t x, uintptr_t y, uintptr_t y_gradient, uintptr_t weight_gradients,
                              uintptr_t bias_gradients) {
        const conv::Shape s = thin_shape(n, h, w, inputs, outputs, after);
        const py::gil_scoped_release release;
        in_parts(parts, n, [&](int64_t part, int64_t first, int64_t count) {
            const int64_t out = first * outputs_of(s);
            conv::thin_backward<N>(only(s, count), at<conv::bf16>(x) + first * inputs_of(s), at<conv::bf16>(y) + out,
                                   at<conv::bf16>(y_gradient) + out,
                                   at<float>(weight_gradients) + part * 9 * inputs * outputs,
                                   at<float>(bias_gradients) + part * outputs);
        });
    });
}

}  // namespace

PYBIND11_MODULE(_conv, m) {
    m.doc() = "3x3 convolutions and updates in bfloat16.";
    m.def("runs", &runs, "Whether this processor has the instructions.");
    m.def("floats_are_faster", &floats_are_faster, "Whether products of floats are faster here than of bfloat16.");
    convolutions<conv::bf16>(m.def_submodule("bfloat16", "Convolutions by products of bfloat16."));
    convolutions<float>(m.def_submodule("float32", "Convolutions by products of floats."));
    m.def("pool", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t channels, uintptr_t x, uintptr_t y,
                     uintptr_t chosen) {
        const conv::Shape s = shape(n, h, w, channels, channels, 2);
        const py::gil_scoped_release release;
        in_parts(parts, n, [&](int64_t, int64_t first, int64_t count) {
            const int64_t out = first * outputs_of(s);
            conv::pool(only(s, count), at<conv::bf16>(x) + first * inputs_of(s), at<conv::bf16>(y) + out,
                       at<uint8_t>(chosen) + out);
        });
    });
    m.def("unpool", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t channels, uintptr_t y, uintptr_t chosen,
                       uintptr_t y_gradient, uintptr_t x_gradient) {
        const conv::Shape s = shape(n, h, w, channels, channels, 2);
        const py::gil_scoped_release release;
        in_parts(parts, n, [&](int64_t, int64_t first, int64_t count) {
            const int64_t out = first * outputs_of(s);
            conv::unpool(only(s, count), at<conv::bf16>(y) + out, at<uint8_t>(chosen) + out,
                         at<conv::bf16>(y_gradient) + out, at<conv::bf16>(x_gradient) + first * inputs_of(s));
        });
    });
    m.def("small_forward", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t inputs, int64_t outputs, int after,
                              uintptr_t x, uintptr_t weight, uintptr_t bias, uintptr_t y) {
        const conv::Shape s = small_shape(n, h, w, inputs, outputs, after);
        const py::gil_scoped_release release;
        in_panels(parts, outputs, [&](int64_t first, int64_t count) {
            conv::small_forward(s, first, count, at<conv::bf16>(x), at<float>(weight), at<float>(bias),
                                at<conv::bf16>(y));
        });
    });
    m.def("small_backward", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t inputs, int64_t outputs, int after,
                               uintptr_t x, uintptr_t weight, uintptr_t y, uintptr_t y_gradient, uintptr_t x_gradient,
                               uintptr_t weight_gradient, uintptr_t bias_gradient) {
        const conv::Shape s = small_shape(n, h, w, inputs, outputs, after);
        const py::gil_scoped_release release;
        if (x_gradient) {
            in_panels(parts, inputs, [&](int64_t first, int64_t count) {
                conv::small_backward_inputs(s, first, count, at<float>(weight), at<conv::bf16>(y),
                                            at<conv::bf16>(y_gradient), at<conv::bf16>(x_gradient));
            });
        }
        in_panels(parts, outputs, [&](int64_t first, int64_t count) {
            conv::small_backward_kernels(s, first, count, at<conv::bf16>(x), at<conv::bf16>(y),
                                         at<conv::bf16>(y_gradient), at<float>(weight_gradient), at<float>(bias_gradient));
        });
    });
    m.def("matrix_unit", &conv::matrix_unit, "Whether this process may use a unit for products of matrices.");
    m.attr("matrix_block") = conv::matrix_block;
    m.def("matrix_forward", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t inputs, int64_t outputs, uintptr_t x,
                               uintptr_t weight, uintptr_t bias, uintptr_t y) {
        const conv::Shape s = matrix_shape(n, h, w, inputs, outputs);
        const py::gil_scoped_release release;
        matrix_convolve(parts, s, at<conv::bf16>(x), at<conv::bf16>(weight), false, at<conv::bf16>(bias),
                        at<conv::bf16>(y));
    });
    m.def("matrix_backward", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t inputs, int64_t outputs,
                                uintptr_t x, uintptr_t weight, uintptr_t y_gradient, uintptr_t x_gradient,
                                uintptr_t weight_gradient) {
        const conv::Shape s = matrix_shape(n, h, w, inputs, outputs), back = matrix_shape(n, h, w, outputs, inputs);
        const py::gil_scoped_release release;
        if (x_gradient) {
            matrix_convolve(parts, back, at<conv::bf16>(y_gradient), at<conv::bf16>(weight), true, nullptr,
                            at<conv::bf16>(x_gradient));
        }
        const int64_t images = conv::whole_blocks(n);
        conv::bf16 *const right = room<1>(h * w * images * inputs), *const left = room<2>(h * w * images * outputs);
        in_parts(parts, h * w, [&](int64_t, int64_t first, int64_t count) {
            conv::pairs_of_images(n, h * w, inputs, first, count, false, at<conv::bf16>(x), right);
            conv::pairs_of_images(n, h * w, outputs, first, count, true, at<conv::bf16>(y_gradient), left);
        });
        in_parts(parts, conv::kernel_units(s), [&](int64_t, int64_t first, int64_t count) {
            conv::kernel_gradients(s, first, count, right, left, at<conv::bf16>(weight_gradient));
        });
    });
    m.attr("sparse_block") = conv::sparse_block;
    m.def("sparse_forward", [](int64_t parts, int64_t inputs, int64_t outputs, uintptr_t ends, uintptr_t columns,
                               int64_t examples, uintptr_t x, uintptr_t values, uintptr_t bias, uintptr_t y) {
        const conv::Sparse s{inputs, outputs, at<int64_t>(ends), at<int32_t>(columns)};
        const py::gil_scoped_release release;
        in_parts(parts, examples, [&](int64_t, int64_t first, int64_t count) {
            conv::sparse_forward(s, count, at<conv::bf16>(x) + first * inputs, at<float>(values), at<float>(bias),
                                 at<conv::bf16>(y) + first * outputs);
        });
    });
    m.def("sparse_backward", [](int64_t parts, int64_t inputs, int64_t outputs, int64_t weights, uintptr_t ends,
                                uintptr_t columns, int64_t examples, uintptr_t x, uintptr_t values, uintptr_t y_gradient,
                                uintptr_t x_gradient, uintptr_t value_gradients) {
        const conv::Sparse s{inputs, outputs, at<int64_t>(ends), at<int32_t>(columns)};
        const py::gil_scoped_release release;
        in_parts(parts, examples, [&](int64_t part, int64_t first, int64_t count) {
            conv::sparse_backward(s, count, at<conv::bf16>(x) + first * inputs, at<float>(values),
                                  at<conv::bf16>(y_gradient) + first * outputs,
                                  from(at<conv::bf16>(x_gradient), first * inputs),
                                  at<float>(value_gradients) + part * weights);
        });
    });
    m.def("sparse_width", &conv::sparse_width, "Whether images of so many pixels a row can be convolved sparsely.");
    m.def("sparse_convolve", [](int64_t parts, int64_t rows, int64_t columns, uintptr_t ends, uintptr_t column, int64_t n,
                                int64_t h, int64_t w, uintptr_t x, uintptr_t values, uintptr_t bias, uintptr_t y) {
        const conv::SparseKernels s{rows, columns, at<int64_t>(ends), at<int32_t>(column)};
        const py::gil_scoped_release release;
        in_parts(parts, n, [&](int64_t, int64_t first, int64_t count) {
            conv::sparse_convolve(s, count, h, w, at<conv::bf16>(x) + first * h * w * columns, at<float>(values),
                                  at<float>(bias), at<conv::bf16>(y) + first * h * w * rows);
        });
    });
    m.def("sparse_convolve_values", [](int64_t parts, int64_t rows, int64_t columns, uintptr_t ends, uintptr_t column,
                                       int64_t n, int64_t h, int64_t w, uintptr_t x, uintptr_t y_gradient,
                                       uintptr_t value_gradients) {
        const conv::SparseKernels s{rows, columns, at<int64_t>(ends), at<int32_t>(column)};
        const py::gil_scoped_release release;
        in_parts(parts, rows, [&](int64_t, int64_t first, int64_t count) {
            conv::sparse_convolve_values(s, first, count, n, h, w, at<conv::bf16>(x), at<conv::bf16>(y_gradient),
                                         at<float>(value_gradients));
        });
    });
    py::class_<conv::Update>(m, "Update").def(py::init(
        [](int rule, float lr, float decay, float momentum, float beta1, float beta2, float epsilon, float correction1,
           float correction2) {
            return conv::Update{conv::Rule(rule), lr, decay, momentum, beta1, beta2, epsilon, correction1, correction2};
        }));
    m.def("update", [](int64_t parts, const conv::Update& how, int64_t all, uintptr_t gradient, bool narrow, uintptr_t mask,
                       uintptr_t value, uintptr_t first, uintptr_t second, uintptr_t copy) {
        const py::gil_scoped_release release;
        in_parts(parts, all, [&](int64_t, int64_t begin, int64_t count) {
            conv::update(how, count, at<char>(gradient) + begin * (narrow ? 2 : 4), narrow,
                         from(at<uint8_t>(mask), begin), at<float>(value) + begin, from(at<float>(first), begin),
                         from(at<float>(second), begin), from(at<conv::bf16>(copy), begin));
        });
    });
}
