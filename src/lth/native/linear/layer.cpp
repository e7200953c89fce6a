#include "layer.hpp"

#include <algorithm>
#include <numeric>

namespace lth {

Trained::Trained(int64_t places, Optimizer optimizer)
    : value(size_t(round_up(places, 64)), 0.0f),
      first(optimizer == Optimizer::sgd ? 0 : value.size(), 0.0f),
      second(is_adam(optimizer) ? value.size() : 0, 0.0f) {}

namespace {

double density_of(const std::vector<Weight>& weights, int32_t rows, int32_t columns) {
    return double(weights.size()) / (double(rows) * columns);
}

// Several sums, so that additions do not wait for each other.
double sum_of_squares(const float* values, int64_t count) {
    constexpr int64_t sums = 8;
    double sum[sums] = {};
    int64_t i = 0;
    for (; i + sums <= count; i += sums)
        for (int64_t j = 0; j < sums; ++j) sum[j] += double(values[i + j]) * double(values[i + j]);
    for (; i < count; ++i) sum[0] += double(values[i]) * double(values[i]);
    return std::accumulate(sum, sum + sums, 0.0);
}

// The order of row-major weights when read by column.
std::vector<int64_t> by_column(const std::vector<Weight>& weights) {
    std::vector<int64_t> order(weights.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return weights[size_t(a)].column < weights[size_t(b)].column; });
    return order;
}

}  // namespace

Layer::Layer(const Kernels& kernels, int32_t inputs, int32_t outputs, const bool* mask, bool is_first,
             Optimizer optimizer)
    : inputs(inputs),
      outputs(outputs),
      kernels_(kernels),
      survivors_(lth::survivors(mask, outputs, inputs)),
      dense_(density_of(survivors_, outputs, inputs) > dense_above),
      dense_layout_(dense_ ? dense_layout(survivors_, outputs, inputs, kernels.row_tile) : DenseLayout{}),
      rows_(dense_ ? SparseLayout{} : sparse_layout(survivors_, inputs, density_of(survivors_, outputs, inputs))),
      place_(dense_ ? dense_layout_.place : rows_.place),
      weights(dense_ ? dense_layout_.size() : rows_.size(), optimizer),
      biases(outputs, optimizer) {
    if (dense_ || is_first) return;
    const std::vector<int64_t> order = by_column(survivors_);
    std::vector<Weight> transposed;
    for (const int64_t k : order) transposed.push_back({survivors_[size_t(k)].column, survivors_[size_t(k)].row});
    columns_ = sparse_layout(transposed, outputs, density_of(survivors_, outputs, inputs));
    of_column_.resize(size_t(columns_.size()));
    for (size_t k = 0; k < order.size(); ++k) of_column_[size_t(columns_.place[k])] = int32_t(place_[size_t(order[k])]);
    by_column_.resize(of_column_.size());
}

void Layer::accumulate(const float* in, float* out) const {
    if (dense_) {
        kernels_.dense_accumulate(dense_layout_.panels, weights.value.data(), in, out);
    } else {
        kernels_.sparse_accumulate(rows_.view(), weights.value.data(), in, out);
    }
}

void Layer::backpropagate(const float* gradient, float* in_gradient) {
    if (dense_) {
        kernels_.dense_backpropagate(dense_layout_.panels, weights.value.data(), gradient, in_gradient);
    } else {
        std::fill_n(in_gradient, ptrdiff_t(inputs) * kernels_.lanes, 0.0f);
        kernels_.sparse_accumulate(columns_.view(), by_column_.data(), gradient, in_gradient);
    }
}

void Layer::update(const Batch& batch, const Step& step) {
    if (dense_) {
        kernels_.dense_update(dense_layout_.panels, dense_layout_.mask.data(), batch, step, weights.view());
    } else {
        kernels_.sparse_update(rows_.view(), batch, step, weights.view());
    }
    kernels_.bias_update(outputs, batch, step, biases.view());
    refresh();
}

double Layer::keep_gradient(const Batch& batch) {
    weight_gradient_.resize(weights.value.size());  // adds 0, which stays 0 where there is no weight
    bias_gradient_.resize(biases.value.size());
    if (dense_) {
        kernels_.dense_gradient(dense_layout_.panels, dense_layout_.mask.data(), batch, weight_gradient_.data());
    } else {
        kernels_.sparse_gradient(rows_.view(), batch, weight_gradient_.data());
    }
    kernels_.bias_gradient(outputs, batch, bias_gradient_.data());
    return sum_of_squares(weight_gradient_.data(), int64_t(weight_gradient_.size())) +
           sum_of_squares(bias_gradient_.data(), outputs);
}

void Layer::step(const Step& step, float scale) {
    kernels_.step(int64_t(weight_gradient_.size()), weight_gradient_.data(), scale, step, weights.view());
    kernels_.step(int64_t(bias_gradient_.size()), bias_gradient_.data(), scale, step, biases.view());
    refresh();
}

void Layer::refresh() {
    for (size_t k = 0; k < by_column_.size(); ++k) by_column_[k] = weights.value[size_t(of_column_[k])];
}

std::vector<uint8_t> Layer::alive_inputs() const {
    std::vector<uint8_t> alive(size_t(round_up(inputs, 16)), dense_ ? 1 : 0);
    for (const Weight& w : survivors_) alive[size_t(w.column)] = 1;
    return alive;
}

void Layer::read(const Aligned<float>& from, float* to) const {
    for (size_t k = 0; k < place_.size(); ++k) to[k] = from[size_t(place_[k])];
}

void Layer::write(const float* from, Aligned<float>& to) const {
    for (size_t k = 0; k < place_.size(); ++k) to[size_t(place_[k])] = from[k];
}

}  // namespace lth
