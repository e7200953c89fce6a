// Examples that Python passes to networks.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "network.hpp"

namespace lth {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

[[noreturn]] inline void refuse(const std::string& why) { throw std::invalid_argument(why); }

inline std::string shape_of(const py::array& a) { return py::str(a.attr("shape")); }

// Images are not copied (they may be pages of a memory-mapped file); labels are copied: four bytes each.
class Dataset {
public:
    Dataset(py::array images, const Array<int64_t>& labels) : images_(std::move(images)) {
        if (images_.ndim() != 2 || labels.ndim() != 1 || labels.shape(0) != images_.shape(0)) {
            refuse("images must be [n, features] and labels [n], not " + shape_of(images_) + " and " +
                   shape_of(labels));
        }
        bytes_ = py::isinstance<py::array_t<uint8_t>>(images_);
        if (!bytes_ && !py::isinstance<py::array_t<float>>(images_)) refuse("images must be uint8 or float32");
        if (!(images_.flags() & py::array::c_style)) refuse("images must be C-contiguous");
        const int64_t *first = labels.data(), *last = first + labels.size();
        const auto [least, most] = std::minmax_element(first, last);
        if (first != last && *least < 0) refuse("labels must not be negative");
        if (first != last && *most >= std::numeric_limits<int32_t>::max()) {
            refuse("labels must be below " + std::to_string(std::numeric_limits<int32_t>::max()) + ", not " +
                   std::to_string(*most));
        }
        labels_.assign(first, last);
        classes_ = first == last ? 0 : int32_t(*most) + 1;
    }

    Images view() const {
        return {images_.data(), bytes_, images_.shape(0), int32_t(images_.shape(1)), labels_.data()};
    }
    int32_t classes() const { return classes_; }

private:
    py::array images_;
    std::vector<int32_t> labels_;
    bool bytes_;
    int32_t classes_;
};

}  // namespace lth
