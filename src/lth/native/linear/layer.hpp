// A Linear layer: its surviving weights, their optimizer state, and the kernels that process them.
#pragma once

#include <utility>
#include <vector>

#include "shared/aligned.hpp"
#include "layout.hpp"

namespace lth {

// Layers above this density are computed dense. It is fixed, so that equal masks give equal bits. On AVX-512 both cost
// the same at 0.8; the evaluation of a dense layer becomes cheaper a little earlier.
constexpr double dense_above = 0.75;

// A value and the optimizer's moments for a number of places.
struct Trained {
    Aligned<float> value, first, second;

    Trained(int64_t places, Optimizer optimizer);
    Parameters view() { return {value.data(), first.data(), second.data()}; }
};

class Layer {
public:
    Layer(const Kernels& kernels, int32_t inputs, int32_t outputs, const bool* mask, bool is_first,
          Optimizer optimizer);

    // All for one strip; `out` must contain the biases, `in_gradient` is overwritten.
    void accumulate(const float* in, float* out) const;
    void backpropagate(const float* gradient, float* in_gradient);
    // Over all strips; changes the weights, so it comes after backpropagate.
    void update(const Batch& batch, const Step& step);
    // The same in two steps: store the gradient and return its sum of squares; then step along `scale` times the
    // gradient.
    double keep_gradient(const Batch& batch);
    void step(const Step& step, float scale);
    void refresh();  // after any change of the weights

    bool dense() const { return dense_; }
    int64_t weight_count() const { return int64_t(place_.size()); }
    std::vector<uint8_t> alive_inputs() const;  // padded to 16
    const std::vector<Weight>& survivors() const { return survivors_; }

    // Surviving weights in row-major order, of `weights.value`, `.first` or `.second`.
    void read(const Aligned<float>& from, float* to) const;
    void write(const float* from, Aligned<float>& to) const;

    const int32_t inputs, outputs;

private:
    const Kernels& kernels_;
    std::vector<Weight> survivors_;
    bool dense_;
    DenseLayout dense_layout_;
    SparseLayout rows_, columns_;  // by output; by input, for the backward pass
    std::vector<int64_t> place_;
    std::vector<int32_t> of_column_;  // place by output of each weight in the order by input
    Aligned<float> by_column_;        // the weights in that order
    Aligned<float> weight_gradient_, bias_gradient_;  // empty until a gradient is stored

public:
    Trained weights, biases;
};

}  // namespace lth
