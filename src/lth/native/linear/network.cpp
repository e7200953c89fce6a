#include "network.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace lth {

namespace {

// Moments of weights without gradient decay towards zero, and arithmetic on numbers below 1e-38 is up to a hundred
// times slower on some processors. They do not change any weight, so the calling thread treats them as zero.
class FlushTiny {
#if defined(__SSE2__)
public:
    FlushTiny() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
    ~FlushTiny() { _mm_setcsr(before_); }
    FlushTiny(const FlushTiny&) = delete;
    FlushTiny& operator=(const FlushTiny&) = delete;

private:
    const unsigned before_;
#endif
};

// The finaliser of the splitmix64 generator.
uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

// Rows are padded to whole tiles of every instruction set (rows of 6, columns of 4, vectors of 16).
int64_t padded(int32_t units) { return round_up(units, 48); }

}  // namespace

Network::Network(const Kernels& kernels, const std::vector<int32_t>& sizes, const std::vector<const bool*>& masks,
                 Settings settings)
    : settings(settings), kernels(kernels) {
    for (size_t l = 0; l + 1 < sizes.size(); ++l) {
        layers.push_back(
            std::make_unique<Layer>(kernels, sizes[l], sizes[l + 1], masks[l], l == 0, settings.optimizer));
    }
    for (const int32_t units : sizes) flows_.push_back({units, padded(units) * kernels.lanes, {}, {}, {}});
    alive_ = layers.front()->alive_inputs();
}

void Network::train(const Images& images, const int64_t* indices, const std::vector<int64_t>& ends,
                    const double* rates, float* losses) {
    const FlushTiny flush;
    int64_t begin = 0, largest = 1;
    for (const int64_t end : ends) largest = std::max(largest, end - begin), begin = end;
    make_room(largest);
    begin = 0;
    for (size_t i = 0; i < ends.size(); begin = ends[i], ++i) {
        announce(images, indices + ends[i], i + 1 < ends.size() ? ends[i + 1] - ends[i] : 0);
        losses[i] = update(images, indices + begin, ends[i] - begin, rates[i]);
    }
}

float Network::update(const Images& images, const int64_t* indices, int64_t count, double rate) {
    gather(images, indices, count);
    for (int32_t s = 0; s < strips(count); ++s) forward(s, true);
    const float loss = losses_of_batch(count);
    backward(count, rate);
    ++iteration, ++updates;
    return loss;
}

Score Network::evaluate(const Images& images, const int64_t* indices, int64_t count) {
    const FlushTiny flush;
    make_room(kernels.lanes);
    std::vector<int64_t> every(size_t(kernels.lanes));
    Score score{0, 0};
    for (int64_t begin = 0; begin < count; begin += kernels.lanes) {
        const int64_t examples = std::min<int64_t>(kernels.lanes, count - begin);
        std::iota(every.begin(), every.end(), begin);
        gather(images, indices ? indices + begin : every.data(), examples);
        forward(0, false);
        for (int64_t b = 0; b < examples; ++b) {
            const float* const logits = flows_.back().value.data() + b;
            int32_t best = 0;
            for (int32_t c = 1; c < flows_.back().units; ++c)
                if (logits[c * kernels.lanes] > logits[best * kernels.lanes]) best = c;
            score.correct += best == labels_[size_t(b)];
        }
        losses_of_batch(examples);
        score.loss = std::accumulate(losses_.begin(), losses_.begin() + examples, score.loss);
    }
    score.loss /= double(count);
    return score;
}

void Network::make_room(int64_t examples) {
    const auto count = size_t(strips(examples));
    for (size_t f = 0; f < flows_.size(); ++f) {
        Flow& flow = flows_[f];
        const size_t size = std::max(flow.value.size(), count * size_t(flow.stride));
        flow.value.resize(size);
        if (f > 0) flow.gradient.resize(size);
        const bool natural = f < layers.size() && layers[f]->dense();
        if (natural) flow.natural.resize(size);
    }
    rows_.resize(std::max(rows_.size(), count * size_t(kernels.lanes)));
    labels_.resize(rows_.size());
    losses_.resize(rows_.size());
}

int32_t Network::in_strip(int64_t examples, int32_t strip) const {
    return int32_t(std::min<int64_t>(kernels.lanes, examples - int64_t(strip) * kernels.lanes));
}

void Network::gather(const Images& images, const int64_t* indices, int64_t count) {
    for (int64_t b = 0; b < count; ++b) {
        rows_[size_t(b)] = images.example(indices[b]);
        labels_[size_t(b)] = images.labels[indices[b]];
    }
    Flow& in = flows_.front();
    const auto transpose = images.bytes ? kernels.gather_bytes : kernels.gather_floats;
    for (int32_t s = 0; s < strips(count); ++s) {
        transpose(rows_.data() + s * kernels.lanes, in_strip(count, s), in.units, alive_.data(),
                  in.value.data() + s * in.stride);
    }
    if (in.natural.empty()) return;
    (images.bytes ? kernels.natural_bytes : kernels.natural_floats)(rows_.data(), int32_t(count), in.units,
                                                                    in.natural.data());
}

// Record the addresses of the next batch: random places in memory, which are slow unless they are prefetched.
void Network::announce(const Images& images, const int64_t* indices, int64_t count) {
    constexpr int64_t line = 64;
    soon_.clear();
    for (int64_t b = 0; b < count; ++b) {
        const char* const example = static_cast<const char*>(images.example(indices[b]));
        for (int64_t offset = 0; offset < images.size(); offset += line) soon_.push_back(example + offset);
    }
}

void Network::forward(int32_t strip, bool training) {
    for (size_t l = 0; l < layers.size(); ++l) {
        Flow& out = flows_[l + 1];
        float* const units = out.value.data() + strip * out.stride;
        kernels.fill(layers[l]->biases.value.data(), out.units, units);
        layers[l]->accumulate(flows_[l].value.data() + strip * flows_[l].stride, units);
        if (l + 1 < layers.size()) kernels.activate(units, out.units, strip * kernels.lanes, dropout(l, training));
    }
}

// The mean loss; the gradients of the logits replace the logits.
float Network::losses_of_batch(int64_t examples) {
    Flow& out = flows_.back();
    for (int32_t s = 0; s < strips(examples); ++s) {
        const int32_t first = s * kernels.lanes;
        kernels.softmax(out.value.data() + s * out.stride, out.units, labels_.data() + first, in_strip(examples, s),
                        1.0f / float(examples), losses_.data() + first);
    }
    std::swap(out.value, out.gradient);
    return float(std::accumulate(losses_.begin(), losses_.begin() + examples, 0.0) / double(examples));
}

void Network::backward(int64_t examples, double rate) {
    const Step with = step(rate);
    double squares = 0;
    for (size_t l = layers.size(); l-- > 0;) {
        if (l > 0) backpropagate(l, examples);
        if (settings.clip > 0) {
            squares += layers[l]->keep_gradient(batch(l, examples));
        } else {
            layers[l]->update(batch(l, examples), with);
        }
    }
    if (settings.clip > 0) clipped_step(squares, with);
}

void Network::backpropagate(size_t layer, int64_t examples) {
    Flow &in = flows_[layer], &out = flows_[layer + 1];
    for (int32_t s = 0; s < strips(examples); ++s) {
        float* const gradient = in.gradient.data() + s * in.stride;
        layers[layer]->backpropagate(out.gradient.data() + s * out.stride, gradient);
        kernels.deactivate(in.value.data() + s * in.stride, gradient, in.units, dropout(layer - 1, true).scale);
    }
}

// If the norm is not a number, the weights become NaN, which is visible in the loss.
void Network::clipped_step(double squares, const Step& step) {
    const double scale = settings.clip / (std::sqrt(squares) + 1e-6);  // like torch.nn.utils.clip_grad_norm_
    for (const auto& layer : layers) layer->step(step, scale >= 1 ? 1.0f : float(scale));
}

Batch Network::batch(size_t layer, int64_t examples) {
    Flow &in = flows_[layer], &out = flows_[layer + 1];
    if (layer > 0 && layers[layer]->dense()) lay_natural(layer, examples);
    Batch batch{};
    batch.examples = int32_t(examples), batch.strips = strips(examples);
    batch.input = in.value.data(), batch.input_stride = in.stride;
    batch.gradient = out.gradient.data(), batch.gradient_stride = out.stride;
    batch.natural = in.natural.data();
    if (layer == 0) batch.soon = soon_.data(), batch.soon_count = int64_t(soon_.size());
    return batch;
}

void Network::lay_natural(size_t flow, int64_t examples) {
    Flow& in = flows_[flow];
    for (int32_t s = 0; s < strips(examples); ++s) {
        kernels.natural_strip(in.value.data() + s * in.stride, in.units, s * kernels.lanes, in_strip(examples, s),
                              int32_t(examples), in.natural.data());
    }
}

// Bias corrections in double, like torch's; t counts from 1.
Step Network::step(double rate) const {
    const Settings& s = settings;
    const auto t = double(updates + 1);
    const bool adam = is_adam(s.optimizer);
    const double beta1 = adam ? s.beta1 : s.momentum;
    Step step{};
    step.optimizer = s.optimizer;
    step.rate = float(adam ? rate / (1 - std::pow(s.beta1, t)) : rate);
    step.decay = float(s.weight_decay);
    step.shrink = float(1 - rate * s.weight_decay);
    step.beta1 = float(beta1), step.rest1 = float(1 - beta1);
    step.beta2 = float(s.beta2), step.rest2 = float(1 - s.beta2);
    step.inverse_root = float(1 / std::sqrt(1 - std::pow(s.beta2, t)));
    step.epsilon = float(s.epsilon);
    return step;
}

// Whether unit u of example b survives dropout after layer l in iteration i depends only on these numbers and the
// network's key, with all arithmetic modulo 2^64 or 2^32: k = splitmix64 finaliser(key + 0x9E3779B97F4A7C15 * (64 i + l
// + 1)); h = lowbias32(lowbias32((b * units + u) ^ low half of k) + high half of k); kept iff h >= floor(p * 2^32);
// kept units are scaled by 1 / (1 - p).
Dropout Network::dropout(size_t layer, bool training) const {
    if (!training || settings.dropout == 0) return {0, 0, 0, 1.0f};
    const uint64_t k = mix(settings.dropout_key + 0x9e3779b97f4a7c15U * (uint64_t(iteration) * 64 + layer + 1));
    return {uint32_t(k), uint32_t(k >> 32), uint32_t(settings.dropout * 4294967296.0),
            float(1 / (1 - settings.dropout))};
}

}  // namespace lth
