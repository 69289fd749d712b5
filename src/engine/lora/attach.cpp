#include "engine/lora/attach.h"

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "engine/lora/modules.h"

namespace limner::engine::lora {
namespace {

// The branches of one module; a mismatch names file and layer.
AttachedLayer attached(const AdapterFile& file, const Module& module, const Layer& layer,
                       const nn::Placement& placement) {
  try {
    return {layer.component, layer.name, branches_of(module, layer, placement)};
  } catch (const Failure& failure) {
    throw Failure(failure.error().code,
                  fmt::format("{}: {}", file.path().filename().string(), failure.error().message));
  }
}

// All that match, in the file's order, computed by many threads; of several failures the first.
std::vector<AttachedLayer> attached_layers(const AdapterFile& file, const ModelLayers& model,
                                           const nn::Placement& placement) {
  std::vector<std::pair<const Module*, const Layer*>> pairs;
  for (const Module& module : file.modules()) {
    if (const Layer* layer = model.find(module.name)) pairs.emplace_back(&module, layer);
  }
  std::vector<AttachedLayer> layers(pairs.size());
  std::vector<std::exception_ptr> failures(pairs.size());
  // Plain factors stay where they are: microseconds each, less than waking a thread.
  const bool plain = std::ranges::all_of(pairs, [&](const auto& pair) {
    return pair.first->kind == Kind::kLora && !pair.first->is_dora() && placement.device.is_cpu();
  });
  const int64_t count = std::ssize(pairs);
  at::parallel_for(0, count, plain ? count + 1 : 8, [&](int64_t begin, int64_t end) {
    const c10::InferenceMode no_gradients;
    for (auto i = static_cast<std::size_t>(begin); std::cmp_less(i, end); ++i) {
      try {
        layers[i] = attached(file, *pairs[i].first, *pairs[i].second, placement);
      } catch (...) {
        failures[i] = std::current_exception();
      }
    }
  });
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
  return layers;
}

// Tensors that lie in the file's memory keep all of it.
std::uint64_t memory_of(const AttachedAdapter& adapter, const AdapterFile& file) {
  std::uint64_t bytes = 0;
  bool keeps_file = false;
  for (const AttachedLayer& layer : adapter.layers) {
    for (const nn::Branch& branch : layer.branches) {
      for (const at::Tensor& tensor : nn::tensors_of(branch)) {
        if (file.owns(tensor.const_data_ptr())) {
          keeps_file = true;
        } else {
          bytes += tensor.nbytes();
        }
      }
    }
  }
  return bytes + (keeps_file ? file.bytes() : 0);
}

}  // namespace

std::shared_ptr<const AttachedAdapter> attach(const AdapterFile& file, const ModelLayers& model,
                                              const nn::Placement& placement,
                                              const AttachOptions& options) {
  auto result = std::make_shared<AttachedAdapter>();
  result->report = match(file, model);
  check_matches(result->report, options.allow_partial);
  result->layers = attached_layers(file, model, placement);
  result->memory_bytes = memory_of(*result, file);
  result->identity = options.identity;
  return result;
}

nn::RowAdapters row_adapters(std::string_view component, std::span<const AdapterList* const> rows) {
  std::vector<const AttachedAdapter*> distinct;
  for (const AdapterList* list : rows) {
    for (const ScaledAdapter& use : *list) {
      if (std::ranges::find(distinct, use.adapter.get()) == distinct.end()) {
        distinct.push_back(use.adapter.get());
      }
    }
  }
  nn::RowAdapters result(static_cast<std::int64_t>(rows.size()));
  std::vector<float> weights(rows.size());
  for (const AttachedAdapter* adapter : distinct) {
    for (const AttachedLayer& layer : adapter->layers) {
      if (layer.component != component) continue;
      for (std::size_t row = 0; row < rows.size(); ++row) {
        double sum = 0;
        for (const ScaledAdapter& use : *rows[row]) {
          if (use.adapter.get() == adapter) sum += use.scales.of(component, layer.name);
        }
        weights[row] = static_cast<float>(sum);
      }
      for (const nn::Branch& branch : layer.branches) result.add(layer.name, branch, weights);
    }
  }
  return result;
}

}  // namespace limner::engine::lora
