// Python bindings of dense convolutions and pooling.
#include "bindings.hpp"

#include "pooling.hpp"
#include "small_images.hpp"
#include "thin.hpp"
#include "winograd.hpp"

namespace lth::conv {

namespace {

Shape shape(int64_t images, int64_t height, int64_t width, int64_t inputs, int64_t outputs, int after) {
    if (height % 2 || width % 2 || inputs % 16 || outputs % 16 || after < 0 || after > 2) {
        throw std::invalid_argument("height and width must be even, channels multiples of 16");
    }
    return {images, height, width, inputs, outputs, After(after)};
}

Shape small_shape(int64_t images, int64_t height, int64_t width, int64_t inputs, int64_t outputs, int after) {
    if (inputs % 16 || outputs % 16 || after < 0 || after > 1) {
        throw std::invalid_argument("channels must be multiples of 16, unpooled");
    }
    return {images, height, width, inputs, outputs, After(after)};
}

Shape thin_shape(int64_t images, int64_t height, int64_t width, int64_t inputs, int64_t outputs, int after) {
    if (inputs > 4 || outputs % 16 || after < 0 || after > 1) {
        throw std::invalid_argument("inputs must be at most 4, outputs a multiple of 16, unpooled");
    }
    return {images, height, width, inputs, outputs, After(after)};
}

// Like in_parts, for channels in whole panels: part(first, count).
template <class Part>
void in_panels(int64_t parts, int64_t channels, const Part& part) {
    const int64_t panel = 16 * panel_of(channels);
    in_parts(parts, channels / panel, [&](int64_t, int64_t first, int64_t count) { part(first * panel, count * panel); });
}

// A batch is processed in `parts` parts; gradients of weights and biases are [part, ...].
template <class N>
void bind_winograd(py::module_& m) {
    m.def("transform_forward", [](int64_t inputs, int64_t outputs, uintptr_t weight, uintptr_t transformed) {
        shape(0, 0, 0, inputs, outputs, 0);
        const py::gil_scoped_release release;
        transform_forward(at<float>(weight), inputs, outputs, at<N>(transformed));
    });
    m.def("transform_backward", [](int64_t h, int64_t w, int64_t inputs, int64_t outputs, uintptr_t weight,
                                   uintptr_t transformed) {
        const Shape s = shape(0, h, w, inputs, outputs, 0);
        const py::gil_scoped_release release;
        transform_backward(s, at<float>(weight), at<N>(transformed));
    });
    m.def("forward", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t inputs, int64_t outputs, int after,
                        uintptr_t x, uintptr_t transformed, uintptr_t bias, uintptr_t y, uintptr_t chosen) {
        const Shape s = shape(n, h, w, inputs, outputs, after);
        const py::gil_scoped_release release;
        in_parts(parts, n, [&](int64_t, int64_t first, int64_t count) {
            const int64_t out = first * outputs_of(s);
            forward(only(s, count), at<bf16>(x) + first * inputs_of(s), at<N>(transformed), at<float>(bias),
                          at<bf16>(y) + out, from(at<uint8_t>(chosen), out));
        });
    });
    m.def("backward", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t inputs, int64_t outputs, int after,
                         uintptr_t x, uintptr_t transformed, uintptr_t y, uintptr_t chosen, uintptr_t y_gradient,
                         uintptr_t x_gradient, uintptr_t weight_gradients, uintptr_t bias_gradients) {
        const Shape s = shape(n, h, w, inputs, outputs, after);
        const py::gil_scoped_release release;
        in_parts(parts, n, [&](int64_t part, int64_t first, int64_t count) {
            const int64_t in = first * inputs_of(s), out = first * outputs_of(s);
            backward(only(s, count), at<bf16>(x) + in, at<N>(transformed), at<bf16>(y) + out,
                           from(at<uint8_t>(chosen), out), at<bf16>(y_gradient) + out,
                           from(at<bf16>(x_gradient), in), at<float>(weight_gradients) + part * 9 * inputs * outputs,
                           at<float>(bias_gradients) + part * outputs);
        });
    });
}

template <class N>
void bind_thin(py::module_& m) {
    m.def("thin_forward", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t inputs, int64_t outputs, int after,
                             uintptr_t x, uintptr_t weight, uintptr_t bias, uintptr_t y) {
        const Shape s = thin_shape(n, h, w, inputs, outputs, after);
        const py::gil_scoped_release release;
        in_parts(parts, n, [&](int64_t, int64_t first, int64_t count) {
            thin_forward<N>(only(s, count), at<bf16>(x) + first * inputs_of(s), at<float>(weight),
                                  at<float>(bias), at<bf16>(y) + first * outputs_of(s));
        });
    });
    m.def("thin_backward", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t inputs, int64_t outputs, int after,
                              uintptr_t x, uintptr_t y, uintptr_t y_gradient, uintptr_t weight_gradients,
                              uintptr_t bias_gradients) {
        const Shape s = thin_shape(n, h, w, inputs, outputs, after);
        const py::gil_scoped_release release;
        in_parts(parts, n, [&](int64_t part, int64_t first, int64_t count) {
            const int64_t out = first * outputs_of(s);
            thin_backward<N>(only(s, count), at<bf16>(x) + first * inputs_of(s), at<bf16>(y) + out,
                                   at<bf16>(y_gradient) + out,
                                   at<float>(weight_gradients) + part * 9 * inputs * outputs,
                                   at<float>(bias_gradients) + part * outputs);
        });
    });
}

void bind_pooling(py::module_& m) {
    m.def("pool", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t channels, uintptr_t x, uintptr_t y,
                     uintptr_t chosen) {
        const Shape s = shape(n, h, w, channels, channels, 2);
        const py::gil_scoped_release release;
        in_parts(parts, n, [&](int64_t, int64_t first, int64_t count) {
            const int64_t out = first * outputs_of(s);
            pool(only(s, count), at<bf16>(x) + first * inputs_of(s), at<bf16>(y) + out,
                       at<uint8_t>(chosen) + out);
        });
    });
    m.def("unpool", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t channels, uintptr_t y, uintptr_t chosen,
                       uintptr_t y_gradient, uintptr_t x_gradient) {
        const Shape s = shape(n, h, w, channels, channels, 2);
        const py::gil_scoped_release release;
        in_parts(parts, n, [&](int64_t, int64_t first, int64_t count) {
            const int64_t out = first * outputs_of(s);
            unpool(only(s, count), at<bf16>(y) + out, at<uint8_t>(chosen) + out,
                         at<bf16>(y_gradient) + out, at<bf16>(x_gradient) + first * inputs_of(s));
        });
    });
}

void bind_small(py::module_& m) {
    m.def("small_forward", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t inputs, int64_t outputs, int after,
                              uintptr_t x, uintptr_t weight, uintptr_t bias, uintptr_t y) {
        const Shape s = small_shape(n, h, w, inputs, outputs, after);
        const py::gil_scoped_release release;
        in_panels(parts, outputs, [&](int64_t first, int64_t count) {
            small_forward(s, first, count, at<bf16>(x), at<float>(weight), at<float>(bias),
                                at<bf16>(y));
        });
    });
    m.def("small_backward", [](int64_t parts, int64_t n, int64_t h, int64_t w, int64_t inputs, int64_t outputs, int after,
                               uintptr_t x, uintptr_t weight, uintptr_t y, uintptr_t y_gradient, uintptr_t x_gradient,
                               uintptr_t weight_gradient, uintptr_t bias_gradient) {
        const Shape s = small_shape(n, h, w, inputs, outputs, after);
        const py::gil_scoped_release release;
        if (x_gradient) {
            in_panels(parts, inputs, [&](int64_t first, int64_t count) {
                small_backward_inputs(s, first, count, at<float>(weight), at<bf16>(y),
                                            at<bf16>(y_gradient), at<bf16>(x_gradient));
            });
        }
        in_panels(parts, outputs, [&](int64_t first, int64_t count) {
            small_backward_kernels(s, first, count, at<bf16>(x), at<bf16>(y),
                                         at<bf16>(y_gradient), at<float>(weight_gradient), at<float>(bias_gradient));
        });
    });
}

template <class N>
void bind_products_of(py::module_ m) {
    bind_winograd<N>(m);
    bind_thin<N>(m);
}

}  // namespace

void bind_convolutions(py::module_& m) {
    bind_products_of<bf16>(m.def_submodule("bfloat16", "Convolutions by products of bfloat16."));
    bind_products_of<float>(m.def_submodule("float32", "Convolutions by products of floats."));
    bind_pooling(m);
    bind_small(m);
}

}  // namespace lth::conv
