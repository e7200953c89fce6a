// A chain of masked Linear and ReLU layers, trained with softmax cross-entropy on one thread.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "layer.hpp"

namespace lth {

// Examples in memory owned by the caller, contiguous, shared by all networks. Pixels are bytes (scaled by 1/255 when
// gathered) or floats.
struct Images {
    const void* pixels;
    bool bytes;
    int64_t count;
    int32_t features;
    const int32_t* labels;

    const void* example(int64_t i) const {
        return static_cast<const char*>(pixels) + i * size();
    }
    int64_t size() const { return int64_t(features) * (bytes ? 1 : int64_t(sizeof(float))); }
};

struct Settings {
    Optimizer optimizer = Optimizer::adam;
    double momentum = 0, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0, dropout = 0;
    double clip = 0;  // maximum norm of the whole gradient; 0 disables clipping
    uint64_t dropout_key = 0;
};

struct Score {
    double loss;      // mean
    int64_t correct;  // the first of equal logits counts
};

// For one thread at a time; any number of networks may share the images.
class Network {
public:
    Network(const Kernels& kernels, const std::vector<int32_t>& sizes, const std::vector<const bool*>& masks,
            Settings settings);

    // One update for each of `ends`: batch i is indices[ends[i - 1]] to indices[ends[i]].
    void train(const Images& images, const int64_t* indices, const std::vector<int64_t>& ends, const double* rates,
               float* losses);
    Score evaluate(const Images& images, const int64_t* indices, int64_t count);

    std::vector<std::unique_ptr<Layer>> layers;
    int64_t iteration = 0;  // of the training, including updates by earlier networks
    int64_t updates = 0;    // done by this optimizer
    const Settings settings;
    const Kernels& kernels;

private:
    // The data between layers: inputs (0), hidden activations, logits; in strips, with room to pad rows.
    struct Flow {
        int32_t units;
        ptrdiff_t stride;
        Aligned<float> value, gradient, natural;
    };

    void make_room(int64_t examples);
    void gather(const Images& images, const int64_t* indices, int64_t count);
    void announce(const Images& images, const int64_t* indices, int64_t count);
    void forward(int32_t strip, bool training);
    float losses_of_batch(int64_t examples);
    void backward(int64_t examples, double rate);
    void backpropagate(size_t layer, int64_t examples);
    void clipped_step(double squares, const Step& step);
    float update(const Images& images, const int64_t* indices, int64_t count, double rate);
    Step step(double rate) const;
    Dropout dropout(size_t layer, bool training) const;
    Batch batch(size_t layer, int64_t examples);
    void lay_natural(size_t flow, int64_t examples);
    int32_t strips(int64_t examples) const { return int32_t((examples + kernels.lanes - 1) / kernels.lanes); }
    int32_t in_strip(int64_t examples, int32_t strip) const;

    std::vector<Flow> flows_;
    std::vector<uint8_t> alive_;
    std::vector<const void*> rows_, soon_;
    std::vector<int32_t> labels_;
    std::vector<float> losses_;
};

}  // namespace lth
